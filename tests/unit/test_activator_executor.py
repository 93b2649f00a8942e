"""The steps of a switch, one by one, and what is left behind when one of them goes wrong."""

import asyncio
from pathlib import Path

import pytest

from orchestrator.activator import gpus, release
from orchestrator.activator.draining import ON_THE_WAY, STALE, UNSEEN
from orchestrator.activator.executor import Executor
from orchestrator.activator.gpus import Process
from orchestrator.activator.run import Run
from orchestrator.switch.world import Ended, Model
from tests.unit.activator_world import GIB, OOM, RouterOf, World, card, play


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def outcome(world: World, run: Run, limit: float = 200) -> Ended:
    """Do a run to its end."""
    found: list[Ended] = []

    async def test() -> None:
        found.append(await world.clock.result(Executor(world.effects).run(run), limit))

    play(test)
    return found[0]


COLD = ("start b", "prove b", "open b")
WAKE = ("wake b", "prove b", "open b")


def test_a_server_starts_is_proven_and_its_route_opens_last(world: World) -> None:
    run = world.run_of("b", *COLD)
    assert outcome(world, run) == Ended("b", "ready")
    assert world.did == ["prove b"]
    assert world.open() == {"b"}
    assert run.seconds["start"] == pytest.approx(2, abs=0.5)
    assert world.effects.memory.run_of("b") != ""


# --- coming up goes wrong ---------------------------------------------------------------------------------------------


def test_a_server_that_dies_while_starting_gives_its_root_cause(world: World) -> None:
    world.at["b"].dies_at = world.clock.now + 1
    world.at["b"].log = ["INFO loading", OOM, "RuntimeError: Engine core initialization failed."]
    ended = outcome(world, world.run_of("b", *COLD))
    assert ended.outcome == "failed"
    assert ended.reason.startswith(OOM)
    assert world.effects.board["b"].state == "failed"
    assert world.open() == set()


def test_the_kernels_out_of_memory_is_named(world: World) -> None:
    async def test() -> None:
        task = asyncio.ensure_future(Executor(world.effects).run(world.run_of("b", *COLD)))
        await world.clock.until(lambda: world.at["b"].status == "running")
        world.dies("b", 137, oom=True)
        await world.clock.until(task.done)
        assert "OOMKilled" in task.result().reason

    play(test)


def test_a_signal_is_named_where_the_log_holds_no_cause(world: World) -> None:
    world.at["b"].log = ["INFO:     Application startup complete."]

    async def test() -> None:
        task = asyncio.ensure_future(Executor(world.effects).run(world.run_of("b", *COLD)))
        await world.clock.until(lambda: world.at["b"].status == "running")
        world.dies("b", 137)
        await world.clock.until(task.done)
        assert task.result().reason == "signal 9 ended it"

    play(test)


def test_a_server_that_hangs_is_stopped_and_its_last_word_told(world: World) -> None:
    world.at["b"].hangs = True
    world.at["b"].log = ["Starting to load model", "No available shared memory broadcast block found in 60 seconds"]
    ended = outcome(world, world.run_of("b", *COLD))
    assert ended.reason == "it hangs: no progress for 20 s; the last was: loading weights"
    assert world.at["b"].status == "exited"


def test_what_a_hanging_server_repeats_is_no_progress(world: World) -> None:
    world.at["b"].hangs = True

    async def test() -> None:
        task = asyncio.ensure_future(Executor(world.effects).run(world.run_of("b", *COLD)))
        began = world.clock.now
        while not task.done():
            world.at["b"].log.append(f"No available block found in {world.clock.now:.0f} seconds")
            await world.clock.passes(5)
        assert "hangs" in task.result().reason
        assert world.clock.now - began < 40

    play(test)


