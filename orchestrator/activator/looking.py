"""Looks at servers and their containers, whatever is believed of them, and tells the driver what differs."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from orchestrator.activator.docker import Seen
from orchestrator.activator.effects import Effects
from orchestrator.activator.servers import NoSuchPathError, ServerError
from orchestrator.activator.starting import note_awake, note_sleep
from orchestrator.switch.world import AWAKE, Changed, Event, State

# What stays true of a server while it runs, although it may be too busy to say so.
LASTING: frozenset[State] = frozenset({"ready", "draining", "asleep", "stopping"})


class Looking:
    """Feeds what it finds to the driver. busy names the models that a run deals with: what they do, the run tells."""

    def __init__(self, effects: Effects, feed: Callable[[Event], None], busy: Callable[[], frozenset[str]]) -> None:
        self._do, self._feed, self._busy = effects, feed, busy
        # Held while a server is woken or asked for a token, and while a run is planned: none is put to sleep meanwhile.
        self.asking = asyncio.Lock()

    async def look(self, model: str) -> None:
        """See how a server is, and tell what differs. Raises AwayError."""
        seen = await self._do.docker.inspect(model)
        if model in self._busy():
            return
        state, reason = await self._state(model, seen)
        if model in self._busy():
            return  # a run took it up meanwhile, and sees for itself
        if state != "ready":
            self.shut(model)
        if seen is not None and seen.image != self._do.board.image(model):
            # Also of one that is stopped: what its start will need decides who may sleep beside it.
            note_awake(self._do, model, seen.image)
        changed = state != self._do.board[model].state
        if seen is not None and state in ("ready", "asleep") and (changed or self._is_refused(model, seen)):
            await note_sleep(self._do, model, seen)
        if changed:
            self.tell(model, state, reason)

    def shut(self, model: str) -> None:
        """Close the route of a server that is not ready any more."""
        if self._do.board[model].open:
            self._do.routes.close(model)
            self._do.board.opened(model, False)

    def tell(self, model: str, state: State, reason: str = "") -> None:
        """Note what a server does, and have the driver know."""
        self._do.board.set(model, state, reason)
        self._feed(Changed(model, state, reason))

    async def _state(self, model: str, seen: Seen | None) -> tuple[State, str]:
        before = self._do.board[model]
        if seen is None or not seen.container.alive:
            failed = seen is not None and seen.container.state == "failed"
            if failed and before.state in AWAKE | {"asleep"}:
                return "failed", await self._do.containers.cause(model, seen)
            return ("failed", before.reason) if before.state == "failed" else ("stopped", "")
        believed = self._believed(model, seen)
        if not await self._do.servers.lists(model):
            return believed or "starting", ""
        if await self._do.servers.sleeping(model):
            return "asleep", ""
        return believed or await self._proven(model), ""

    def _believed(self, model: str, seen: Seen) -> State | None:
        """Give the state that a server keeps as long as it runs; None for another run than the one that had it."""
        if self._do.memory.run_of(model) != seen.container.started_at:
            return None
        before = self._do.board[model]
        return "ready" if before.open else before.state if before.state in LASTING - {"ready"} else None

    def _is_refused(self, model: str, seen: Seen) -> bool:
        # On trial it may sleep in spite of that, once.
        return bool(self._do.memory.sleep_refused(model, seen.image))

    async def _proven(self, model: str) -> State:
        """See whether a server that lists its name is ready: ready is who gives a token."""
        async with self.asking:
            if model in self._busy():
                return self._do.board[model].state
            try:
                await self._be_awake(model)
                await self._do.servers.prove(model)
            except ServerError:
                return "starting"
            return "ready"

    async def _be_awake(self, model: str) -> None:
        """See that a server is not on its way to sleep, as an activator that was killed may have asked it to be.

        It would not say so in time, and a request would hang. Waking does nothing to one that is awake.
        """
        if self._do.models[model].sleep == "auto":
            with suppress(NoSuchPathError):
                await self._do.servers.wake(model)
