"""Builds images, with this machine's mirrors, wheels and certificates."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from orchestrator import base, commands, contents, failures, host, imagestore
from orchestrator.contents import Made
from orchestrator.engine import Engine
from orchestrator.errors import TandemError
from orchestrator.project import Project
from orchestrator.versions import Build

Say = Callable[[str], None]
# What a change of our own files in an image takes, packages and base image being there, and what our own images take.
SMALL_GIGABYTES = 1.0


def build(project: Project, engine: Engine, images: Iterable[str], say: Say) -> None:
    """Build images by their names; say() gets each line of progress.

    Raises TandemError with the line that says why; an image of that name that was there is there still.
    """
    wanted = {image: project.made(image) for image in images}
    _check_space(project, engine, wanted, say)
    settings = project.settings
    mirror = settings.get("TANDEM_DEBIAN_MIRROR") or host.debian_mirror()
    chosen = base.choose(
        engine,
        settings.get("TANDEM_BASE_IMAGE"),
        mirror,
        say,
        registry=settings.get("TANDEM_REGISTRY"),
        proxies=settings.proxies,
    )
    say(f"base image: {chosen.image}, as {chosen.why}")
    own = chosen.image == base.OWN_IMAGE
    found = {
        "TANDEM_BASE_IMAGE": chosen.image,
        # The registry's image knows a mirror of its own.
        "TANDEM_DEBIAN_MIRROR": mirror if own else "",
        "TANDEM_PYPI_INDEX": settings.get("TANDEM_PYPI_INDEX") or host.package_index(),
        "TANDEM_WHEELS": settings.get("TANDEM_WHEELS") or host.wheels(),
        # An empty bundle counts as none; a secret without a file would be an error.
        "TANDEM_CA_BUNDLE": settings.get("TANDEM_CA_BUNDLE") or host.certificates(settings.values) or "/dev/null",
    }
    before = engine.environment
    try:
        for image, of in wanted.items():
            say(f"building {image}")
            found_out = found | contents.labels(project.folder, of)
            engine.environment = _beneath(settings.values, found_out) | before
            _build(project, engine, of, say)
    finally:
        engine.environment = before


def _beneath(settings: Mapping[str, str], found: Mapping[str, str]) -> dict[str, str]:
    """Leave out what a setting gives: a value of one env file must not be exported, or it would beat another's."""
    return {name: value for name, value in found.items() if value and not settings.get(name)}


def _build(project: Project, engine: Engine, of: Made, say: Say) -> None:
    if isinstance(of, Build):
        engine.environment["TANDEM_BUILD"] = of.tag
        # Compose looks for .env beside the file that it is given.
        argv = commands.build_vllm(project.settings.read, of.variant)
    else:
        argv = commands.build(project.settings.env_files, [of])
    said: list[str] = []
    code = ""
    for line in engine.stream(argv):
        if line.startswith("="):
            code = line
        elif line.strip():
            said.append(line)
            say(line)
    if code != "=0":
        raise TandemError(f"the build failed: {failures.build_cause(said)}")


def _gigabytes(folder: Path, image: str, of: Made, there: Mapping[str, str]) -> float:
    """What a build takes: little where the layers of the packages are there already, as there says by image."""
    if not isinstance(of, Build) or there.get(image) == contents.below(folder, of):
        return SMALL_GIGABYTES
    return of.gigabytes


def _check_space(project: Project, engine: Engine, wanted: dict[str, Made], say: Say) -> None:
    """Raise TandemError when Docker's data folder has no room for what is to be built."""
    there = {image.name: image.below for image in imagestore.images(engine)}
    if imagestore.build_cache(engine) < SMALL_GIGABYTES * 1e9:
        # No image's packages are in it: they came with a bundle, or it was cleared, and all of them are built again.
        there = {}
    needed = sum(_gigabytes(project.folder, image, of, there) for image, of in wanted.items())
    folder, seen = engine.data_folder()
    free = host.free_bytes(folder) if seen else None
    if free is None:
        say(f"free space: unknown, as Docker's data folder {folder} is not on this machine")
    elif free < needed * 1e9:
        raise TandemError(
            f"{folder}: the build needs {needed:.0f} GB in Docker's data folder, {free / 1e9:.1f} GB are free.\n"
            "  'docker system df' shows what Docker holds. Old images: python -m orchestrator images --prune;\n"
            "  what builds keep: docker builder prune"
        )
