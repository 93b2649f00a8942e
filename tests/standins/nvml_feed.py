"""Keeps the file that the stand-in for NVML reads up to date: which process holds how much of which GPU now.

Who holds what comes from the claims of stand-in servers, or, for real servers on a CPU, from the processes of their
containers: whoever lives has taken its share, and the share is back when its last process is gone.
"""

import contextlib
import json
import os
import re
import subprocess
import threading
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.standins.server import ASLEEP, GIB, RESERVED, living

TOTAL = 24 * GIB
EVERY = 0.05
PROC = Path("/proc")
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
# What runs in a server's container and is no server: it has no GPU memory.
NO_SERVER = re.compile(rb"tini|docker-init|gate\.py|healthcheck\.py")


@dataclass(frozen=True)
class Claim:
    """What a process holds: bytes of each GPU, by its index."""

    pid: int
    gpus: Mapping[int, int]


Source = Callable[[], list[Claim]]


def render(claims: Iterable[Claim], count: int = 2, total: int = TOTAL) -> str:
    """Write what NVML would say, in the words of the stand-in library; sizes are bytes."""
    held = list(claims)
    lines = []
    for gpu in range(count):
        processes = [(claim.pid, claim.gpus[gpu]) for claim in held if claim.gpus.get(gpu)]
        used = sum(size for _, size in processes)
        lines.append(f'gpu {gpu} GPU-{gpu:08d}-0000-0000-0000-000000000000 "Stand-in 24G" {total} {RESERVED} {used}')
        lines += [f"process {gpu} {pid} {size}" for pid, size in processes]
    return "".join(line + "\n" for line in lines)


def holders() -> dict[int, int]:
    """Who holds each file lock, as process ids of this namespace, by the inode of the file."""
    found = {}
    for line in (PROC / "locks").read_text().splitlines():
        words = line.split()
        # A waiting lock has an arrow in the second column.
        if words[1] == "FLOCK" and words[3] == "WRITE":
            found[int(words[5].rsplit(":", 1)[1])] = int(words[4])
    return found


def inner(pid: int, level: int) -> int:
    """Give a process's id in a namespace that is so many levels below this one; 0 when it is gone."""
    with contextlib.suppress(OSError, StopIteration, IndexError):
        status = (PROC / str(pid) / "status").read_text().splitlines()
        return int(next(line for line in status if line.startswith("NSpid:")).split()[1 + level])
    return 0


def standins(folder: Path, level: int = 0) -> Source:
    """Read the claims of stand-in servers in a folder; process ids are those of a namespace level steps below this."""

    def claims() -> list[Claim]:
        held = living(folder)
        owners = holders()
        pids = [inner(owners.get(claim["inode"], 0), level) for claim in held]
        # One that died since then holds nothing any more.
        return [
            Claim(pid, {int(gpu): size for gpu, size in claim["gpus"].items()})
            for pid, claim in zip(pids, held, strict=True)
            if pid
        ]

    return claims


# --- real servers -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Container:
    """A server's container: its name, its id, the GPUs of its label, and where it is reached; "" while it is down."""

    name: str
    ident: str
    gpus: tuple[int, ...]
    address: str


def containers(project: str) -> list[Container]:
    """List a Compose project's containers that have GPUs on their label."""
    label = f"label=com.docker.compose.project={project}"
    listed = subprocess.run(
        ["docker", "ps", "-q", "--no-trunc", "--filter", label, "--filter", "label=tandem.gpus"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if not listed.stdout.split():
        return []
    done = subprocess.run(["docker", "inspect", *listed.stdout.split()], capture_output=True, text=True, check=False)
    found = []
    for one in json.loads(done.stdout or "[]"):
        labels, networks = one["Config"]["Labels"], one["NetworkSettings"]["Networks"]
        gpus = tuple(int(gpu) for gpu in labels["tandem.gpus"].split(",") if gpu)
        address = next((network["IPAddress"] for network in networks.values()), "")
        found.append(Container(labels.get("tandem.profile", ""), one["Id"], gpus, address))
    return found


def asleep(container: Container, before: bool) -> bool:
    """Ask a server whether it sleeps. One that takes its time is as it was before, one that refuses is awake."""
    try:
        with DIRECT.open(f"http://{container.address}:8000/is_sleeping", timeout=0.3) as answer:
            return bool(json.load(answer)["is_sleeping"])
    except TimeoutError:
        return before
    except (OSError, ValueError, KeyError) as error:
        return before and isinstance(getattr(error, "reason", None), TimeoutError)


def processes(proc: Path = PROC) -> dict[str, list[int]]:
    """The processes that are servers or their workers, by the id of their container."""
    found: dict[str, list[int]] = {}
    for folder in proc.iterdir():
        if not folder.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            ident = re.search(r"[0-9a-f]{64}", (folder / "cgroup").read_text())
            line = (folder / "cmdline").read_bytes()
            if ident and line and not NO_SERVER.search(line):
                found.setdefault(ident[0], []).append(int(folder.name))
    return found


def real_servers(project: str, claim: int) -> Source:
    """Say what real servers on a CPU would hold: claim bytes of each of their GPUs, or ASLEEP while they sleep."""

    sleeps: dict[str, bool] = {}

    def claims() -> list[Claim]:
        running = processes()
        found = []
        for container in containers(project):
            if pids := running.get(container.ident):
                sleeps[container.ident] = asleep(container, sleeps.get(container.ident, False))
                size = min(claim, ASLEEP) if sleeps[container.ident] else claim
                found.append(Claim(min(pids), dict.fromkeys(container.gpus, size)))
        return found

    return claims


class Feed(threading.Thread):
    """Writes the file again and again until it is stopped; another program's memory is put in with also."""

    def __init__(self, path: Path, source: Source, every: float = EVERY) -> None:
        super().__init__(daemon=True)
        self.also: list[Claim] = []
        self._path, self._source, self._every = path, source, every
        self._ended = threading.Event()
        self.write()

    def write(self) -> None:
        """Replace the file in one step: no reader sees half of it. Its folder is what containers mount."""
        text = render([*self._source(), *self.also])
        fresh = self._path.with_suffix(".new")
        fresh.write_text(text)
        os.chmod(fresh, 0o644)  # noqa: PTH101 (whatever the umask is)
        fresh.replace(self._path)

    def run(self) -> None:
        while not self._ended.wait(self._every):
            self.write()

    def stop(self) -> None:
        self._ended.set()
        self.join(10)
