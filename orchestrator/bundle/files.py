"""The files of a bundle on this disk: written under another name until they are whole, hashed, and room for them."""

import errno
import hashlib
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from orchestrator.bundle.meter import Meter, amount
from orchestrator.errors import TandemError

BLOCK = 1 << 20
UNFINISHED = ".part"
_FAT = "; FAT32 takes no file of 4 GiB or more: use a drive with exFAT, NTFS or ext4"
Free = Callable[[Path], int]


@contextmanager
def told(path: Path, what: str) -> Iterator[None]:
    """Turn what the disk refuses into one line; what is `written` or `read`."""
    try:
        yield
    except OSError as error:
        hint = _FAT if error.errno == errno.EFBIG else ""
        raise TandemError(f"{path}: cannot be {what}: {error.strerror or error}{hint}") from None


def write(path: Path, chunks: Iterable[bytes], meter: Meter) -> tuple[int, str]:
    """Write a file that has its name only when it is whole; its size and sha256. An empty chunk only passes time."""
    part = path.with_name(path.name + UNFINISHED)
    hashed = hashlib.sha256()
    size = 0
    try:
        with told(path, "written"):
            path.parent.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as stream:
                for chunk in chunks:
                    stream.write(chunk)
                    hashed.update(chunk)
                    size += len(chunk)
                    meter.add(len(chunk))
            part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return size, hashed.hexdigest()


def write_text(path: Path, content: str) -> None:
    """Write a small file in one step."""
    part = path.with_name(path.name + UNFINISHED)
    with told(path, "written"):
        part.write_text(content, encoding="utf-8")
        part.replace(path)


def read(path: Path) -> Iterator[bytes]:
    """Give a file's bytes, a block at a time."""
    with told(path, "read"), path.open("rb") as stream:
        while chunk := stream.read(BLOCK):
            yield chunk


def digest(path: Path, meter: Meter) -> str:
    """Hash a file."""
    hashed = hashlib.sha256()
    for chunk in read(path):
        hashed.update(chunk)
        meter.add(len(chunk))
    return hashed.hexdigest()


def text(path: Path) -> str:
    """Read a small file whole; a byte that is no text shows as one that nobody wrote."""
    with told(path, "read"):
        return path.read_text(encoding="utf-8", errors="replace")


def size(path: Path) -> int | None:
    """The size of a plain file; None when there is none, or it is something else, or a link."""
    mode, found = _look(path)
    return found if stat.S_ISREG(mode) else None


def is_link(path: Path) -> bool:
    """Say whether a path is a symbolic link."""
    return stat.S_ISLNK(_look(path)[0])


def _look(path: Path) -> tuple[int, int]:
    # Path's own questions answer no, or raise, where a folder may not be read: each Python its own way.
    with told(path, "read"):
        try:
            found = path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return 0, 0
    return found.st_mode, found.st_size


def free(path: Path) -> int:
    """The free bytes where path is, or will be."""
    with told(path, "read"):
        return shutil.disk_usage(_existing(path)).free


@dataclass(frozen=True)
class Need:
    """So many bytes that will be written where path is."""

    path: Path
    size: int


def check_space(needs: Iterable[Need], available: Free) -> None:
    """Raise TandemError when a disk has less free than all that goes there needs."""
    by_disk: dict[int, list[Need]] = {}
    for need in needs:
        if need.size:
            with told(need.path, "read"):
                disk = _existing(need.path).stat().st_dev
            by_disk.setdefault(disk, []).append(need)
    for there in by_disk.values():
        needed, found = sum(need.size for need in there), available(there[0].path)
        if found < needed:
            raise TandemError(
                f"no space: {' and '.join(str(need.path) for need in there)} "
                f"{'need' if len(there) > 1 else 'needs'} {amount(needed)}, and {amount(found)} is free there"
            )


def _existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.absolute().parents) if folder.exists())
