"""Judges the space for images, weights and compiled kernels: where they will be, and on Windows' drive below. Pure."""

from orchestrator.doctor.box import Box, Need, Place
from orchestrator.doctor.finding import Finding

GB = 10**9
# Logs, containers and compiled kernels: of the latter a server of the 14B model wrote 80 MB (docs/image.md).
LEAST = 5 * GB
PRUNE = "docker system df   # what takes it\npython -m orchestrator images --prune\ndocker builder prune"
WEIGHTS = "python -m orchestrator models   # lists weights; models remove NAME removes some"


def findings(box: Box) -> list[Finding]:
    """Say whether there is room for what is still to come."""
    return [docker(box), *models(box), *drive(box)]


def _gb(value: float) -> str:
    return f"{value / GB:.1f} GB"


def _images(needs: tuple[Need, ...]) -> int:
    """Bytes of the builds to come: profiles share images."""
    return sum({need.image: need.build for need in needs if not need.built}.values())


def _weights(needs: tuple[Need, ...]) -> int:
    """Bytes of the weights to come: profiles may share a model."""
    return sum({need.model: need.to_pull for need in needs}.values())


def docker(box: Box) -> Finding:
    """Images and build cache, and the weights too unless a folder is set, are in Docker's data folder."""
    root, needs = box.docker.root, box.usable
    if box.docker.fault or root is None:
        return Finding("docker's disk", "unknown", "Docker does not answer")
    where = f"{root.path} is not on this machine" if root.free is None else f"{_gb(root.free)} free at {root.path}"
    if "images" in box.unlisted:
        found = f"{where}; could not look what is to come: {box.unlisted['images']}"
        return Finding("docker's disk", "unknown", found)
    if root.free is None:
        return Finding("docker's disk", "unknown", where)
    volume = box.files.models is None
    least = min((need.missing if volume else _images((need,)) for need in needs), default=0)
    needed = _images(needs) + (_weights(needs) if volume else 0)
    fix = f"{PRUNE}\n{WEIGHTS}" if volume else PRUNE
    return _judged("docker's disk", root, needs if volume else (), needed, least, fix)


def models(box: Box) -> list[Finding]:
    """Weights in a folder of their own."""
    place, needs = box.files.models, box.usable
    if place is None or place.free is None or box.files.models_missing:
        return []
    least = min((_weights((need,)) for need in needs), default=0)
    return [_judged("space for weights", place, needs, _weights(needs), least, WEIGHTS)]


def drive(box: Box) -> list[Finding]:
    """The disk of a distribution is a file on Windows that grows: what is free inside is not free outside."""
    if not box.wsl.version:
        return []
    place, needs = box.windows.drive, box.usable
    if place is None or place.free is None:
        why = box.windows.fault or "which drive holds WSL's disk could not be found out"
        return [Finding("windows' drive", "unknown", why)]
    if box.docker.fault or "images" in box.unlisted:
        return [_judged("windows' drive", place, (), 0, 0, _compact(box))]
    least = min((need.missing for need in needs), default=0)
    return [_judged("windows' drive", place, needs, _images(needs) + _weights(needs), least, _compact(box))]


def _compact(box: Box) -> str:
    """What is removed inside WSL leaves its disk as large as it was; Windows makes it smaller, while WSL is down.

    Not `wsl --manage … --set-sparse true`: WSL refuses that since 2.5, as it may lose data (MessageSparseVhdDisabled).
    Home editions of Windows have diskpart, and no Optimize-VHD.
    """
    file = "docker_data.vhdx" if box.docker.is_desktop else "ext4.vhdx"
    folder = "" if box.docker.is_desktop else box.windows.folder
    return (
        f"{PRUNE}\nthen in PowerShell as administrator, as WSL's disk does not shrink by itself:\n"
        "wsl --shutdown\ndiskpart\nthen at its prompt, which ends with exit:\n"
        f'select vdisk file="{folder or "<folder>"}\\{file}"\ncompact vdisk'
    )


def _judged(check: str, place: Place, needs: tuple[Need, ...], needed: int, least: int, fix: str) -> Finding:
    """Judge one place, which holds the weights of needs: all profiles still take needed, the smallest of them least."""
    free = place.free or 0
    found = f"{_gb(free)} free at {place.path}; what runs here still takes {_gb(needed)}"
    if not all(need.looked for need in needs):
        found += ", and weights, which could not be looked at"
    if free < LEAST or free < least:
        return Finding(check, "bad", found, f"not even one more model fits, with {_gb(LEAST)} for all else", fix)
    if free < needed + LEAST:
        return Finding(check, "warn", found, "some models can be built and pulled, not all", fix)
    return Finding(check, "ok", found)
