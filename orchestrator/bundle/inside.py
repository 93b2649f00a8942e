"""Runs in a container that mounts the weights at /models: lists, hashes, gives and takes the files of one model.

It is sent there as text, so it uses the standard library alone.
"""

import hashlib
import json
import os
import shutil
import signal
import sys
import tarfile
from pathlib import Path
from typing import Any

MODELS = Path("/models")
MANIFEST = ".tandem-manifest.json"
UNFINISHED = ".tandem-part"
BLOCK = 1 << 20


def listed(folder: Path, models: Path = MODELS) -> dict[str, Any]:
    """The files of a model with size and time, the manifest of a whole one, and the bytes that are free here."""
    found = os.walk(folder, onerror=_raised)
    paths = [path for parent, _, names in found for path in (Path(parent, name) for name in names) if path.is_file()]
    stats = {str(path.relative_to(folder)): path.stat() for path in paths}
    manifest = folder / MANIFEST
    return {
        "files": {name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()},
        "manifest": manifest.read_text(errors="replace") if manifest.is_file() else None,
        "free": shutil.disk_usage(models).free,
    }


def _raised(error: OSError) -> None:
    """Half a listing would pass for the whole; a folder that is not there holds nothing."""
    if not isinstance(error, FileNotFoundError):
        raise error


def hashes(folder: Path, names: list[str]) -> None:
    """Print a line of JSON for each file: its name and sha256."""
    for name in names:
        with (folder / name).open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        print(json.dumps([name, digest]), flush=True)


def give(folder: Path, names: list[str]) -> None:
    """Write files to standard output as a tar."""
    with tarfile.open(fileobj=sys.stdout.buffer, mode="w|", bufsize=BLOCK) as packed:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = (folder / name).stat().st_size
            with (folder / name).open("rb") as stream:
                packed.addfile(member, stream)


def take(folder: Path) -> None:
    """Write the files of a tar from standard input; each has its name only when it is whole."""
    with tarfile.open(fileobj=sys.stdin.buffer, mode="r|", bufsize=BLOCK) as packed:
        for member in packed:
            path = folder / member.name
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_name(path.name + UNFINISHED)
            content = packed.extractfile(member)
            try:
                with part.open("wb") as stream:
                    shutil.copyfileobj(content, stream, BLOCK)  # type: ignore[arg-type]
                if part.stat().st_size != member.size:
                    raise OSError(f"{member.name} ended early")
                part.replace(path)
            finally:
                part.unlink(missing_ok=True)
    while sys.stdin.buffer.read(BLOCK):
        pass  # what fills the last block; closing before it would break the sender's pipe


def main(action: str, model: str, names: str = "[]") -> int:
    """Return 0, or 1 after one line that says why not."""
    folder = MODELS / model
    # Whoever sends may be gone first; what is half written goes with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        if action == "list":
            print(json.dumps(listed(folder)))
        elif action == "hash":
            hashes(folder, json.loads(names))
        elif action == "give":
            give(folder, json.loads(names))
        else:
            take(folder)
    except (OSError, tarfile.TarError) as error:
        print(f"{model}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