def test_a_start_that_makes_progress_for_ever_ends_at_its_ready_timeout(world: World) -> None:
    world.at["b"].hangs = True

    async def test() -> None:
        task = asyncio.ensure_future(Executor(world.effects).run(world.run_of("b", *COLD)))
        shard = 0
        while not task.done():
            shard += 1
            line = f"Loading safetensors checkpoint shards:  {shard}% Completed | {shard}/100"
            world.at["b"].log.append(line)
            await world.clock.passes(5)
        assert "not ready after 60 s; the last was: loading weights" in task.result().reason

    play(test)


def test_what_docker_refuses_is_the_cause(world: World) -> None:
    world.at["b"].faults["start"] = 'could not select device driver "nvidia" with capabilities: [[gpu]]'
    assert "NVIDIA Container Toolkit" in outcome(world, world.run_of("b", *COLD)).reason


def test_a_model_without_a_container_fails_before_another_leaves_for_it(world: World) -> None:
    world.ready("a")
    del world.at["b"]
    ended = outcome(world, world.run_of("b", "close a", "drain a", "stop a", *COLD))
    assert ended.reason == "b has no container yet: python -m orchestrator up b creates it"
    assert world.open() == {"a"}
    assert world.at["a"].status == "running"


def test_a_server_that_is_stopped_from_outside_while_it_starts_says_so(world: World) -> None:
    async def test() -> None:
        task = asyncio.ensure_future(Executor(world.effects).run(world.run_of("b", *COLD)))
        await world.clock.until(lambda: world.at["b"].status == "running")
        await world.by_hand("b", "stop")
        await world.clock.until(task.done)
        assert task.result().reason == "it was stopped from outside while it started"

    play(test)


def test_a_server_that_gives_no_token_is_never_opened(world: World) -> None:
    world.at["b"].faults["prove"] = "asked for one token it answered 500: engine dead"
    ended = outcome(world, world.run_of("b", *COLD))
    assert ended.reason == "asked for one token it answered 500: engine dead"
    assert world.open() == set()
    assert world.at["b"].status == "exited"


def test_a_refused_connection_is_tried_again_for_a_while_only(world: World) -> None:
    world.at["b"].refusals = 3
    assert outcome(world, world.run_of("b", *COLD)).outcome == "ready"
    world.at["b"].refusals = 1000
    assert outcome(world, world.run_of("b", "prove b", "open b")).outcome == "failed"


# --- sleep and wake ---------------------------------------------------------------------------------------------------


def test_a_wake_is_proven_before_the_route_opens(world: World) -> None:
    world.asleep("b")
    assert outcome(world, world.run_of("b", *WAKE)) == Ended("b", "ready")
    assert world.did == ["wake b", "prove b"]


@pytest.mark.parametrize("fault", ["wake", "prove"])
def test_a_wake_that_fails_becomes_a_start_and_its_sleep_is_off(world: World, fault: str) -> None:
    world.asleep("b")
    world.at["b"].faults[fault] = "broken"
    run = world.run_of("b", *WAKE)
    assert outcome(world, run) == Ended("b", "ready")
    assert run.kind == "cold"
    assert "stop b" in world.did
    assert "broken" in world.effects.memory.sleep_refused("b", "image-1")
    assert world.effects.memory.sleep_refused("b", "image-2") == ""
    assert not world.effects.board["b"].can_sleep


def test_a_sleep_that_fails_becomes_a_stop(world: World) -> None:
    world.ready("a")
    world.at["a"].faults["sleep"] = "cannot"
    ended = outcome(world, world.run_of("b", "close a", "drain a", "sleep a", *COLD))
    assert ended == Ended("b", "ready", evicted=("a",))
    assert world.at["a"].status == "exited"
    assert "cannot" in world.effects.memory.sleep_refused("a", "image-1")


# --- a start that runs out of GPU memory beside sleepers ------------------------------------------------------------

BESIDE = "it ran out of GPU memory beside a, which slept: stopping a"


def greedy(world: World) -> Run:
    """A run to b, which starts only alone, while a sleeps."""
    world.asleep("a")
    world.cards = {index: card(index) for index in (0, 1)}
    world.at["b"].greedy = True
    return world.run_of("b", "release b", *COLD)


