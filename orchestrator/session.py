"""What every command begins with: the project's folder, Docker, the profile that is meant."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from orchestrator.engine import Engine
    from orchestrator.profiles import Profile
    from orchestrator.project import Project


def project(context: typer.Context) -> "Project":
    """Read and check the project that the working folder belongs to."""
    from orchestrator import project

    folder = project.find(Path.cwd())
    return project.load(folder, [path.absolute() for path in context.obj.env_files], os.environ)


def engine(whole: "Project") -> "Engine":
    """Docker as the project sees it; connects on first use."""
    from orchestrator.engine import Engine

    return Engine(whole.folder, whole.settings.project, os.environ)


def say(text: str) -> None:
    """Tell of progress, in one write: threads tell too, and lines must not run into one another."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def target(whole: "Project", name: str | None) -> "Profile":
    """Find the profile that is meant; with no name that of COMPOSE_PROFILES, else the first that fits this machine."""
    from orchestrator import host
    from orchestrator.errors import TandemError
    from orchestrator.plan import default_profile

    named = whole.settings.profiles
    chosen = name or default_profile(whole.profiles, named, 0 if named else host.gpus())
    if chosen is None:
        why = f"COMPOSE_PROFILES names {', '.join(named)}" if named else "no profile fits this machine's GPUs"
        raise TandemError(f"Which profile? {why}; name one of: {', '.join(whole.profiles)}")
    return whole.profile(chosen)
