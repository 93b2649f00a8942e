"""Waits until nothing is in flight to a model any more: by the router's count, by our own and by its server's."""

import asyncio
import logging
from dataclasses import dataclass

from orchestrator.activator.effects import Effects
from orchestrator.activator.run import Run
from orchestrator.activator.servers import Load

# Seconds between two looks at what is in flight.
BETWEEN = 0.05
# The router may go by a link for 5 ms after it was there (BELIEVED in docker/router/routes.lua), for requests that it
# counted before.
UNSEEN = 0.01
# A server's own count can stay behind when a client goes away. With none in flight on our side and not a token for so
# many seconds, nothing is.
STALE = 30.0
# A router that is there and does not tell may have taken a request that its server has not got yet; after so many
# seconds (to find the server's address, and to connect) it has.
ON_THE_WAY = 6.0

_log = logging.getLogger(__name__)


@dataclass
class _Quiet:
    """Since when a server did nothing, as far as it says so."""

    since: float
    before: Load | None = None

    def heard(self, load: Load | None, now: float) -> None:
        if load is not None and load != self.before:
            self.before, self.since = load, now


async def drain(do: Effects, run: Run, model: str) -> None:
    """Wait until nothing is in flight, its server is gone, or drain_timeout is over: then run.cut says what is left.

    Raises AbandonedError.
    """
    began = do.clock()
    quiet = _Quiet(began)
    await run.pause(UNSEEN)
    while True:
        routed, load = await asyncio.gather(do.router.in_flight(), do.servers.load(model))
        now = do.clock()
        quiet.heard(load, now)
        ours = None if routed is None else routed.get(model, 0)
        count = _count(ours, do.own(model), load, now - quiet.since)
        if count == 0 or (load is None and await _is_gone(do, model)):
            return
        run.say("drain", "what is in flight is not known" if count is None else f"{count} in flight")
        if now - began >= do.policy.drain_timeout:
            run.cut[model] = count or 0
            run.say("drain", f"{run.text}, and cut off: not over in {do.policy.drain_timeout:g} s")
            _log.warning("%s: %s", model, run.text)
            return
        await run.pause(BETWEEN)


def _count(routed: int | None, own: int, load: Load | None, quiet: float) -> int | None:
    """Count what is in flight; None where nobody can tell. quiet: for how many seconds its server did nothing new."""
    ours = own + (routed or 0)
    if load is None:
        return ours if ours or routed is not None else None
    if routed is None and not ours and not load.requests:
        return 0 if quiet >= ON_THE_WAY else None
    stale = routed is not None and not ours and quiet >= STALE
    return 0 if stale else max(ours, load.requests)


async def _is_gone(do: Effects, model: str) -> bool:
    seen = await do.containers.look(model)
    return seen is None or not seen.container.alive
