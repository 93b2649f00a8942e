"""Tells what happens to the servers by others' hands, or by themselves: Docker's events, and looks after a silence."""

import logging
from collections.abc import Awaitable, Callable

from orchestrator.activator.docker import AwayError, DockerError, Happening
from orchestrator.activator.effects import Effects
from orchestrator.activator.looking import Looking
from orchestrator.activator.wishes import BY_HAND
from orchestrator.states import STOPPED_CODES
from orchestrator.switch.world import Event, Unwished, Wished

TERM, INT = 15, 2
STOPPED_BY_HAND = "who stopped its container by hand"
# Seconds before the daemon is tried again, and before a stop is taken for somebody's wish: a daemon that is itself
# being stopped stops everything first.
AGAIN, DOUBT = 1.0, 1.0

_log = logging.getLogger(__name__)


class Watch:
    """Feeds events of the world to the driver. busy names the models that a run deals with: what they do, it tells."""

    def __init__(
        self, effects: Effects, looking: Looking, feed: Callable[[Event], None], busy: Callable[[], frozenset[str]]
    ) -> None:
        self._do, self._looking, self._feed, self._busy = effects, looking, feed, busy
        # Models whose servers were told to end.
        self._told: set[str] = set()

    async def listen(self, begin: Callable[[], Awaitable[None]]) -> None:
        """Follow Docker's events for ever. begin runs once they are listened to, after each silence."""
        while True:
            try:
                async for happening in self._do.docker.happenings(frozenset(self._do.models)):
                    if happening is None:
                        await begin()
                    else:
                        await self.happened(happening)
            except AwayError as error:
                _log.warning("%s; trying again", error)
            except DockerError as error:
                _log.warning("Docker refused: %s", error)
            except Exception:  # noqa: BLE001 (who does not watch any more leaves routes open to the dead)
                _log.exception("a fault of the activator itself")
            await self._do.pause(AGAIN)

    async def happened(self, what: Happening) -> None:
        """Take note of one event."""
        match what.action:
            case "start":
                await self._started(what.model)
            case "kill" if what.signal in (TERM, INT):
                self._is_told(what.model)
            case "die":
                await self._died(what.model)
            case "destroy":
                await self._looking.look(what.model)

    async def _started(self, model: str) -> None:
        own = self._do.containers
        self._told.discard(model)
        # A stop of ours that found it gone has no event of its own; the next death is none of ours.
        own.stops.discard(model)
        if model in own.starts:
            own.starts.discard(model)
            return
        seen = await self._do.docker.inspect(model)
        if seen is not None:
            self._do.memory.saw_run(model, seen.container.started_at)
        if model not in self._busy():
            self._looking.shut(model)
            self._looking.tell(model, "starting")
        self._feed(Wished(model, BY_HAND))

    def _is_told(self, model: str) -> None:
        """Take note that a server was told to end: from now on it breaks off what it gets."""
        self._told.add(model)
        if model in self._do.containers.stops or model in self._busy():
            return
        self._looking.shut(model)
        if self._do.board[model].state in ("ready", "draining"):
            self._looking.tell(model, "stopping")

    async def _died(self, model: str) -> None:
        own, by_hand = self._do.containers, model in self._told
        self._told.discard(model)
        own.starts.discard(model)
        if model in own.stops:
            own.stops.discard(model)
            await self._looking.look(model)
            return
        if model not in self._busy():
            self._looking.shut(model)
        seen = await self._do.docker.inspect(model)
        container = seen.container if seen is not None else None
        if by_hand and (container is None or (container.exit_code in STOPPED_CODES and not container.oom_killed)):
            await self._stopped_by_hand(model)
        elif model not in self._busy() and (container is None or not container.alive):
            self._looking.tell(model, "failed", await self._do.containers.cause(model, seen))

    async def _stopped_by_hand(self, model: str) -> None:
        await self._do.pause(DOUBT)
        seen = await self._do.docker.inspect(model)
        self._feed(Unwished(model, STOPPED_BY_HAND))
        # One that was started again has an event that says so.
        if model not in self._busy() and (seen is None or not seen.container.alive):
            self._looking.tell(model, "stopped")
