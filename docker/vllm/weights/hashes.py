"""Hashes files as they are on the disk."""

import hashlib
from collections.abc import Callable
from pathlib import Path

from weights.manifest import File

BLOCK = 1 << 20


class Hash:
    """The hash of a file that is listed, block by block."""

    def __init__(self, listed: File) -> None:
        self._listed = listed
        self._size = 0
        self._own = hashlib.sha256()
        # Hugging Face names small files by git's own hash: https://git-scm.com/book/en/v2/Git-Internals-Git-Objects
        self._git = hashlib.sha1(b"blob %d\0" % listed.size, usedforsecurity=False) if listed.git else None

    def update(self, block: bytes) -> None:
        """Take the next block."""
        self._own.update(block)
        if self._git is not None:
            self._git.update(block)
        self._size += len(block)

    def digest(self) -> str | None:
        """Give the sha256 in hexadecimal when all of it is what the hub lists, else None."""
        digest = self._own.hexdigest()
        agrees = (
            self._size == self._listed.size
            and (not self._listed.sha256 or digest == self._listed.sha256)
            and (self._git is None or self._git.hexdigest() == self._listed.git)
        )
        return digest if agrees else None


def followed(path: Path, listed: File, tell: Callable[[int], object]) -> str | None:
    """Hash a file as sha256() does; tell is given the bytes that were read so far.

    What the disk cannot read is as good as gone: None. Raises PermissionError, as whose file it is says nothing of what
    is in it.
    """
    read = 0

    def add(size: int) -> None:
        nonlocal read
        read += size
        tell(read)

    try:
        return sha256(path, listed, add)
    except PermissionError:
        raise
    except OSError:
        return None


def sha256(path: Path, listed: File, tell: Callable[[int], None] = lambda _: None) -> str | None:
    """Hash a file; its sha256 in hexadecimal when it is what the hub lists, else None.

    tell is given the bytes of each block. Raises OSError when the disk cannot read it.
    """
    found = Hash(listed)
    with path.open("rb", buffering=0) as stream:
        while block := stream.read(BLOCK):
            found.update(block)
            tell(len(block))
    return found.digest()
