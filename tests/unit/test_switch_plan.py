"""What a switch has to do: plans compared as text."""

from dataclasses import replace

import pytest

from orchestrator.switch.plan import plan, rest, text
from orchestrator.switch.world import Footprint, Gpu, Model, Observed, Policy, Server, State

GIB = 1 << 30
BOTH = frozenset({0, 1})
MODELS = {
    "a": Model("a", ("a",), BOTH, claim=0.8, sleep="auto"),
    "b": Model("b", ("b",), BOTH, claim=0.8, sleep="auto"),
    "c": Model("c", ("c",), BOTH, claim=0.8, sleep="auto"),
    "left": Model("left", ("left",), frozenset({0}), claim=0.8, sleep="auto"),
    "right": Model("right", ("right",), frozenset({1}), claim=0.8, sleep="auto"),
    "cpu": Model("cpu", ("cpu",), frozenset()),
}
# 24 GiB a card, of which a claim of 0.8 leaves 4.8: room for one sleeper of 2.5 GiB and not for two.
GPUS = {index: Gpu(24 * GIB, 0) for index in BOTH}
POLICY = Policy(host_reserve=8 * GIB)


def server(state: State, **other: object) -> Server:
    kept = Footprint(5 * GIB // 2, 20 * GIB)
    return replace(Server(state, state == "ready", 0, "", kept, can_sleep=True, holds=19 * GIB), **other)


def seen(host: int | None = 100 * GIB, gpus: dict[int, Gpu] = GPUS, **servers: Server) -> Observed:
    return Observed({"b": server("stopped"), **servers}, gpus, host)


def lines(observed: Observed, target: str = "b") -> list[str]:
    """The plan, without the causes."""
    return [" ".join(line.split()[:2]) for line in text(plan(target, MODELS, observed, POLICY)).splitlines()]


def causes(observed: Observed, target: str = "b") -> dict[tuple[str, str], str]:
    return {(step.kind, step.model): step.cause for step in plan(target, MODELS, observed, POLICY)}


ARRIVE = ["prove b", "open b"]
# Also where nobody gave way: another program may have taken the memory.
START = ["release b", "start b", *ARRIVE]
WAKE = ["release b", "wake b", *ARRIVE]


def test_a_plan_prints_its_steps_and_their_causes() -> None:
    observed = seen(a=server("ready"), c=server("asleep"))
    assert text(plan("b", MODELS, observed, POLICY)).splitlines() == [
        "close   a                   holds GPUs 0, 1, which b needs",
        "drain   a                   what is in flight is finished first",
        "stop    c                   asleep; GPU 0 has no room for it beside b: 19.2 and 5.0 asleep, of 24.0 GiB",
        "sleep   a                   holds GPUs 0, 1, which b needs",
        "release b                   GPUs 0, 1 must have back what c, a held",
        "start   b                   it is stopped",
        "prove   b                   ready is when it lists its name and answers",
        "open    b                   it is ready",
    ]


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (server("stopped"), START),
        (server("starting"), ["start b", *ARRIVE]),
        (server("ready"), []),
        (server("ready", open=False), ARRIVE),
        (server("draining"), ["open b"]),
        (server("asleep"), WAKE),
        (server("asleep", open=True), ["close b", *WAKE]),
        (server("failed"), ["stop b", *START]),
        (server("failed", open=True), ["close b", "stop b", *START]),
        (server("stopping"), ["stop b", *START]),
    ],
)
def test_a_target_is_brought_up_from_any_state(target: Server, expected: list[str]) -> None:
    assert lines(seen(b=target)) == expected


@pytest.mark.parametrize(
    ("rival", "expected"),
    [
        (server("stopped"), []),
        (server("failed"), ["stop a"]),
        (server("starting"), ["stop a"]),
        (server("starting", open=True), ["close a", "stop a"]),
        (server("stopping"), ["stop a"]),
        (server("ready"), ["close a", "drain a", "sleep a"]),
        (server("ready", open=False), ["drain a", "sleep a"]),
        (server("draining"), ["drain a", "sleep a"]),
        (server("asleep"), []),
        (server("asleep", open=True), ["close a"]),
    ],
)
def test_a_rival_gives_way_from_any_state(rival: Server, expected: list[str]) -> None:
    assert lines(seen(a=rival)) == [*expected, *START]


