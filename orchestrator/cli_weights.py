"""The commands about weights: pull, verify --weights, models."""

import json
import os
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator import session

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from orchestrator.engine import Engine
    from orchestrator.profiles import Profile
    from orchestrator.project import Project
    from orchestrator.pulls import Event

Json = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
app = typer.Typer(
    help="List the models' weights, or remove some.", rich_markup_mode=None, pretty_exceptions_enable=False
)


def pull(
    context: typer.Context,
    names: Annotated[list[str] | None, typer.Argument(metavar="NAME", help="Profiles.", show_default=False)] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every profile of models.toml.")] = False,
    update: Annotated[
        bool, typer.Option("--update", help="Take what the hub has now, where it changed since the first pull.")
    ] = False,
    limit_rate: Annotated[
        str | None, typer.Option(help="Bytes a second at most, such as 5M; TANDEM_LIMIT_RATE otherwise.")
    ] = None,
    unhashed: Annotated[
        bool, typer.Option("--unhashed", help="Take files that the hub lists without a hash, by their size.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print each event as a line of JSON.")] = False,
) -> None:
    """Pull weights into the shared volume, or what is missing of them; goes on where an earlier pull ended."""
    from orchestrator import pulls, view_pull
    from orchestrator.errors import TandemError
    from orchestrator.weights import PullError, Weights, follow

    whole = session.project(context)
    options = _options(limit_rate, update=update, unhashed=unhashed)
    asked = _asked(whole, names or [], everything=everything)
    engine = session.engine(whole)
    _images(whole, engine, asked)
    faults: dict[str, str] = {}
    try:
        for profile in pulls.wanted(asked):
            with closing(view_pull.choose(as_json=as_json, environment_term=os.environ.get("TERM"))) as shown:
                try:
                    follow(Weights(whole, engine).pull(profile, options), shown.tell)
                except PullError as error:
                    # The next may still come, while nobody watches.
                    faults[profile.name] = str(error)
                    if as_json:
                        shown.tell(error.event)
                    elif len(asked) > 1:
                        session.say(f"{profile.name}: {error}")
    except KeyboardInterrupt:
        session.say("interrupted: what was fetched is kept, and the next pull goes on from there")
        raise typer.Exit(130) from None
    if len(faults) == 1 and len(asked) == 1:
        raise TandemError(next(f"{name}: {fault}" for name, fault in faults.items()))
    if faults:
        raise TandemError(f"{len(faults)} of {len(asked)} were not pulled: {', '.join(faults)}; why is above")


def _options(limit_rate: str | None, *, update: bool, unhashed: bool) -> list[str]:
    from orchestrator.errors import TandemError
    from orchestrator.settings import rate_fault

    fault = rate_fault(limit_rate or "")
    if fault:
        raise TandemError(f"--limit-rate: {fault}")
    chosen = {"--update": update, "--unhashed": unhashed}
    return [
        *(["--limit-rate", limit_rate] if limit_rate else []),
        *(option for option, really in chosen.items() if really),
    ]


def _asked(whole: "Project", names: list[str], *, everything: bool) -> "list[Profile]":
    """Find the profiles that are meant, and say of those that have nothing to pull why."""
    from orchestrator.errors import TandemError

    if everything == bool(names):
        raise TandemError(f"Which profiles? --all, or some of: {', '.join(whole.profiles)}")
    named = {profile.name: profile for profile in map(whole.profile, names)}
    found = list((whole.profiles if everything else named).values())
    for profile in found:
        if profile.local:
            session.say(f"{profile.name}: {profile.model} is a folder here: nothing to pull")
        elif not profile.pull:
            session.say(f"{profile.name}: its server fetches {profile.model} itself, as pull is false: nothing to pull")
    return found


def _images(whole: "Project", engine: "Engine", profiles: "list[Profile]") -> None:
    """Build the images that the hubs' clients are in, where they are not there yet."""
    from orchestrator import builder, project

    engine.check()
    project.write(whole.folder, project.stale(whole.folder, whole.rendered()))
    for profile in profiles:
        if profile.pulled:
            image = _pin(whole, engine, profile)
            if image not in engine.images():
                session.say(f"building {image} first: the hub's client is in it")
                builder.build(whole, engine, [image], session.say)


