"""What the activator's HTTP side and its driver know of each other; neither knows more of the other than this."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from orchestrator.switch.world import Footprint, Forward, Refuse

PhaseName = Literal[
    "queued", "drain", "sleep", "stop", "release", "start", "wake", "prove", "ready", "asleep", "stopped", "failed"
]
# With one of these a stream of phases ends: what was asked for is done, or cannot be done.
FINAL: frozenset[PhaseName] = frozenset({"ready", "asleep", "stopped", "failed"})


@dataclass(frozen=True)
class Phase:
    """What is being done for a model.

    text says it to a person; seconds is how long its switch runs already, left how long it will take, None where there
    is no history to tell from; reason says why it failed and is empty otherwise.
    """

    model: str
    phase: PhaseName
    text: str = ""
    seconds: float = 0
    left: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class Slept:
    """What a sleep test found: how many cycles it had, what went wrong, "" for nothing, and what a sleeper kept."""

    cycles: int
    fault: str = ""
    footprint: Footprint | None = None


class Ticket(Protocol):
    """A held request.

    Its outcome comes once. From a Forward on the request counts as in flight until its ticket is closed.
    """

    outcome: "asyncio.Future[Forward | Refuse]"

    def phase(self) -> Phase:
        """Say what is being done for the request's model now."""
        ...

    def close(self) -> None:
        """Take the request back: it was answered, refused, or its client went away. A second call does nothing."""
        ...


class Driver(Protocol):
    """Who switches. Every method is called from the event loop's thread, with a model profile's name that is known."""

    def ask(self, model: str, size: int, *, stream: bool, unreachable: bool) -> Ticket:
        """Hold a request whose body has so many bytes.

        stream: its client will get signs of life, so that it may be held for longer than hold_timeout. unreachable:
        its server was tried just now and nothing listened there.
        """
        ...

    def up(self, model: str, by: str) -> AsyncIterator[Phase]:
        """Make a model the wanted one, and tell its phases until a final one. Who stops listening undoes nothing."""
        ...

    def down(self, model: str, by: str) -> AsyncIterator[Phase]:
        """Drain and stop a model; nothing wants it any more."""
        ...

    def sleep(self, model: str, by: str, *, trial: bool = False) -> AsyncIterator[Phase]:
        """Drain a model and put it to sleep. On trial it sleeps also where an earlier failure stands against it."""
        ...

    def wake(self, model: str, by: str) -> AsyncIterator[Phase]:
        """Wake a model that sleeps."""
        ...

    def slept(self, model: str, found: Slept) -> None:
        """Keep what a sleep test found, for the image that the model runs. Raises LookupError when none was seen."""
        ...

    def take_back(self, model: str) -> None:
        """Forget the wish for a model that is not ready yet, and give its start up."""
        ...

    async def looked(self) -> None:
        """Return once it is known how the models are: not before Docker has said what runs."""
        ...

    def status(self) -> dict[str, Any]:
        """Tell everything that is known, as GET /-/status answers it; "models" has an entry with "name" for each."""
        ...

    def metrics(self) -> str:
        """Tell what was counted, in Prometheus' text form."""
        ...
