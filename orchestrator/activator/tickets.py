"""The requests that the activator holds or has passed on: each one's outcome, and how many are in flight to a model."""

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable

from orchestrator.activator.metrics import Metrics
from orchestrator.activator.ports import Phase
from orchestrator.switch.world import Forward, Refuse


class Held:
    """One held request; ports.Ticket says what it does."""

    def __init__(self, tickets: "Tickets", ident: int, model: str, *, stream: bool, since: float) -> None:
        self.outcome: asyncio.Future[Forward | Refuse] = asyncio.get_running_loop().create_future()
        self.ident, self.model, self.stream, self.since = ident, model, stream, since
        self._tickets = tickets

    def phase(self) -> Phase:
        return self._tickets.phase(self.model)

    def close(self) -> None:
        self._tickets.close(self)


class Tickets:
    """All of them, by ident. left is told of each that goes away while it waits."""

    def __init__(
        self,
        clock: Callable[[], float],
        metrics: Metrics,
        phase: Callable[[str], Phase],
        left: Callable[[int], None],
    ) -> None:
        self.phase = phase
        self._clock, self._metrics, self._left = clock, metrics, left
        self._idents = itertools.count(1)
        self._held: dict[int, Held] = {}
        self._in_flight: Counter[str] = Counter()

    def new(self, model: str, *, stream: bool) -> Held:
        """Hold a request."""
        held = Held(self, next(self._idents), model, stream=stream, since=self._clock())
        self._held[held.ident] = held
        return held

    def in_flight(self, model: str) -> int:
        """Count the requests that were passed on and are not over."""
        return self._in_flight[model]

    @property
    def passing_on(self) -> bool:
        """Whether a request that was passed on is not over."""
        return any(self._in_flight.values())

    def waiting(self) -> list[Held]:
        """Name those that wait, the oldest first."""
        return [held for held in self._held.values() if not held.outcome.done()]

    def tell(self, decision: Forward | Refuse) -> None:
        """Give requests their outcome; those that went away meanwhile need none."""
        for ident in decision.idents:
            held = self._held.get(ident)
            if held is None or held.outcome.done():
                continue
            if isinstance(decision, Forward):
                self._in_flight[held.model] += 1
                self._metrics.waited(self._clock() - held.since)
            else:
                self._metrics.refused(decision.code)
            held.outcome.set_result(decision)

    def close(self, held: Held) -> None:
        """A request is over."""
        if self._held.pop(held.ident, None) is None:
            return
        if not held.outcome.done() or held.outcome.cancelled():
            held.outcome.cancel()
            self._metrics.given_up += 1
            self._left(held.ident)
        elif isinstance(held.outcome.result(), Forward):
            self._in_flight[held.model] -= 1
