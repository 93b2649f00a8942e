"""The command `verify-image`: looks into the image of a profile, prints whether it is as it should be."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator import session

if TYPE_CHECKING:
    from orchestrator.engine import Engine
    from orchestrator.verify import Check
    from orchestrator.versions import Build

Name = Annotated[
    str | None,
    typer.Argument(metavar="NAME", help="A profile; by default the one that `up` brings up.", show_default=False),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
# What is put into the container, and from where: the program, its probes and the hub that they ask.
INSIDE = "/tmp/tandem"  # noqa: S108 (in a container of its own)
FILES = (
    "docker/vllm/verify/inside.py",
    "docker/vllm/verify/faults.py",
    "tests/standins/stub_hub.py",
    "tests/standins/hub_server.py",
    "tests/standins/hub_switches.py",
    "tests/standins/hub_log.py",
    "tests/standins/hub_tree.py",
)


def verify_image(context: typer.Context, name: Name = None, as_json: Json = False) -> None:
    """Look into the image that a profile needs; exit 1 when it is not as it should be. No GPU is used."""
    from orchestrator import verify

    whole = session.project(context)
    target = session.target(whole, name)
    build = whole.choice(target).build
    session.say(f"{build.image}: starting a container of it")
    try:
        found = examine(session.engine(whole), whole.folder, build.image, build, session.say, profile=target.name)
    except KeyboardInterrupt:
        session.say("interrupted; the container is gone")
        raise typer.Exit(130) from None
    print(json.dumps(verify.table_json(build.image, found)) if as_json else verify.table(build.image, found))
    if not all(check.ok for check in found):
        raise typer.Exit(1)


def examine(
    engine: "Engine", folder: Path, image: str, build: "Build", say: Callable[[str], None], *, profile: str
) -> "list[Check]":
    """Check an image that was meant to be a build. Raises TandemError when there is no such image."""
    from orchestrator import contents, host, imagestore, inventory, verify
    from orchestrator.errors import TandemError

    size = imagestore.size(engine, image)
    if size is None:
        raise TandemError(f"{image} is not on this machine; build it: python -m orchestrator build {profile}")
    wanted = verify.Wanted(
        packages=verify.pinned(contents.pins(folder, build).split(), build.python),
        patches=_patches(folder, build),
        cuda=build.variant == "cuda",
        capabilities=tuple(host.compute_capabilities()),
    )
    found = look(engine, folder, image, FILES, [*dict.fromkeys(wanted.patches.values())], say)
    return verify.checks(found, inventory.size(size), wanted)


def look(
    engine: "Engine", folder: Path, image: str, files: Sequence[str], arguments: list[str], say: Callable[[str], None]
) -> dict[str, Any]:
    """Put files of the project into a container of an image, run the first of them, and read the JSON it prints."""
    from orchestrator import imagestore

    put = {f"{INSIDE}/{Path(name).name}": (folder / name).read_bytes() for name in files}
    return dict(json.loads(imagestore.run_in(engine, image, ["python", next(iter(put)), *arguments], put, say)))


def _patches(folder: Path, build: "Build") -> dict[str, str]:
    """Name the patches that a build gets, each with the fault that it mends."""
    from orchestrator import contents, patches
    from orchestrator.project import text_of

    texts = {name: text_of(folder / "docker/vllm/patches" / name) for name in contents.patched(folder, build)}
    return {name: patches.header(name, text)["Fault"] for name, text in texts.items()}
