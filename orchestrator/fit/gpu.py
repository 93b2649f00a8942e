"""What nvidia-smi says of GPUs' memory and of who holds it, as values. Pure.

nvidia-smi is NVML's own command; under WSL2 it names neither processes nor what each holds.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

MIB = 1 << 20
# What is asked for, in this order. `reserved` is the driver's own; drivers before 510 do not know the word.
FIELDS = ("index", "uuid", "name", "memory.total", "memory.used", "memory.free", "memory.reserved")
PROCESS_FIELDS = ("gpu_uuid", "pid", "process_name", "used_memory")


@dataclass(frozen=True)
class Process:
    """Who holds memory of a GPU: process id, name and bytes; None where the driver does not say."""

    pid: int | None
    name: str
    used: int | None


@dataclass(frozen=True)
class Gpu:
    """One GPU: bytes in all (without what the driver keeps), free and used, and the processes that compute on it."""

    index: int
    name: str
    total: int
    free: int
    used: int
    processes: tuple[Process, ...] = ()


def read(gpus: str, processes: str) -> list[Gpu]:
    """Read both answers of nvidia-smi (csv, no header, no units); lines that are none are left out."""
    held: dict[str, list[Process]] = {}
    for line in processes.splitlines():
        words = [word.strip() for word in line.split(",")]
        if len(words) >= len(PROCESS_FIELDS):
            pid = int(words[1]) if words[1].isdigit() else None
            found = Process(pid, ",".join(words[2:-1]), _bytes(words[-1]))
            held.setdefault(words[0], []).append(found)
    listed = [_gpu([word.strip() for word in line.split(",")], held) for line in gpus.splitlines()]
    return [gpu for gpu in listed if gpu is not None]


def _gpu(words: list[str], held: dict[str, list[Process]]) -> Gpu | None:
    if len(words) not in (len(FIELDS) - 1, len(FIELDS)) or not words[0].isdigit():
        return None
    total, used, free, *rest = [_bytes(word) for word in words[3:]]
    if total is None or used is None or free is None:
        return None
    reserved = rest[0] if rest and rest[0] is not None else max(total - used - free, 0)
    return Gpu(int(words[0]), words[2], total - reserved, free, used, tuple(held.get(words[1], ())))


def _bytes(text: str) -> int | None:
    """Read a size in MiB; None for [N/A] and what else is no number."""
    return int(text) * MIB if re.fullmatch(r"[0-9]+", text) else None


def attributed(gpu: Gpu, pids: Iterable[int]) -> int | None:
    """Bytes of a GPU that processes hold; None where the driver does not tell which of them holds how much."""
    wanted = set(pids)
    mine = [process for process in gpu.processes if process.pid in wanted]
    sizes = [process.used for process in mine if process.used is not None]
    return sum(sizes) if mine and len(sizes) == len(mine) else None
