"""Starts and stops the servers of tests/gpu/flags.py: each is a session of processes, of which none is left behind."""

import json
import os
import re
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from orchestrator import failures, host
from tests.gpu import fit

DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
# What a server that is told to end may take for it; then it is killed.
PATIENCE = 10.0
# GPUs give a dead process's memory back a moment later.
SETTLE = 10.0
LOOK = 0.5
# Each server gets this many ports from its own on: vLLM looks for free ones from VLLM_PORT on, and takes them later.
PORTS = 100
# Of a log: what vLLM took, by the words of 0.24.0 and 0.32.0.
CHOICES = {
    "attention": re.compile(r"Using (?:AttentionBackendEnum\.)?(\w+) (?:attention )?backend"),
    "weights' kernel": re.compile(r"Using (\w+) for \w+LinearMethod"),
    "all-reduce": re.compile(r"([Cc]ustom all-?reduce is disabled[^.]*)"),
    "tokens a step": re.compile(r"Chunked prefill is enabled with max_num_batched_tokens=(\d+)"),
}


@dataclass
class Server:
    """One server: its process, which leads a session, and how it is: starting, ready, died or late.

    born tells the process from a later one with its number; began is this process's clock, seconds until it was so.
    """

    name: str
    process: subprocess.Popen[bytes]
    born: str
    port: int
    log: Path
    began: float
    state: str = "starting"
    seconds: float = 0.0

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def healthy(self) -> bool:
        try:
            with DIRECT.open(f"{self.address}/health", timeout=2) as answer:
                return answer.status == 200
        except (OSError, urllib.error.URLError, ValueError):
            return False

    def died(self) -> bool:
        return self.process.poll() is not None

    def said(self) -> str:
        return self.log.read_text(errors="replace")


def sessions(root: Path = Path("/proc")) -> dict[int, list[int]]:
    """List the processes of each session, zombies left out."""
    found: dict[int, list[int]] = {}
    for path in root.glob("[0-9]*/stat"):
        with suppress(OSError, ValueError, IndexError):
            # The name of a program stands in brackets, and may hold any.
            state, _, _, session = path.read_text(errors="replace").rpartition(") ")[2].split()[:4]
            if state not in "ZX":
                found.setdefault(int(session), []).append(int(path.parent.name))
    return found


def began(pid: int, root: Path = Path("/proc")) -> str:
    """Tell one process from a later one with its number: when it began, in ticks since the machine did; "" if none."""
    try:
        return (root / str(pid) / "stat").read_text(errors="replace").rpartition(") ")[2].split()[19]
    except (OSError, IndexError):
        return ""