def _pin(whole: "Project", engine: "Engine", profile: "Profile") -> str:
    """Have Compose use the image that `up` would, also where the driver is too old for it; its name."""
    build = whole.wanted(profile)
    if profile.image == "cuda" and profile.vllm is None:
        engine.environment["TANDEM_VLLM"] = build.tag
    return build.image


def hash_again(context: typer.Context, name: str, *, as_json: bool) -> None:
    """Hash a model's weights again, for `verify --weights`; raises TandemError when a file is not as it was pulled."""
    from orchestrator import view_pull
    from orchestrator.errors import TandemError
    from orchestrator.weights import Weights

    whole = session.project(context)
    profile = whole.profile(name)
    if not profile.pulled:
        raise TandemError(f"{profile.name}: {profile.model} is not pulled, so nothing is known to check it by")
    engine = session.engine(whole)
    _images(whole, engine, [profile])
    with closing(view_pull.choose(as_json=as_json, environment_term=os.environ.get("TERM"))) as shown:
        _tell(Weights(whole, engine).verify(profile), shown.tell, as_json=as_json)


def _tell(stream: "Generator[Event, None, None]", tell: "Callable[[Event], None]", *, as_json: bool) -> None:
    """Tell of each event; for scripts of what it failed with too, which is an error all the same."""
    from orchestrator.weights import PullError, follow

    try:
        follow(stream, tell)
    except PullError as error:
        if as_json:
            tell(error.event)
        raise


@app.callback(invoke_without_command=True)
def models(context: typer.Context, as_json: Json = False) -> None:
    """List profiles with what is there of their weights: size, revision, how far, last used."""
    from orchestrator import inventory_models
    from orchestrator.weights import Weights

    if context.invoked_subcommand:
        return
    whole = session.project(context)
    engine = session.engine(whole)
    viewer = _viewer(whole, engine)
    pulled = sorted({profile.model for profile in whole.profiles.values() if profile.pulled})
    seen = Weights(whole, engine).listing(viewer, pulled) if viewer else {}
    for model in _owned(whole):
        seen.get("others", {}).pop(model, None)
    sizes = {p.name: _bytes_in(whole.folder / p.model) for p in whole.profiles.values() if p.local}
    rows = inventory_models.rows(whole.profiles.values(), seen, engine.containers(), sizes)
    if as_json:
        others = seen.get("others", {})
        print(json.dumps({"models": [row.json() for row in rows], "others": others, "free": seen.get("free")}))
    else:
        print(inventory_models.table(rows, seen, time.time()))
        if viewer is None and pulled:
            session.say("no image is here to look into the volume with: python -m orchestrator build")


def _bytes_in(folder: Path) -> int:
    """Count what can be read: a folder of someone else's is listed all the same."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += (Path(parent) / name).stat().st_size
    return total


def _owned(whole: "Project") -> dict[str, str]:
    """Name the folders of the user's own that lie where models are pulled to, as org/name, each with its profile."""
    place = whole.settings.get("TANDEM_MODELS")
    if not place.startswith("/"):
        return {}
    root = Path(place).resolve()
    folders = {(whole.folder / p.model).resolve(): p.name for p in whole.profiles.values() if p.local}
    return {str(path.relative_to(root)): name for path, name in folders.items() if path.is_relative_to(root)}


def _viewer(whole: "Project", engine: "Engine") -> "Profile | None":
    """Find a profile whose image is here, to look into the volume with."""
    engine.check()
    there = engine.images()
    return next((p for p in whole.profiles.values() if p.pulled and _pin(whole, engine, p) in there), None)


@app.command("remove")
def remove(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="A profile, or the org/name of a model that lies there.")],
    as_json: Json = False,
) -> None:
    """Remove a model's weights from the shared volume; refuses while a server uses them."""
    from orchestrator import inventory_models
    from orchestrator.errors import TandemError
    from orchestrator.weights import Weights

    whole = session.project(context)
    engine = session.engine(whole)
    model = inventory_models.removable(name, whole.profiles, engine.containers(), _owned(whole))
    viewer = _viewer(whole, engine)
    if viewer is None:
        raise TandemError("no image is here to look into the volume with: python -m orchestrator build")
    stream = Weights(whole, engine).remove(viewer, model)
    _tell(stream, lambda event: print(event.json if as_json else event.text), as_json=as_json)
