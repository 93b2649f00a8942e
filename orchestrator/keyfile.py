"""Reads and writes the file of the keys on the disk, so that the router can read it and nobody else needs to."""

import os
from contextlib import suppress
from pathlib import Path

from orchestrator.errors import ConfigError, TandemError
from orchestrator.settings import unreadable

NAME = "keys"
# Whom the router runs as, in its container.
ROUTER = 1000


def read(path: Path) -> str:
    """Read the file; "" where there is none. Raises ConfigError when it cannot be read."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"{path}: cannot be read: {unreadable(error)}"]) from None


def mode(user: int) -> int:
    """Give the rights of a file that a user of this machine writes and the router has to read."""
    return 0o600 if user in (0, ROUTER) else 0o644


def write(path: Path, text: str, *, user: int) -> None:
    """Put the file on the disk in one step. Raises TandemError when it cannot be written."""
    new = path.with_name(f"{path.name}.new")
    try:
        path.parent.mkdir(exist_ok=True)
        new.unlink(missing_ok=True)
        # Nobody else may open it before its rights are as they should be.
        handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(handle)
            os.fchmod(handle, mode(user))
            if user == 0:
                os.fchown(handle, ROUTER, -1)
        new.replace(path)
    except OSError as error:
        with suppress(OSError):
            new.unlink(missing_ok=True)
        raise TandemError(f"{path}: cannot be written: {unreadable(error)}") from None
