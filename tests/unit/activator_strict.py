"""A world that notices each broken "never", and an activator in it that can be killed before any single call of its."""

import asyncio
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from orchestrator.activator.docker import Happening
from orchestrator.activator.driver import Driver
from orchestrator.activator.effects import Effects
from orchestrator.activator.servers import ServerError
from tests.unit.activator_world import GIB, Vllm, World

# Seconds that a server takes to go to sleep, and to wake: each goes on when who asked for it is gone.
REST = 0.3


class Killed(BaseException):
    """The activator was killed here."""


class Strict(World):
    """Servers that take their time over sleep, and are held to account."""

    def __init__(self, folder: Path, **more: Any) -> None:
        # Servers that going to sleep, or waking, is under way in.
        self.between: set[str] = set()
        # Servers that gave a token since they started, or woke.
        self.proven: set[str] = set()
        # When each server was let in by its gate: it waits there until nobody else is awake on its GPUs.
        self.let_in: dict[str, float] = {}
        self.faults: list[str] = []
        super().__init__(folder, **more)

    def new_effects(self) -> Effects:
        effects = super().new_effects()
        effects.servers = Resting(self)  # type: ignore[assignment]
        opens = effects.routes.open

        def opened(model: str) -> None:
            self.check(model in self.proven and self.lists(model), f"{model} is opened, and is not ready")
            self.check(not self.at[model].asleep and model not in self.between, f"{model} is opened asleep")
            opens(model)

        effects.routes.open = opened  # type: ignore[method-assign]
        return effects

    def check(self, right: bool, what: str) -> None:
        if not right:
            self.faults.append(what)

    def ready(self, model: str) -> None:
        self.proven.add(model)
        self.let_in[model] = 0
        super().ready(model)

    async def start(self, model: str) -> None:
        if self.at[model].status != "running":
            self.let_in.pop(model, None)
            self.proven.discard(model)
        await super().start(model)

    def tell(self, what: Happening) -> None:
        if what.action == "die":
            self.proven.discard(what.model)
        super().tell(what)

    def lists(self, model: str) -> bool:
        if self.at[model].status != "running":
            return False
        if model not in self.let_in and not any(map(self.holds, self.beside(model))):
            self.let_in[model] = self.clock.now
        since = self.let_in.get(model)
        self.live(model)
        up = since is not None and self.clock.now - since >= self.at[model].loads
        return up and self.at[model].status == "running" and not self.at[model].hangs

    def captures(self, model: str) -> bool:
        since = self.let_in.get(model)
        loads = self.at[model].loads
        return self.at[model].status == "running" and since is not None and loads / 2 <= self.clock.now - since < loads

    def holds(self, model: str) -> bool:
        """Whether a server loads, or is awake."""
        return self.at[model].status == "running" and model in self.let_in and not self.at[model].asleep

    def awake(self, model: str) -> bool:
        return self.lists(model) and not self.at[model].asleep


class Resting(Vllm):
    """Servers of which a request to one that sleeps, or is about to, is noticed."""

    world: Strict

    async def prove(self, model: str) -> None:
        resting = self.world.at[model].asleep or model in self.world.between
        self.world.check(not resting, f"{model} got a request asleep")
        await super().prove(model)
        self.world.proven.add(model)

    async def sleeping(self, model: str) -> bool | None:
        # The engine answers when it has done what it does: later than anybody waits.
        return None if model in self.world.between else await super().sleeping(model)

    async def sleep(self, model: str) -> None:
        await self._later(model, super().sleep)

    async def wake(self, model: str) -> None:
        beside = any(map(self.world.holds, self.world.beside(model)))
        self.world.check(not beside or self.world.holds(model), f"{model} is woken beside another")
        await self._later(model, super().wake)

    async def _later(self, model: str, do: Callable[[str], Any]) -> None:
        """Do it in a while, after what is under way, whether or not anybody waits for it."""

        async def work() -> None:
            while model in self.world.between:
                await self.world.clock.pause(0.1)
            self.world.between.add(model)
            self.world.proven.discard(model)
            try:
                await self.world.clock.pause(REST)
                if self.world.at[model].status != "running":
                    raise ServerError("it broke off")
                await do(model)
            finally:
                self.world.between.discard(model)

        await asyncio.shield(asyncio.ensure_future(work()))


class Mortal:
    """One part of the effects; each call to it may be the last."""

    def __init__(self, part: Any, life: "Life") -> None:
        self._part, self._life = part, life

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._part, name)
        if not callable(found):
            return found
        if inspect.isasyncgenfunction(found):
            return found

        def call(*arguments: Any, **more: Any) -> Any:
            last = self._life.spend(f"{name} {' '.join(map(str, arguments[:1]))}")
            answer = found(*arguments, **more)
            if last:
                raise Killed
            return answer

        async def request(*arguments: Any, **more: Any) -> Any:
            last = self._life.spend(f"{name} {' '.join(map(str, arguments[:1]))}")
            answer = found(*arguments, **more)
            if last:
                self._life.sent.append(asyncio.ensure_future(answer))
                raise Killed
            return await answer

        return request if inspect.iscoroutinefunction(found) else call


class Life:
    """Counts calls, and ends with the last one: before it was made or, if sent, when who was called has heard it."""

    def __init__(self) -> None:
        self.left = float("inf")
        self.calls: list[str] = []
        self.sent: list[asyncio.Future[Any]] = []
        self.sends = False
        self.over = asyncio.Event()

    def begin(self, calls: float, *, sends: bool) -> None:
        """Live for so many more calls."""
        self.left, self.sends, self.calls = calls, sends, []

    def spend(self, call: str) -> bool:
        """Count a call; whether it is the last, and is to be sent. Raises Killed where it is not."""
        self.calls.append(call)
        self.left -= 1
        if self.left >= 0:
            return False
        first = not self.over.is_set()
        self.over.set()
        if first and self.sends:
            return True
        raise Killed


def mortal(world: World) -> tuple[Driver, "asyncio.Task[None]", Life]:
    """Drive with an activator whose life can end."""
    life = Life()
    effects = world.effects
    for part in ("docker", "servers", "router", "routes", "gpus", "memory"):
        setattr(effects, part, Mortal(getattr(effects, part), life))
    effects.containers._docker = effects.docker
    driver = Driver(effects, start=world.boot, host_free=lambda: 100 * GIB)
    return driver, asyncio.ensure_future(driver.run()), life
