"""The command `report`: gathers what others need to know of this machine, and prints it without secrets."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator import session

if TYPE_CHECKING:
    from orchestrator.doctor.finding import Finding
    from orchestrator.doctor.smi import Seen
    from orchestrator.engine import Engine
    from orchestrator.project import Project

Output = Annotated[Path | None, typer.Option("--output", help="Write it into this file; by default it is printed.")]
Seconds = Annotated[float, typer.Option(min=1, max=600, help="How long it may take to look at everything.")]


def report(context: typer.Context, output: Output = None, seconds: Seconds = 13) -> None:
    """Write a text about this machine to paste into an issue; changes nothing.

    Versions, machine, settings, models.toml, doctor's table, the last verify and bench, states, and the lines of the
    logs that matter. Keys, tokens, passwords, names of users and machines, and addresses are taken out.
    """
    from datetime import UTC, datetime

    from orchestrator import cli_bench, host, project
    from orchestrator.cli_checks import Progress
    from orchestrator.engine import Engine
    from orchestrator.errors import TandemError
    from orchestrator.telling import gathering, opening, words
    from orchestrator.telling.redaction import Redaction

    # A file is replaced; a device or a pipe would be too.
    if output is not None and (not output.absolute().parent.is_dir() or (output.exists() and not output.is_file())):
        raise TandemError(f"--output: {output}: should be a file in a folder that is there")
    files = [path.absolute() for path in context.obj.env_files]
    progress = Progress(session.say)
    try:
        whole, problems = opening.opened(project.find(Path.cwd()), files, os.environ)
        engine = Engine(whole.folder, whole.settings.project, os.environ, seconds=gathering.DOCKER)
        found = gathering.gather(whole, problems, engine, os.environ, _findings, cli_bench.PLACE, progress, seconds)
        known, unread = opening.secrets(whole, files, os.environ)
        redact = Redaction(known)
        when = host.rfc3339(datetime.now(UTC))
        sections = [(title, gathering.told(make, redact)) for title, make in found]
        text = words.document(when, sections, [redact(path) for path in unread])
        if output is not None:
            opening.keep(output.resolve(), text)
    except KeyboardInterrupt:
        session.say("interrupted; nothing is written")
        raise typer.Exit(130) from None
    finally:
        progress.close()
    print(f"written to {output}" if output is not None else text, end="\n" if output is not None else "")


def _findings(whole: "Project", engine: "Engine", seen: "Seen") -> "Sequence[Finding]":
    """What doctor finds; but starts no container to look at the weights, and gives a program and a server less time."""
    from dataclasses import replace

    from orchestrator import cli_checks
    from orchestrator.telling.gathering import PROGRAM

    usual = cli_checks.means(whole, engine)
    means = replace(
        usual,
        run=lambda argv, seconds: usual.run(argv, min(seconds, 2 * PROGRAM)),
        date=lambda address, seconds: usual.date(address, min(seconds, PROGRAM / 2)),
        listing=lambda: None,
    )
    return cli_checks.examined(whole, engine, means, lambda _: None, seen)[1]
