"""The driver: what is asked, done by hand or goes wrong, until everybody has an answer and the right model is up."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.activator.driver import Driver
from orchestrator.activator.ports import Phase, Slept
from orchestrator.switch.world import Footprint, Forward, Model, Refuse
from tests.unit.activator_world import World, card, driving, play


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def told(phases: AsyncIterator[Phase]) -> list[Phase]:
    return [phase async for phase in phases]


async def up(world: World, driver: Driver, model: str) -> Phase:
    phases: list[Phase] = await world.clock.result(told(driver.up(model, "up")))
    return phases[-1]


def ask(driver: Driver, model: str, *, unreachable: bool = False) -> Any:
    return driver.ask(model, 10, stream=False, unreachable=unreachable)


# --- asking -----------------------------------------------------------------------------------------------------------


def test_requests_for_one_model_share_a_switch_and_are_forwarded(world: World) -> None:
    async def test() -> None:
        driver, _ = driving(world)
        tickets = [ask(driver, "a") for _ in range(3)]
        await world.clock.until(lambda: all(ticket.outcome.done() for ticket in tickets))
        assert all(isinstance(ticket.outcome.result(), Forward) for ticket in tickets)
        assert world.did == ["prove a"]
        assert world.effects.own("a") == 3
        for ticket in tickets * 2:
            ticket.close()
        assert world.effects.own("a") == 0

    play(test)


def test_another_model_waits_until_what_was_forwarded_is_over(world: World) -> None:
    async def test() -> None:
        driver, _ = driving(world)
        first = ask(driver, "a")
        await world.clock.until(first.outcome.done)
        second = ask(driver, "b")
        await world.clock.passes(5)
        assert not second.outcome.done()
        assert second.phase().phase == "drain"
        first.close()
        await world.clock.until(second.outcome.done)
        assert world.open() == {"b"}

    play(test)


def test_a_request_that_goes_away_is_forgotten(world: World) -> None:
    async def test() -> None:
        driver, _ = driving(world)
        ticket = ask(driver, "a")
        ticket.close()
        await world.clock.passes(10)
        assert ticket.outcome.cancelled()
        assert driver.status()["queue"] == []
        assert "tandem_holds_given_up_total 1\n" in driver.metrics()

    play(test)


def test_a_start_that_fails_answers_with_its_cause_and_the_last_good_model_comes_back(world: World) -> None:
    world.at["b"].hangs = True
    world.at["b"].log = ["ValueError: bad weights"]

    async def test() -> None:
        driver, _ = driving(world)
        assert (await up(world, driver, "a")).phase == "ready"
        ticket = ask(driver, "b")
        await world.clock.until(lambda: world.at["b"].status == "running")
        world.dies("b", 1)
        await world.clock.until(ticket.outcome.done)
        assert isinstance(ticket.outcome.result(), Refuse)
        assert "bad weights" in ticket.outcome.result().message
        await world.clock.until(lambda: world.open() == {"a"})
        models = {entry["name"]: entry for entry in driver.status()["models"]}
        assert (models["b"]["state"], models["b"]["reason"]) == ("failed", "ValueError: bad weights")

    play(test)


def test_a_server_that_refuses_a_connection_as_it_dies_is_started_again(world: World) -> None:
    async def test() -> None:
        driver, _ = driving(world)
        await up(world, driver, "a")
        world.at["a"].dies_at = world.clock.now
        ticket = ask(driver, "a", unreachable=True)
        await world.clock.until(ticket.outcome.done)
        assert isinstance(ticket.outcome.result(), Forward)
        assert world.did.count("prove a") == 2

    play(test)


def test_models_on_other_gpus_stay(world: World) -> None:
    async def test() -> None:
        driver, _ = driving(world)
        await up(world, driver, "c")
        await up(world, driver, "a")
        await up(world, driver, "b")
        assert world.open() == {"b", "c"}
        assert set(driver.status()["wanted"]) == {"b", "c"}

    play(test)


# --- wishes -----------------------------------------------------------------------------------------------------------


def test_up_tells_its_phases_and_then_that_it_is_ready(world: World) -> None:
    async def test() -> None:
        driver, _ = driving(world)
        phases = await world.clock.result(told(driver.up("a", "up")))
        names = list(dict.fromkeys(phase.phase for phase in phases))
        # With no GPU to be read, the release is over at once.
        assert [name for name in names if name != "release"] == ["queued", "start", "prove", "ready"]
        # The second time there is a history to tell from.
        await world.clock.result(told(driver.down("a", "down")))
        phases = await world.clock.result(told(driver.up("a", "up")))
        assert any(phase.left for phase in phases)

    play(test)


def test_two_ups_at_once_end_with_one_ready_and_the_other_told(world: World) -> None:
    async def test() -> None:
        driver, _ = driving(world)
        both = [asyncio.ensure_future(told(driver.up(model, "up"))) for model in ("a", "b")]
        await world.clock.until(lambda: all(task.done() for task in both))
        last = [task.result()[-1] for task in both]
        assert [phase.phase for phase in last] in (["failed", "ready"], ["ready", "ready"])
        assert world.open() == {"b"}

    play(test)


def test_up_of_a_model_without_a_container_says_what_creates_it(world: World) -> None:
    del world.at["b"]

    async def test() -> None:
        driver, _ = driving(world)
        await up(world, driver, "a")
        failed = await up(world, driver, "b")
        assert (failed.phase, failed.reason) == (
            "failed", "b has no container yet: python -m orchestrator up b creates it",
        )  # fmt: skip
        assert world.open() == {"a"}

    play(test)


def test_a_wish_that_is_taken_back_gives_the_start_up(world: World) -> None:
    async def test() -> None:
        driver, _ = driving(world)
        phases = asyncio.ensure_future(told(driver.up("a", "up")))
        await world.clock.until(lambda: world.at["a"].status == "running")
        driver.take_back("a")
        await world.clock.until(lambda: world.at["a"].status == "exited")
        await world.clock.until(phases.done)
        assert phases.result()[-1].phase == "failed"
        await world.clock.passes(20)
        assert world.at["a"].status == "exited"

    play(test)


def test_down_drains_and_stops_and_nothing_brings_it_back(world: World) -> None:
    async def test() -> None:
        driver, _ = driving(world)
        await up(world, driver, "a")
        phases = await world.clock.result(told(driver.down("a", "down")))
        assert phases[-1].phase == "stopped"
        await world.clock.passes(30)
        assert world.at["a"].status == "exited"
        assert driver.status()["wanted"] == []

    play(test)


def test_sleep_and_wake_as_asked(world: World) -> None:
    async def test() -> None:
        driver, _ = driving(world)
        await up(world, driver, "a")
        assert (await world.clock.result(told(driver.sleep("a", "sleep"))))[-1].phase == "asleep"
        assert world.open() == set()
        assert (await world.clock.result(told(driver.wake("a", "wake"))))[-1].phase == "ready"
        assert [what for what in world.did if "stop" in what] == []
        await up(world, driver, "c")
        assert (await world.clock.result(told(driver.sleep("c", "sleep"))))[-1].phase == "failed"

    play(test)


def sleep_of(driver: Driver, model: str) -> tuple[str, bool, int]:
    entry = next(entry for entry in driver.status()["models"] if entry["name"] == model)
    return entry["sleep"], entry["can_sleep"], entry["sleep_passed"]


def test_a_failed_sleep_test_turns_sleep_off_and_a_passed_one_on_again(world: World) -> None:
    # Of 32 GiB another model holds about 31.3: a sleeper has room beside it, once it is known how little it keeps.
    world.cards = {index: card(index, total=32) for index in (0, 1)}

    async def test() -> None:
        driver, task = driving(world)
        await up(world, driver, "a")
        driver.slept("a", Slept(2, "it answers otherwise", Footprint(3, 4)))
        assert sleep_of(driver, "a") == ("it answers otherwise", False, 0)
        await up(world, driver, "b")
        assert "stop a" in world.did
        assert "sleep a" not in world.did
        # It lasts, with the activator too.
        await killed(world, task)
        driver, _ = driving(world)
        await up(world, driver, "a")
        assert sleep_of(driver, "a") == ("it answers otherwise", False, 0)
        driver.slept("a", Slept(3))
        assert sleep_of(driver, "a") == ("auto", True, 3)
        assert world.effects.board["a"].footprint == Footprint(3, 4)
        await up(world, driver, "b")
        assert world.did[-2:] == ["sleep a", "prove b"]

    play(test)


def test_a_model_whose_sleep_is_off_sleeps_on_trial_and_not_otherwise(world: World) -> None:
    async def test() -> None:
        driver, _ = driving(world)
        await up(world, driver, "a")
        driver.slept("a", Slept(2, "it answers otherwise"))
        assert (await world.clock.result(told(driver.sleep("a", "sleep", trial=True))))[-1].phase == "asleep"
        assert (await up(world, driver, "a")).phase == "ready"
        assert sleep_of(driver, "a") == ("it answers otherwise", False, 0)
        assert (await world.clock.result(told(driver.sleep("a", "sleep"))))[-1].phase == "failed"

    play(test)


def test_a_model_whose_sleep_is_not_set_does_not_sleep_on_trial_either(world: World) -> None:
    async def test() -> None:
        driver, _ = driving(world)
        await up(world, driver, "c")
        driver.slept("c", Slept(2, "it answers otherwise"))
        await world.clock.result(told(driver.sleep("c", "sleep", trial=True)))
        assert "sleep c" not in world.did

    play(test)


def test_what_was_measured_here_comes_before_what_a_sleep_test_saw(world: World) -> None:
    async def test() -> None:
        driver, _ = driving(world)
        await up(world, driver, "a")
        world.effects.memory.measured("a", "image-1", Footprint(1, 2))
        driver.slept("a", Slept(2, "", Footprint(3, 4)))
        assert world.effects.memory.footprint("a", "image-1") == Footprint(1, 2)
        await world.clock.result(told(driver.sleep("a", "sleep")))
        assert 'tandem_asleep_gpu_bytes{model="a"} 1\n' in driver.metrics()

    play(test)


def test_of_a_model_that_never_ran_nothing_can_be_known(world: World) -> None:
    del world.at["b"]

    async def test() -> None:
        driver, _ = driving(world)
        await world.clock.passes(1)
        with pytest.raises(LookupError):
            driver.slept("b", Slept(1))

    play(test)


# --- by hand, and by themselves ---------------------------------------------------------------------------------------


def test_a_container_started_by_hand_is_the_wish_of_who_started_it(world: World) -> None:
    async def test() -> None:
        driving(world)
        await world.clock.until(lambda: world.listeners)
        await world.clock.passes(1)
        await world.by_hand("a", "start")
        await world.clock.until(lambda: world.open() == {"a"})
        await world.by_hand("b", "start")
        await world.clock.until(lambda: world.open() == {"b"})
        assert world.did[-2:] == ["stop a", "prove b"] or "stop a" in world.did

    play(test)


def test_a_container_stopped_by_hand_stays_stopped(world: World) -> None:
    async def test() -> None:
        driver, _ = driving(world)
        await up(world, driver, "a")
        await world.by_hand("a", "stop")
        await world.clock.passes(30)
        assert world.open() == set()
        assert world.at["a"].status == "exited"
        assert driver.status()["wanted"] == []

    play(test)


def test_a_model_that_dies_while_ready_closes_its_route_and_comes_back(world: World) -> None:
    async def test() -> None:
        driver, _ = driving(world)
        await up(world, driver, "a")
        world.at["a"].log = ["RuntimeError: CUDA error: an illegal memory access was encountered"]
        world.dies("a", 1)
        await world.clock.until(lambda: world.open() == set())
        await world.clock.until(lambda: world.open() == {"a"})

    play(test)


def test_a_model_that_dies_asleep_is_started_when_it_is_asked_for(world: World) -> None:
    async def test() -> None:
        driver, _ = driving(world)
        await up(world, driver, "a")
        await world.clock.result(told(driver.sleep("a", "sleep")))
        world.dies("a", 1)
        await world.clock.passes(2)
        assert (await up(world, driver, "a")).phase == "ready"
        assert "wake a" not in world.did

    play(test)


def test_a_death_just_after_the_last_step_is_seen(world: World) -> None:
    async def test() -> None:
        driver, _ = driving(world)
        opened = world.effects.routes.open

        def and_dies(model: str) -> None:
            world.effects.routes.open = opened
            opened(model)
            # No event tells: while a run deals with a model, its events are the run's.
            world.at[model].status, world.at[model].code = "exited", 1

        world.effects.routes.open = and_dies
        ticket = ask(driver, "a")
        await world.clock.until(ticket.outcome.done)
        await world.clock.until(lambda: world.at["a"].status == "running" and world.open() == {"a"})

    play(test)


def test_a_daemon_that_restarts_takes_no_wish_with_it(world: World) -> None:
    async def test() -> None:
        driver, _ = driving(world)
        await up(world, driver, "a")
        world.daemon_goes()
        await world.clock.passes(20)
        assert driver.status()["wanted"] == ["a"]
        world.away = False
        await world.clock.until(lambda: world.at["a"].status == "running" and world.did.count("prove a") == 2)
        await world.clock.until(lambda: world.open() == {"a"})

    play(test)


def test_a_daemon_on_its_way_down_stops_nobodys_wish(world: World) -> None:
    async def test() -> None:
        driver, _ = driving(world)
        await up(world, driver, "a")
        await world.by_hand("a", "stop")
        await world.clock.passes(0.5)
        world.daemon_goes()
        await world.clock.passes(20)
        assert driver.status()["wanted"] == ["a"]

    play(test)


def test_a_model_with_no_request_for_its_ttl_rests(tmp_path: Path) -> None:
    world = World(tmp_path, models={"a": Model("a", ("a",), frozenset({0}), ttl=60, sleep="auto")})

    async def test() -> None:
        driver, _ = driving(world)
        await up(world, driver, "a")
        for _ in range(10):
            await world.clock.passes(20)
            world.at["a"].tokens += 1
        assert world.open() == {"a"}
        await world.clock.passes(70)
        assert world.open() == set()

    play(test)


# --- a restart of the activator ---------------------------------------------------------------------------------------


async def killed(world: World, task: "asyncio.Task[None]") -> None:
    """End an activator without a word, and make ready for the next; the servers run on."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    world.listeners.clear()
    world.effects = world.new_effects()


