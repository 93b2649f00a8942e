"""One start at a time on each GPU: a lock on a file per GPU in a folder that all servers share.

The locks are flocks, which the kernel gives back with their process, however it ends: there are no stale ones.
"""

import errno
import fcntl
import functools
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from gating import waiting

INTERVAL = 0.2


class Locks:
    """The locks of a server that starts; let_go gives them back."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._held: list[int] = []

    def take(self, folder: Path, gpus: Iterable[int], name: str) -> None:
        """Take the locks of GPUs, and wait for those that another start holds; name is what those who wait are told.

        In the order of the GPUs, so that no two starts wait for each other. Where locks cannot be had there are none:
        the wait for memory still keeps most starts apart. Raises signals.Stopped when a signal asks for the end.
        """
        if not folder.is_dir():
            self._say(f"no locks: {folder} is not mounted")
            return
        for gpu in sorted(gpus):
            path = folder / f"lock-{gpu}"
            try:
                lock = _open(path)
            except OSError as error:
                self._say(f"no lock for GPU {gpu}: {error}")
                continue
            waiting.until(functools.partial(_blocked, lock, gpu), self._say, INTERVAL)
            self._held.append(lock)
            # Of one that was killed the name is still there.
            os.truncate(lock, 0)
            os.pwrite(lock, name.encode(), 0)

    def let_go(self) -> None:
        """Give back what is held; a second call does nothing."""
        while self._held:
            lock = self._held.pop()
            # Or the next one's name would be this one's until that is written.
            os.truncate(lock, 0)
            os.close(lock)


def _open(path: Path) -> int:
    # In a folder that everyone may write to, the kernel refuses O_CREAT for the file of another user.
    while True:
        try:
            return os.open(path, os.O_RDWR)
        except FileNotFoundError:
            try:
                lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
            except FileExistsError:
                continue
            # Servers may run as different users, whatever this one's umask says.
            os.fchmod(lock, 0o666)
            return lock


def _blocked(lock: int, gpu: int) -> str | None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in {errno.EWOULDBLOCK, errno.EACCES}:
            raise
        holder = os.pread(lock, 200, 0).decode(errors="replace")
        # One that has the lock writes its name next.
        return f"GPU {gpu}: {holder} is starting on it" if holder else ""
    return None
