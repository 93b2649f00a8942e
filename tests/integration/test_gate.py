"""The entrypoint in the real image: containers that are started by hand at once, with GPUs that a stand-in tells of."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.checkout import PATIENCE, ROOT, eventually
from tests.integration.conftest import SERVER_IMAGE
from tests.standins.nvml import GiB, Gpus

pytestmark = pytest.mark.docker

PREFIX = "tandem-test-gate"
VOLUME = f"{PREFIX}-gpus"
OURS = ("gate.py", "gating", "nvml.py")


def docker(*argv: str, check: bool = True) -> str:
    done = subprocess.run(["docker", *argv], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0 or not check, done.stderr
    return done.stdout + done.stderr


class Yard:
    """A folder that all containers of a test share, where their stand-in servers are told and looked at."""

    def __init__(self, folder: Path, library: Path) -> None:
        self.folder = folder
        self.names: list[str] = []
        (folder / "gpus").mkdir()
        # The servers are another user.
        for path in (folder, folder / "gpus", library.parent):
            path.chmod(0o777)
        self.library = library
        self.gpus = Gpus(folder / "gpus/nvml")

    def start(self, name: str, *flags: str, **environment: str) -> None:
        """Start a server's container, as a person would who does not look what else is running."""
        mounts = {ROOT / f"docker/vllm/{ours}": f"/opt/tandem/{ours}:ro" for ours in OURS}
        mounts |= {ROOT / "tests/standins/gated.py": "/opt/vllm/bin/vllm:ro", self.library.parent: "/nvml:ro",
                   self.folder: "/yard"}  # fmt: skip
        variables = {"TANDEM_GPUS": "0", "LD_LIBRARY_PATH": "/nvml", "TANDEM_STANDIN_NVML": "/yard/gpus/nvml",
                     "STANDIN_FOLDER": "/yard"} | environment  # fmt: skip
        self.names.append(name)
        docker(
            "run", "--detach", "--name", f"{PREFIX}-{name}", "--network", "none", "--cap-drop", "ALL",
            "--security-opt", "no-new-privileges:true", "--volume", f"{VOLUME}:/run/gpus",
            *(word for source, target in mounts.items() for word in ("--volume", f"{source}:{target}")),
            *(word for key, value in variables.items() for word in ("--env", f"{key}={value}")),
            SERVER_IMAGE, "vllm", "serve", "some/model", "--served-model-name", name, "--port", "8000", *flags,
        )  # fmt: skip

    def tell(self, name: str, text: str = "") -> None:
        """Put a file there whole: a server that looks reads all of it."""
        new = self.folder / f"{name}.told"
        new.write_text(text)
        new.rename(self.folder / name)

    def log(self) -> list[str]:
        path = self.folder / "log"
        return path.read_text().splitlines() if path.exists() else []

    def said(self, name: str) -> str:
        return docker("logs", f"{PREFIX}-{name}")

    def until(self, text: str, name: str = "") -> None:
        """Wait until this happened to a server, or until it is in a container's log."""
        seen = (lambda: text in self.said(name)) if name else (lambda: text in self.log())
        eventually(seen, what=f"{text!r}; {self.log()}")

    def code(self, name: str) -> int:
        return int(docker("wait", f"{PREFIX}-{name}"))


@pytest.fixture
def yard(request: pytest.FixtureRequest, tmp_path: Path, nvml_library: Path) -> Iterator[Yard]:
    # The entrypoint is this checkout's own, so that an image that is there will do.
    if "Error" in docker("image", "inspect", SERVER_IMAGE, check=False):
        request.getfixturevalue("images")
    made = Yard(tmp_path, nvml_library)
    with contextlib.suppress(AssertionError):
        docker("volume", "rm", "--force", VOLUME)
    options = ["--opt", "type=tmpfs", "--opt", "device=tmpfs", "--opt", "o=mode=1777,size=16m"]
    docker("volume", "create", "--driver", "local", *options, VOLUME)
    try:
        yield made
    finally:
        docker("rm", "--force", "--volumes", *(f"{PREFIX}-{name}" for name in ("one", "two")), check=False)
        docker("volume", "rm", "--force", VOLUME, check=False)


def test_two_that_are_started_at_once_load_one_after_the_other_and_not_on_memory_that_is_taken(yard: Yard) -> None:
    yard.gpus.use(0, 4711, 20 * GiB)
    yard.start("one")
    yard.until("waiting for memory: GPU 0 has 3.5 of the", "one")
    yard.start("two")
    yard.until("waiting for GPU 0: one is starting on it", "two")
    assert yard.log() == []
    yard.gpus.use(0, 4711, 0)
    yard.until("one load")
    # It dies while it loads: what it held is the next one's at once.
    docker("kill", f"{PREFIX}-one")
    yard.until("two load")
    yard.tell("two.go")
    yard.until("two up")
    docker("stop", "--time", "180", f"{PREFIX}-two")
    assert yard.code("two") == 0
    assert yard.log() == ["one load", "two load", "two up", "two SIGTERM"]


def test_a_dead_servers_worker_does_not_keep_its_container(yard: Yard) -> None:
    yard.start("one", STANDIN_WORKER="1", TANDEM_GPUS="")
    yard.until("one load")
    yard.tell("one.end", "3")
    assert yard.code("one") == 3
    assert "the server left 1 processes behind: ending them" in yard.said("one")
