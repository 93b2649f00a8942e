"""The commands `sleep-test` and `bench switch`: reads arguments, calls the parts, prints what came of it."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator import session

if TYPE_CHECKING:
    from orchestrator.bench import Kind
    from orchestrator.project import Project

Json = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]


def sleep_test(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="A profile that is up, or a name that clients send.")],
    cycles: Annotated[int, typer.Option(min=1, help="How often it sleeps and wakes.")] = 3,
    as_json: Json = False,
) -> None:
    """Try a model's sleep: seconds and memory of each cycle, and whether its answer stays the same; exit 1 if not.

    What comes of it counts for sleep = "auto" for as long as the model has the same image.
    """
    from orchestrator import bench
    from orchestrator.ask import activator
    from orchestrator.measure import Measure

    whole = session.project(context)
    profile, asked = whole.profile(name), activator(whole)
    asked.check()
    measure = Measure(asked, lambda model: whole.profiles[model].served_model_name, session.say)
    found = measure.cycles(profile.name, profile.gpus, cycles)
    print(json.dumps(bench.sleep_values(found)) if as_json else bench.sleep_text(found))
    if found.fault:
        raise typer.Exit(1)


def switch(
    context: typer.Context,
    models: Annotated[
        str | None, typer.Option(metavar="A,B", help="These profiles; by default all that have a container.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="How often each switch is measured.")] = 3,
    kinds: Annotated[str, typer.Option(metavar="KIND,KIND", help="Of cold, warm, wake.")] = "warm,wake",
    as_json: Json = False,
) -> None:
    """Measure switches from each model to each other: seconds of each phase, and to the first token.

    cold drops the kernels that a version of vLLM compiled before; they are compiled again. Other requests meanwhile
    spoil the numbers. Exits with 1 when a switch failed.
    """
    from orchestrator import bench
    from orchestrator.ask import activator
    from orchestrator.measure import Measure

    whole = session.project(context)
    asked, engine = activator(whole), session.engine(whole)
    asked.check()
    chosen = _kinds(kinds)
    named = _named(whole, models) if models else _there(whole)
    wanted = asked.require().get("wanted") or []
    measure = Measure(asked, lambda model: whole.profiles[model].served_model_name, session.say)

    def clear(model: str) -> None:
        from orchestrator import commands

        build = whole.choice(whole.profiles[model]).build
        engine.run(commands.forget_kernels(whole.settings.project, build.tag, build.image))

    found = [
        measure.switch(source, target, kind, awake=float(whole.settings.get("TANDEM_MIN_AWAKE")), clear=clear)
        for kind in chosen
        for source, target in bench.pairs(named)
        for _ in range(rounds)
    ]
    for model in wanted:
        session.say(f"bringing {model} up again, which was wanted before")
        asked.do("up", model)
    cells = bench.matrix(found)
    print(json.dumps(bench.values(cells, found)) if as_json else bench.text(cells))
    if any(one.fault for one in found):
        raise typer.Exit(1)


def _kinds(text: str) -> "list[Kind]":
    from orchestrator import bench
    from orchestrator.errors import TandemError

    asked = [word.strip() for word in text.split(",")]
    wrong = [word for word in asked if word not in bench.KINDS]
    if wrong:
        raise TandemError(f"--kinds: should be some of {', '.join(bench.KINDS)}, got {wrong[0]}")
    return [kind for kind in bench.KINDS if kind in asked]


def _named(whole: "Project", models: str) -> list[str]:
    from orchestrator.errors import TandemError

    found = list(dict.fromkeys(whole.profile(name.strip()).name for name in models.split(",")))
    if len(found) < 2:
        raise TandemError(f"--models: should be two profiles or more, got {models}")
    return found


def _there(whole: "Project") -> list[str]:
    from orchestrator.errors import TandemError

    containers = session.engine(whole).containers()
    found = [name for name in whole.profiles if name in containers]
    if len(found) < 2:
        raise TandemError("a switch takes two models that have containers; 'up' makes them, --models names them")
    return found
