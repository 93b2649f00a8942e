"""The patches of vLLM: which version gets which, and what each says of itself."""

import shutil
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

from orchestrator import contents, patches, versions
from orchestrator.errors import TandemError
from orchestrator.versions import Build
from tests.checkout import ROOT
from tests.unit.values import script

FOLDER = ROOT / "docker/vllm/patches"
SERIES = (FOLDER / "series").read_text(encoding="utf-8")
VERSIONS = ["0.7.2", "0.7.3", "0.8.0", "0.8.5", "0.10.2", "0.11.0", "0.11.1", "0.14.1", "0.15.0", "0.19.1", "0.20.0",
            "0.27.1", "0.28.0", "0.32.0", "0.33.0", "0.33.1", "0.34.0", "1.0.0"]  # fmt: skip
HEADER = """Fault: lora
What-breaks: serving an adapter:
  ImportError
Upstream: https://github.com/vllm-project/vllm/pull/1
Versions: ==0.7.3
Remove-when: never

--- a/vllm/lora/utils.py
+++ b/vllm/lora/utils.py
"""


def test_every_patch_is_listed_and_every_listed_patch_is_there() -> None:
    assert {patch.name for patch in patches.series(SERIES)} == {path.name for path in FOLDER.glob("*.patch")}
    assert {path.name for path in FOLDER.iterdir()} == {"series", *(patch.name for patch in patches.series(SERIES))}


@pytest.mark.parametrize("patch", patches.series(SERIES), ids=lambda patch: patch.name)
def test_a_patch_is_for_a_version_that_can_be_built(patch: patches.Patch) -> None:
    built = versions.load((ROOT / "docker/vllm/versions.toml").read_text(encoding="utf-8")).builds
    assert any(map(patch.applies_to, built)), f"no version of versions.toml needs {patch.name}: remove it"


@pytest.mark.parametrize("patch", patches.series(SERIES), ids=lambda patch: patch.name)
def test_a_header_agrees_with_the_series_and_names_a_fault_that_can_be_looked_for(patch: patches.Patch) -> None:
    said = patches.header(patch.name, (FOLDER / patch.name).read_text(encoding="utf-8"))
    assert said["Versions"] == patch.versions
    assert said["Fault"] in script("docker/vllm/verify/faults.py").FAULTS
    assert "https://" in said["Upstream"] or said["Upstream"].startswith("none; ")


@pytest.mark.parametrize("version", VERSIONS)
def test_a_version_gets_what_python_packaging_says_and_what_the_build_applies(version: str) -> None:
    found = [patch.name for patch in patches.applicable(SERIES, version)]
    listed = patches.series(SERIES)
    assert found == [patch.name for patch in listed if SpecifierSet(patch.versions).contains(version)]
    assert found == script("docker/vllm/install/apply-patches.py").applicable(SERIES, version)


@pytest.mark.parametrize(
    ("versions", "fitting"),
    [
        ("==0.10.2", ["0.10.2"]),
        ("<=0.8.0", ["0.7.2", "0.7.3", "0.8.0"]),
        ("<0.8.0", ["0.7.2", "0.7.3"]),
        (">0.33.0,<1.0.0", ["0.33.1", "0.34.0"]),
        (">=0.33.1", ["0.33.1", "0.34.0", "1.0.0"]),
    ],
)
def test_bounds_of_versions_are_numbers_and_not_text(versions: str, fitting: list[str]) -> None:
    assert [version for version in VERSIONS if patches.Patch("a.patch", versions).applies_to(version)] == fitting


@pytest.mark.parametrize(
    "line", ["a.patch", "a.patch >= 0.7.3", "a.patch >=0.7", "a.patch ~=0.7.3", "a.patch 0.7.3", "a.patch >=0.7.3,"]
)
def test_a_line_of_the_series_that_cannot_be_read_is_named(line: str) -> None:
    with pytest.raises(TandemError, match=r"^docker/vllm/patches/series: line 2: should be a patch and its versions"):
        patches.series(f"# a comment\n{line}\n")


def test_a_patch_that_is_listed_twice_is_named() -> None:
    with pytest.raises(TandemError, match=r"series: line 2: a\.patch is listed twice"):
        patches.series("a.patch ==0.7.3\na.patch ==0.8.0\n")


def test_a_header_has_each_field_with_its_further_lines() -> None:
    assert patches.header("a.patch", HEADER)["What-breaks"] == "serving an adapter:\nImportError"


@pytest.mark.parametrize(
    "text", [HEADER.replace("Upstream", "Source"), HEADER.replace("Fault: lora\n", ""), HEADER.replace("never", "")]
)
def test_a_header_that_lacks_a_field_is_named(text: str) -> None:
    with pytest.raises(TandemError, match=r"docker/vllm/patches/a\.patch: its header should have Fault, What-breaks"):
        patches.header("a.patch", text)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of what images of vLLM are made from."""
    shutil.copytree(ROOT / "docker", tmp_path / "docker")
    return tmp_path


def test_an_image_is_made_from_the_patches_of_its_version_and_from_no_other(project: Path) -> None:
    of = Build("0.32.0", "cpu", "cpu")
    named = {path.name for path in contents.files(project, of)}
    assert {"series", "apply-patches.py", "lora.patch"} <= named
    assert "login.patch" not in named
    assert contents.labels(project, of)["TANDEM_IMAGE_PATCHES"] == "lora.patch"
    old = contents.labels(project, Build("0.7.3", "cuda", "cu124"))["TANDEM_IMAGE_PATCHES"]
    assert old == "login.patch token.patch listing-old.patch"


@pytest.mark.parametrize(("name", "other"), [("lora.patch", True), ("login.patch", False)])
def test_an_image_is_another_when_a_patch_of_its_version_is(project: Path, name: str, other: bool) -> None:
    of = Build("0.32.0", "cpu", "cpu")
    before = contents.digest(project, of)
    path = project / "docker/vllm/patches" / name
    path.write_text(path.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    assert (contents.digest(project, of) != before) is other
