"""What is kept of this machine in the project's folder, in box/: how it is built, and what its all-reduces gave.

Not with the activator, which keeps what servers were measured to do: this is needed before anything runs, and Compose
reads what follows from it.
"""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from orchestrator.doctor import machine, nccl
from orchestrator.doctor.machine import Box
from orchestrator.doctor.nccl import Result, Tried
from orchestrator.errors import ConfigError, TandemError

Kept = TypeVar("Kept")
MACHINE, NCCL = "box/machine.json", "box/nccl.json"


def box(folder: Path) -> Box | None:
    """Read how the machine is built; None where nobody looked yet. Raises ConfigError for what makes no sense."""
    return _read(folder / MACHINE, machine.read)


def results(folder: Path) -> dict[Tried, Result]:
    """Read what all-reduces gave, the oldest first. Raises ConfigError for what makes no sense."""
    return _read(folder / NCCL, nccl.read) or {}


def keep_box(folder: Path, found: Box) -> None:
    """Keep how the machine is built. Raises TandemError when it cannot be written."""
    _write(folder / MACHINE, machine.values(found))


def keep_results(folder: Path, found: Mapping[Tried, Result]) -> None:
    """Keep what all-reduces gave. Raises TandemError when it cannot be written."""
    _write(folder / NCCL, nccl.values(found))


def _read(path: Path, read: Callable[[Any], Kept]) -> Kept | None:
    try:
        return read(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read: {error.strerror or error}"]) from None
    except (ValueError, RecursionError) as error:
        raise ConfigError([f"{path}: {error}; remove it, and the next up writes it anew"]) from None


def _write(path: Path, value: Any) -> None:
    new = path.with_name(f"{path.name}.new")
    try:
        path.parent.mkdir(exist_ok=True)
        with new.open("w", encoding="utf-8") as stream:
            json.dump(value, stream, indent=1, ensure_ascii=False)
            stream.write("\n")
            stream.flush()
            os.fsync(stream.fileno())
        new.replace(path)
    except OSError as error:
        raise TandemError(f"{path}: cannot be written: {error.strerror or error}") from None
