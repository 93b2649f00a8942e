"""Switches in trouble: what breaks in the middle, who asks for something else, and what one costs by the clock."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from orchestrator.activator import draining, gpus, release
from orchestrator.activator.docker import AwayError
from orchestrator.activator.gpus import Process
from orchestrator.switch.world import Forward, Model, Refuse
from tests.unit.activator_strict import REST, Strict
from tests.unit.activator_world import GIB, card, driving, play
from tests.unit.test_activator_driver import ask, told, up
from tests.unit.test_activator_watch import serving, state


@pytest.fixture
def world(tmp_path: Path) -> Strict:
    return Strict(tmp_path)


@pytest.fixture
def roomy(world: Strict) -> Strict:
    """Models sleep: there are GPUs, and room on them."""
    world.cards = {index: card(index, total=80) for index in (0, 1)}
    return world


# --- what a switch costs ----------------------------------------------------------------------------------------------


def test_a_wake_switch_waits_for_servers_and_a_few_hundredths_of_a_second_more(roomy: Strict) -> None:
    async def test() -> None:
        driver = await serving(roomy, "b")
        await up(roomy, driver, "a")
        began = roomy.clock.now
        ticket = ask(driver, "b")
        await roomy.clock.until(ticket.outcome.done)
        assert isinstance(ticket.outcome.result(), Forward)
        assert driver.status()["last"]["kind"] == "wake"
        assert roomy.clock.now - began - 2 * REST == pytest.approx((gpus.LOOKS - 1) * release.APART + draining.UNSEEN)

    play(test)
    assert roomy.faults == []


# --- asked for something else -----------------------------------------------------------------------------------------


async def last(phases: Any) -> Any:
    return (await told(phases))[-1]


@pytest.mark.parametrize("verb", ["down", "sleep"])
def test_what_failed_can_be_put_down_and_who_asks_gets_an_end(world: Strict, verb: str) -> None:
    world.at["a"].faults["start"] = "no such device"

    async def test() -> None:
        driver, _ = driving(world)
        assert (await up(world, driver, "a")).phase == "failed"
        end = await world.clock.result(last(getattr(driver, verb)("a", verb)), 60)
        assert (end.phase, "no such device" in end.reason) == {"down": ("stopped", False), "sleep": ("failed", True)}[
            verb
        ]
        await world.clock.passes(30)
        assert state(driver, "a")[0] == {"down": "stopped", "sleep": "failed"}[verb]

    play(test)


@pytest.mark.parametrize("verb", ["down", "sleep"])
def test_who_is_overruled_gets_an_end(world: Strict, verb: str) -> None:
    async def test() -> None:
        driver = await serving(world)
        first = ask(driver, "c")
        await world.clock.until(lambda: world.at["c"].status == "running")
        # A switch is under way, so this is for later; by then somebody wants it up.
        end = asyncio.ensure_future(last(getattr(driver, verb)("a", verb)))
        await world.clock.until(lambda: driver.status()["wanted"] == [])
        again = await up(world, driver, "a")
        await world.clock.until(lambda: end.done() and first.outcome.done(), 60)
        assert (again.phase, end.result().phase) == ("ready", "failed")
        assert "asked for it since" in end.result().reason
        assert world.open() == {"a", "c"}

    play(test)


def test_a_down_during_the_switch_to_the_same_model_gives_it_up(world: Strict) -> None:
    async def test() -> None:
        driver = await serving(world)
        wish = asyncio.ensure_future(last(driver.up("b", "up")))
        await world.clock.until(lambda: world.at["b"].status == "running")
        end = await world.clock.result(last(driver.down("b", "down")), 60)
        assert (end.phase, world.at["b"].status) == ("stopped", "exited")
        await world.clock.until(wish.done)
        assert wish.result().phase == "failed"
        await world.clock.until(lambda: world.open() == {"a"})

    play(test)


def test_a_sleeper_whose_wake_is_given_up_before_it_began_can_be_put_down(roomy: Strict) -> None:
    async def test() -> None:
        driver = await serving(roomy, "b")
        await up(roomy, driver, "a")
        roomy.routed = {"a": 1}
        wish = asyncio.ensure_future(last(driver.up("b", "up")))
        await roomy.clock.until(lambda: roomy.open() == set())
        end = await roomy.clock.result(last(driver.down("b", "down")), 60)
        assert (end.phase, roomy.at["b"].status) == ("stopped", "exited")
        roomy.routed = {}
        await roomy.clock.until(lambda: roomy.open() == {"a"} and wish.done())

    play(test)
    assert roomy.faults == []


def test_one_of_two_who_want_a_model_up_takes_only_its_own_wish_back(world: Strict) -> None:
    async def test() -> None:
        driver, _ = driving(world)
        first, second = [asyncio.ensure_future(last(driver.up("a", "up"))) for _ in range(2)]
        await world.clock.until(lambda: world.at["a"].status == "running")
        first.cancel()
        driver.take_back("a")
        await world.clock.until(second.done)
        assert second.result().phase == "ready"
        # And alone, each takes back what it asked for, whatever was before.
        third = asyncio.ensure_future(last(driver.up("b", "up")))
        await world.clock.until(lambda: world.at["b"].status == "running")
        driver.take_back("b")
        await world.clock.until(third.done)
        assert third.result().phase == "failed"
        await world.clock.until(lambda: world.open() == {"a"})

    play(test)


def test_who_leaves_before_it_was_asked_for_brings_nothing_up(world: Strict) -> None:
    async def test() -> None:
        driver = await serving(world)
        world.at["a"].status, world.at["a"].code = "exited", 1
        ticket = ask(driver, "a", unreachable=True)
        ticket.close()
        await world.clock.passes(1)
        assert driver.status()["queue"] == []
        assert driver._scheduler.queue.waiting == ()

    play(test)


def test_a_request_that_is_passed_on_is_a_bad_moment_to_begin_anew(world: Strict) -> None:
    async def test() -> None:
        driver, _ = driving(world)
        ticket = ask(driver, "a")
        assert driver.busy
        assert not driver.passing_on
        await world.clock.until(lambda: ticket.outcome.done() and driver.status()["switch"] is None)
        await world.clock.passes(5)
        assert driver.busy
        assert driver.passing_on
        ticket.close()
        assert not driver.busy

    play(test)


# --- the daemon is away -----------------------------------------------------------------------------------------------


def test_a_request_that_met_nobody_waits_for_the_daemon_to_tell_why(world: Strict) -> None:
    async def test() -> None:
        driver = await serving(world)
        world.daemon_goes()
        ticket = ask(driver, "a", unreachable=True)
        await world.clock.passes(30)
        assert not ticket.outcome.done()
        world.away = False
        await world.clock.until(ticket.outcome.done)
        assert isinstance(ticket.outcome.result(), Forward)
        assert world.lists("a")

    play(test)


def test_a_look_that_fails_answers_the_request_all_the_same(world: Strict) -> None:
    async def test() -> None:
        driver = await serving(world)

        async def fails(_: str) -> bool:
            raise ZeroDivisionError

        world.effects.servers.lists = fails  # type: ignore[method-assign]
        ticket = ask(driver, "a", unreachable=True)
        await world.clock.until(ticket.outcome.done, 5)

    play(test)


# --- deaths -----------------------------------------------------------------------------------------------------------


def test_who_dies_in_a_drain_that_is_given_up_is_not_opened_again(roomy: Strict) -> None:
    async def test() -> None:
        driver = await serving(roomy, "b")
        await up(roomy, driver, "a")
        roomy.routed = {"a": 1}
        ticket = ask(driver, "b")
        await roomy.clock.until(lambda: ticket.phase().phase == "drain")
        roomy.at["a"].status, roomy.at["a"].code = "exited", 1
        ticket.close()
        driver._conductor.run.give_up()  # type: ignore[union-attr]
        roomy.routed = {}
        await roomy.clock.until(lambda: roomy.open() == {"a"})
        assert roomy.did.count("prove a") == 2

    play(test)
    assert roomy.faults == []


@pytest.mark.parametrize("step", ["drain", "sleep", "wake", "prove"])
@pytest.mark.parametrize("who", ["a", "b"])
def test_a_server_that_is_killed_at_a_step_costs_no_request_and_no_sleep(roomy: Strict, step: str, who: str) -> None:
    async def test() -> None:
        driver = await serving(roomy, "b")
        await up(roomy, driver, "a")
        roomy.routed = {"a": 1} if step == "drain" else {}
        ticket = ask(driver, "b")
        await roomy.clock.until(lambda: ticket.phase().phase == step or ticket.outcome.done())
        roomy.dies(who, 137)
        roomy.between.discard(who)
        await roomy.clock.passes(0.2)
        roomy.routed = {}
        await roomy.clock.until(ticket.outcome.done, 60)
        assert isinstance(ticket.outcome.result(), Forward | Refuse)
        ticket.close()
        await roomy.clock.passes(30)
        for model in ("a", "b"):
            assert roomy.effects.memory.sleep_refused(model, "image-1") == ""
        assert len(roomy.open()) == 1
        assert all(map(roomy.awake, roomy.open()))

    play(test)
    assert roomy.faults == []


def test_a_sleep_that_ran_the_host_out_of_memory_is_not_tried_again(roomy: Strict) -> None:
    async def test() -> None:
        driver = await serving(roomy)
        ticket = ask(driver, "b")
        await roomy.clock.until(lambda: ticket.phase().phase == "sleep")
        await roomy.clock.passes(REST / 2)
        roomy.dies("a", 137, oom=True)
        await roomy.clock.until(ticket.outcome.done)
        assert "could not go to sleep" in roomy.effects.memory.sleep_refused("a", "image-1")

    play(test)


def test_who_dies_asleep_keeps_no_memory_from_others(tmp_path: Path) -> None:
    # Room for one sleeper beside who is awake, and not for two.
    models = {name: Model(name, (name,), frozenset({0, 1}), sleep="auto") for name in ("a", "b", "d")}
    world = Strict(tmp_path, models=models)
    world.cards = {index: card(index, total=60) for index in (0, 1)}

    async def test() -> None:
        driver = await serving(world)
        await up(world, driver, "b")
        assert state(driver, "a")[0] == "asleep"
        world.dies("a", 1)
        await world.clock.passes(1)
        await up(world, driver, "d")
        assert (state(driver, "a")[0], state(driver, "b")[0]) == ("failed", "asleep")

    play(test)


# --- memory -----------------------------------------------------------------------------------------------------------


def test_a_program_that_took_a_sleepers_memory_is_named_and_its_sleep_stays_on(roomy: Strict) -> None:
    async def test() -> None:
        driver = await serving(roomy)
        await roomy.clock.result(last(driver.sleep("a", "sleep")))
        roomy.cards = {0: card(0, Process(4242, "blender", 30 * GIB, ""), total=80), 1: card(1, total=80)}
        failed = await up(roomy, driver, "a")
        assert "held by another program, blender (pid 4242, 30.0 GiB)" in failed.reason
        assert state(driver, "a")[0] == "asleep"
        assert roomy.effects.memory.sleep_refused("a", "image-1") == ""
        ticket = ask(driver, "a")
        await roomy.clock.until(ticket.outcome.done, 40)
        assert "blender" in ticket.outcome.result().message
        roomy.cards = {index: card(index, total=80) for index in (0, 1)}
        assert (await up(roomy, driver, "a")).phase == "ready"
        assert roomy.did.count("wake a") == 1

    play(test)
    assert roomy.faults == []


def test_a_program_that_took_a_stopped_models_memory_is_named_before_anything_starts(roomy: Strict) -> None:
    roomy.cards = {0: card(0, Process(4242, "blender", 30 * GIB, ""), total=80), 1: card(1, total=80)}

    async def test() -> None:
        driver, _ = driving(roomy)
        ticket = ask(driver, "a")
        await roomy.clock.until(ticket.outcome.done)
        assert isinstance(ticket.outcome.result(), Refuse)
        assert "blender (pid 4242" in ticket.outcome.result().message
        assert roomy.at["a"].started == 0

    play(test)


# --- a load that hangs ------------------------------------------------------------------------------------------------


def test_a_load_that_hangs_is_ended_and_who_waits_is_told_while_the_last_good_model_comes_back(world: Strict) -> None:
    world.at["b"].hangs = True

    async def test() -> None:
        driver = await serving(world)
        tickets = [ask(driver, "b") for _ in range(3)]
        await world.clock.until(lambda: all(ticket.outcome.done() for ticket in tickets))
        assert {ticket.outcome.result().message for ticket in tickets} == {
            "b failed: it hangs: no progress for 20 s; the last was: its container runs"
        }
        await world.clock.until(lambda: world.open() == {"a"})
        assert world.at["b"].status == "exited"

    play(test)


def test_nothing_that_breaks_in_a_look_around_ends_the_looking(tmp_path: Path) -> None:
    world = Strict(tmp_path, models={"c": Model("c", ("c",), frozenset({2}), ttl=5)})

    async def test() -> None:
        driver = await serving(world, "c")
        look = world.effects.gpus.look

        async def fails() -> Any:
            world.effects.gpus.look = look  # type: ignore[method-assign]
            raise ZeroDivisionError

        world.effects.gpus.look = fails  # type: ignore[method-assign]
        for _ in range(10):
            await world.clock.passes(2)
            world.at["c"].tokens += 1
        assert world.open() == {"c"}
        assert driver.status()["last"]["kind"] == "cold"

    play(test)


def test_a_daemon_that_hangs_at_the_end_of_a_run_holds_no_end_back(world: Strict) -> None:
    async def test() -> None:
        driver = await serving(world)
        inspect = world.inspect

        async def fails(_: str) -> Any:
            raise AwayError("late")

        opened = world.effects.routes.open

        def opens(model: str) -> None:
            opened(model)
            world.inspect = fails  # type: ignore[method-assign]

        world.effects.routes.open = opens  # type: ignore[method-assign]
        ticket = ask(driver, "b")
        await world.clock.until(ticket.outcome.done, 30)
        assert isinstance(ticket.outcome.result(), Forward)
        world.inspect = inspect  # type: ignore[method-assign]

    play(test)
