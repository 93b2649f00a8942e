"""The commands: reads arguments, calls the parts in order, prints what came of it."""

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from orchestrator import (
    cli_bench,
    cli_bundle,
    cli_doctor,
    cli_images,
    cli_keys,
    cli_measure,
    cli_proof,
    cli_report,
    cli_switch,
    cli_verify,
    cli_weights,
    interrupts,
    session,
)

app = typer.Typer(
    help="Serve any of the models in models.toml, by name, behind one OpenAI-compatible address.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
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
    interrupts.listen()


@app.command()
def check(context: typer.Context, as_json: Json = False) -> None:
    """Check models.toml and this machine's settings; say everything that is wrong."""
    from orchestrator.errors import ConfigError

    try:
        whole = session.project(context)
        if against := whole.against_serving:
            raise ConfigError(against)
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


app.command("plan")(cli_switch.plan_command)
app.command()(cli_images.build)
app.command()(cli_images.images)
app.command()(cli_verify.verify_image)
app.command()(cli_weights.pull)
app.command()(cli_proof.verify)
app.command()(cli_report.report)
app.add_typer(cli_weights.app, name="models")


app.command()(cli_switch.up)
app.command()(cli_switch.down)
app.command()(cli_switch.status)


@app.command()
def requests(
    context: typer.Context,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on as new lines come.")] = False,
    tail: Annotated[str, typer.Option(help="How many of the last lines, or all.")] = "200",
) -> None:
    """Show what clients asked: a line of JSON for each request that is over."""
    from orchestrator import commands
    from orchestrator.errors import TandemError

    if tail != "all" and not (tail.isascii() and tail.isdigit()):
        raise TandemError(f'--tail: should be a number of lines, or all, got "{tail}"')
    whole = session.project(context)
    router = session.engine(whole).containers().get("router")
    if router is None or router.status != "running":
        raise TandemError("the router is not up. Start it: python -m orchestrator up")
    argv = commands.requests(router.name, follow=follow, tail=tail)
    os.execvp(argv[0], argv)  # noqa: S606 (argv is built by us; Ctrl-C and pipes are docker's to handle)


@app.command()
def logs(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="A profile, or router, activator, engine-proxy, gpus.")],
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


app.command("sleep-test")(cli_measure.sleep_test)
app.add_typer(cli_bench.app, name="bench")
app.add_typer(cli_bundle.app, name="bundle")
app.add_typer(cli_keys.app, name="keys")
