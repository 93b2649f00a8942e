"""What is known of a model's files: the manifest of one that is whole, and the state of one that is being pulled."""

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

NAME = ".tandem-manifest.json"
# In a folder that is not whole yet: what the hub listed, and which files have been checked.
STATE = ".tandem-pull.json"
# 1 had sizes alone.
FORMAT = 2


@dataclass(frozen=True)
class File:
    """One file as the hub lists it: size in bytes, and the hash that it gives; "" for one that it does not give.

    git is what Hugging Face gives for small files: the SHA-1 of a git blob.
    """

    size: int
    sha256: str = ""
    git: str = ""

    @property
    def hashed(self) -> bool:
        """Whether its content can be checked against the hub's own word."""
        return bool(self.sha256 or self.git)


@dataclass
class Model:
    """A model's files: where they are from, what was asked for, and what that was at the time (a commit, or "").

    checked gives the sha256 of each file that was read from the disk and found to be what the hub lists.
    """

    source: str
    model: str
    revision: str
    resolved: str
    files: dict[str, File]
    checked: dict[str, str] = field(default_factory=dict)
    pulled: str = ""

    @property
    def size(self) -> int:
        """The bytes of all files."""
        return sum(file.size for file in self.files.values())

    def is_what(self, source: str, revision: str) -> bool:
        """Whether this is what a profile asks for: the same name of a revision, or the commit that it was then."""
        return self.source == source and revision in (self.revision, self.resolved)


def read(path: Path) -> Model | None:
    """Read a manifest or a state; None when there is none, or none that can be used."""
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        if said.pop("format") != FORMAT:
            return None
        files = {name: File(**file) for name, file in said.pop("files").items()}
        model = Model(files=files, **said)
        texts = [model.source, model.model, model.revision, model.resolved, model.pulled, *model.checked.values()]
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return None
    texts += [text for file in files.values() for text in (file.sha256, file.git)]
    sizes = [file.size for file in files.values()]
    right = all(isinstance(text, str) for text in texts) and all(isinstance(size, int) and size >= 0 for size in sizes)
    return model if files and right else None


def write(path: Path, model: Model) -> None:
    """Write a manifest or a state in one step: after a crash there is the old one or the new one."""
    said: dict[str, Any] = {"format": FORMAT, **asdict(model)}
    said["files"] = {
        name: {key: value for key, value in file.items() if value != ""} for name, file in said["files"].items()
    }
    new = path.with_name(path.name + ".new")
    with new.open("w", encoding="utf-8") as stream:
        json.dump(said, stream, indent=1)
        stream.flush()
        os.fsync(stream.fileno())
    new.replace(path)
    sync(path.parent)


def sync(folder: Path) -> None:
    """Have a folder's own entries on the disk, or a rename might be lost with the power."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def whole(folder: Path) -> Model | None:
    """Read the manifest of a folder whose files all have the sizes that it names; None when it is not whole.

    Sizes alone: a start must not read 28 GB. What they cannot show, `verify NAME --weights` does.
    """
    model = read(folder / NAME)
    if model is None or set(model.checked) != set(model.files):
        return None
    return model if all(_size(folder / name) == file.size for name, file in model.files.items()) else None


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size if path.is_file() else None
    except OSError:
        return None


def unsafe(name: str) -> str | None:
    """Say why a listing's path may not be used inside a folder; None when it may."""
    parts = name.split("/")
    if not name or name.startswith("/") or ".." in parts or "" in parts or "." in parts or "\\" in name:
        return "is no plain path inside the model's folder"
    if any(letter < " " or "\x7f" <= letter <= "\x9f" or "\ud800" <= letter <= "\udfff" for letter in name):
        return "holds a character that is none of a file's name"
    if parts[-1].startswith((NAME, STATE)) or name.endswith(".incomplete"):
        return "is a name that a pull needs for itself"
    return None
