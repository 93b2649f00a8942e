"""The commands that bring models up and down, and show them: reads arguments, calls the parts, prints the end."""

import json
import os
import time
from contextlib import closing
from dataclasses import asdict, replace
from itertools import groupby
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from orchestrator import session
from orchestrator.cli_proof import Plumbing

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.ask import Activator
    from orchestrator.doctor.derived import Setting
    from orchestrator.doctor.smi import Seen
    from orchestrator.engine import Engine
    from orchestrator.fit.verdict import Fit
    from orchestrator.plan import Operation
    from orchestrator.profiles import Profile
    from orchestrator.project import Project
    from orchestrator.switch.world import Step

Name = Annotated[str, typer.Argument(metavar="NAME", help="A profile of models.toml, or a name that clients send.")]
OptionalName = Annotated[
    str | None,
    typer.Argument(
        metavar="NAME",
        help="A profile; by default that of COMPOSE_PROFILES, else the first that fits this machine's GPUs.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
# Between two looks of `status --watch`.
WATCH_SECONDS = 1.0


class _Plan(NamedTuple):
    """What an `up` will do itself, what the activator will do then, and whether the model fits, if it is to start.

    settings are those of the server that follow from the machine.
    """

    operations: "list[Operation]"
    steps: "list[Step]"
    fit: "Fit | None"
    settings: "list[Setting]"


def _seen(target: "Profile") -> "Seen | None":
    """Look at the machine's GPUs, for a target that has any."""
    from orchestrator.doctor import nvidia

    return nvidia.look() if target.gpus and target.image == "cuda" else None


def _looked(whole: "Project", seen: "Seen | None") -> "Project":
    """Take over how the machine is built; where its GPUs could not be seen, what was kept holds."""
    from orchestrator.doctor import machine

    found = seen.box if seen else None
    return whole if found is None else replace(whole, box=machine.merged(whole.box, found))


def _plan(whole: "Project", engine: "Engine", activator: "Activator", target: "Profile") -> _Plan:
    from orchestrator import foresee, host
    from orchestrator.doctor import nccl, nccl_run
    from orchestrator.fit.check import check
    from orchestrator.observe import observe
    from orchestrator.plan import plan
    from orchestrator.render.routes import table

    choice = whole.choice(target)
    if choice.automatic:
        session.say(f"vLLM {choice.build.version}: {choice.why}")
        engine.environment["TANDEM_VLLM"] = choice.build.tag
    digest = table(whole.profiles.values())["digest"]
    observed = observe(whole, engine, activator)
    untried = nccl.due(target, nccl_run.tried(whole, observed.idents, target), whole.reduced)
    others = whole.creatable(target, observed.images)
    operations = plan(target, observed, whole.images(target), digest, others, untried)
    steps: list[Step] = []
    if any(operation.kind == "switch" for operation in operations):
        steps = foresee.steps(
            target,
            whole.profiles.values(),
            observed,
            foresee.policy({"TANDEM_HOST_RESERVE": whole.settings.get("TANDEM_HOST_RESERVE")}),
            stopped=any(operation.kind == "stop" for operation in operations),
            host_free=host.free_memory(),
        )
    container = observed.containers.get(target.name)
    runs = container is not None and container.alive and not any(o.kind in ("create", "stop") for o in operations)
    starts = not runs and any(step.kind == "start" for step in steps)
    fit = check(whole, engine, target, foresee.leaving(steps)) if starts else None
    return _Plan(operations, steps, fit, whole.derived(target))


def plan_command(context: typer.Context, name: Name, as_json: Json = False) -> None:
    """Show what `up NAME` would do, and why, and whether the model fits. Does nothing."""
    from orchestrator.ask import activator
    from orchestrator.doctor import derived
    from orchestrator.fit import words

    whole = session.project(context)
    target = whole.profile(name)
    whole = _looked(whole, _seen(target))
    found = _plan(whole, session.engine(whole), activator(whole), target)
    if as_json:
        values = {
            "operations": [asdict(operation) for operation in found.operations],
            "switch": [asdict(step) for step in found.steps],
            "fit": words.values(found.fit) if found.fit else None,
            "settings": derived.as_json(found.settings),
        }
        print(json.dumps(values, ensure_ascii=False))
        return
    print("\n".join(map(str, found.operations)) or f"{name} is ready: nothing to do")
    if found.steps:
        print("\nthe switch, by the activator\n" + "\n".join(f"  {step}" for step in found.steps))
    if found.settings:
        print("\nsettings that follow from this machine\n" + "\n".join(derived.table(found.settings)))
    if found.fit:
        print(f"\n{words.table(found.fit)}")


def _fitting(fit: "Fit | None", *, force: bool) -> None:
    """Say what stands against a model's fitting. Raises TandemError when it cannot fit, unless it is forced."""
    from orchestrator.errors import TandemError
    from orchestrator.fit import words

    if fit is None:
        return
    if fit.state == "cannot" and not force:
        raise TandemError(words.refusal(fit))
    warning = words.warning(fit, forced=force)
    if warning:
        session.say(warning)


def up(
    context: typer.Context,
    name: OptionalName = None,
    force: Annotated[
        bool, typer.Option("--force", help="Try it though it cannot fit, would hang, or its GPUs will not do.")
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Then ask it whether it is right, as 'verify' does; exit 1 if it is not.")
    ] = False,
    plumbing: Plumbing = False,
    as_json: Json = False,
) -> None:
    """Bring a model up, whatever has to be rendered, built, stopped or started for it."""
    from orchestrator import ask, cli_checks, report, view
    from orchestrator.doctor import kept
    from orchestrator.errors import ConfigError, TandemError
    from orchestrator.executor import Executor

    if plumbing and not verify:
        raise TandemError("--plumbing: is about how a model is verified; give --verify too")
    whole = session.project(context)
    engine, activator = session.engine(whole), ask.activator(whole)
    try:
        target = session.target(whole, name)
        if against := whole.against_serving:
            raise ConfigError(against)
        activator.check()
        # Before Docker is asked: WSL 1 has none.
        cli_checks.stop(whole, engine)
        engine.check()
        seen = _seen(target)
        if seen and not force:
            cli_checks.stop_by_gpus(whole, engine, target, seen)
        before, whole = whole.box, _looked(whole, seen)
        if whole.box is not None and whole.box != before:
            kept.keep_box(whole.folder, whole.box)
        _write_stale(whole)
        found = _plan(whole, engine, activator, target)
        _fitting(found.fit, force=force)
        with closing(view.choose(os.environ.get("TERM"))) as shown:
            Executor(whole, engine, activator, shown).run(target, found.operations, force=force)
    except KeyboardInterrupt:
        session.say("interrupted")
        session.say(report.running(engine.containers(), activator.status()))
        raise typer.Exit(130) from None
    if verify:
        _verified(whole, target, plumbing=plumbing, as_json=as_json)
        return
    print(json.dumps(report.ready_json(whole, target)) if as_json else report.ready(whole, target))


def _verified(whole: "Project", target: "Profile", *, plumbing: bool, as_json: bool) -> None:
    """Say that a model is up, and whether it is right. Exits with 1 when it is not, and leaves it up."""
    from orchestrator import cli_proof, report
    from orchestrator.proof import result

    if not as_json:
        # At once: what comes next takes a minute, in which it can be used.
        print(report.ready(whole, target), flush=True)
    try:
        found = cli_proof.prove(whole, target, plumbing=plumbing)
    except KeyboardInterrupt:
        session.say(f"interrupted; {target.name} is up, and was not asked to the end")
        raise typer.Exit(130) from None
    if as_json:
        values = {**report.ready_json(whole, target), "verify": result.values(found)}
        print(json.dumps(values, ensure_ascii=False))
    else:
        print()
        cli_proof.show(found, as_json=False)
    if not found.passed:
        raise typer.Exit(1)


def _write_stale(whole: "Project") -> None:
    """Write what is rendered otherwise, and say why."""
    from orchestrator import project
    from orchestrator.plan import stale_cause

    stale = project.stale(whole.folder, whole.rendered())
    for cause, files in groupby(stale, lambda file: stale_cause(file.path)):
        session.say(f"rendered {', '.join(file.path for file in files)}: {cause}")
    project.write(whole.folder, stale)


def down(
    context: typer.Context,
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Only this profile; by default everything.")
    ] = None,
) -> None:
    """Stop and remove the containers; weights, caches and images stay."""
    from orchestrator import ask, commands, leave, report, view

    whole = session.project(context)
    engine, activator = session.engine(whole), ask.activator(whole)
    left = _left(whole, engine, name) if name is not None else None
    if left is not None:
        session.say(f"stopping {name}, which models.toml does not list any more")
        for argv in commands.remove_unlisted(left):
            engine.run(argv)
        print(report.running(engine.containers(), activator.status()))
        return
    profile = whole.profile(name).name if name is not None else None
    engine.check()
    session.say(f"stopping {profile or 'everything'}")
    if profile is None:
        engine.run(commands.down(whole.settings.env_files))
    else:
        shown = view.Plain()
        leave.take_away(
            profile, engine, activator, whole.settings.env_files,
            lambda told: view.show(shown, told.phase, told.line),
        )  # fmt: skip
    print(report.running(engine.containers(), activator.status()))


def _left(whole: "Project", engine: "Engine", name: str) -> str | None:
    """Name the container of a server that models.toml does not list any more; None where there is none of that name."""
    from orchestrator import report
    from orchestrator.errors import TandemError

    try:
        whole.profile(name)
    except TandemError:
        listed = report.unlisted(whole, engine.containers())
        return next((found.name for found in listed if found.service == name), None)
    return None


def status(
    context: typer.Context,
    as_json: Json = False,
    watch: Annotated[bool, typer.Option("--watch", help="Go on, and show what changes, until Ctrl-C.")] = False,
) -> None:
    """Show each profile: its state, GPUs, since when, what is under way, and the address."""
    from orchestrator import ask, report

    whole = session.project(context)
    engine, activator = session.engine(whole), ask.activator(whole)

    def values() -> str:
        seen = engine.containers(), activator.status()
        return json.dumps(report.status_json(whole, *seen), indent=None if watch else 2, ensure_ascii=False)

    def words() -> str:
        seen = engine.containers(), activator.status()
        return report.status(whole, *seen, away=activator.away)

    show = values if as_json else words
    if watch:
        _watch(show, live=not as_json)
    else:
        print(show())


def _watch(show: "Callable[[], str]", *, live: bool) -> None:
    """Redraw on a terminal; anywhere else print what is new when it changes."""
    from orchestrator import view
    from orchestrator.errors import TandemError

    def now() -> str:
        try:
            return show()
        except TandemError as error:
            if not live:
                raise
            return str(error)  # Docker comes back, and so does this

    screen = view.screen(os.environ.get("TERM")) if live else None
    with closing(screen or view.Pages(between=view.PLAIN_SECONDS if live else 0)) as pages:
        view.watch(now, pages, lambda: time.sleep(WATCH_SECONDS))
