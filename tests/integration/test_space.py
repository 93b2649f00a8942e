"""Docker's data folder: a build begins only where there is room, and `images --prune` makes some."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from orchestrator.project import OWN_IMAGES
from tests.integration.test_failures import fault

if TYPE_CHECKING:
    from tests.integration.engine import Inside, Machine

pytestmark = pytest.mark.docker
pytest_plugins = ("tests.integration.engine",)

PROJECT = "space"
CPU_IMAGE = "tandem/vllm:0.32.0-cpu"
OLD_IMAGE = "tandem/vllm:0.1.0-cpu"
OTHERS = "tandem/of-someone-else:1"
MEGABYTES = 700
# A profile of a version whose image is not there.
PINNED = """
[models.pinned]
model = "a/b"
gpus = [0, 1]
vllm = "0.19.1"
"""


@pytest.fixture(scope="module")
def small_machine(root: None, tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Machine]":
    """A machine whose Docker has a really small disk, with images that are small too."""
    from tests.integration.engine import Machine

    folder = tmp_path_factory.mktemp("machine")
    disk = folder / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={MEGABYTES}m", "tmpfs", disk], check=True)
    machine = Machine(folder / "small", hook=False, data=disk)
    try:
        machine.start()
        (folder / "file").write_text("an image")
        (folder / "image.tar").write_bytes(
            subprocess.run(["tar", "-C", folder, "-c", "file"], capture_output=True, check=True).stdout
        )
        for image in (*OWN_IMAGES, CPU_IMAGE, OLD_IMAGE, OTHERS):
            machine.docker("import", str(folder / "image.tar"), image)
        yield machine
    finally:
        machine.stop()
        subprocess.run(["umount", disk], check=True)


@pytest.fixture
def tandem(small_machine: "Machine", tmp_path: Path) -> "Inside":
    return small_machine.checkout(tmp_path / "tandem", COMPOSE_PROJECT_NAME=PROJECT)


def named(machine: "Machine") -> set[str]:
    """Each image there, by its name and its id."""
    return set(machine.docker("images", "--no-trunc", "--format={{.Repository}}:{{.Tag}} {{.ID}}").splitlines())


def test_a_build_on_a_disk_that_is_too_small_is_refused_before_it_begins(
    tandem: "Inside", small_machine: "Machine"
) -> None:
    before = named(small_machine)
    # An image of this name is there, and its packages are not those that it would be built from now.
    done = tandem.tandem("build", "demo")
    said = fault(done, 1)
    first, *ways = said.splitlines()
    assert first.startswith(f"{small_machine.data}: the build needs 9 GB in Docker's data folder, 0.")
    assert first.endswith(" GB are free.")
    assert "python -m orchestrator images --prune" in ways[0]
    assert "docker builder prune" in ways[1]
    assert "base image" not in done.stderr
    assert named(small_machine) == before


def test_prune_removes_what_nobody_uses_and_leaves_alone_what_is_not_ours(
    tandem: "Inside", small_machine: "Machine"
) -> None:
    # Compose labels its volumes so.
    label = f"--label=com.docker.compose.project={PROJECT}"
    kept, gone, others = f"{PROJECT}_cache-0.19.1-cu128", f"{PROJECT}_cache-0.1.0-cpu", "other_cache-0.1.0-cpu"
    tandem.extend_models(PINNED)
    small_machine.docker("volume", "create", label, kept)
    small_machine.docker("volume", "create", label, gone)
    small_machine.docker("volume", "create", others)
    listed = {row["image"]: row["state"] for row in json.loads(tandem.tandem("images", "--json").stdout)}
    assert listed == dict.fromkeys([*OWN_IMAGES, CPU_IMAGE], "stale") | {OLD_IMAGE: "old"}
    done = tandem.tandem("images", "--prune", "--json")
    assert done.returncode == 0, done.stderr
    removed = json.loads(done.stdout)
    assert [row["image"] for row in removed["removed"]] == [OLD_IMAGE]
    assert removed["volumes"] == [gone]
    assert {line.split()[0] for line in named(small_machine)} == {*OWN_IMAGES, CPU_IMAGE, OTHERS}
    assert set(small_machine.docker("volume", "ls", "-q").split()) == {kept, others}
