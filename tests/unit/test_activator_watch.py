"""What people, Compose, the kernel and Docker do to servers behind our back, as events and looks tell it."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from orchestrator.activator.docker import Happening
from orchestrator.activator.driver import Driver
from orchestrator.activator.servers import NoSuchPathError
from orchestrator.switch.world import Forward, Refuse
from tests.unit.activator_strict import Strict
from tests.unit.activator_world import Server, driving, play
from tests.unit.test_activator_driver import ask, killed, told, up


@pytest.fixture
def world(tmp_path: Path) -> Strict:
    return Strict(tmp_path)


def state(driver: Driver, model: str) -> tuple[str, str]:
    entry = next(entry for entry in driver.status()["models"] if entry["name"] == model)
    return entry["state"], entry["reason"]


async def serving(world: Strict, model: str = "a") -> Driver:
    """A driver at work, with a model that came up."""
    driver, _ = driving(world)
    assert (await up(world, driver, model)).phase == "ready"
    return driver


def is_told(world: Strict, model: str, signal: int = 15) -> None:
    """Somebody sends a signal to the server, which lives on for now."""
    world.tell(Happening("kill", model, signal=signal))


# --- started ----------------------------------------------------------------------------------------------------------


def test_two_that_are_started_at_once_end_with_the_last_one_up(world: Strict) -> None:
    async def test() -> None:
        driver, _ = driving(world)
        await world.clock.until(lambda: world.listeners)
        await world.clock.passes(1)
        await world.by_hand("a", "start")
        await world.by_hand("b", "start")
        await world.clock.until(lambda: world.open() == {"b"})
        await world.clock.passes(10)
        assert world.open() == {"b"}
        assert not world.awake("a")
        assert driver.status()["wanted"] == ["b"]

    play(test)
    assert world.faults == []


def test_one_that_was_started_while_nobody_listened_is_wanted_all_the_same(world: Strict) -> None:
    async def test() -> None:
        driver = await serving(world)
        listeners, world.listeners = world.listeners, []
        world.clock.now += 1
        await world.by_hand("b", "start")
        for queue in listeners:
            queue.put_nowait(None)
        await world.clock.until(lambda: world.open() == {"b"})
        assert driver.status()["wanted"] == ["b"]

    play(test)


def test_an_open_route_to_another_run_of_a_server_is_not_believed(world: Strict) -> None:
    async def test() -> None:
        driver, task = driving(world)
        await up(world, driver, "a")
        await killed(world, task)
        await world.by_hand("a", "stop")
        world.clock.now += 10
        await world.by_hand("a", "start")
        world.clock.now += 10
        assert world.open() == {"a"}
        driving(world)
        await world.clock.until(lambda: world.did.count("prove a") == 2 and world.open() == {"a"})

    play(test)
    assert world.faults == []


def test_a_restart_by_hand_is_one_wish(world: Strict) -> None:
    async def test() -> None:
        driver = await serving(world)
        await world.by_hand("a", "stop")
        await world.by_hand("a", "start")
        await world.clock.passes(20)
        assert (world.open(), driver.status()["wanted"]) == ({"a"}, ["a"])

    play(test)
    assert world.faults == []


# --- stopped ----------------------------------------------------------------------------------------------------------


def test_who_is_told_to_end_gets_no_request_any_more(world: Strict) -> None:
    async def test() -> None:
        driver = await serving(world)
        is_told(world, "a")
        await world.clock.until(lambda: world.open() == set(), 0.1)
        assert state(driver, "a")[0] == "stopping"
        ticket = ask(driver, "a")
        await world.clock.until(ticket.outcome.done)
        assert isinstance(ticket.outcome.result(), Forward)
        assert world.did[-2:] == ["stop a", "prove a"]

    play(test)


def test_who_is_told_to_end_and_ends_later_stays_stopped(world: Strict) -> None:
    async def test() -> None:
        driver = await serving(world)
        is_told(world, "a")
        await world.clock.passes(10)
        world.dies("a", 143)
        await world.clock.passes(20)
        assert (state(driver, "a"), driver.status()["wanted"]) == (("stopped", ""), [])

    play(test)


def test_another_signal_stops_nobody(world: Strict) -> None:
    async def test() -> None:
        await serving(world)
        is_told(world, "a", 1)
        await world.clock.passes(2)
        assert world.open() == {"a"}
        # Nor is a death after it by anybody's hand.
        world.dies("a", 137)
        await world.clock.until(lambda: world.open() == set())
        await world.clock.until(lambda: world.open() == {"a"})

    play(test)


def test_a_request_is_not_forwarded_to_who_was_just_stopped(world: Strict) -> None:
    async def test() -> None:
        driver = await serving(world)
        await world.by_hand("a", "stop")
        await world.clock.passes(0.5)
        ticket = ask(driver, "a")
        await asyncio.sleep(0)
        assert not ticket.outcome.done()
        await world.clock.until(ticket.outcome.done)
        assert isinstance(ticket.outcome.result(), Forward)
        assert world.did.count("prove a") == 2

    play(test)


def test_a_stop_by_hand_while_requests_wait_answers_them(world: Strict) -> None:
    async def test() -> None:
        driver, _ = driving(world)
        ticket = ask(driver, "a")
        await world.clock.until(lambda: world.at["a"].status == "running")
        await world.by_hand("a", "stop")
        await world.clock.until(ticket.outcome.done)
        assert isinstance(ticket.outcome.result(), Refuse)
        assert "stopped from outside" in ticket.outcome.result().message
        await world.clock.passes(30)
        assert (world.open(), driver.status()["wanted"]) == (set(), [])

    play(test)


# --- died -------------------------------------------------------------------------------------------------------------


def test_a_stop_of_ours_that_came_too_late_hides_no_later_death(world: Strict) -> None:
    async def test() -> None:
        await serving(world)
        # It died between our look and our stop, which so had no event.
        world.effects.containers.stops.add("b")
        await world.by_hand("b", "start")
        await world.clock.until(lambda: world.open() == {"b"})
        world.dies("b", 1)
        await world.clock.until(lambda: world.open() == set(), 2)

    play(test)


def test_a_death_that_counts_as_ours_is_looked_at(world: Strict) -> None:
    async def test() -> None:
        driver = await serving(world)
        world.effects.containers.stops.add("a")
        world.dies("a", 1)
        await world.clock.until(lambda: state(driver, "a")[0] != "ready", 2)
        assert world.open() == set()

    play(test)


def test_a_kill_for_memory_is_nobodys_wish(world: Strict) -> None:
    async def test() -> None:
        driver = await serving(world)
        is_told(world, "a")
        world.dies("a", 137, oom=True)
        await world.clock.until(lambda: driver.status()["switch"], 5)
        assert "it died: OOMKilled" in driver.status()["switch"]["cause"]
        await world.clock.until(lambda: world.open() == {"a"})

    play(test)


def test_a_container_that_is_removed_says_what_makes_it_anew(world: Strict) -> None:
    async def test() -> None:
        driver = await serving(world)
        world.dies("a", 137)
        del world.at["a"]
        world.tell(Happening("destroy", "a"))
        await world.clock.passes(5)
        assert world.open() == set()
        assert state(driver, "a") == ("failed", "a has no container yet: python -m orchestrator up a creates it")
        ticket = ask(driver, "a")
        await world.clock.until(ticket.outcome.done, 1)
        assert "has no container" in ticket.outcome.result().message

    play(test)


async def recreated(world: Strict, model: str) -> None:
    """Compose makes a container anew, as it does when settings changed."""
    await world.by_hand(model, "stop")
    await world.clock.passes(0.3)
    del world.at[model]
    world.tell(Happening("destroy", model))
    await world.clock.passes(0.3)
    world.at[model] = Server()
    world.tell(Happening("create", model))
    await world.clock.passes(0.3)
    await world.start(model)


@pytest.mark.parametrize("moment", ["ready", "loading", "asleep", "leaving"])
def test_a_container_that_compose_makes_anew_comes_up(world: Strict, moment: str) -> None:
    async def test() -> None:
        driver, _ = driving(world)
        ticket = ask(driver, "a")
        await world.clock.until(lambda: world.at["a"].status == "running")
        if moment != "loading":
            await world.clock.until(ticket.outcome.done)
        if moment == "asleep":
            ticket.close()
            await world.clock.result(told(driver.sleep("a", "sleep")))
        if moment == "leaving":
            leaving = ask(driver, "b")
            await world.clock.until(lambda: leaving.phase().phase == "drain")
        await recreated(world, "a")
        await world.clock.until(ticket.outcome.done)
        ticket.close()
        await world.clock.until(lambda: world.open() == {"a"})
        await world.clock.passes(10)
        assert (world.open(), driver.status()["wanted"]) == ({"a"}, ["a"])
        assert moment != "leaving" or leaving.outcome.done()

    play(test)
    assert world.faults == []


# --- looks ------------------------------------------------------------------------------------------------------------


def answers(world: Strict, what: str, model: str, value: Any) -> None:
    """Have one question to a server answered like this from now on."""
    asked = getattr(world.effects.servers, what)

    async def answer(about: str) -> Any:
        if about != model:
            return await asked(about)
        if isinstance(value, Exception):
            raise value
        return value

    setattr(world.effects.servers, what, answer)


async def silence(world: Strict) -> None:
    """Docker's events break off, and are listened to again."""
    for queue in world.listeners:
        queue.put_nowait(None)
    world.listeners.clear()
    await world.clock.until(lambda: world.listeners)
    await world.clock.passes(1)


