"""Whether the GPUs have the memory that a server will claim, and who has it when they do not."""

import json
import socket
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import nvml

from gating import waiting

INTERVAL = 0.25
# Memory comes back in steps while a process ends, and a last look may fall between two.
LOOKS = 2
# What a driver keeps or lends on an idle card: a claim of nearly all is not to wait for the last of it for ever.
SLACK = 64 << 20
GIB = 1 << 30


class Memory:
    """Watches GPUs for one server. reader is the socket of the service that knows processes by their names."""

    def __init__(self, reader: Path, say: Callable[[str], None]) -> None:
        self._reader = reader
        self._say = say
        self._good = 0
        self._fault = ""

    def wait(self, library: nvml.Nvml, gpus: tuple[int, ...], share: float) -> None:
        """Return once each GPU has that share of its memory free, two looks in a row.

        Raises signals.Stopped when a signal asks for the end. A driver that fails is not waited for: vLLM then says
        what is wrong with it.
        """
        waiting.until(lambda: self._look(library, gpus, share), self._say, INTERVAL)
        if self._fault:
            self._say(f"no wait for memory: {self._fault}")

    def _look(self, library: nvml.Nvml, gpus: tuple[int, ...], share: float) -> str | None:
        seen = library.gpus()
        found = seen if isinstance(seen, nvml.Fault) else nvml.numbered(seen, gpus)
        if isinstance(found, nvml.Fault):
            self._fault = str(found)
            return None
        short = [gpu for gpu in found if gpu.free < needed(gpu, share)]
        self._good = 0 if short else self._good + 1
        if not short:
            return None if self._good >= LOOKS else ""
        known = ask(self._reader)
        return "memory: " + "; ".join(lacking(gpu, share, known.get(gpu.index, [])) for gpu in short)


def needed(gpu: nvml.Gpu, share: float) -> int:
    """Say how many bytes must be free for a server that claims a share: never more than an idle card has."""
    return min(int(share * gpu.total), gpu.total - gpu.reserved - SLACK)


def lacking(gpu: nvml.Gpu, share: float, known: Iterable[Mapping[str, Any]]) -> str:
    """Say what a GPU has and lacks, and who has it; known is what the reader of the GPUs says of its processes."""
    named = {entry.get("pid"): entry for entry in known}
    unnamed: Iterable[Mapping[str, Any]] = ({"pid": one.pid, "used": one.used} for one in gpu.processes)
    holders = ", ".join(map(_holder, named.values() if named else unnamed))
    return (
        f"GPU {gpu.index} has {_gib(gpu.free)} of the {_gib(needed(gpu, share))} GiB that are needed; "
        f"held by {holders or 'what the driver does not name'}"
    )


def _holder(entry: Mapping[str, Any]) -> str:
    words = [str(entry.get("name") or "a process"), f"pid {entry.get('pid')}"]
    if isinstance(entry.get("used"), int):
        words.append(f"{_gib(entry['used'])} GiB")
    if entry.get("container"):
        words.append(f"container {str(entry['container'])[:12]}")
    return f"{words[0]} ({', '.join(words[1:])})"


def _gib(size: int) -> str:
    return f"{size / GIB:.1f}"


def ask(reader: Path) -> dict[int, list[dict[str, Any]]]:
    """Ask the reader of the GPUs for the processes on each, by index; nothing where it does not answer.

    In a container NVML gives process ids that mean nothing there, or none at all.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
            line.settimeout(2)
            line.connect(str(reader))
            line.sendall(b"GET /gpus HTTP/1.0\r\n\r\n")
            answer = b"".join(iter(lambda: line.recv(65536), b""))
        body = json.loads(answer.partition(b"\r\n\r\n")[2])
        return {int(gpu["index"]): list(gpu["processes"]) for gpu in body["gpus"]}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