class Servers:
    """The servers that are up; `note` names their processes, for a call after one that was killed."""

    def __init__(self, note: Path, port: int, say: Callable[[str], None]) -> None:
        self._note, self._say = note, say
        self._ports = iter(range(port, 60000, PORTS))
        self.up: list[Server] = []

    def sweep(self) -> None:
        """End what a call that was killed left behind."""
        noted = json.loads(self._note.read_text(encoding="utf-8")) if self._note.exists() else {}
        left = {int(pid): start for pid, start in noted.items()}
        if members(left):
            self._say("ending servers that an earlier call left behind")
            end(left)
        self._note.unlink(missing_ok=True)

    def start(self, name: str, command: Callable[[int], Sequence[str]], env: Mapping[str, str], log: Path) -> Server:
        """Start a server; command(port) is its command line."""
        port = next(port for port in self._ports if not host.refused("127.0.0.1", port))
        settings = {**os.environ, **env, "VLLM_PORT": str(port + 1)}
        with log.open("wb") as said:
            # Not in the project's folder: Python looks for modules where it is.
            process = subprocess.Popen(
                command(port), stdin=subprocess.DEVNULL, stdout=said, stderr=said, env=settings, cwd=log.parent,
                start_new_session=True,
            )  # fmt: skip
        server = Server(name, process, began(process.pid), port, log, time.monotonic())
        self.up.append(server)
        self._note.write_text(json.dumps({server.process.pid: server.born for server in self.up}), encoding="utf-8")
        return server

    def wait(self, deadline: float, limit: float) -> None:
        """Wait until every server is ready or has died; one that is neither in time is late, and is ended.

        In time is before the deadline, of the monotonic clock, and within so many seconds of its beginning.
        """
        waiting = [server for server in self.up if server.state == "starting"]
        while waiting:
            for server in waiting:
                now = time.monotonic()
                if server.died():
                    server.state = "died"
                elif server.healthy():
                    server.state = "ready"
                elif now > deadline or now - server.began > limit:
                    server.state = "late"
                if server.state != "starting":
                    server.seconds = round(now - server.began, 1)
                    self._say(f"{server.name}: {server.state} after {server.seconds:.0f} s")
            waiting = [server for server in waiting if server.state == "starting"]
            if waiting:
                time.sleep(LOOK)
        late = [server for server in self.up if server.state in ("late", "died")]
        self._end(late)

    def drop(self, server: Server) -> None:
        """End one of them."""
        self._end([server])

    def stop(self) -> None:
        """End all of them, whole."""
        self._end(list(self.up))
        self._note.unlink(missing_ok=True)

    def _end(self, servers: Sequence[Server]) -> None:
        # What is pressed meanwhile leaves none behind.
        before = {kind: signal.signal(kind, signal.SIG_IGN) for kind in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        try:
            end({server.process.pid: server.born for server in servers})
            for server in servers:
                server.process.wait()
            self.up = [server for server in self.up if server not in servers]
        finally:
            for kind, handler in before.items():
                signal.signal(kind, handler)


def members(leaders: Mapping[int, str]) -> list[int]:
    """List the living processes of some sessions, which are known by their leaders and when those began.

    A leader may have died before its workers. Its number is nobody else's while they live, and may be afterwards.
    """
    found = sessions()
    return [pid for leader, born in leaders.items() if began(leader) in ("", born) for pid in found.get(leader, [])]


def end(leaders: Mapping[int, str], patience: float = PATIENCE) -> None:
    """End whole sessions: asked first, and killed when they have had so many seconds."""
    for sent in (signal.SIGINT, signal.SIGKILL):
        for pid in members(leaders):
            with suppress(ProcessLookupError):
                os.kill(pid, sent)
        deadline = time.monotonic() + patience
        while members(leaders) and time.monotonic() < deadline:
            time.sleep(0.1)


def free(room: float | None) -> float:
    """Tell the GiB that each GPU has free, the least of them; the machine's own memory where there is no GPU."""
    if room is not None:
        return room
    gpus = host.gpu_memory()
    if gpus:
        return min(gpu.free for gpu in gpus) / fit.GIB
    return (host.free_memory() or 0) / fit.GIB


def settled(wanted: float) -> float:
    """Wait until GPUs have as much free as they had before, within a GiB, or do not get it back; what they have."""
    deadline = time.monotonic() + SETTLE
    while (found := free(None)) < wanted - 1 and time.monotonic() < deadline:
        time.sleep(LOOK)
    return found


def held(servers: Iterable[Server]) -> dict[str, list[float]]:
    """Tell the GiB that each server holds of each GPU, by its name; nothing where the driver names no processes."""
    whose = {pid: leader for leader, pids in sessions().items() for pid in pids}
    found: dict[str, list[float]] = {}
    gpus = host.gpu_memory()
    for server in servers:
        each = [
            sum(holder.used or 0 for holder in gpu.processes if whose.get(holder.pid or 0) == server.process.pid)
            for gpu in gpus
        ]
        if any(each):
            found[server.name] = [round(used / fit.GIB, 2) for used in each]
    return found


def reported(text: str) -> dict[str, str]:
    """Pick from a log what vLLM says of its memory, and which kernels it took."""
    found: dict[str, str] = {}
    for key, pattern in fit.REPORTED.items():
        said = re.findall(pattern, text)
        if said:
            found[key] = said[-1]
    for key, each in CHOICES.items():
        said = list(dict.fromkeys(each.findall(text)))
        if said:
            found[key] = ", ".join(said)
    return found


def reason(text: str) -> tuple[str, list[str]]:
    """Say why a server died: the line that tells it, and the last lines of its log that may."""
    lines = [line for line in text.splitlines() if line.strip()]
    telling = [line.strip()[:300] for line in lines if failures.telling(line)]
    return failures.cause(lines).splitlines()[0][:300], list(dict.fromkeys(telling))[-5:] or lines[-5:]
