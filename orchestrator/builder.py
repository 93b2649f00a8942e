"""Builds the images that a profile needs, with this machine's mirrors, wheels and certificates."""

from collections.abc import Callable, Iterable

from orchestrator import base, commands, failures, host
from orchestrator.addresses import SECRET_IN_URL
from orchestrator.engine import Engine, inherited
from orchestrator.errors import TandemError
from orchestrator.project import Project


def build(project: Project, engine: Engine, services: Iterable[str], say: Callable[[str], None]) -> None:
    """Build the images of services; say() gets each line of progress.

    Raises TandemError with the line that says why.
    """
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
    for name in ("TANDEM_DEBIAN_MIRROR", "TANDEM_PYPI_INDEX"):
        if SECRET_IN_URL.search(found[name]):
            raise TandemError(
                f"the address that pip or apt has here for {name} holds a password, which would stay in the image.\n"
                f"  Name one without a password in .env: {name}"
            )
    engine.environment = inherited(settings.values, found)
    said: list[str] = []
    code = ""
    for line in engine.stream(commands.build(settings.env_files, services)):
        if line.startswith("="):
            code = line
        elif line.strip():
            said.append(line)
            say(line)
    if code != "=0":
        raise TandemError(f"the build failed: {failures.build_cause(said)}")
