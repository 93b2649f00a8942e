"""The activator is killed before each single call that a switch makes; the next one finds its way from there."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from orchestrator.activator.driver import Driver
from orchestrator.switch.world import Forward
from tests.unit.activator_strict import Strict, mortal
from tests.unit.activator_world import card, driving, play
from tests.unit.test_activator_driver import ask, killed, told


class Scene:
    """What is up, and what is asked of the activator then."""

    def __init__(self, verb: str, *, asleep: bool = False, greedy: bool = False) -> None:
        self.verb, self.asleep, self.greedy = verb, asleep, greedy

    def ask(self, driver: Driver) -> "asyncio.Future[Any]":
        if self.verb == "request":
            return ask(driver, "b").outcome  # type: ignore[no-any-return]
        model = "b" if self.verb == "up" else "a"
        return asyncio.ensure_future(told(getattr(driver, self.verb)(model, self.verb)))

    async def play(self, world: Strict, calls: float = float("inf"), *, sends: bool = False) -> list[str]:
        """Do it with an activator that makes so many calls; name those that it made."""
        world.cards = {index: card(index, total=80) for index in (0, 1)}
        world.ready("a")
        if self.asleep:
            world.asleep("b")
        world.at["b"].greedy = self.greedy
        driver, task, life = mortal(world)
        first = ask(driver, "a")
        await world.clock.until(first.outcome.done)
        first.close()
        life.begin(calls, sends=sends)
        doing = self.ask(driver)
        await world.clock.until(lambda: life.over.is_set() or doing.done())
        doing.cancel()
        await asyncio.gather(doing, return_exceptions=True)
        life.left = 0
        made = list(life.calls)
        await killed(world, task)
        return made

    async def after(self, world: Strict) -> None:
        """Start the next activator, and have both models answer."""
        driver, _ = driving(world)
        await world.clock.passes(1)
        for model in ("b", "a"):
            ticket = ask(driver, model)
            await world.clock.until(ticket.outcome.done, 100)
            assert isinstance(ticket.outcome.result(), Forward)
            assert world.awake(model), "forwarded to who is not awake"
            ticket.close()
        await world.clock.passes(5)
        assert world.open() == {"a"}
        assert [entry["state"] for entry in driver.status()["models"] if entry["name"] == "a"] == ["ready"]


SCENES = {
    "up, wake": Scene("up", asleep=True),
    "request, cold": Scene("request"),
    "request, out of memory beside a sleeper": Scene("request", greedy=True),
    "down": Scene("down"),
    "sleep": Scene("sleep"),
}


@pytest.mark.parametrize("sends", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("name", SCENES)
def test_a_kill_at_any_call_breaks_no_never(tmp_path: Path, name: str, sends: bool) -> None:
    scene = SCENES[name]
    calls: list[str] = []

    async def whole() -> None:
        calls.extend(await scene.play(Strict(tmp_path / "whole")))

    play(whole)
    moments = sorted(calls.index(call) for call in set(calls))
    # Or nothing is killed where it matters.
    assert len(moments) > 8, calls
    for moment in moments:
        world = Strict(tmp_path / str(moment))

        async def test(world: Strict = world, moment: int = moment) -> None:
            await scene.play(world, moment, sends=sends)
            await scene.after(world)

        play(test)
        assert world.faults == [], f"killed at {calls[moment]}"
