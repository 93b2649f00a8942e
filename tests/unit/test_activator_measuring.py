"""What a sleeper keeps is measured once its GPUs' memory is steady, and not at all when it wakes meanwhile."""

import asyncio
from pathlib import Path

import pytest

from orchestrator.activator import measuring
from orchestrator.activator.gpus import Card, Process
from orchestrator.switch.world import Footprint
from tests.unit.activator_world import GIB, World


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    made.asleep("a")
    made.at["a"].log = ["sleep freed 20.00 GiB memory in total, of which 13.50 GiB is backed up in CPU"]
    return made


def holding(world: World, *used: int) -> None:
    """Have container a hold so many GiB, on GPU 0 and so on; another program holds much of GPU 0."""
    other = Process(9, "game", 20 * GIB, "")
    world.cards = {
        index: Card(index, "card", 24 * GIB, 0, 0, (Process(index, "vllm", size * GIB, "id-a"), other))
        for index, size in enumerate(used)
    }


def measured(world: World) -> Footprint | None:
    async def whole() -> None:
        await world.clock.result(measuring.measure(world.effects, "a", 0.0))

    asyncio.run(whole())
    return world.effects.memory.footprint("a", "image-1")


def test_it_keeps_what_it_holds_where_it_holds_most(world: World) -> None:
    holding(world, 3, 2)
    assert measured(world) == Footprint(3 * GIB, int(13.5 * GIB))
    assert world.effects.board["a"].footprint == Footprint(3 * GIB, int(13.5 * GIB))


def test_memory_that_the_driver_still_takes_back_does_not_count(world: World) -> None:
    holding(world, 20, 20)
    pause, looks = world.clock.pause, []

    async def later(seconds: float) -> None:
        looks.append(seconds)
        holding(world, *[max(3, 20 - 8 * len(looks))] * 2)
        await pause(seconds)

    world.effects.pause = later
    assert measured(world) == Footprint(3 * GIB, int(13.5 * GIB))


def test_memory_that_comes_back_late_and_all_at_once_is_waited_for(world: World) -> None:
    holding(world, 20, 20)
    pause, looks = world.clock.pause, []

    async def later(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 8:
            holding(world, 3, 3)
        await pause(seconds)

    world.effects.pause = later
    assert measured(world) == Footprint(3 * GIB, int(13.5 * GIB))


def test_a_sleeper_that_gives_nothing_back_is_believed_in_the_end(world: World) -> None:
    holding(world, 20, 20)
    assert measured(world) == Footprint(20 * GIB, int(13.5 * GIB))


@pytest.mark.parametrize("how", ["woke", "blind", "gone"])
def test_nothing_is_noted_when_it_cannot_be_told(world: World, how: str) -> None:
    holding(world, 3, 3)
    if how == "woke":
        world.effects.board.set("a", "starting")
    elif how == "blind":
        world.cards = None
    else:
        holding(world, 0, 0)
    assert measured(world) is None


def awake(world: World) -> tuple[int, bool]:
    async def whole() -> None:
        await world.clock.result(measuring.measure_awake(world.effects, "a"))

    asyncio.run(whole())
    return world.effects.memory.awake("a", "image-1", world.models["a"].claim)


def test_a_ready_server_holds_what_nvml_shows_where_it_is_most_and_the_latest_counts(world: World) -> None:
    world.ready("a")
    for most in (23, 22):
        holding(world, 21, most)
        assert awake(world) == (most * GIB, False)
        assert world.effects.board["a"].holds == most * GIB


@pytest.mark.parametrize("how", ["left", "blind", "nameless"])
def test_nothing_is_noted_of_a_ready_server_when_it_cannot_be_told(world: World, how: str) -> None:
    world.ready("a")
    holding(world, 23, 23)
    if how == "left":
        world.effects.board.set("a", "draining")
    elif how == "blind":
        world.cards = None
    else:
        holding(world, 0, 0)  # as under WSL2
    assert awake(world) == (0, False)
