"""Tells a model's phases to who asked for it, until what was asked for is done or cannot be done."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace

from orchestrator.activator.board import Board
from orchestrator.activator.ports import FINAL, Phase
from orchestrator.switch.scheduler import Scheduler
from orchestrator.switch.world import Ended, State

OVERRULED = "somebody else asked for it since"


@dataclass
class News:
    """What those who look on wait for: a change, and how the runs of each model ended."""

    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _ends: dict[str, tuple[int, Ended]] = field(default_factory=dict)
    serial: int = 0

    def tell(self) -> None:
        """Wake those who look on."""
        self._changed.set()
        self._changed = asyncio.Event()

    def change(self) -> asyncio.Event:
        """Give what is set at the next change."""
        return self._changed

    def ended(self, ended: Ended) -> None:
        """Note how a run ended."""
        self.serial += 1
        self._ends[ended.target] = (self.serial, ended)

    def end_since(self, model: str, serial: int) -> Ended | None:
        """Give how a model's last run ended, if it did after `serial`."""
        number, ended = self._ends.get(model, (0, None))
        return ended if number > serial else None


async def phases(
    model: str,
    news: News,
    now: Callable[[str], Phase],
    verdict: Callable[[Ended | None], Phase | None],
    handled: asyncio.Event,
    clock: Callable[[], float],
) -> AsyncIterator[Phase]:
    """Give each phase as it comes; the last one is what verdict says, once the wish was taken in (handled)."""
    began, serial, told = clock(), news.serial, None
    while True:
        change = news.change()
        final = verdict(news.end_since(model, serial)) if handled.is_set() else None
        if final is not None:
            yield replace(final, seconds=clock() - began)
            return
        phase = now(model)
        if phase != told and phase.phase not in FINAL:
            told = phase
            yield replace(phase, seconds=clock() - began)
        await change.wait()


class Verdicts:
    """Say whether what was asked for is done, or cannot be; None while it is under way. ended is the last run since."""

    def __init__(self, board: Board, scheduler: Scheduler, busy: Callable[[], frozenset[str]]) -> None:
        self._board, self._scheduler, self._busy = board, scheduler, busy

    def up(self, model: str, ended: Ended | None) -> Phase | None:
        """Say whether it is up."""
        if ended is not None and ended.outcome in ("failed", "abandoned"):
            return Phase(model, "failed", reason=ended.reason or "it was given up")
        if self._board[model].open and self._scheduler.servers[model].state == "ready":
            return Phase(model, "ready")
        if model in self._scheduler.wanted or model in self._busy():
            return None
        return Phase(model, "failed", reason="another model was asked for since")

    def down(self, model: str, ended: Ended | None) -> Phase | None:
        """Say whether it is stopped."""
        if self._is(model, "stopped"):
            return Phase(model, "stopped")
        if ended is not None and ended.outcome == "failed":
            return Phase(model, "failed", reason=ended.reason)
        if self._under_way(model):
            return None
        # One that failed has ended by itself: nothing was left to stop.
        return Phase(model, "stopped") if self._is(model, "failed") else Phase(model, "failed", reason=OVERRULED)

    def sleep(self, model: str, ended: Ended | None) -> Phase | None:
        """Say whether it is asleep."""
        if self._is(model, "asleep"):
            return Phase(model, "asleep")
        reason = ended.reason if ended is not None else ""
        if self._is(model, "stopped"):
            return Phase(model, "failed", reason=reason or "it cannot sleep, and is stopped")
        if ended is not None and ended.outcome == "failed":
            return Phase(model, "failed", reason=reason)
        if self._under_way(model):
            return None
        return Phase(model, "failed", reason=self._board[model].reason or OVERRULED)

    def _under_way(self, model: str) -> bool:
        return self._scheduler.resting(model) or model in self._busy()

    def _is(self, model: str, state: State) -> bool:
        return self._board[model].state == state and model not in self._busy()
