"""Machines for tests of GPU profiles where there is no GPU: a Docker Engine in namespaces of its own, with no network.

Nothing of it is shared with the machine's own Engine but the kernel: its processes, mounts and network are in
namespaces that end with its first process, so that one kill takes away all of it.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from orchestrator import base, host, versions
from orchestrator.engine import Engine
from orchestrator.project import OWN_IMAGES
from tests.checkout import PATIENCE, ROOT, Checkout, eventually
from tests.integration.conftest import SEAL

STANDINS = Path(__file__).parent / "standins"
STANDIN_IMAGE = "tandem/stand-in:latest"
# setpriv ends it with pytest, however that ends. All its files are in a /run of its own, in memory: nothing is left of
# them, and no test waits for a disk. docker-init reaps what a container leaves.
NAMESPACES = ["setpriv", "--pdeathsig", "KILL", "unshare", "--net", "--mount", "--pid", "--fork", "--kill-child=KILL"]
INIT = """
mount -t tmpfs tmpfs /run
mount -t proc proc /proc
ip link set lo up
exec docker-init -- dockerd "$@"
"""
LABEL = "com.docker.compose"
HOOK = "nvidia-container-runtime-hook"
# Where a machine has one, this machine has none.
NO_HOOK = f'hook=$(command -v {HOOK}) && mount --bind /dev/null "$hook"; '
ASK = """
import sys, urllib.error, urllib.request
address, body = sys.argv[1:]
request = urllib.request.Request(address, body.encode() or None, {"Content-Type": "application/json"})
try:
    answer = urllib.request.urlopen(request, timeout=180)
except urllib.error.HTTPError as error:
    answer = error
print(answer.status, answer.read().decode())
"""
# Weights as a pull leaves them, so that the next finds them complete and asks no hub.
FILL = (
    SEAL
    + """
for model in sys.argv[1:]:
    folder = Path("/models") / model
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(bytes(1000))
    seal(folder, model)
