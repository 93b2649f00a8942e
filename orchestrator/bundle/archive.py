"""Looks into an image's tar before Docker does: what it would load, and that nothing in it reaches out of it."""

import json
import posixpath
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.errors import TandemError

# Both are a few kilobytes; a file that is not would only fill the memory.
_INDEX_BYTES = 4 << 20


@dataclass(frozen=True)
class Archive:
    """What `docker load` would make of a tar: the tags, and each id that an Engine may give the image."""

    tags: frozenset[str]
    ids: frozenset[str]


def look(path: Path) -> Archive:
    """Read a tar's members, and unpack none. Raises TandemError that names the member which is wrong."""
    indexes: dict[str, Any] = {}
    try:
        with tarfile.open(path, "r:") as packed:
            for member in packed:
                fault = _fault(member)
                if fault:
                    raise TandemError(f"{path}: the member {json.dumps(member.name)} {fault}; nothing was loaded")
                if member.name in ("manifest.json", "index.json"):
                    content = packed.extractfile(member)
                    indexes[member.name] = json.loads(content.read(_INDEX_BYTES)) if content else None
        return _archive(indexes)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise TandemError(f"{path}: is no whole tar: {error}") from None
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise TandemError(f"{path}: is a tar, and no image that 'docker save' wrote") from None


def _fault(member: tarfile.TarInfo) -> str | None:
    if not (member.isfile() or member.isdir() or member.issym() or member.islnk()):
        return "is neither a file nor a folder"
    if _climbs(member.name):
        return "climbs out of the archive"
    if member.issym() and _climbs(posixpath.join(posixpath.dirname(member.name), member.linkname)):
        return f"links out of the archive, to {json.dumps(member.linkname)}"
    if member.islnk() and _climbs(member.linkname):
        return f"links out of the archive, to {json.dumps(member.linkname)}"
    return None


def _climbs(name: str) -> bool:
    return posixpath.isabs(name) or posixpath.normpath(name).split("/")[0] == ".."


def _archive(indexes: dict[str, Any]) -> Archive:
    images = indexes["manifest.json"]
    # An Engine that keeps images in containerd's store names them by their manifest, any other by their config.
    manifests = indexes.get("index.json", {}).get("manifests", [])
    configs = {posixpath.basename(image["Config"]).removesuffix(".json") for image in images}
    return Archive(
        frozenset(str(tag) for image in images for tag in image["RepoTags"] or ()),
        frozenset({f"sha256:{digest}" for digest in configs} | {manifest["digest"] for manifest in manifests}),
    )
