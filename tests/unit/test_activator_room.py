"""What a server needs of its GPUs is learnt on the way, lasts, and decides who sleeps beside it."""

from pathlib import Path
from typing import Any

import pytest

from orchestrator.activator.driver import Driver
from orchestrator.activator.gpus import Process
from tests.unit.activator_world import GIB, World, card, driving, play
from tests.unit.test_activator_driver import killed, up


@pytest.fixture
def world(tmp_path: Path) -> World:
    """GPUs with room for a sleeper beside each of the models, as it seems."""
    made = World(tmp_path)
    made.cards = {index: card(index, total=80) for index in (0, 1)}
    return made


def row(driver: Driver, model: str) -> dict[str, Any]:
    found: dict[str, Any] = next(entry for entry in driver.status()["models"] if entry["name"] == model)
    return found


def test_a_start_that_ran_out_of_memory_beside_a_sleeper_is_remembered_and_done_alone(world: World) -> None:
    world.at["b"].greedy = True

    async def test() -> None:
        driver, task = driving(world)
        await up(world, driver, "a")
        assert (await up(world, driver, "b")).phase == "ready"
        # First a slept, as there seemed to be room; then it was in the way.
        assert world.did == ["prove a", "sleep a", "stop a", "prove b"]
        assert (row(driver, "b")["starts_alone"], row(driver, "a")["starts_alone"]) == (True, False)
        await world.clock.passes(5)
        await up(world, driver, "a")
        assert world.sleeps("b")
        await world.clock.result(world.stop("b", 1))
        await killed(world, task)
        driver, _ = driving(world)
        del world.did[:]
        assert (await up(world, driver, "b")).phase == "ready"
        assert [what for what in world.did if what.endswith(" a")][-1] == "stop a"
        assert "sleep a" not in world.did

    play(test)


def test_who_starts_alone_wakes_beside_another_that_sleeps(world: World) -> None:
    world.at["b"].greedy = True

    async def test() -> None:
        driver, _ = driving(world)
        for model in ("a", "b", "a"):
            await up(world, driver, model)
        del world.did[:]
        assert (await up(world, driver, "b")).phase == "ready"
        assert world.did == ["sleep a", "wake b", "prove b"]

    play(test)


def test_what_a_server_holds_is_measured_after_its_start_and_its_wake_and_outlives_it(world: World) -> None:
    async def test() -> None:
        driver, task = driving(world)
        for held in (74, 75):
            await up(world, driver, "a")
            assert world.cards is not None
            world.cards[1] = card(1, Process(7, "vllm", held * GIB, "id-a"), total=80)
            await world.clock.passes(3)
            assert row(driver, "a")["holds"] == held * GIB
            world.cards[1] = card(1, total=80)
            await world.clock.result(drained(driver))
        await world.clock.result(world.stop("a", 1))
        await killed(world, task)
        driver, _ = driving(world)
        await world.clock.passes(1)
        assert (row(driver, "a")["state"], row(driver, "a")["holds"]) == ("stopped", 75 * GIB)

    async def drained(driver: Driver) -> None:
        async for _ in driver.sleep("a", "sleep"):
            pass

    play(test)
