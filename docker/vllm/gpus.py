"""Tells of the machine's GPUs on a socket, and ends what a dead container of this project left on one.

  gpus.py [SOCKET]

GET /gpus gives {"gpus": [{"index", "uuid", "name", "total", "reserved", "free", "processes": [{"pid", "name", "used",
"container"}]}]}: sizes in bytes, used null where the driver does not say, container an id or "". POST /kill/PID with
{"containers": [ids]} kills a process that belongs to one of these, if that container is dead. It runs in the machine's
own namespace of processes, with no network. TANDEM_GPUS names the GPUs that it was given.
"""

import contextlib
import json
import os
import re
import signal
import socketserver
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import nvml

SOCKET = Path("/run/gpus/gpus.sock")
PROC = Path("/proc")
# Docker's ids, however a cgroup is spelt: /docker/ID, /system.slice/docker-ID.scope, /kubepods/…/ID, /../ID.
CONTAINER = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
# A list of ids is small.
MOST = 1 << 16


class Processes:
    """The machine's processes, as /proc tells of them."""

    def __init__(self, proc: Path = PROC) -> None:
        self._proc = proc

    def name(self, pid: int) -> str:
        """Give a process's name: the kernel's, or, where it ends short, that of its program; "" when it is gone."""
        short = self._read(pid, "comm").strip()
        # The kernel keeps 15 characters of it.
        program = self._read(pid, "cmdline").partition("\0")[0].rpartition("/")[2]
        return program if len(short) == 15 and program.startswith(short) else short

    def container(self, pid: int) -> str:
        """Give the id of the container that a process belongs to, or ""; the innermost where one is in another."""
        found = CONTAINER.findall(self._read(pid, "cgroup"))
        return found[-1] if found else ""

    def runs(self, container: str) -> bool:
        """Whether a container has its first process still.

        One that shares the machine's processes has none of its own; of that, the caller's word is all there is.
        """
        return any(self.container(pid) == container and self._is_first(pid) for pid in self._all())

    def _is_first(self, pid: int) -> bool:
        status = self._read(pid, "status")
        inner = re.search(r"^NSpid:.*\t(\d+)$", status, re.MULTILINE)
        return inner is not None and inner[1] == "1" and not re.search(r"^State:\s+[ZX]", status, re.MULTILINE)

    def _all(self) -> Iterator[int]:
        return (int(entry.name) for entry in self._proc.iterdir() if entry.name.isdecimal())

    def _read(self, pid: int, name: str) -> str:
        try:
            return (self._proc / str(pid) / name).read_text(errors="replace")
        except OSError:
            return ""


class Reader:
    """What the service answers: the GPUs, and the end of a process."""

    def __init__(
        self, reserved: Sequence[int], processes: Processes, load: Callable[[], nvml.Nvml | nvml.Fault] = nvml.load
    ) -> None:
        self._load = load
        self._reserved = reserved
        self._processes = processes
        self._library: nvml.Nvml | None = None
        self._lock = threading.Lock()

    def gpus(self) -> list[dict[str, Any]] | nvml.Fault:
        """Read the GPUs, by the machine's numbers."""
        with self._lock:
            found = self._look()
        return found if isinstance(found, nvml.Fault) else [self._told(gpu) for gpu in found]

    def _look(self) -> list[nvml.Gpu] | nvml.Fault:
        if self._library is None:
            loaded = self._load()
            if isinstance(loaded, nvml.Fault):
                return loaded
            self._library = loaded
        seen = self._library.gpus()
        if isinstance(seen, nvml.Fault):
            # A driver that was reloaded knows nothing of those who used it before.
            self._library.close()
            self._library = None
            return seen
        return nvml.numbered(seen, self._reserved) if self._reserved else seen

    def _told(self, gpu: nvml.Gpu) -> dict[str, Any]:
        told = asdict(gpu)
        del told["used"]
        told["processes"] = [
            {"pid": one.pid, "name": self._processes.name(one.pid), "used": one.used,
             "container": self._processes.container(one.pid)}
            for one in gpu.processes
        ]  # fmt: skip
        return told

    def kill(self, pid: int, containers: Sequence[str]) -> tuple[int, str]:
        """Kill a process that a dead container of these left behind; a status of HTTP, and words."""
        try:
            # Taken before the check: it stays that process, also when its number is given to another.
            held = os.pidfd_open(pid)
        except (ProcessLookupError, ValueError, OverflowError):
            return 404, f"there is no process {pid}"
        except OSError as error:
            return 403, f"process {pid}: {error.strerror}"
        try:
            container = self._processes.container(pid)
            if not container or container not in containers:
                return 403, f"process {pid} belongs to no container that was named"
            if self._processes.runs(container):
                return 403, f"the container of process {pid} is running"
            signal.pidfd_send_signal(held, signal.SIGKILL)
        except ProcessLookupError:
            return 404, f"there is no process {pid}"
        except PermissionError:
            return 403, f"process {pid} may not be killed by this service"
        finally:
            os.close(held)
        return 200, f"process {pid} was killed"


class Handler(BaseHTTPRequestHandler):
    """Two paths; everything else is not found."""

    reader: Reader
    timeout = 10

    def do_GET(self) -> None:
        if self.path != "/gpus":
            return self._text(404, "not found")
        found = self.reader.gpus()
        if isinstance(found, nvml.Fault):
            return self._text(503, str(found))
        return self._answer(200, "application/json", json.dumps({"gpus": found}))

    def do_POST(self) -> None:
        path = re.fullmatch(r"/kill/([1-9][0-9]{0,9})", self.path)
        if not path:
            return self._text(404, "not found")
        containers = self._containers()
        if containers is None:
            return self._text(400, 'the body should be {"containers": [ids]}')
        status, text = self.reader.kill(int(path[1]), containers)
        print(f"kill {path[1]}: {text}", flush=True)
        return self._text(status, text)

    def _containers(self) -> list[str] | None:
        try:
            size = int(self.headers.get("Content-Length", ""))
            found = json.loads(self.rfile.read(size))["containers"] if 0 <= size <= MOST else None
        except (ValueError, KeyError, TypeError):
            return None
        whole = isinstance(found, list) and all(isinstance(one, str) and CONTAINER.fullmatch(one) for one in found)
        return found if whole else None

    def _text(self, status: int, text: str) -> None:
        self._answer(status, "text/plain; charset=utf-8", text + "\n")

    def _answer(self, status: int, kind: str, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 (http.server's name)
        """Say nothing: it is asked several times a second."""

    def address_string(self) -> str:
        return "socket"


class Service(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """The socket, and a thread for each who asks."""

    daemon_threads = True
    request_queue_size = 64


def service(path: Path, reader: Reader) -> Service:
    """Listen on a socket that every user may ask; one that an earlier service left is taken away."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    handler = type("Bound", (Handler,), {"reader": reader})
    made = Service(str(path), handler)
    path.chmod(0o666)
    return made


def main(argv: list[str]) -> int:
    """Serve until SIGTERM."""
    path = Path(argv[0]) if argv else SOCKET
    reader = Reader(nvml.numbers(os.environ.get("TANDEM_GPUS", "")), Processes())
    # The first process of a container has no default handling of signals.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    found = reader.gpus()
    print(f"no GPUs yet: {found}" if isinstance(found, nvml.Fault) else f"reading {len(found)} GPUs", flush=True)
    with service(path, reader) as made:
        made.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