"""
)


@dataclass
class Machine:
    """A Docker Engine with a network of its own; folder holds its socket and log. hook: it takes GPU reservations.

    data is where it keeps everything, for a test that has to see it; by default nobody else can.
    """

    folder: Path
    hook: bool
    data: Path = Path("/run/tandem/data")
    # What its first process does, with dockerd's options as arguments.
    init: str = INIT
    process: "subprocess.Popen[bytes] | None" = field(default=None, init=False)

    @property
    def address(self) -> str:
        return f"unix://{self.folder}/docker.sock"

    @property
    def variables(self) -> dict[str, str]:
        """Where its socket is, for the docker command and for our settings."""
        return {"DOCKER_HOST": self.address, "TANDEM_DOCKER_SOCKET": self.address.removeprefix("unix://")}

    @property
    def cgroup(self) -> str:
        return f"tandem-test-{os.getpid()}-{self.folder.name}"

    @property
    def prefix(self) -> list[str]:
        """What a command line begins with to run in this machine's network."""
        assert self.process is not None
        # By its path, so that a command may be run with any PATH.
        return [shutil.which("nsenter") or "nsenter", f"--net=/proc/{self.process.pid}/ns/net", "--"]

    def start(self) -> None:
        options = {
            "--host": self.address,
            "--data-root": self.data,
            "--exec-root": "/run/tandem/exec",
            "--pidfile": "/run/tandem/pid",
            "--config-file": self.folder / "none.json",
            "--cgroup-parent": f"/{self.cgroup}",
            "--exec-opt": "native.cgroupdriver=cgroupfs",
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "none.json").write_text("{}")
        path = f"{STANDINS / 'bin'}:{os.environ['PATH']}" if self.hook else os.environ["PATH"]
        script = self.init if self.hook else NO_HOOK + self.init
        with (self.folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [*NAMESPACES, "sh", "-ec", script, "sh", *(str(word) for pair in options.items() for word in pair)],
                env={**os.environ, "PATH": path}, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        eventually(self._answers, what=f"a private dockerd that answers; its log is {self.folder}/log")

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.folder / "log").read_text()[-3000:]
        return self._run("version").returncode == 0

    def _run(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.prefix, "docker", "--host", self.address, *arguments], capture_output=True, text=True, check=False,
            timeout=PATIENCE, **options,
        )  # fmt: skip

    def stop(self) -> None:
        """End every process of it; their mounts and networks go with them. Then remove its files."""
        if self.process is None:
            return
        if self.process.poll() is None:
            pid = self.process.pid
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
                    # The first process of the process namespace: it is gone when all others are, and then unshare ends.
                    os.kill(int(child), signal.SIGKILL)
        try:
            self.process.wait(PATIENCE)
        finally:
            self.process.kill()
            self.process.wait()
        self._remove_cgroups()
        shutil.rmtree(self.folder)

    def _remove_cgroups(self) -> None:
        """Take away what Docker leaves of its control groups: one tree (v2), or one for each controller (v1)."""
        top = Path("/sys/fs/cgroup")
        for group in {path.resolve() for path in (top / self.cgroup, *top.glob(f"*/{self.cgroup}")) if path.is_dir()}:
            for inner in sorted(group.glob("**/"), reverse=True):
                eventually(lambda gone=inner: _removed(gone), what=f"{inner} with no process in it")

    def docker(self, *arguments: str) -> str:
        """Run a docker command that has to succeed; give what it prints."""
        done = self._run(*arguments)
        assert done.returncode == 0, f"docker {' '.join(arguments)}: {done.stderr}"
        return done.stdout.strip()

    def inspect(self, container: str) -> dict[str, Any]:
        return dict(json.loads(self.docker("inspect", container))[0])

    def ids(self, project: str, *options: str) -> dict[str, str]:
        """Each service of a Compose project that has a container, with the container's id."""
        listed = self.docker(
            "ps", *(options or ("--all",)), "--no-trunc", "--filter", f"label={LABEL}.project={project}",
            "--format", f'{{{{.Label "{LABEL}.service"}}}} {{{{.ID}}}}',
        )  # fmt: skip
        return dict(line.split() for line in listed.splitlines())

    def running(self, project: str) -> set[str]:
        """Each service of a Compose project whose container runs, or waits for its next start."""
        return set(self.ids(project, "--filter", "status=running", "--filter", "status=restarting"))

    def load(self, images: list[str]) -> None:
        """Copy images here from the machine's own Engine."""
        with subprocess.Popen(["docker", "save", *images], stdout=subprocess.PIPE) as saved:
            loaded = self._run("load", stdin=saved.stdout)
        assert (saved.returncode, loaded.returncode) == (0, 0), loaded.stderr

    def ask(self, address: str, body: object = None) -> tuple[int, dict[str, Any]]:
        """Ask an address of this machine's network, with a POST when there is a body: the status, and the JSON."""
        argv = [*self.prefix, sys.executable, "-c", ASK, address, "" if body is None else json.dumps(body)]
        done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=PATIENCE)
        status, text = done.stdout.split(maxsplit=1)
        return int(status), json.loads(text)

    def checkout(self, folder: Path, **environment: str) -> "Inside":
        """Copy the project, to be used on this machine."""
        checkout = Inside.copy(folder, **self.variables, **environment)
        assert isinstance(checkout, Inside)
        checkout.prefix = self.prefix
        return checkout

    def fill(self, project: str, models: list[str]) -> None:
        """Make a Compose project's volume of models as Compose would, with the weights of models in it."""
        volume = f"{project}_models"
        labels = [f"--label={LABEL}.project={project}", f"--label={LABEL}.volume=models"]
        self.docker("volume", "create", *labels, volume)
        argv = ["run", "--rm", "--network=none", f"--volume={volume}:/models", "--entrypoint=python3", server_image()]
        self.docker(*argv, "-c", FILL, *models)


