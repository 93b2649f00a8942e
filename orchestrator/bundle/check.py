"""Checks a bundle's folder before anything of it is used: its manifest, sizes, hashes, and the tars of its images."""

from pathlib import Path

from orchestrator.bundle import archive, files, manifest
from orchestrator.bundle.archive import Archive
from orchestrator.bundle.manifest import Image, Manifest
from orchestrator.bundle.meter import Meter
from orchestrator.errors import TandemError

_AGAIN = "Nothing was loaded; copy the bundle again, or save it again"


def structure(folder: Path) -> Manifest:
    """Read the manifest of a whole bundle."""
    path = folder / manifest.NAME
    if files.size(path) is None:
        if files.size(folder / manifest.PARTIAL) is not None:
            raise TandemError(f"{folder}: is half a bundle: 'bundle save' did not end. Run that again, and it goes on")
        raise TandemError(f"{folder}: is no bundle: it holds no {manifest.NAME}")
    try:
        whole = manifest.parse(files.text(path), str(path))
    except manifest.DamagedError as error:
        raise TandemError(f"{error}. {_AGAIN}") from None
    if not whole.profiles:
        raise TandemError(f"{path}: profiles: should name at least one")
    return whole


def sizes(folder: Path, whole: Manifest) -> None:
    """See that every file is there, is no link, and has its size."""
    for item in whole.items:
        path = folder / item.path
        parts = Path(item.path).parts
        if any(files.is_link(folder.joinpath(*parts[:count])) for count in range(1, len(parts) + 1)):
            raise TandemError(f"{path}: is behind a symbolic link, and a bundle has none")
        found = files.size(path)
        if found is None:
            raise TandemError(f"{path}: is missing. {_AGAIN}")
        if found != item.size:
            raise TandemError(f"{path}: is damaged: it has {found} bytes, and {item.size} were saved. {_AGAIN}")


def digests(folder: Path, whole: Manifest, meter: Meter) -> None:
    """See that every byte is as it was saved."""
    for item in whole.items:
        if files.digest(folder / item.path, meter) != item.sha256:
            raise TandemError(f"{folder / item.path}: is damaged: its sha256 is not what was saved. {_AGAIN}")


def image(folder: Path, listed: Image) -> Archive:
    """See that an image's tar stays inside itself, and holds this image and no other."""
    path = folder / listed.path
    found = archive.look(path)
    if found.tags != {listed.tag}:
        raise TandemError(f"{path}: holds {', '.join(sorted(found.tags)) or 'no tag'}, and not {listed.tag} alone")
    if listed.id not in found.ids:
        raise TandemError(f"{path}: holds another image than the manifest says, {listed.id}")
    return found
