"""The base image: from a registry if one answers, else made with debootstrap. Says which of the two, and why."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

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


def choose(engine: Engine, wanted: str, mirror: str, say: Callable[[str], None]) -> Base:
    """Find or make the base image. wanted is TANDEM_BASE_IMAGE, "" for no wish; mirror a Debian mirror, "" for any.

    Raises TandemError when there is no way to one.
    """
    present = engine.images()
    if wanted and wanted != OWN_IMAGE:
        return Base(wanted, "TANDEM_BASE_IMAGE names it")
    for image in () if wanted else (REGISTRY_IMAGE,):
        if image in present:
            return Base(image, "it is on this machine")
    if OWN_IMAGE in present:
        return Base(OWN_IMAGE, "it was made on this machine before")
    refusal = (
        "TANDEM_BASE_IMAGE asks for our own" if wanted else engine.registry_refusal(REGISTRY_IMAGE, REGISTRY_SECONDS)
    )
    if refusal is None:
        return Base(REGISTRY_IMAGE, "the image registry answers")
    say(f"base image: made with debootstrap, as {refusal}")
    _make(engine, mirror, refusal, say)
    return Base(OWN_IMAGE, refusal)


def _make(engine: Engine, mirror: str, refusal: str, say: Callable[[str], None]) -> None:
    if shutil.which("debootstrap") is None and not Path("/usr/sbin/debootstrap").exists():
        raise TandemError(
            "No image registry answers, and debootstrap, which can make the base image, is not installed. "
            "Run: sudo apt-get install debootstrap; or name a registry's mirror in .env: "
            f"TANDEM_BASE_IMAGE=mirror.example.org/library/{REGISTRY_IMAGE}"
        )
    root = [] if os.geteuid() == 0 else ["sudo"]
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    with tempfile.TemporaryDirectory(prefix="tandem-base-") as folder:
        target = f"{folder}/root"
        argv = [
            *root,
            "env",
            f"PATH={path}",
            "debootstrap",
            "--variant=minbase",
            "--include=ca-certificates",
            SUITE,
            target,
        ]
        try:
            for line in engine.stream(argv + ([mirror] if mirror else [])):
                if line.startswith("E:"):
                    raise TandemError(
                        f"{refusal}, and debootstrap cannot make the base image: {line}\n"
                        "  Name a mirror in .env: TANDEM_DEBIAN_MIRROR for debootstrap, or TANDEM_BASE_IMAGE."
                    )
                if line == "=0":
                    _import(engine, root, target)
                    return
                say(f"base image: {line.removeprefix('I: ').lower()}")
            raise TandemError("debootstrap failed; run it by hand to see why: " + " ".join(argv))
        finally:
            subprocess.run([*root, "rm", "-rf", "--one-file-system", target], check=False)


def _import(engine: Engine, root: list[str], target: str) -> None:
    """Make the image. This machine's mirror stays out of it: builds get the mirror as an argument."""
    subprocess.run(
        [*root, "sh", "-c", f": >{target}/etc/apt/sources.list; rm -f {target}/etc/resolv.conf {target}/etc/hostname"],
        check=True,
    )
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