@pytest.mark.parametrize("phase", ["drain", "stop", "release", "start", "prove", "sleep", "wake"])
def test_an_activator_killed_in_the_middle_of_a_step_goes_on(world: World, phase: str) -> None:
    async def test() -> None:
        driver, task = driving(world)
        await up(world, driver, "a")
        if phase == "wake":
            await world.clock.result(told(driver.sleep("a", "sleep")))
            await up(world, driver, "c")
        target = "a" if phase == "wake" else "b"
        reached = asyncio.Event()
        begin = type(driver._conductor._executor)._step

        async def until_there(self: Any, run: Any, step: Any) -> None:
            if step.kind == phase or (phase in ("sleep", "release") and step.kind == "stop"):
                reached.set()
            await begin(self, run, step)

        driver._conductor._executor._step = until_there.__get__(driver._conductor._executor)
        wish = asyncio.ensure_future(told(driver.up(target, "up")))
        await world.clock.until(reached.is_set)
        wish.cancel()
        await killed(world, task)
        driver, _ = driving(world)
        await world.clock.until(lambda: target in world.open())
        await world.clock.passes(10)
        assert world.open() - {"c"} == {target}
        assert [entry["state"] for entry in driver.status()["models"] if entry["name"] == target] == ["ready"]

    play(test)


