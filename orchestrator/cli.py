"""The commands: reads arguments, calls the parts in order, prints what came of it."""

import json
import os
import signal
import sys
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator import cli_bundle, cli_doctor, cli_images, cli_verify, cli_weights, session

if TYPE_CHECKING:
    from orchestrator.engine import Engine
    from orchestrator.fit.verdict import Fit
    from orchestrator.plan import Operation
    from orchestrator.profiles import Profile
    from orchestrator.project import Project

app = typer.Typer(
    help="Serve any of the models in models.toml, by name, behind one OpenAI-compatible address.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
Name = Annotated[str, typer.Argument(help="A profile of models.toml, or a name that clients send.")]
OptionalName = Annotated[
    str | None,
    typer.Argument(
        help="A profile; by default that of COMPOSE_PROFILES, else the first that fits this machine's GPUs."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]


app.add_typer(cli_doctor.app, name="doctor")


@dataclass
class _Options:
    env_files: list[Path]


@app.callback()
def _root(
    context: typer.Context,
    env_file: Annotated[
        list[Path] | None,
        typer.Option(help="Settings from this file in place of .env, as with docker compose; may be given again."),
    ] = None,
) -> None:
    context.obj = _Options(env_file or [])
    # A stop from outside ends as cleanly as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@app.command()
def check(context: typer.Context, as_json: Json = False) -> None:
    """Check models.toml and this machine's settings; say everything that is wrong."""
    from orchestrator.errors import ConfigError

    try:
        whole = session.project(context)
    except ConfigError as error:
        if not as_json:
            raise
        print(json.dumps({"profiles": [], "problems": error.problems}, ensure_ascii=False))
        raise typer.Exit(error.exit_code) from None
    if as_json:
        print(json.dumps({"profiles": list(whole.profiles), "problems": []}))
    else:
        print(f"models.toml: {len(whole.profiles)} profiles, nothing wrong: {', '.join(whole.profiles)}")


@app.command()
def render(
    context: typer.Context,
    only_check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit 1 with a diff if a file is stale.")
    ] = False,
) -> None:
    """Write the files that follow from models.toml."""
    from orchestrator import project

    whole = session.project(context)
    stale = project.stale(whole.folder, whole.rendered())
    if only_check:
        for file in stale:
            sys.stdout.writelines(project.diff(whole.folder, file))
        if stale:
            raise typer.Exit(1)
        return
    project.write(whole.folder, stale)
    for file in stale:
        print(f"{'wrote' if file.text else 'removed'} {file.path}")
    if not stale:
        print("everything is up to date")


def _plan(whole: "Project", engine: "Engine", target: "Profile") -> "list[Operation]":
    from orchestrator.observe import observe
    from orchestrator.plan import plan
    from orchestrator.render.routes import table

    choice = whole.choice(target)
    if choice.automatic:
        session.say(f"vLLM {choice.build.version}: {choice.why}")
        engine.environment["TANDEM_VLLM"] = choice.build.tag
    digest = table(whole.profiles.values())["digest"]
    return plan(target, observe(whole, engine), whole.images(target), digest)


@app.command("plan")
def plan_command(context: typer.Context, name: Name, as_json: Json = False) -> None:
    """Show what `up NAME` would do, and why, and whether the model fits. Does nothing."""
    from orchestrator.fit import words
    from orchestrator.fit.check import check

    whole = session.project(context)
    engine, target = session.engine(whole), whole.profile(name)
    operations = _plan(whole, engine, target)
    fit = check(whole, engine, target, operations)
    if as_json:
        steps = [asdict(operation) for operation in operations]
        print(json.dumps({"operations": steps, "fit": words.values(fit) if fit else None}, ensure_ascii=False))
        return
    print("\n".join(map(str, operations)) or f"{name} is ready: nothing to do")
    if fit:
        print(f"\n{words.table(fit)}")


def _fitting(whole: "Project", engine: "Engine", target: "Profile", plan: "list[Operation]", *, force: bool) -> None:
    """Say what stands against a model's fitting. Raises TandemError when it cannot fit, unless it is forced."""
    from orchestrator.errors import TandemError
    from orchestrator.fit import words
    from orchestrator.fit.check import check

    fit: Fit | None = check(whole, engine, target, plan)
    if fit is None:
        return
    if fit.state == "cannot" and not force:
        raise TandemError(words.refusal(fit))
    warning = words.warning(fit, forced=force)
    if warning:
        session.say(warning)


app.command()(cli_images.build)
app.command()(cli_images.images)
app.command()(cli_verify.verify_image)
app.command()(cli_weights.pull)
app.command()(cli_weights.verify)
app.add_typer(cli_weights.app, name="models")


@app.command()
def up(
    context: typer.Context,
    name: OptionalName = None,
    force: Annotated[bool, typer.Option("--force", help="Try it though the model cannot fit.")] = False,
    as_json: Json = False,
) -> None:
    """Bring a model up, whatever has to be rendered, built, stopped or started for it."""
    from orchestrator import project, report, view
    from orchestrator.executor import Executor

    whole = session.project(context)
    engine = session.engine(whole)
    executor: Executor | None = None
    try:
        target = session.target(whole, name)
        engine.check()
        stale = project.stale(whole.folder, whole.rendered())
        if stale:
            session.say(f"rendered {', '.join(file.path for file in stale)}: models.toml says otherwise")
            project.write(whole.folder, stale)
        operations = _plan(whole, engine, target)
        _fitting(whole, engine, target, operations, force=force)
        with closing(view.choose(os.environ.get("TERM"))) as shown:
            executor = Executor(whole, engine, shown)
            executor.run(target, operations)
    except KeyboardInterrupt:
        session.say("interrupted")
        if executor is not None:
            executor.abandon()
        session.say(report.running(engine.containers()))
        raise typer.Exit(130) from None
    print(json.dumps(report.ready_json(whole, target)) if as_json else report.ready(whole, target))


@app.command()
def down(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(help="Only this profile; by default everything.")] = None,
) -> None:
    """Stop and remove the containers; weights, caches and images stay."""
    from orchestrator import commands, report

    whole = session.project(context)
    engine = session.engine(whole)
    engine.check()
    files = whole.settings.env_files
    session.say(f"stopping {name or 'everything'}")
    if name is None:
        engine.run(commands.down(files))
    else:
        profile = whole.profile(name).name
        present = [service for service in (profile, f"pull-{profile}") if service in engine.containers()]
        if present:
            engine.run(commands.remove(files, present))
    print(report.running(engine.containers()))