def test_who_runs_out_of_memory_beside_a_sleeper_starts_once_more_without_it(world: World) -> None:
    run, said, gone = greedy(world), [], []
    run.changed = lambda: said.append((run.phase, run.text))
    run.gave_way = lambda model, state: gone.append((model, state))
    assert outcome(world, run) == Ended("b", "ready")
    assert world.did == ["stop a", "prove b"]
    assert world.open() == {"b"}
    assert gone == [("a", "stopped")]
    assert "a" in run.models
    stop = said.index(("stop", BESIDE))
    assert [phase for phase, _ in said[stop : stop + 3]] == ["stop", "release", "start"]
    assert world.effects.memory.awake("b", "image-1", 0.9) == (0, True)
    assert world.effects.board["b"].starts_alone
    assert world.effects.board["a"].state == "stopped"


def test_all_sleepers_on_its_gpus_are_stopped_the_oldest_first_and_no_others(tmp_path: Path) -> None:
    both = frozenset({0, 1})
    models = {name: Model(name, (name,), both, sleep="auto") for name in ("a", "b", "d")}
    world = World(tmp_path, models=models | {"c": Model("c", ("c",), frozenset({2}), sleep="auto")})
    world.asleep("d")
    world.clock.now += 10
    world.asleep("c")
    assert outcome(world, greedy(world)) == Ended("b", "ready")
    assert world.did == ["stop d", "stop a", "prove b"]
    assert world.sleeps("c")


def test_who_runs_out_of_memory_alone_too_fails_and_starts_beside_sleepers_again(world: World) -> None:
    run = greedy(world)

    async def test() -> None:
        task = asyncio.ensure_future(Executor(world.effects).run(run))
        await world.clock.until(lambda: "stop a" in world.did and world.at["b"].status == "running")
        world.dies("b", 1)
        await world.clock.until(task.done)
        assert (task.result().outcome, task.result().reason.splitlines()[0]) == ("failed", OOM)

    play(test)
    assert world.did == ["stop a"]
    assert world.effects.memory.awake("b", "image-1", 0.9) == (0, False)


def test_who_runs_out_of_memory_with_nobody_asleep_on_its_gpus_is_not_started_twice(world: World) -> None:
    world.ready("c")
    world.at["b"].dies_at = world.clock.now + 1
    world.at["b"].log = [OOM]
    run, starts = world.run_of("b", *COLD), []
    start = world.start

    async def counted(model: str) -> None:
        starts.append(model)
        await start(model)

    world.start = counted  # type: ignore[method-assign]
    assert outcome(world, run).outcome == "failed"
    assert starts == ["b"]


@pytest.mark.parametrize("line", ["ValueError: broken", "OOMKilled", "OSError: No space left on device"])
def test_no_sleeper_is_stopped_for_another_failure(world: World, line: str) -> None:
    world.asleep("a")
    world.at["b"].dies_at = world.clock.now + 1
    world.at["b"].log = [line]
    assert outcome(world, world.run_of("b", *COLD)).outcome == "failed"
    assert world.did == []
    assert world.sleeps("a")


def test_who_is_given_up_as_it_runs_out_of_memory_stops_no_sleeper(world: World) -> None:
    run = greedy(world)
    dies = world.dies

    def give_up(model: str, code: int, *, oom: bool = False) -> None:
        run.give_up()
        dies(model, code, oom=oom)

    world.dies = give_up  # type: ignore[method-assign]
    assert outcome(world, run).outcome == "abandoned"
    assert world.did == []


def test_what_does_not_wake_and_runs_out_of_memory_starts_alone_as_well(world: World) -> None:
    world.asleep("b")
    world.at["b"].faults["wake"] = "broken"
    greedy(world)
    assert outcome(world, world.run_of("b", *WAKE)) == Ended("b", "ready")
    assert world.did == ["wake b", "stop b", "stop a", "prove b"]


