"""The base image: from a registry if one answers, else made with debootstrap. Says which of the two, and why."""

import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from orchestrator import host, network
from orchestrator.addresses import here
from orchestrator.engine import Engine
from orchestrator.errors import TandemError

REGISTRY_IMAGE = "debian:bookworm-slim"
OWN_IMAGE = "tandem/base:bookworm"
SUITE = "bookworm"
# A registry that is shut often does not refuse but stays silent.
REGISTRY_SECONDS = 15


@dataclass(frozen=True)
class Base:
    """The image to build from, and why it is that one."""

    image: str
    why: str


def choose(
    engine: Engine,
    wanted: str,
    mirror: str,
    say: Callable[[str], None],
    *,
    registry: str = "",
    proxies: Mapping[str, str] | None = None,
) -> Base:
    """Find or make the base image.

    wanted is TANDEM_BASE_IMAGE, "" for no wish; mirror a Debian mirror as builds are told it, "" for any; registry
    TANDEM_REGISTRY, "" for the daemon's own; proxies are what debootstrap goes through. Raises TandemError when there
    is no way to one.
    """
    present = engine.images()
    if wanted and wanted != OWN_IMAGE:
        return Base(wanted, "TANDEM_BASE_IMAGE names it")
    image = network.image(registry, REGISTRY_IMAGE)
    for found in () if wanted else (image, REGISTRY_IMAGE):
        if found in present:
            return Base(found, "it is on this machine")
    if OWN_IMAGE in present:
        return Base(OWN_IMAGE, "it was made on this machine before")
    refusal = "TANDEM_BASE_IMAGE asks for our own" if wanted else engine.registry_refusal(image, REGISTRY_SECONDS)
    if refusal is None:
        _pull(engine, image, say)
        return Base(image, "the image registry answers")
    if registry and not wanted:
        raise TandemError(
            f"TANDEM_REGISTRY names {registry}, but {refusal}\n  'python -m orchestrator doctor network' shows which "
            f"registries answer; TANDEM_BASE_IMAGE={OWN_IMAGE} in .env has debootstrap make the image."
        )
    say(f"base image: made with debootstrap, as {refusal}")
    _make(engine, here(mirror), refusal, proxies or {}, say)
    return Base(OWN_IMAGE, refusal)


def _pull(engine: Engine, image: str, say: Callable[[str], None]) -> None:
    """Pull an image under its own tag, so that the next build asks no registry."""
    said = ""
    with closing(engine.stream(["docker", "pull", image])) as lines:
        for line in lines:
            if line.startswith("=") and line != "=0":
                raise TandemError(
                    f"{image} could not be pulled: {said or 'it said nothing'}\n"
                    "  'python -m orchestrator doctor network' shows which registries answer; see TANDEM_REGISTRY."
                )
            if not line.startswith("="):
                said = line or said
                say(f"base image: {line}")


def _make(engine: Engine, mirror: str, refusal: str, proxies: Mapping[str, str], say: Callable[[str], None]) -> None:
    if not host.debootstrap():
        raise TandemError(
            "No image registry answers, and debootstrap, which can make the base image, is not installed. "
            "Run: sudo apt-get install debootstrap; or name a registry's mirror in .env (TANDEM_REGISTRY): "
            "'python -m orchestrator doctor network' shows which answer"
        )
    root = _root()
    with tempfile.TemporaryDirectory(prefix="tandem-base-") as folder:
        target, environment = f"{folder}/root", Path(folder, "environment")
        argv = [*root, "sh", "-c", '. "$0" && exec debootstrap "$@"', str(environment)]
        argv += ["--variant=minbase", "--include=ca-certificates", SUITE, target, *([mirror] if mirror else [])]
        try:
            _write(environment, {"PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin", **proxies})
            _debootstrap(engine, argv, refusal, say)
            _import(engine, root, target, keep_sources=not mirror)
        finally:
            subprocess.run([*root, "rm", "-rf", "--one-file-system", target], check=False)


def _root() -> list[str]:
    """What a command line begins with to run as root."""
    if os.geteuid() == 0:
        return []
    if shutil.which("sudo"):
        return ["sudo"]
    raise TandemError(
        "Making the base image takes root, and there is no sudo. Run this once as root, "
        "install sudo, or name a registry's mirror in .env (TANDEM_REGISTRY): "
        "'python -m orchestrator doctor network' shows which answer"
    )


def _write(path: Path, variables: Mapping[str, str]) -> None:
    """Write variables for sh: sudo keeps few of the environment, and a command line shows a proxy's password to all."""
    path.touch(mode=0o600)
    path.write_text("".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items()))


def _debootstrap(engine: Engine, argv: list[str], refusal: str, say: Callable[[str], None]) -> None:
    fault = "it said nothing"
    with closing(engine.stream(argv)) as lines:
        for line in lines:
            if line.startswith("E:"):
                fault = line
            elif line.startswith("=") and line != "=0":
                raise TandemError(
                    f"{refusal}, and debootstrap cannot make the base image: {fault}\n"
                    "  Name a mirror in .env: TANDEM_DEBIAN_MIRROR for debootstrap, or TANDEM_REGISTRY. "
                    "'python -m orchestrator doctor network' shows which answer."
                )
            elif not line.startswith("="):
                say(f"base image: {line.removeprefix('I: ').lower()}")


def _import(engine: Engine, root: list[str], target: str, *, keep_sources: bool) -> None:
    """Make the image. A mirror of this machine stays out of it: builds get the mirror as a secret."""
    forget = [] if keep_sources else [f": >{target}/etc/apt/sources.list"]
    forget.append(f"rm -f {target}/etc/resolv.conf {target}/etc/hostname")
    # What the registry's slim image leaves out, and docker/apt-install.sh of what it adds.
    share = f"{target}/usr/share"
    forget.append(f"find {share}/info {share}/locale {share}/man '(' -type f -o -type l ')' -delete")
    forget.append(f"find {share}/doc '(' -type f -o -type l ')' ! -name copyright -delete")
    if subprocess.run([*root, "sh", "-ec", "; ".join(forget)], check=False).returncode:
        raise TandemError("the base image could not be prepared; see the line above")
    packed = subprocess.Popen(
        [*root, "tar", "-C", target, "--exclude=./var/cache/apt/*.bin", "--exclude=./var/cache/apt/archives/*.deb",
         "--exclude=./var/lib/apt/lists/*_*", "--exclude=./var/log/*.log", "-c", "."],
        stdout=subprocess.PIPE,
    )  # fmt: skip
    done = subprocess.run(
        ["docker", "import", "--message", f"debootstrap {SUITE}", "-", OWN_IMAGE],
        stdin=packed.stdout, env=engine.environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if packed.wait() or done.returncode:
        raise TandemError(f"the base image could not be imported: {done.stderr.strip()}")