def standing(driver: Driver, model: str) -> tuple[str, float]:
    entry = next(entry for entry in driver.status()["models"] if entry["name"] == model)
    return entry["state"], entry["since"]


def test_an_activator_has_looked_once_it_knows_how_every_model_is(world: World) -> None:
    async def test() -> None:
        driver, task = driving(world)
        await up(world, driver, "a")
        await killed(world, task)
        world.away = True
        driver, _ = driving(world)
        looked = asyncio.ensure_future(driver.looked())
        await world.clock.passes(20)
        assert not looked.done()
        world.away = False
        await world.clock.until(looked.done)
        assert standing(driver, "a")[0] == "ready"

    play(test)


@pytest.mark.parametrize("state", ["ready", "asleep"])
def test_a_restart_changes_nothing_of_since_when_a_model_is_as_it_is(world: World, state: str) -> None:
    async def test() -> None:
        driver, task = driving(world)
        await up(world, driver, "a")
        if state == "asleep":
            await world.clock.result(told(driver.sleep("a", "sleep")))
        before = standing(driver, "a")
        assert before[0] == state
        for _ in range(2):
            await world.clock.passes(30)
            await killed(world, task)
            driver, task = driving(world)
            await world.clock.result(driver.looked())
            assert standing(driver, "a") == before

    play(test)


