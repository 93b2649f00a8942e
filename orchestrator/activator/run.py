"""One switch, or rest, under way: its steps, how long each took, what it does now, and whether it was given up."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, cast

from orchestrator.activator.ports import PhaseName
from orchestrator.switch.world import Kind, Step

Result = TypeVar("Result")
# Steps that take no time worth a phase of their own.
SILENT = ("close", "open")


class AbandonedError(Exception):
    """The run was given up."""


class StepError(Exception):
    """A step could not be done; str() is the root cause."""


@dataclass
class Run:
    """What is under way. Seconds are by kind of step; done are the steps that came to their end."""

    target: str
    cause: str
    steps: list[Step]
    clock: Callable[[], float]
    sleep: Callable[[float], Awaitable[None]]
    # Called when the phase or its text changed.
    changed: Callable[[], None] = lambda: None
    # Called with each model that gave way, and what became of it.
    gave_way: Callable[[str, Literal["asleep", "stopped"]], None] = lambda _model, _state: None
    kind: Literal["cold", "wake", "rest"] = "cold"
    phase: PhaseName = "queued"
    text: str = ""
    at: int = 0
    began: float = field(init=False)
    step_began: float = field(init=False)
    seconds: dict[Kind, float] = field(default_factory=dict)
    done: list[tuple[Step, float]] = field(default_factory=list)
    # Models whose drain ran out, with what was still in flight.
    cut: dict[str, int] = field(default_factory=dict)
    evicted: list[str] = field(default_factory=list)
    # Models that were put to sleep, and when they were asked to, in Unix seconds.
    slept: list[tuple[str, float]] = field(default_factory=list)
    # Models that it came to deal with beside those of its steps.
    more: set[str] = field(default_factory=set)
    # Whether the target's server was begun to be started or woken.
    touched: bool = False
    woken: bool = False

    def __post_init__(self) -> None:
        self.began = self.step_began = self.clock()
        self._given_up = asyncio.Event()
        self.plan(self.steps, rest=False)

    def plan(self, steps: list[Step], *, rest: bool) -> None:
        """Take the steps that it consists of."""
        self.steps = steps
        self.kind = "rest" if rest else "wake" if any(step.kind == "wake" for step in steps) else "cold"

    @property
    def models(self) -> frozenset[str]:
        """The models that it deals with."""
        return frozenset((self.target, *(step.model for step in self.steps), *self.more))

    @property
    def elapsed(self) -> float:
        """Seconds since it began."""
        return self.clock() - self.began

    @property
    def phases(self) -> dict[str, float]:
        """Seconds by kind of step, of those that take time."""
        return {kind: took for kind, took in self.seconds.items() if kind not in SILENT}

    @property
    def ahead(self) -> list[str]:
        """The kinds of the steps from the one under way on."""
        return [step.kind for step in self.steps[self.at :]]

    def say(self, kind: Kind, text: str) -> None:
        """Note what is being done, for those who look on."""
        phase = self.phase if kind in SILENT else cast("PhaseName", kind)
        if (phase, text) != (self.phase, self.text):
            self.phase, self.text = phase, text
            self.changed()

    def end_step(self, step: Step) -> None:
        """Note that a step came to its end."""
        took = self.clock() - self.step_began
        self.seconds[step.kind] = self.seconds.get(step.kind, 0) + took
        self.done.append((step, took))
        self.at += 1
        self.step_began = self.clock()

    def give_up(self) -> None:
        """End it at the next moment where that leaves nothing half done."""
        self._given_up.set()

    def check(self) -> None:
        """Raise AbandonedError when it was given up."""
        if self._given_up.is_set():
            raise AbandonedError

    async def pause(self, seconds: float) -> None:
        """Wait. Raises AbandonedError when it was given up."""
        self.check()
        await self.sleep(seconds)
        self.check()

    async def unless_given_up(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Wait for what may take long and can be left at any moment. Raises AbandonedError."""
        task = asyncio.ensure_future(work)
        given_up = asyncio.ensure_future(self._given_up.wait())
        try:
            await asyncio.wait({task, given_up}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise AbandonedError
            return task.result()
        finally:
            for waiting in (task, given_up):
                waiting.cancel()
            await asyncio.gather(task, given_up, return_exceptions=True)