# --- drain ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("counted", ["router", "own", "server"])
def test_nobody_leaves_before_all_three_counts_are_zero(world: World, counted: str) -> None:
    world.ready("a")
    own = {"a": 0}
    world.effects.own = own.__getitem__
    counts = {"router": lambda n: world.routed.update(a=n), "own": lambda n: own.update(a=n),
              "server": lambda n: setattr(world.at["a"], "running", n)}  # fmt: skip

    async def test() -> None:
        counts[counted](1)
        run = world.run_of("b", "close a", "drain a", "sleep a")
        task = asyncio.ensure_future(Executor(world.effects).run(run))
        await world.clock.passes(5)
        assert world.open() == set()
        assert (run.phase, run.text) == ("drain", "1 in flight")
        assert world.did == []
        counts[counted](0)
        await world.clock.until(task.done)
        assert world.did == ["sleep a"]

    play(test)


def test_a_drain_that_runs_out_says_what_is_cut_off_and_stops_instead_of_sleeping(world: World) -> None:
    world.ready("a")
    world.routed = {"a": 2}
    run = world.run_of("b", "close a", "drain a", "sleep a")
    outcome(world, run)
    assert run.cut == {"a": 2}
    assert world.did == ["stop a"]


def test_a_count_that_stays_behind_ends_no_drain_late(world: World) -> None:
    world.policy = world.effects.policy = world.policy.__class__(drain_timeout=1000)
    world.ready("a")
    world.at["a"].running = 1
    run = world.run_of("b", "close a", "drain a")
    outcome(world, run)
    assert run.seconds["drain"] == pytest.approx(STALE, abs=1)


def test_the_routers_silence_leaves_the_servers_count(world: World) -> None:
    world.ready("a")
    world.routed, world.at["a"].running = None, 1
    run = world.run_of("b", "close a", "drain a")
    outcome(world, run)
    assert run.cut == {"a": 1}


def test_a_router_that_does_not_tell_may_have_a_request_on_its_way_to_the_server(world: World) -> None:
    world.ready("a")
    world.routed = None
    run = world.run_of("b", "close a", "drain a")
    outcome(world, run)
    assert run.cut == {}
    assert run.seconds["drain"] == pytest.approx(ON_THE_WAY, abs=0.1)


def test_where_nobody_tells_what_is_in_flight_nobody_goes_to_sleep(world: World) -> None:
    world.ready("a")
    world.routed = None
    world.at["a"].hangs = True  # its metrics do not answer
    run = world.run_of("b", "close a", "drain a", "sleep a")

    async def test() -> None:
        task = asyncio.ensure_future(Executor(world.effects).run(run))
        await world.clock.passes(world.policy.drain_timeout - 1)
        assert (run.text, world.did) == ("what is in flight is not known", [])
        await world.clock.until(task.done)
        assert (run.cut, world.did) == ({"a": 0}, ["stop a"])

    play(test)


def test_what_the_router_counted_by_a_link_that_was_just_removed_is_in_flight(world: World) -> None:
    world.ready("a")
    began = world.clock()

    class Late(RouterOf):
        async def in_flight(self) -> dict[str, int] | None:
            # A request that went by the link is counted within that time, and over a while later.
            past = world.clock() - began
            return {"a": int(past < 3)} if past > UNSEEN / 2 else {}

    world.effects.router = Late(world)  # type: ignore[assignment]
    run = world.run_of("b", "close a", "drain a", "sleep a")
    outcome(world, run)
    assert run.seconds["drain"] >= 3


def test_a_drain_ends_with_its_server(world: World) -> None:
    world.ready("a")
    world.routed = {"a": 1}
    world.at["a"].status = "exited"
    run = world.run_of("b", "close a", "drain a")
    outcome(world, run)
    assert run.seconds["drain"] < 1


def test_who_was_to_leave_and_died_is_not_opened_again(world: World) -> None:
    world.ready("a")
    world.dies("a", 1)
    world.at["a"].log = ["ValueError: broken"]
    assert outcome(world, world.run_of("a", "close a", "open a")).reason == "ValueError: broken"
    assert world.open() == set()


