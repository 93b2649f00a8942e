"""Which requests a killed process held: those alone may fail. Pure."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Literal

from tests.switching.load import Record

What = Literal["server", "activator", "router", "dockerd"]
# A connection that breaks is noticed at once; this is for a machine that lets nobody notice anything for a while.
GRACE = 60.0


@dataclass(frozen=True)
class Kill:
    """A process that was killed with SIGKILL, in time.monotonic: from when on, when it was surely gone, and back."""

    what: What
    model: str
    at: float
    gone: float
    back: float


def excuse(record: Record, kills: Iterable[Kill], direct: Collection[str]) -> Kill | None:
    """Name the kill that took this request along; None when nothing excuses its end.

    It has to have been under way while the process died, to have ended soon after it, and its way has to have led
    through what was killed: for a server, requests of its model; for the activator, those that no server saw come from
    the router itself (direct has the idents of those that one did); for router and dockerd, which all connections lead
    through, every request that was sent before they were back.
    """
    for kill in kills:
        lasting = kill.what in ("router", "dockerd")
        under_way = record.began <= (kill.back if lasting else kill.gone) and record.ended >= kill.at
        soon = record.ended <= (kill.back if lasting else kill.gone) + GRACE
        if not (under_way and soon):
            continue
        if kill.what == "server" and record.model != kill.model:
            continue
        if kill.what == "activator" and record.ident in direct:
            continue
        return kill
    return None