def test_who_is_too_busy_to_list_its_name_stays_ready(world: Strict) -> None:
    async def test() -> None:
        driver = await serving(world)
        answers(world, "lists", "a", False)
        await silence(world)
        assert (world.open(), state(driver, "a")[0]) == ({"a"}, "ready")

    play(test)


def test_who_cannot_say_that_it_sleeps_sleeps_on(world: Strict) -> None:
    async def test() -> None:
        driver = await serving(world)
        await world.clock.result(told(driver.sleep("a", "sleep")))
        answers(world, "sleeping", "a", None)
        before = list(world.did)
        await silence(world)
        assert state(driver, "a")[0] == "asleep"
        assert world.did == before

    play(test)
    assert world.faults == []


def test_who_has_no_sleep_mode_is_asked_for_its_token_at_once(world: Strict) -> None:
    async def test() -> None:
        driver, task = driving(world)
        await up(world, driver, "a")
        await killed(world, task)
        world.effects.routes.close("a")
        answers(world, "sleeping", "a", None)
        answers(world, "wake", "a", NoSuchPathError("/wake_up answered 404"))
        driving(world)
        await world.clock.until(lambda: world.open() == {"a"}, 5)

    play(test)


def test_a_fault_of_our_own_does_not_end_the_watching(world: Strict) -> None:
    async def test() -> None:
        await serving(world)
        inspect = world.inspect

        async def fails(_: str) -> Any:
            world.inspect = inspect  # type: ignore[method-assign]
            raise ZeroDivisionError

        world.inspect = fails  # type: ignore[method-assign]
        world.dies("a", 1)
        await world.clock.until(lambda: world.open() == set())
        await world.clock.until(lambda: world.open() == {"a"})

    play(test)
