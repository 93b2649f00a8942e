"""A Docker Engine of a run's own, which may be killed and comes back as under systemd; the machine's is left alone."""

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.project import ROUTER_IMAGE
from tests.checkout import eventually
from tests.integration.conftest import SERVER_IMAGE
from tests.integration.engine import Machine
from tests.switching import stack
from tests.switching.kills import Kill, What

ACTIVATOR_IMAGE = "tandem/activator:0.1.0"
PROJECT = "tandem-test-engine"
CLONE_NEWNET = 0x40000000
# As INIT of Machine, but dockerd is started again when it ends; what it leaves is its file of its process id.
INIT = """
mount -t tmpfs tmpfs /run
mount -t proc proc /proc
ip link set lo up
exec docker-init -- sh -c 'while :; do rm -f /run/tandem/pid; dockerd "$@"; done' sh "$@"
"""


def first_process(machine: Machine) -> int:
    """Give the process whose end is the end of the machine; the ids of its namespace are what its Engine tells."""
    assert machine.process is not None
    pid = machine.process.pid
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


def dockerd(machine: Machine) -> int:
    """Give the process id of the machine's dockerd; 0 when there is none now."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                program, *words = (folder / "cmdline").read_text().split("\0")
                if Path(program).name == "dockerd" and machine.address in words:
                    return int(folder.name)
    return 0


def enter_network(machine: Machine) -> None:
    """Put this process, and every thread that it starts from now on, into the machine's network."""
    libc = ctypes.CDLL(None, use_errno=True)
    with Path(f"/proc/{first_process(machine)}/ns/net").open() as namespace:
        if libc.setns(namespace.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")


@contextlib.contextmanager
def private(folder: Path) -> Iterator[Machine]:
    """Start a machine that takes GPU reservations, with the images of a stack, and enter its network."""
    machine = Machine(folder / "engine", hook=True, init=INIT)
    before = os.open("/proc/self/ns/net", os.O_RDONLY)
    try:
        machine.start()
        machine.load([ROUTER_IMAGE, ACTIVATOR_IMAGE, SERVER_IMAGE])
        enter_network(machine)
        yield machine
    finally:
        ctypes.CDLL(None).setns(before, CLONE_NEWNET)
        os.close(before)
        machine.stop()


@dataclass
class EngineBench(stack.Bench):
    """A bench whose Engine can be killed too."""

    machine: Machine | None = None

    def kill(self, what: What, model: str = "") -> Kill:
        if what != "dockerd":
            return super().kill(what, model)
        assert self.machine is not None
        machine = self.machine
        self.remember()
        pid = dockerd(machine)
        at = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: dockerd(machine) not in (0, pid), what="a dockerd that was started again")
        gone = time.monotonic()
        # Without an answer of it nothing is known of the containers, which it ends and starts again.
        eventually(lambda: self.stack.run(["docker", "version"]).returncode == 0, what="a dockerd")
        self.serving(120)
        self.remember()
        killed = Kill(what, "", at, gone, time.monotonic())
        self.kills.append(killed)
        return killed


@contextlib.contextmanager
def running(
    machine: Machine, folder: Path, models: Sequence[stack.Tiny], servers: stack.Servers, *, sleep: bool
) -> Iterator[EngineBench]:
    """Start a stack on the machine."""
    socket = str(machine.folder / "docker.sock")
    made = stack.copy(folder / "stack", PROJECT, DOCKER_HOST=machine.address, TANDEM_DOCKER_SOCKET=socket)
    plain = stack.fill(made, models, servers=servers, sleep=sleep, reservations=True, level=1)
    enter = ["nsenter", "--target", str(first_process(machine)), "--pid", "--"]
    bench = EngineBench(made, models, servers, plain.feed, enter, machine=machine)
    with stack.running(bench):
        yield bench
