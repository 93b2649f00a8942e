"""Looks around every second: who is used, what is in flight at the router, how the GPUs are."""

import logging
from collections.abc import Callable, Mapping

from orchestrator.activator.effects import Effects
from orchestrator.activator.gpus import Cards
from orchestrator.switch.world import Event, Used

# Seconds between two looks.
BETWEEN = 1.0

_log = logging.getLogger(__name__)


class Around:
    """What was seen last. cards is None where nobody can read the GPUs."""

    def __init__(self, effects: Effects, feed: Callable[[Event], None]) -> None:
        self._do, self._feed = effects, feed
        self.cards: Cards | None = None
        self.routed: Mapping[str, int] = {}
        self._tokens: dict[str, float] = {}

    async def look(self, progress: Callable[[], None]) -> None:
        """Look for ever; progress is called at each look, for what is under way."""
        while True:
            await self._do.pause(BETWEEN)
            try:
                await self._look()
            except Exception:  # noqa: BLE001 (without a next look every model seems unused, and rests)
                _log.exception("a fault of the activator itself")
            progress()

    async def _look(self) -> None:
        self.cards = await self._do.gpus.look()
        self.routed = await self._do.router.in_flight() or {}
        for name, model in self._do.models.items():
            if model.ttl is not None and self._do.board[name].state == "ready" and await self._is_used(name):
                self._feed(Used(name))

    async def _is_used(self, model: str) -> bool:
        """Whether requests are in flight to it, or were since the last look, by any way."""
        load = await self._do.servers.load(model)
        tokens, before = (load.tokens if load else 0), self._tokens.get(model)
        self._tokens[model] = tokens
        busy = load is not None and load.requests > 0
        return busy or tokens != before or self.routed.get(model, 0) + self._do.own(model) > 0
