"""Hashes files as they are on the disk."""

import hashlib
from collections.abc import Callable
from pathlib import Path

from weights.manifest import File

BLOCK = 1 << 20


def sha256(path: Path, listed: File, tell: Callable[[int], None] = lambda _: None) -> str | None:
    """Hash a file; its sha256 in hexadecimal when it is what the hub lists, else None.

    tell is given the bytes of each block. Raises OSError when the disk cannot read it.
    """
    own = hashlib.sha256()
    # Hugging Face names small files by git's own hash: https://git-scm.com/book/en/v2/Git-Internals-Git-Objects
    git = hashlib.sha1(b"blob %d\0" % listed.size, usedforsecurity=False) if listed.git else None
    size = 0
    with path.open("rb", buffering=0) as stream:
        while block := stream.read(BLOCK):
            own.update(block)
            if git is not None:
                git.update(block)
            size += len(block)
            tell(len(block))
    digest = own.hexdigest()
    agrees = (
        size == listed.size
        and (not listed.sha256 or digest == listed.sha256)
        and (git is None or git.hexdigest() == listed.git)
    )
    return digest if agrees else None