def test_what_the_first_look_finds_counts_from_then_also_when_nothing_happens_after_it(world: World) -> None:
    world.at["a"].status, world.at["a"].started = "running", world.clock.wall()

    async def test() -> None:
        await world.clock.passes(30)
        driver, task = driving(world)
        await world.clock.result(driver.looked())
        before = standing(driver, "a")
        assert before[0] == "ready"
        await killed(world, task)
        await world.clock.passes(30)
        driver, _ = driving(world)
        await world.clock.result(driver.looked())
        assert standing(driver, "a") == before

    play(test)


def test_a_server_that_was_started_again_meanwhile_counts_from_then(world: World) -> None:
    async def test() -> None:
        driver, task = driving(world)
        await up(world, driver, "a")
        before = standing(driver, "a")
        await killed(world, task)
        world.dies("a", 0)
        await world.clock.passes(30)
        await world.start("a")
        driver, _ = driving(world)
        await world.clock.until(lambda: standing(driver, "a")[0] == "ready")
        assert standing(driver, "a")[1] >= before[1] + 30

    play(test)


def test_a_restart_disturbs_no_model_that_serves(world: World) -> None:
    async def test() -> None:
        driver, task = driving(world)
        await up(world, driver, "a")
        before = list(world.did)
        await killed(world, task)
        driver, _ = driving(world)
        ticket = ask(driver, "a")
        await world.clock.until(ticket.outcome.done)
        assert (world.open(), world.did) == ({"a"}, before)

    play(test)


