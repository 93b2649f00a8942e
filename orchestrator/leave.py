"""Takes one model away: its requests end first, then its containers go."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from orchestrator import commands, http
from orchestrator.ask import Activator, Told, silent
from orchestrator.errors import TandemError
from orchestrator.states import Container


class Docker(Protocol):
    """What of Docker is needed here; engine.Engine has it."""

    def containers(self) -> Mapping[str, Container]:
        """List the project's containers by service."""
        ...

    def run(self, argv: list[str]) -> Any:
        """Run a command of Docker's CLI."""
        ...


def take_away(
    profile: str, engine: Docker, activator: Activator, env_files: Iterable[Path], show: Callable[[Told], None]
) -> None:
    """Have the activator drain and stop a model, and remove its containers.

    Where the activator is not up, nobody asks for the model either: it is removed at once. Raises TandemError when an
    activator that is up does not do it.
    """
    containers = engine.containers()
    asked = containers.get("activator")
    # Nothing wants it any more either, so that no request in the queue brings it back.
    if profile in containers and asked is not None and asked.status == "running":
        if activator.status() is None:
            raise TandemError(silent(http.SilentError(activator.away)))
        activator.do("down", profile, show)
    present = [service for service in (profile, f"pull-{profile}") if service in containers]
    if present:
        engine.run(commands.remove(env_files, present))