def test_who_was_to_leave_and_is_too_busy_to_say_that_it_is_there_is_opened_again(world: World) -> None:
    world.ready("a")
    world.at["a"].hangs = True
    assert outcome(world, world.run_of("a", "close a", "open a")).outcome == "ready"
    assert world.open() == {"a"}


# --- GPU memory -------------------------------------------------------------------------------------------------------


def test_memory_that_another_program_holds_is_an_error_with_its_name(world: World) -> None:
    world.cards = {0: card(0, Process(4242, "blender", 9 * GIB, "")), 1: card(1)}
    ended = outcome(world, world.run_of("b", "release b", *COLD))
    assert ended.reason == (
        "GPU 0 has 15.0 GiB free of the 21.6 GiB that b needs: held by another program, blender (pid 4242, 9.0 GiB)"
    )
    assert world.did == []
    assert world.at["b"].status == "exited"


def test_what_a_stopped_server_of_ours_left_is_ended(world: World) -> None:
    world.cards = {0: card(0, Process(99, "VLLM::Worker", 9 * GIB, "id-a")), 1: card(1)}
    assert outcome(world, world.run_of("b", "release b", *COLD)).outcome == "ready"
    assert world.did == ["kill 99 ['id-a']", "prove b"]


def test_what_cannot_be_ended_is_named_once_asked(world: World) -> None:
    world.cards = {0: card(0, Process(99, "VLLM::Worker", 9 * GIB, "id-a")), 1: card(1)}
    world.kills = {99: "Operation not permitted"}
    ended = outcome(world, world.run_of("b", "release b"))
    assert "what a left behind (pid 99, 9.0 GiB; Operation not permitted)" in ended.reason
    assert world.did == ["kill 99 ['id-a']"]


def test_a_running_server_of_ours_is_not_ended(world: World) -> None:
    world.ready("a")
    world.cards = {0: card(0, Process(99, "vllm", 9 * GIB, "id-a")), 1: card(1)}
    assert "held by a (pid 99, 9.0 GiB)" in outcome(world, world.run_of("b", "release b")).reason
    assert world.did == []


def test_what_a_sleeper_holds_itself_is_not_in_its_way(world: World) -> None:
    world.asleep("b")
    world.cards = {0: card(0, Process(5, "vllm", 3 * GIB, "id-b")), 1: card(1)}
    assert outcome(world, world.run_of("b", "release b", *WAKE)).outcome == "ready"


def test_what_a_sleeper_holds_is_its_own_where_nvml_names_no_process(world: World) -> None:
    world.asleep("b")
    world.cards = {0: card(0, Process(0, "", 4 * GIB, "")), 1: card(1)}
    assert outcome(world, world.run_of("b", "release b", *WAKE)).outcome == "ready"


def test_what_a_sleeper_is_thought_to_hold_counts_less_than_what_nvml_says(world: World) -> None:
    world.asleep("b")
    world.cards = {0: card(0, Process(5, "vllm", GIB, "id-b"), Process(6, "blender", 4 * GIB, "")), 1: card(1)}
    assert "blender (pid 6, 4.0 GiB)" in outcome(world, world.run_of("b", "release b", *WAKE)).reason


def test_memory_must_be_steady(world: World) -> None:
    world.cards = {0: card(0), 1: card(1)}
    run = world.run_of("b", "release b")
    outcome(world, run)
    assert run.seconds["release"] == pytest.approx((gpus.LOOKS - 1) * release.APART)