@app.command()
def status(context: typer.Context, as_json: Json = False) -> None:
    """Show each profile: its state, GPUs, since when, and the address."""
    from orchestrator import report

    whole = session.project(context)
    containers = session.engine(whole).containers()
    print(json.dumps(report.status_json(whole, containers), indent=2) if as_json else report.status(whole, containers))


@app.command()
def logs(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="A profile, or router.")],
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on as new lines come.")] = False,
    tail: Annotated[str, typer.Option(help="How many of the last lines, or all.")] = "200",
) -> None:
    """Show a server's log."""
    from orchestrator import commands
    from orchestrator.errors import TandemError

    whole = session.project(context)
    containers = session.engine(whole).containers()
    service = name if name in containers else whole.profile(name).name
    # A server that never started has nothing to say; what it waited for has.
    container = next(
        (c for c in (containers.get(service), containers.get(f"pull-{service}")) if c and c.started_at), None
    )
    if container is None:
        raise TandemError(f"{name} has no container, so no log. Start it: python -m orchestrator up {name}")
    argv = commands.logs(container.name, follow=follow, tail=tail)
    os.execvp(argv[0], argv)  # noqa: S606 (argv is built by us; Ctrl-C and pipes are docker's to handle)


app.add_typer(cli_bundle.app, name="bundle")
