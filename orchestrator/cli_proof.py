"""The command `verify`: asks a model that is up whether it is right, and prints what came of it."""

import json
import time
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator import session

if TYPE_CHECKING:
    from orchestrator.profiles import Profile
    from orchestrator.project import Project
    from orchestrator.proof.result import Result

Name = Annotated[str, typer.Argument(metavar="NAME", help="A profile of models.toml, or a name that clients send.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
Plumbing = Annotated[
    bool,
    typer.Option("--plumbing", help="Leave out what judges words: for a model that is not meant to make sense."),
]


def verify(
    context: typer.Context,
    name: Name,
    weights: Annotated[
        bool, typer.Option("--weights", help="Hash its weights again instead; it need not be up.")
    ] = False,
    plumbing: Plumbing = False,
    as_json: Json = False,
) -> None:
    """Ask a model that is up whether it is right; exit 1 when something is wrong, 2 when it could not be asked.

    It never brings a model up. One that may sleep sleeps and wakes once, when nobody else asks it anything.
    """
    from orchestrator import cli_weights
    from orchestrator.errors import TandemError
    from orchestrator.proof.asking import UnaskedError

    if weights and plumbing:
        raise UnaskedError("--plumbing: is about what a model says, and --weights asks it nothing; give one of them")
    if weights:
        cli_weights.hash_again(context, name, as_json=as_json)
        return
    whole = session.project(context)
    try:
        found = prove(whole, whole.profile(name), plumbing=plumbing)
    except TandemError as error:
        # 1 means that the model is not right, and nobody knows that here.
        raise UnaskedError(str(error)) from None
    except KeyboardInterrupt:
        session.say("interrupted; nothing is kept of it")
        raise typer.Exit(130) from None
    show(found, as_json=as_json)
    if not found.passed:
        raise typer.Exit(1)


def prove(whole: "Project", profile: "Profile", *, plumbing: bool) -> "Result":
    """Ask a model that is up, and keep what came of it. Raises UnaskedError when it cannot be asked."""
    from datetime import UTC, datetime

    from orchestrator import host
    from orchestrator.ask import activator, lines
    from orchestrator.measure import Measure
    from orchestrator.proof.asking import Asker
    from orchestrator.proof.result import Result
    from orchestrator.proof.run import Proof
    from orchestrator.proof.sleeping import sleep

    asked = activator(whole)
    measure = Measure(asked, lambda model: whole.profiles[model].served_model_name, session.say)
    asker = Asker(asked, profile.name, profile.served_model_name, key=whole.client_key, lines=lines(whole))
    proof = Proof(asker, profile, session.say, lambda: sleep(asked, profile, measure, session.say), plumbing=plumbing)
    began, when = time.monotonic(), host.rfc3339(datetime.now(UTC))
    rows = tuple(proof.rows())
    found = Result(
        profile=profile.name,
        model=profile.served_model_name,
        address=f"{whole.settings.address}/v1",
        when=when,
        seconds=time.monotonic() - began,
        plumbing=plumbing,
        rows=rows,
    )
    _keep(whole, found)
    return found


def _keep(whole: "Project", found: "Result") -> None:
    """Keep the last result of a model in the project's folder. What cannot be kept is said, and stands all the same."""
    from orchestrator import project
    from orchestrator.errors import TandemError
    from orchestrator.proof import result
    from orchestrator.render.file import File

    text = json.dumps(result.values(found), indent=2, ensure_ascii=False) + "\n"
    try:
        project.write(whole.folder, [File(result.path(found.profile), text)])
    except TandemError as error:
        session.say(f"the result is not kept: {error}")


def show(found: "Result", *, as_json: bool) -> None:
    """Print a result."""
    from orchestrator.proof import result

    print(json.dumps(result.values(found), ensure_ascii=False) if as_json else result.table(found))
