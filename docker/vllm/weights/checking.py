"""Sees that the files of a pull are what its hub lists: those that lie there already, and each one that comes."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

from weights import explain, hashes
from weights.manifest import Model
from weights.meter import Progress
from weights.store import Store, flush

# A file that arrives changed is fetched so often in all.
FETCHES = 3
# Threads that hash; beside the transfer, one keeps up with any line, and all files at rest go at the disk's speed.
HASHERS = 4


class Checks:
    """The checks of one pull; what they find is written down at once, so that no later pull has to look again."""

    def __init__(self, known: Model, store: Store, say: Callable[..., None], lost: Callable[[str], None]) -> None:
        """Known is what the hub lists, and gets what was found right; lost is told of a file that has to come again."""
        self._known = known
        self._store = store
        self._say = say
        self._lost = lost
        self._pool = ThreadPoolExecutor(HASHERS)
        self._under_way: list[Future[None]] = []
        self._lock = threading.Lock()
        # How often each file arrived damaged.
        self.bad: dict[str, int] = {}

    def close(self) -> None:
        """Wait for the checks that are under way, and begin no other."""
        self._pool.shutdown(cancel_futures=True)

    def unfinished(self) -> list[str]:
        """Name the files that are not known to be right."""
        return [name for name in self._known.files if name not in self._known.checked]

    def _at_rest(self, name: str) -> bool:
        path = self._store.aside / name
        return path.is_file() and path.stat().st_size == self._known.files[name].size

    def present(self, show: Callable[[Progress], AbstractContextManager[Any]], clock: Callable[[], float]) -> None:
        """Check files that are here and that nobody has checked yet: adopted, or of a pull that was killed."""
        for name in [name for name in self._known.checked if not self._at_rest(name)]:
            del self._known.checked[name]  # somebody removed it since
        for name in self.unfinished():
            path = self._store.aside / name
            if path.exists() and not self._at_rest(name):
                path.unlink()  # a client would take it for finished, or refuse to begin
        waiting = [name for name in self.unfinished() if self._at_rest(name)]
        if not waiting:
            return
        seen = Progress({name: self._known.files[name].size for name in waiting}, {}, clock)
        with show(seen):
            tasks = {name: self._pool.submit(self._hash, name, seen) for name in waiting}
            for name, task in tasks.items():
                if not task.result():
                    self._say("damaged", f"{name} is not what the hub lists: it is fetched again", file=name)
                    (self._store.aside / name).unlink(missing_ok=True)

    def submit(self, name: str, digest: str) -> None:
        """Check a file that came, if it did; digest is its sha256 where it was hashed, and found right, as it came."""
        if self._at_rest(name):
            self._under_way.append(self._pool.submit(self._check, name, digest))

    def settle(self) -> None:
        """Wait for the checks. Raises RefusedError for a file that never comes right."""
        while self._under_way:
            self._under_way.pop().result()
        for name in self.unfinished():
            if self._at_rest(name):
                self._check(name, "")
        worst = [name for name, times in self.bad.items() if times >= FETCHES]
        if worst:
            raise explain.damaged(worst[0], self._known.source)

    def _check(self, name: str, digest: str) -> None:
        if name in self._known.checked:
            return
        flush(self._store.aside / name)
        if digest:
            self._right(name, digest)
        if digest or self._hash(name):
            self._say("file", f"pulled {name}", file=name, bytes=self._known.files[name].size)
            return
        (self._store.aside / name).unlink(missing_ok=True)
        self._lost(name)
        self.bad[name] = self.bad.get(name, 0) + 1
        self._say("damaged", f"{name} arrived damaged: it is fetched again", file=name)

    def _hash(self, name: str, seen: Progress | None = None) -> bool:
        """Hash a file, and note it when it is right."""

        def tell(read: int) -> None:
            if seen is not None:
                seen.at(name, read)

        digest = hashes.followed(self._store.aside / name, self._known.files[name], tell)
        if digest is not None:
            self._right(name, digest)
        return digest is not None

    def _right(self, name: str, digest: str) -> None:
        with self._lock:
            self._known.checked[name] = digest
            self._store.save(self._known)
