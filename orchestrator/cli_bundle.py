"""The commands `bundle save` and `bundle load`: reads arguments, calls the parts, prints what came of it."""

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator import session

if TYPE_CHECKING:
    from orchestrator.bundle.load import Loaded
    from orchestrator.bundle.save import Saved
    from orchestrator.project import Project
    from orchestrator.storage import Storage

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The bundle's folder.")]
Names = Annotated[
    list[str] | None, typer.Argument(metavar="NAME", help="Profiles; by default the one that `up` would take.")
]
Weights = Annotated[bool, typer.Option("--weights", help="The models' weights too.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]


app = typer.Typer(help="Carry everything to a machine with no network, in a folder.", no_args_is_help=True)


def _storage(whole: "Project") -> "Storage":
    """Docker's images and weights."""
    from orchestrator.storage import Storage

    return Storage(session.engine(whole), whole.settings.get("TANDEM_MODELS"))


@app.command()
def save(
    context: typer.Context, folder: Folder, names: Names = None, weights: Weights = False, as_json: Json = False
) -> None:
    """Write everything that profiles need to DIR.

    One that was interrupted goes on from where it was.
    """
    _save(session.project(context), folder, names or [], with_weights=weights, as_json=as_json)


@app.command()
def load(context: typer.Context, folder: Folder, as_json: Json = False) -> None:
    """Check all of DIR, then load what is not here yet."""
    _load(session.project(context), folder, as_json=as_json)


def _save(whole: "Project", folder: Path, names: list[str], *, with_weights: bool, as_json: bool) -> None:
    from orchestrator.bundle.save import Saver

    targets = [session.target(whole, name) for name in dict.fromkeys(names)] or [session.target(whole, None)]
    now = datetime.now(UTC).isoformat(timespec="seconds")
    try:
        saver = Saver(whole, _storage(whole), folder.absolute(), say=session.say, clock=time.monotonic, now=now)
        saved = saver.run(list({target.name: target for target in targets}.values()), with_weights=with_weights)
    except KeyboardInterrupt:
        session.say("interrupted; what is finished stays, and the same command goes on from there")
        raise typer.Exit(130) from None
    if as_json:
        print(json.dumps(saved._asdict(), indent=2))
        return
    print(_saved(saved))
    left_out = [target.name for target in targets if not target.local and not with_weights]
    if left_out:
        print(f"  no weights of {', '.join(left_out)}: add them with --weights")


def _saved(saved: "Saved") -> str:
    from orchestrator.bundle.meter import amount

    lines = [f"saved {', '.join(saved.profiles)} to {saved.folder} ({amount(saved.bytes)})"]
    lines += [f"  image    {tag}" for tag in saved.images]
    lines += [f"  weights  {model}" for model in saved.models]
    lines.append(f"  packages for Python {', '.join(saved.pythons)}")
    lines.append("  README.txt in it says what to run on the other machine")
    return "\n".join(lines)


def _load(whole: "Project", folder: Path, *, as_json: bool) -> None:
    from orchestrator.bundle.load import Loader

    try:
        loader = Loader(whole, _storage(whole), folder.absolute(), say=session.say, clock=time.monotonic)
        loaded = loader.run()
    except KeyboardInterrupt:
        session.say("interrupted; what was loaded is whole and stays, and the same command goes on from there")
        raise typer.Exit(130) from None
    print(json.dumps(loaded._asdict(), indent=2) if as_json else _loaded(loaded))


def _loaded(loaded: "Loaded") -> str:
    lines = [f"loaded {what}" for what in loaded.loaded] + [f"already here: {what}" for what in loaded.present]
    lines += [f"warning: {line}" for line in loaded.warnings] + [f"next: {step}" for step in loaded.next]
    return "\n".join(lines)