def _removed(group: Path) -> bool:
    """Whether a control group is gone; the kernel keeps it while what was killed in it is not reaped."""
    try:
        group.rmdir()
    except OSError:
        return not group.exists()
    return True


@dataclass
class Inside(Checkout):
    """A checkout whose commands run in a machine's network."""

    prefix: list[str] = field(default_factory=list)

    def env(self, **more: str) -> dict[str, str]:
        """Without this machine's proxies, which that one cannot reach."""
        proxies = {"http_proxy", "https_proxy", "no_proxy", "all_proxy"}
        inherited = {name: value for name, value in super().env().items() if name.lower() not in proxies}
        return {**inherited, **self.environment, **more}

    def run(self, argv: list[str], *, seconds: float = 300, **more: str) -> subprocess.CompletedProcess[str]:
        return super().run([*self.prefix, *argv], seconds=seconds, **more)

    def start(self, argv: list[str], **more: str) -> "subprocess.Popen[str]":
        return super().start([*self.prefix, *argv], **more)


def server_image() -> str:
    """Name the image of a GPU profile's server."""
    known = versions.load((ROOT / "docker/vllm/versions.toml").read_text())
    return known.usual("cuda").image


@pytest.fixture(scope="session")
def standin_image() -> str:
    """The stand-in's image, on the machine's own Engine; BuildKit has it from the second time on."""
    with contextlib.closing(Engine(ROOT, "tandem", os.environ)) as engine:
        chosen = base.choose(engine, "", host.debian_mirror(), print)
    mirror = host.debian_mirror() if chosen.image == base.OWN_IMAGE else ""
    argv = ["docker", "buildx", "build", "--quiet", "--load", "--tag", STANDIN_IMAGE]
    argv += ["--build-arg", f"BASE_IMAGE={chosen.image}", "--secret", "id=debian-mirror,env=TANDEM_DEBIAN_MIRROR"]
    argv += ["--build-context", f"standins={STANDINS}", "--file", str(STANDINS / "Dockerfile"), str(ROOT / "docker")]
    environment = {**os.environ, "TANDEM_DEBIAN_MIRROR": mirror}
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return STANDIN_IMAGE


@pytest.fixture(scope="session")
def root() -> None:
    """Namespaces and a Docker Engine of the test's own are root's to make."""
    if os.geteuid() != 0:
        # Without them nothing would have been said of GPUs, mirrors and bundles.
        assert "CI" not in os.environ, "CI has to run as root"
        pytest.skip("starts a Docker Engine of its own, which takes root: sudo scripts/test tests/integration")


@pytest.fixture(scope="session")
def new_machine(
    root: None,
    images: Checkout,
    standin_image: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[[bool], Machine]]:
    """Makes machines, and takes them all away at the end."""
    with contextlib.ExitStack() as made:

        def make(hook: bool) -> Machine:
            machine = Machine(tmp_path_factory.mktemp("machine") / ("gpu" if hook else "plain"), hook)
            made.callback(machine.stop)
            machine.start()
            machine.load([*OWN_IMAGES, standin_image])
            machine.docker("tag", standin_image, server_image())
            return machine

        yield make


@pytest.fixture(scope="module")
def empty_machine(root: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine whose Docker has nothing yet; its memory is given back when the module's tests are done."""
    machine = Machine(tmp_path_factory.mktemp("machine") / "empty", hook=False)
    try:
        machine.start()
        yield machine
    finally:
        machine.stop()


@pytest.fixture(scope="session")
def gpu_machine(new_machine: Callable[[bool], Machine]) -> Machine:
    """A machine whose Engine takes GPU reservations; the server in its image is the stand-in."""
    return new_machine(True)


@pytest.fixture(scope="session")
def plain_machine(new_machine: Callable[[bool], Machine]) -> Machine:
    """A machine whose Docker knows nothing of NVIDIA."""
    return new_machine(False)
