"""How much time of a core a contender took: it says more than a clock where other programs are busy. Linux only."""

import contextlib
from collections.abc import Iterable
from pathlib import Path

PROC = Path("/proc")


def family(first: int) -> list[int]:
    """A process and all that it started, as they are now."""
    parents = {}
    for entry in PROC.glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The name before it, in brackets, may hold anything.
            parents[int(entry.parent.name)] = int(entry.read_text().rpartition(")")[2].split()[1])
    found = [first]
    for pid in found:
        found.extend(child for child, parent in parents.items() if parent == pid)
    return found


def used(pids: Iterable[int]) -> float:
    """Milliseconds that these ran on a core, all threads that live together."""
    total = 0
    for pid in pids:
        for entry in PROC.glob(f"{pid}/task/*/schedstat"):
            with contextlib.suppress(OSError):
                total += int(entry.read_text().split()[0])
    return total / 1e6