# --- given up, and the daemon away ------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", ["drain", "stop", "release", "start", "prove"])
def test_a_run_can_be_given_up_at_every_step(world: World, phase: str) -> None:
    world.ready("a")
    world.routed = {"a": 1} if phase == "drain" else {}
    world.cards = {0: card(0, Process(1, "x", 9 * GIB, "")), 1: card(1)} if phase == "release" else None
    world.at["b"].refusals = 1000
    run = world.run_of("b", "close a", "drain a", "stop a", "release b", *COLD)

    async def test() -> None:
        task = asyncio.ensure_future(Executor(world.effects).run(run))
        await world.clock.until(lambda: run.phase == phase)
        run.give_up()
        await world.clock.until(task.done, 5)
        assert task.result().outcome == "abandoned"
        assert world.open() == set()
        assert world.at["b"].status == "exited"
        assert world.effects.board["b"].state == "stopped"
        assert world.effects.board["a"].state == ("draining" if phase == "drain" else "stopped")

    play(test)


def test_a_daemon_that_restarts_is_waited_for(world: World) -> None:
    world.ready("a")

    async def test() -> None:
        world.away = True
        task = asyncio.ensure_future(Executor(world.effects).run(world.run_of("b", "stop a", *COLD)))
        await world.clock.passes(30)
        assert not task.done()
        world.away = False
        await world.clock.until(task.done)
        assert task.result().outcome == "ready"

    play(test)


def test_a_daemon_that_stays_away_fails_the_switch(world: World) -> None:
    world.ready("a")
    world.away = True
    ended = outcome(world, world.run_of("b", "close a", "stop a", *COLD), 500)
    assert ended.outcome == "failed"
    assert "Docker does not answer" in ended.reason


def test_a_run_that_is_cancelled_leaves_the_servers_as_they_are(world: World) -> None:
    async def test() -> None:
        task = asyncio.ensure_future(Executor(world.effects).run(world.run_of("b", *COLD)))
        await world.clock.until(lambda: world.at["b"].status == "running")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert world.at["b"].status == "running"

    play(test)


# --- servers whose profiles are gone ----------------------------------------------------------------------------------

TAKES_OVER = ("close a", "drain a", "stop a", "release b", *COLD)


async def draining(world: World) -> "tuple[Run, asyncio.Task[Ended]]":
    """Begin a switch that waits for the last request of such a server."""
    world.ready("a")
    world.stray("old", 0, 1)
    world.routed = {"old": 1}
    run = world.run_of("b", *TAKES_OVER)
    done = asyncio.ensure_future(Executor(world.effects).run(run))
    await world.clock.until(lambda: run.text == "1 in flight")
    return run, done


def test_a_server_whose_profile_is_gone_is_stopped_for_who_needs_its_gpus(world: World) -> None:
    world.ready("a")
    world.stray("old", 1)
    world.stray("elsewhere", 2)
    assert outcome(world, world.run_of("b", *TAKES_OVER)) == Ended("b", "ready", evicted=("a",))
    assert world.did == ["stop old", "stop a", "prove b"]
    assert world.at["elsewhere"].status == "running"
    assert "old" not in world.effects.containers.stops


def test_a_server_whose_profile_is_gone_ends_its_requests_first(world: World) -> None:
    async def test() -> None:
        _, done = await draining(world)
        await world.clock.passes(3)
        assert world.did == []
        assert world.open() == {"a"}
        world.routed = {}
        await world.clock.until(done.done)
        assert world.did == ["stop old", "stop a", "prove b"]

    play(test)


def test_who_is_given_up_while_such_a_server_drains_stops_nothing(world: World) -> None:
    async def test() -> None:
        run, done = await draining(world)
        run.give_up()
        await world.clock.until(done.done)
        assert done.result().outcome == "abandoned"
        assert world.did == []
        assert world.open() == {"a"}

    play(test)


@pytest.mark.parametrize("steps", [COLD, ("release b", *WAKE)], ids=["whose container runs already", "that sleeps"])
def test_any_model_that_comes_up_has_such_a_server_stopped(world: World, steps: tuple[str, ...]) -> None:
    world.asleep("b")
    world.at["b"].asleep = "wake b" in steps
    world.stray("old", 0, 1)
    assert outcome(world, world.run_of("b", *steps)) == Ended("b", "ready")
    assert world.did[0] == "stop old"