def test_a_start_by_hand_is_let_go_on_without_a_look_at_its_own_memory() -> None:
    assert lines(seen(a=server("ready"), b=server("starting"))) == ["close a", "drain a", "sleep a", "start b", *ARRIVE]


def test_a_rival_that_waits_in_its_gate_is_stopped_for_a_ready_target() -> None:
    assert lines(seen(a=server("starting"), b=server("ready"))) == ["stop a"]


def test_models_on_other_gpus_are_not_touched() -> None:
    observed = seen(left=server("ready"), right=server("ready"), cpu=server("ready"))
    assert lines(observed, "cpu") == []
    assert lines(replace(observed, servers={**observed.servers, "right": server("stopped")}), "right") == [
        "release right", "start right", "prove right", "open right",
    ]  # fmt: skip


def test_a_model_with_no_gpu_frees_and_waits_for_nothing() -> None:
    assert lines(seen(a=server("ready"), cpu=server("failed")), "cpu") == [
        "stop cpu",
        "start cpu",
        "prove cpu",
        "open cpu",
    ]


def test_all_routes_close_before_the_first_drain() -> None:
    assert lines(seen(left=server("ready"), right=server("ready"))) == [
        "close left", "close right", "drain left", "drain right", "sleep left", "sleep right", *START,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("rival", "host", "gpus", "why"),
    [
        (server("ready", can_sleep=False), 100 * GIB, GPUS, "its server cannot sleep"),
        (server("ready"), None, GPUS, "host memory is not known"),
        (server("ready"), 28 * GIB - 1, GPUS, "asleep it would take host memory from the reserve"),
        (server("ready"), 100 * GIB, {}, "the memory of GPU 0 is not known"),
        (server("ready"), 100 * GIB, {0: GPUS[0]}, "the memory of GPU 1 is not known"),
        (
            server("ready", footprint=Footprint(5 * GIB, 0)),
            100 * GIB,
            GPUS,
            "GPU 0 has no room for it beside b: 19.2 and 5.0 asleep, of 24.0 GiB",
        ),
    ],
)
def test_a_model_that_cannot_sleep_is_stopped_and_the_plan_says_why(
    rival: Server, host: int | None, gpus: dict[int, Gpu], why: str
) -> None:
    observed = seen(host, gpus, a=rival)
    assert lines(observed) == ["close a", "drain a", "stop a", *START]
    assert causes(observed)["stop", "a"] == f"holds GPUs 0, 1, which b needs; {why}"


def test_a_model_that_just_fits_the_reserve_sleeps() -> None:
    assert "sleep a" in lines(seen(28 * GIB, a=server("ready")))


def test_sleep_that_is_off_is_said() -> None:
    models = {**MODELS, "a": replace(MODELS["a"], sleep="off")}
    stop = next(step for step in plan("b", models, seen(a=server("ready")), POLICY) if step.kind == "stop")
    assert stop.cause == "holds GPUs 0, 1, which b needs; its sleep is off"


def test_the_oldest_sleeper_is_stopped_first() -> None:
    gpus = {index: Gpu(40 * GIB, 0) for index in BOTH}  # 8 GiB beside the target: room for three of 2.5
    observed = seen(1000 * GIB, gpus, a=server("ready"), c=server("asleep", since=1), left=server("asleep", since=3))
    assert "stop c" not in lines(observed)
    crowded = replace(observed, servers={**observed.servers, "right": server("asleep", since=2)})
    assert "stop c" not in lines(crowded)  # left and right share no GPU
    large = server("asleep", since=2, footprint=Footprint(5 * GIB, 0))
    assert [
        line for line in lines(replace(observed, servers={**observed.servers, "right": large})) if "stop" in line
    ] == ["stop c"]


def test_no_sleeper_is_stopped_in_vain() -> None:
    huge = server("ready", footprint=Footprint(20 * GIB, 20 * GIB))
    assert lines(seen(a=huge, c=server("asleep"))) == ["close a", "drain a", "stop a", *START]


def test_a_sleeper_makes_room_on_the_host() -> None:
    observed = seen(10 * GIB, a=server("ready", footprint=Footprint(0, 20 * GIB)), c=server("asleep"))
    assert lines(observed) == ["close a", "drain a", "stop c", "sleep a", *START]


