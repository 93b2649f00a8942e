"""Where weights are in the volume: a whole model under its own name, one that is being pulled in a folder aside.

A model's folder appears under its name in one step, when every file of it has been checked; nothing else is served.
"""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from weights import manifest
from weights.manifest import File, Model

ROOT = Path("/models")
OWN = ".tandem"


class Store:
    """One model's places in the volume."""

    def __init__(self, model: str, root: Path = ROOT) -> None:
        """Take a model's org/name."""
        self.root = root
        self.model = model
        self.final = root / model
        self.aside = root / OWN / "pulling" / model
        self.old = root / OWN / "old" / model
        self._lock = root / OWN / "locks" / f"{model}.lock"
        self._used = root / OWN / "used" / model

    def whole(self) -> Model | None:
        """Give the manifest of the model if it is whole."""
        return manifest.whole(self.final)

    def state(self) -> Model | None:
        """Give what is known of a pull that did not end."""
        return manifest.read(self.aside / manifest.STATE)

    def save(self, model: Model) -> None:
        """Write down how far a pull is."""
        self.aside.mkdir(parents=True, exist_ok=True)
        manifest.write(self.aside / manifest.STATE, model)

    @contextlib.contextmanager
    def lock(self, *, wait: bool = False) -> Iterator[bool]:
        """Hold the model for this process alone; gives False when another has it and wait is not set.

        The kernel lets go of the lock with its process, however that ends: none is ever stale.
        """
        self._lock.parent.mkdir(parents=True, exist_ok=True)
        with self._lock.open("a") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True

    @property
    def busy(self) -> bool:
        """Whether another process holds the model; unlike lock() this writes nothing."""
        try:
            with self._lock.open() as handle:
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def present(self, name: str, file: File) -> int:
        """Say how many bytes of a listed file are here, finished or not."""
        for path in (self.aside / name, partial(self.aside / name)):
            with contextlib.suppress(OSError):
                return min(path.stat().st_size, file.size)
        return 0

    def free(self) -> int:
        """Say how many bytes the volume has room for."""
        return shutil.disk_usage(self.root).free

    def misplaced(self) -> str | None:
        """Say what is in the model's place and is no folder; None where nothing else is."""
        if self.final.is_symlink():
            return "a link"
        return "a file" if self.final.exists() and not self.final.is_dir() else None

    def adopt(self, listed: Model) -> None:
        """Take what is here into the pull: a folder without a manifest whole, of another revision what agrees.

        Nothing that is adopted counts before it has been checked.
        """
        there = self.whole()
        if there is None:
            if not self.aside.exists():
                self.set_aside()
            return
        self.aside.mkdir(parents=True, exist_ok=True)
        for name, file in listed.files.items():
            if file.sha256 and there.checked.get(name) == file.sha256 and not (self.aside / name).exists():
                (self.aside / name).parent.mkdir(parents=True, exist_ok=True)
                # The same bytes under two names: the revision that is served stays whole until the new one is. Where
                # the disk knows no second name, they are fetched.
                with contextlib.suppress(OSError):
                    os.link(self.final / name, self.aside / name)
        self._keep_own(there)

    def _keep_own(self, there: Model) -> None:
        """Have what a user put beside a model's files come along to its next revision."""
        for path in self.final.rglob("*"):
            name = str(path.relative_to(self.final))
            if path.is_file() and name not in there.files and manifest.unsafe(name) is None:
                (self.aside / name).parent.mkdir(parents=True, exist_ok=True)
                if not (self.aside / name).exists():
                    try:
                        os.link(path, self.aside / name)
                    except OSError:  # another user's, or a disk that knows no second name
                        shutil.copyfile(path, self.aside / name)

    def set_aside(self) -> None:
        """Move a model that is not whole to where nothing is served from."""
        if self.final.is_dir():
            # The manifest first: in the folder aside it would say that only the name is missing.
            (self.final / manifest.NAME).unlink(missing_ok=True)
            self.aside.parent.mkdir(parents=True, exist_ok=True)
            self.final.rename(self.aside)

    def publish(self, model: Model) -> None:
        """Give a model whose every file was checked its name, in one step; what had the name before is removed."""
        for name in model.files:
            flush(self.aside / name)
            partial(self.aside / name).unlink(missing_ok=True)
        manifest.write(self.aside / manifest.NAME, model)
        self.swap()

    def swap(self) -> None:
        """Put a finished folder under the model's name; also the rest of a publishing that was interrupted."""
        self.sweep()
        # Only now: between the two files nothing would say what the hub listed, and another pull would ask it again.
        (self.aside / manifest.STATE).unlink(missing_ok=True)
        self.final.parent.mkdir(parents=True, exist_ok=True)
        if self.final.exists():
            self.old.parent.mkdir(parents=True, exist_ok=True)
            self.final.rename(self.old)
        self.aside.rename(self.final)
        manifest.sync(self.final.parent)
        self.sweep()

    def sweep(self) -> None:
        """Remove what had the name before, also where a publishing was interrupted after its last step but this."""
        discard(self.old)

    def forget(self, names: Iterable[str]) -> None:
        """Remove files of the pull that the model no longer has, and what was fetched of them."""
        for name in names:
            for path in (self.aside / name, partial(self.aside / name)):
                path.unlink(missing_ok=True)

    def finished(self) -> bool:
        """Whether a pull was interrupted between its manifest and the name: then only the name is missing."""
        return manifest.whole(self.aside) is not None

    def remove(self) -> int:
        """Remove the model, finished or not; the bytes that were freed."""
        freed = sum(bytes_in(folder) for folder in (self.final, self.aside, self.old))
        # The manifest first: half a removal is no model.
        (self.final / manifest.NAME).unlink(missing_ok=True)
        for folder in (self.final, self.aside, self.old):
            discard(folder)
        self._used.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.final.parent.rmdir()
        return freed

    def touch(self) -> None:
        """Note that a server of the model starts now."""
        with contextlib.suppress(OSError):  # a courtesy; a place that is read-only serves all the same
            self._used.parent.mkdir(parents=True, exist_ok=True)
            self._used.touch()

    def used(self) -> float | None:
        """Say when a server of the model was last started, in Unix seconds; None when that is not known."""
        with contextlib.suppress(OSError):
            return self._used.stat().st_mtime
        return None


def partial(path: Path) -> Path:
    """Name the file that holds the first part of another: ModelScope's client calls it so, and so do we."""
    return path.with_name(path.name + ".incomplete")


def discard(path: Path) -> None:
    """Remove a folder with all that is in it, or what is in its place."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)


def bytes_in(folder: Path) -> int:
    """Say how many bytes the files of a folder take; 0 when it is not there."""
    total = 0
    # What a pull moves or removes meanwhile is gone, and no error.
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(parent, name)).st_size  # noqa: PTH118 (as os.walk gives it)
    return total


def flush(path: Path) -> None:
    """Have a file's content on the disk."""
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
