"""A server's processes: all that descend from this one, whatever became of those between. Reads /proc and kills."""

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

PROC = Path("/proc")
SUBREAPER = 36
# What a process has, after it is asked to end, and after it is killed: one that the driver holds may take longer still.
ASKED, KILLED = 3.0, 2.0
# Most workers end by themselves when their server does.
GOING = 0.5


def adopt() -> None:
    """Become the parent of all orphans below, so that none can get out of sight, not even with a session of its own."""
    ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)


def reap() -> dict[int, int]:
    """Take leave of children that ended; their exit codes by process id, 128 and the signal's number for a signal."""
    ended = {}
    with contextlib.suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            code = os.waitstatus_to_exitcode(found[1])
            ended[found[0]] = code if code >= 0 else 128 - code
    return ended


def living(root: int | None = None) -> list[int]:
    """List what descends from a process (this one), without itself and without what has ended."""
    parents = {}
    for entry in PROC.iterdir():
        if entry.name.isdecimal():
            # One that ends meanwhile is not there any more.
            with contextlib.suppress(OSError, IndexError, ValueError):
                # After the name in parentheses, which may hold anything: state, parent.
                state, parent = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[:2]
                if state not in "ZX":
                    parents[int(entry.name)] = int(parent)
    found = {os.getpid() if root is None else root}
    more = found
    while more:
        more = {pid for pid, parent in parents.items() if parent in more and pid not in found}
        found = found | more
    return sorted(found - {os.getpid() if root is None else root})


def send(number: int) -> list[int]:
    """Send a signal to all that descend from this process; their ids."""
    found = living()
    for pid in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
    return found


def clear(say: Callable[[str], None], asked: float = ASKED, killed: float = KILLED) -> None:
    """End all that is left of a server that has ended: with SIGTERM, then with SIGKILL."""
    if not (left := _gone_in(GOING)):
        return
    say(f"the server left {len(left)} processes behind: ending them")
    for number, seconds in ((signal.SIGTERM, asked), (signal.SIGKILL, killed)):
        send(number)
        # What was born since then is not spared.
        if not (left := _gone_in(seconds, signal.SIGKILL if number == signal.SIGKILL else None)):
            return
    say(f"processes that could not be ended: {', '.join(map(str, left))}")


def _gone_in(seconds: float, number: int | None = None) -> list[int]:
    """Wait so long for all to be gone, and send them a signal at each look; those that are not."""
    end = time.monotonic() + seconds
    while left := living():
        if time.monotonic() >= end:
            break
        if number is not None:
            send(number)
        time.sleep(0.02)
        reap()
    reap()
    return left