def test_a_sleeping_target_is_woken_and_counts_once() -> None:
    assert lines(seen(b=server("asleep"), c=server("asleep"))) == WAKE
    assert lines(seen(b=server("asleep"), c=server("asleep", footprint=Footprint(5 * GIB, 0)))) == [
        "stop c", *WAKE,
    ]  # fmt: skip


# --- what the target holds --------------------------------------------------------------------------------------------

NO_ROOM = "GPU 0 has no room for it beside b"
ALONE = f"{NO_ROOM}, which needs all of it to start"


@pytest.mark.parametrize(
    ("holds", "total", "why"),
    [
        (0, 24, f"{NO_ROOM}: 21.7 and 2.5 asleep, of 24.0 GiB"),  # estimated: 2.5 above a claim of 19.2
        (0, 25, ""),
        (21 * GIB, 24, ""),
        (22 * GIB, 24, f"{NO_ROOM}: 22.0 and 2.5 asleep, of 24.0 GiB"),
        (GIB, 24, ""),  # never less than its claim
        (GIB, 12, f"{NO_ROOM}: 9.6 and 2.5 asleep, of 12.0 GiB"),
        (0, 10, f"{NO_ROOM}: 10.0 and 2.5 asleep, of 10.0 GiB"),  # never more than there is
    ],
)
@pytest.mark.parametrize("rival", ["ready", "asleep"])
def test_a_sleeper_stays_beside_what_the_target_holds_and_not_only_claims(
    holds: int, total: int, why: str, rival: State
) -> None:
    gpus = {index: Gpu(total * GIB, 0) for index in BOTH}
    found = causes(seen(gpus=gpus, a=server(rival), b=server("stopped", holds=holds)))
    before = "asleep" if rival == "asleep" else "holds GPUs 0, 1, which b needs"
    assert found.get(("stop", "a")) == (f"{before}; {why}" if why else None)


def test_a_target_alone_on_its_gpus_has_room_whatever_it_holds() -> None:
    assert lines(seen(b=server("stopped", holds=30 * GIB, starts_alone=True))) == START
    assert lines(seen(gpus={}, b=server("stopped", holds=0))) == START


@pytest.mark.parametrize("state", ["stopped", "failed", "starting", "stopping"])
def test_who_ran_out_of_memory_beside_sleepers_starts_beside_none(state: State) -> None:
    gpus = {index: Gpu(80 * GIB, 0) for index in BOTH}
    observed = seen(gpus=gpus, a=server("ready"), left=server("asleep"), b=server(state, starts_alone=True))
    assert causes(observed)["stop", "a"] == f"holds GPUs 0, 1, which b needs; {ALONE}"
    assert causes(observed)["stop", "left"] == f"asleep; {ALONE}"


@pytest.mark.parametrize("state", ["asleep", "draining"])
def test_who_starts_alone_wakes_beside_sleepers(state: State) -> None:
    observed = seen(b=server(state, starts_alone=True), c=server("asleep"))
    assert ("stop", "c") not in causes(observed)


@pytest.mark.parametrize(
    ("state", "stop", "expected"),
    [
        ("stopped", True, []),
        ("asleep", False, []),
        ("asleep", True, ["stop a"]),
        ("failed", False, ["stop a"]),
        ("starting", False, ["stop a"]),
        ("ready", False, ["close a", "drain a", "sleep a"]),
        ("ready", True, ["close a", "drain a", "stop a"]),
        ("draining", False, ["drain a", "sleep a"]),
    ],
)
def test_a_rest(state: State, stop: bool, expected: list[str]) -> None:
    steps = rest("a", MODELS, seen(a=server(state)), POLICY, "no request for 60 s", stop=stop)
    assert [f"{step.kind} {step.model}" for step in steps] == expected


@pytest.mark.parametrize(("host", "kind"), [(28 * GIB, "sleep"), (28 * GIB - 1, "stop"), (None, "stop")])
def test_a_rest_needs_host_memory_for_sleep(host: int | None, kind: str) -> None:
    assert rest("a", MODELS, seen(host, a=server("ready")), POLICY, "idle")[-1].kind == kind