def test_after_a_reboot_exactly_the_wanted_model_comes_back(world: World) -> None:
    async def test() -> None:
        driver, task = driving(world)
        await up(world, driver, "a")
        await up(world, driver, "b")
        await killed(world, task)
        for server in world.at.values():
            server.status, server.asleep = "exited", False
        world.boot = "boot 2"
        driving(world)
        await world.clock.until(lambda: world.open() == {"b"})
        assert world.at["a"].status == "exited"

    play(test)


def test_a_container_started_by_hand_meanwhile_wins_over_the_wish_of_before(world: World) -> None:
    async def test() -> None:
        driver, task = driving(world)
        await up(world, driver, "a")
        await killed(world, task)
        world.clock.now += 10
        await world.by_hand("b", "start")
        driver, _ = driving(world)
        await world.clock.until(lambda: world.open() == {"b"})
        assert driver.status()["wanted"] == ["b"]

    play(test)


def test_a_route_left_open_to_nobody_is_closed(world: World) -> None:
    world.effects.routes.open("a")
    world.effects.routes.open("gone")

    async def test() -> None:
        driving(world)
        await world.clock.until(lambda: world.listeners)
        await world.clock.passes(1)
        assert world.open() == set()

    play(test)


def test_preload_comes_up_with_the_stack_and_not_with_the_activator(tmp_path: Path) -> None:
    world = World(tmp_path, models={"a": Model("a", ("a",), frozenset({0}), preload=True)})

    async def test() -> None:
        driver, task = driving(world)
        await world.clock.until(lambda: world.open() == {"a"})
        await world.clock.result(told(driver.down("a", "down")))
        await killed(world, task)
        driver, task = driving(world)
        await world.clock.passes(30)
        assert world.open() == set()
        await killed(world, task)
        world.boot = "boot 2"
        driving(world)
        await world.clock.until(lambda: world.open() == {"a"})

    play(test)


def test_requests_wait_for_a_daemon_that_is_away_at_the_start(world: World) -> None:
    world.away = True

    async def test() -> None:
        driver, _ = driving(world)
        ticket = ask(driver, "a")
        await world.clock.passes(30)
        assert not ticket.outcome.done()
        assert ticket.phase().text == "waiting for Docker to say what runs"
        world.away = False
        await world.clock.until(ticket.outcome.done)
        assert isinstance(ticket.outcome.result(), Forward)

    play(test)


# --- telling ----------------------------------------------------------------------------------------------------------


def test_status_tells_the_switch_under_way_and_the_last_one(world: World) -> None:
    async def test() -> None:
        driver, _ = driving(world)
        await up(world, driver, "a")
        assert not driver.status()["busy"]
        ticket = ask(driver, "b")
        await world.clock.until(lambda: world.at["b"].status == "running")
        found = driver.status()
        json.dumps(found)
        assert found["switch"]["target"] == "b"
        assert [step["kind"] for step in found["switch"]["steps"]][:2] == ["close", "drain"]
        assert found["queue"][0]["model"] == "b"
        assert found["last"]["target"] == "a"
        assert found["gpus"] is None
        assert (found["digest"], found["busy"]) == ("models 1", True)
        await world.clock.until(ticket.outcome.done)
        await world.clock.passes(1)
        last = driver.status()["last"]
        assert (last["target"], last["outcome"], last["kind"]) == ("b", "ready", "cold")
        text = driver.metrics()
        assert 'tandem_switches_total{kind="cold",outcome="ready"} 2\n' in text
        assert 'tandem_state{model="b",state="ready"} 1\n' in text
        assert 'tandem_switch_seconds_count{kind="cold",phase="start"} 2\n' in text
        assert "tandem_asleep_gpu_bytes{" not in text

    play(test)


def test_a_fault_of_our_own_fails_one_switch_and_not_the_next(world: World) -> None:
    async def test() -> None:
        driver, _ = driving(world)
        look, world.effects.gpus.look = world.effects.gpus.look, None  # what no module expects
        failed = await up_with_fault(world, driver)
        assert "a fault of the activator itself" in failed.reason
        world.effects.gpus.look = look
        assert (await up(world, driver, "a")).phase == "ready"

    async def up_with_fault(world: World, driver: Driver) -> Phase:
        phases: list[Phase] = await world.clock.result(told(driver.up("a", "up")), 100)
        return phases[-1]

    play(test)
