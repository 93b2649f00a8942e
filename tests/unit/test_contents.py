"""The digest of what an image is made from changes with that and with nothing else."""

import shutil
from pathlib import Path

import pytest

from orchestrator import contents
from orchestrator.errors import TandemError
from tests.unit.values import CPU, CU130, ROOT


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "docker", tmp_path / "docker", ignore=shutil.ignore_patterns("demo"))
    shutil.copytree(ROOT / "orchestrator", tmp_path / "orchestrator")
    shutil.copytree(ROOT / "requirements", tmp_path / "requirements")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("docker/apt-install.sh", {"router", "activator", "cpu", "cu130"}),
        ("docker/vllm/gate.py", {"cpu", "cu130"}),
        ("docker/vllm/weights/hubs.py", {"cpu", "cu130"}),
        ("docker/vllm/gating/locks.py", {"cpu", "cu130"}),
        ("docker/vllm/nvml.py", {"activator", "cpu", "cu130"}),
        ("docker/vllm/gpus.py", {"activator"}),
        ("docker/vllm/requirements/0.32.0-cpu.txt", {"cpu"}),
        ("docker/vllm/install/with-index.sh", {"activator", "cpu", "cu130"}),
        ("docker/vllm/service.yaml", set()),
        ("docker/router/choose.lua", {"router"}),
        ("docker/engine-proxy/engine.js", {"router"}),
        ("docker/activator/Dockerfile", {"activator"}),
        ("orchestrator/switch/world.py", {"activator"}),
        ("requirements/activator.txt", {"activator"}),
        ("requirements/run.txt", set()),
    ],
)
def test_a_digest_changes_with_what_the_image_is_made_from_alone(folder: Path, name: str, changes: set[str]) -> None:
    def digests() -> dict[str, str]:
        return {
            "router": contents.digest(folder, "router"),
            "activator": contents.digest(folder, "activator"),
            "cpu": contents.digest(folder, CPU),
            "cu130": contents.digest(folder, CU130),
        }

    before = digests()
    path = folder / name
    path.write_text(path.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    after = digests()
    assert {word for word in before if before[word] != after[word]} == changes


@pytest.mark.parametrize(
    ("name", "changes"),
    [("vllm/gate.py", False), ("vllm/patches/lora.patch", False), ("vllm/requirements/0.32.0-cpu.txt", True),
     ("vllm/Dockerfile", True), ("apt-install.sh", True)],
)  # fmt: skip
def test_what_lies_below_the_patches_changes_with_the_packages_alone(folder: Path, name: str, changes: bool) -> None:
    before = contents.below(folder, CPU)
    path = folder / "docker" / name
    path.write_text(path.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    assert (contents.below(folder, CPU) != before) is changes


@pytest.mark.parametrize(
    ("name", "remedy"),
    [("requirements/0.32.0-cpu.txt", "; scripts/lock 0.32.0 writes it"),
     ("patches/lora.patch", "; docker/vllm/patches/series names it"), ("gate.py", "")],
)  # fmt: skip
def test_a_file_that_an_image_is_made_from_and_that_is_not_there_is_named(folder: Path, name: str, remedy: str) -> None:
    path = folder / "docker/vllm" / name
    path.unlink()
    with pytest.raises(TandemError) as caught:
        contents.labels(folder, CPU)
    assert str(caught.value) == f"{path}: an image is made from it, and it is not there{remedy}"


def test_every_file_that_the_dockerfiles_read_counts() -> None:
    made: dict[str, contents.Made] = {"router": "router", "activator": "activator", "vllm": CU130}
    for name, of in made.items():
        text = (ROOT / f"docker/{name}/Dockerfile").read_text(encoding="utf-8").replace("${VLLM_BUILD}", CU130.tag)
        inside = [path for path in contents.files(ROOT, of) if path.is_relative_to(ROOT / "docker")]
        counted = {str(path.relative_to(ROOT / "docker")) for path in inside}
        named = {word.removeprefix("source=").rstrip(",") for line in text.splitlines() for word in _words(line)}
        folders = {str(Path(path).parent) for path in counted}
        assert named <= counted | folders, named - counted - folders


@pytest.mark.parametrize(("folder", "named"), [("weights", contents.WEIGHTS), ("gating", contents.GATING)])
def test_every_module_of_a_folder_that_is_copied_whole_counts(folder: str, named: tuple[str, ...]) -> None:
    there = {path.relative_to(ROOT / "docker").as_posix() for path in (ROOT / f"docker/vllm/{folder}").glob("*.py")}
    assert set(named) == there


def _words(line: str) -> list[str]:
    """The files of docker/ that a line of a Dockerfile names."""
    if line.startswith("COPY") and "--from" not in line:
        return [word for word in line.split()[1:-1] if not word.startswith("--")]
    if "type=bind,source=" in line:
        return [line.split("source=")[1].split(",", maxsplit=1)[0]]
    return []


def test_a_label_names_what_matters_of_the_packages() -> None:
    text = "vllm==0.32.0 \\\n    --hash=sha256:0\nmodelscope==1.40.2 \\\ntorch==2.13.0 \\\ntorchvision==1 \\\n"
    assert contents.packages(text, "3.11") == "vllm==0.32.0 modelscope==1.40.2 torch==2.13.0 python==3.11"
