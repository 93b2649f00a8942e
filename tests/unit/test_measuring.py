"""Sleep tests and benches as they run, against a stand-in for router and activator."""

from collections.abc import Iterator
from typing import Any

import pytest

from orchestrator.ask import Activator
from orchestrator.bench import Cycle, Part, SleepTest, Switch
from orchestrator.errors import TandemError
from orchestrator.measure import Measure
from tests.standins.activator import StandIn, running

GIB = 1 << 30
TOKEN = 'data: {"choices": [{"text": "Hi"}]}'
LAST = {"target": "b", "outcome": "ready", "kind": "wake", "seconds": {"sleep": 0.3, "wake": 0.4}, "total": 0.8}


@pytest.fixture
def stand_in() -> Iterator[StandIn]:
    with running() as found:
        for verb, end in (("up", "ready"), ("wake", "ready"), ("sleep", "asleep"), ("down", "stopped")):
            found.script[verb] = [{"model": "a", "phase": end}]
        yield found


class Scene:
    """A machine on which time passes only by a pause; did is what a test wants to know of.

    The state of a follows from what was asked last, as with a true activator; goes is how sleeps and wakes end.
    """

    def __init__(self, stand_in: StandIn, **goes: dict[str, Any]) -> None:
        self.did: list[str] = []
        self.now = 0.0
        self.free = iter(range(64 * GIB, 0, -GIB))
        self.goes = goes
        self.measure = Measure(
            Activator(stand_in.address, lines=self.lines(stand_in)),
            lambda model: model.upper(),
            self.did.append,
            clock=self.clock,
            pause=self.pause,
            free=lambda: next(self.free),
        )

    def lines(self, stand_in: StandIn) -> Any:
        from orchestrator import http

        ends = {
            "sleep": {"state": "asleep", "free": 21, "kind": "rest", "seconds": {"drain": 0.01, "sleep": 0.4}},
            "wake": {"state": "ready", "free": 4, "kind": "wake", "seconds": {"wake": 0.3, "prove": 0.1}},
        }

        def asked(address: str, *said: Any, **more: Any) -> Any:
            for verb, usual in ends.items():
                if f"/-/{verb}/" in address and stand_in.status is not None:
                    end = usual | self.goes.get(verb, {})
                    entry = stand_in.status["models"][0]
                    entry |= {"state": end["state"], "sleep": end.get("sleep", entry.get("sleep", "auto"))}
                    stand_in.status["gpus"] = [{"index": 0, "total": 24 * GIB, "free": end["free"] * GIB}]
                    stand_in.status["last"] = {"target": "a", "kind": end["kind"], "seconds": end["seconds"]}
            return http.lines(address, *said, **more)

        return asked

    def clock(self) -> float:
        self.now += 0.5
        return self.now

    def pause(self, seconds: float) -> None:
        self.did.append(f"pause {seconds:g}")

    def clear(self, model: str) -> None:
        self.did.append(f"clear {model}")

    def switch(self, kind: Any) -> Switch:
        return self.measure.switch("a", "b", kind, awake=5, clear=self.clear)


def up(stand_in: StandIn, **states: str) -> None:
    stand_in.status = {
        "models": [{"name": name, "state": state} for name, state in states.items()],
        "gpus": [{"index": 0, "total": 24 * GIB, "free": 4 * GIB}],
        "last": LAST,
    }


def posts(stand_in: StandIn) -> list[str]:
    return [line.removeprefix("POST ") for line in stand_in.heard if line.startswith("POST /-/")]


def paths(stand_in: StandIn) -> list[str]:
    return [line.split()[1] for line in stand_in.heard if line.startswith("POST")]


def test_each_cycle_sleeps_and_wakes_and_compares_the_answer_with_that_of_before(stand_in: StandIn) -> None:
    up(stand_in, a="ready")
    stand_in.completions = ["four, five", "four, five", "four, five"]
    scene = Scene(stand_in)
    found = scene.measure.cycles("a", [0], 2)
    slept = {"drain": 0.01, "sleep": 0.4}
    woken = {"wake": 0.3, "prove": 0.1}
    assert found == SleepTest(
        "a",
        (
            Cycle(Part(0.5, slept, 3 * GIB, GIB), Part(0.5, woken, 20 * GIB, 2 * GIB)),
            Cycle(Part(0.5, slept, 3 * GIB, 3 * GIB), Part(0.5, woken, 20 * GIB, 4 * GIB)),
        ),
    )
    # The activator is told, and lets it sleep also where an earlier failure stands against that.
    assert posts(stand_in) == [
        *["/-/sleep/a?trial=1", "/-/wake/a"] * 2,
        f'/-/slept/a {{"cycles": 2, "fault": "", "gpu": {3 * GIB}, "host": {3 * GIB}}}',
    ]
    asked = [line for line in stand_in.heard if "/v1/completions" in line]
    assert len(asked) == 3
    assert all('"model": "A"' in line and '"temperature": 0' in line for line in asked)
    assert scene.did == [
        "pause 2", "pause 2", "cycle 1 of 2: asleep in 0.50 s, awake in 0.50 s, the same answer",
        "pause 2", "pause 2", "cycle 2 of 2: asleep in 0.50 s, awake in 0.50 s, the same answer",
    ]  # fmt: skip


def test_another_answer_ends_the_test_and_is_told_the_activator(stand_in: StandIn) -> None:
    up(stand_in, a="ready")
    stand_in.completions = ["four, five", "fish"]
    found = Scene(stand_in).measure.cycles("a", [0], 3)
    assert ([cycle.same for cycle in found.cycles], found.fault) == ([False], "after a sleep it answers otherwise")
    assert posts(stand_in)[-1].startswith('/-/slept/a {"cycles": 1, "fault": "after a sleep it answers otherwise"')


@pytest.mark.parametrize(
    ("goes", "script", "fault"),
    [
        (
            {"sleep": {"state": "stopped", "sleep": "it could not go to sleep: /sleep answered 500"}},
            {"sleep": [{"model": "a", "phase": "failed", "reason": "it cannot sleep, and is stopped"}]},
            "it could not go to sleep: /sleep answered 500",
        ),
        ({"wake": {"kind": "cold", "sleep": "it did not wake: dead"}}, {}, "it did not wake: dead"),
        ({"wake": {"kind": "cold"}}, {}, "it was started anew rather than woken"),
    ],
)
def test_what_does_not_sleep_or_wake_has_failed_the_test(
    stand_in: StandIn, goes: dict[str, Any], script: dict[str, Any], fault: str
) -> None:
    up(stand_in, a="ready")
    stand_in.completions = ["four, five"]
    stand_in.script |= script
    found = Scene(stand_in, **goes).measure.cycles("a", [0], 3)
    assert found == SleepTest("a", (), fault)
    told = f'/-/slept/a {{"cycles": 1, "fault": "{fault}", "gpu": null, "host": null}}'
    # What is down then comes up again.
    assert posts(stand_in)[2 if "wake" in goes else 1 :] == [told, *(["/-/up/a"] if "sleep" in goes else [])]


@pytest.mark.parametrize(
    ("goes", "script", "words"),
    [
        # No room in the machine's memory, or somebody who wanted another model.
        (
            {"sleep": {"state": "stopped"}},
            {"sleep": [{"model": "a", "phase": "failed", "reason": "no room"}]},
            "a: no room",
        ),
        ({"wake": {"state": "draining"}}, {}, "a is draining, not ready: something else happened meanwhile"),
    ],
)
def test_what_comes_between_says_nothing_of_a_models_sleep(
    stand_in: StandIn, goes: dict[str, Any], script: dict[str, Any], words: str
) -> None:
    up(stand_in, a="ready")
    stand_in.completions = ["four, five"]
    stand_in.script |= script
    with pytest.raises(TandemError) as caught:
        Scene(stand_in, **goes).measure.cycles("a", [0], 3)
    assert str(caught.value).splitlines() == [
        words,
        "  That says nothing of its sleep. It comes back with: python -m orchestrator up a",
    ]
    assert not any("/-/slept/" in line for line in stand_in.heard)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (
            {"sleep": "off"},
            'a never sleeps. Set sleep = "auto" for it in models.toml, then: python -m orchestrator up a',
        ),
        (
            {"sleep": "auto", "can_sleep": False},
            "a cannot sleep: its server has no sleep mode. vLLM has one from 0.17 on",
        ),
    ],
)
def test_a_model_that_cannot_sleep_is_left_up(stand_in: StandIn, entry: dict[str, Any], words: str) -> None:
    up(stand_in, a="ready")
    assert stand_in.status is not None
    stand_in.status["models"][0] |= entry
    with pytest.raises(TandemError) as caught:
        Scene(stand_in).measure.cycles("a", [0], 1)
    assert str(caught.value).startswith(words)
    assert not [line for line in stand_in.heard if line.startswith("POST")]


def test_a_model_whose_sleep_failed_before_may_be_tested_again(stand_in: StandIn) -> None:
    up(stand_in, a="ready")
    assert stand_in.status is not None
    stand_in.status["models"][0] |= {"sleep": "it did not wake", "can_sleep": False}
    stand_in.completions = ["four, five"]
    assert Scene(stand_in).measure.cycles("a", [0], 1).fault == ""
    assert '"fault": ""' in posts(stand_in)[-1]


@pytest.mark.parametrize("state", ["stopped", "asleep", "starting"])
def test_a_model_that_is_not_up_is_not_put_to_sleep(stand_in: StandIn, state: str) -> None:
    up(stand_in, a=state)
    with pytest.raises(TandemError, match=f"a is {state}; bring it up first: python -m orchestrator up a"):
        Scene(stand_in).measure.cycles("a", [0], 1)
    assert not [line for line in stand_in.heard if line.startswith("POST")]


def test_without_an_activator_there_is_no_sleep_test(stand_in: StandIn) -> None:
    stand_in.status = None
    with pytest.raises(TandemError) as caught:
        Scene(stand_in).measure.cycles("a", [0], 1)
    assert str(caught.value) == (
        f"the activator does not answer: at {stand_in.address}: nobody is there\n"
        "  'python -m orchestrator up NAME' starts what is missing; 'logs activator' shows what it says."
    )


def test_a_wake_is_measured_after_both_have_slept_and_the_time_that_a_model_keeps_its_gpus(stand_in: StandIn) -> None:
    up(stand_in, a="ready", b="asleep")
    stand_in.completions = [TOKEN]
    scene = Scene(stand_in)
    assert scene.switch("wake") == Switch("a", "b", "wake", {"sleep": 0.3, "wake": 0.4}, 0.8, 0.5)
    assert paths(stand_in) == [
        "/-/up/a",
        "/-/up/b",
        "/-/up/a",
        "/v1/completions",
    ]
    assert scene.did == ["a -> b, wake", "pause 5"]


@pytest.mark.parametrize(("kind", "did"), [("warm", []), ("cold", ["clear b"])])
def test_a_start_is_measured_from_a_server_that_was_stopped(stand_in: StandIn, kind: str, did: list[str]) -> None:
    up(stand_in, a="ready", b="stopped")
    assert stand_in.status is not None
    stand_in.status["last"] = {**LAST, "kind": "cold"}
    stand_in.completions = [TOKEN]
    scene = Scene(stand_in)
    assert scene.switch(kind).fault == ""
    assert paths(stand_in) == [
        "/-/up/a",
        "/-/down/b",
        "/v1/completions",
    ]
    assert scene.did == [f"a -> b, {kind}", *did, "pause 5"]


@pytest.mark.parametrize(
    ("states", "last", "answer", "fault"),
    [
        ({"b": "stopped"}, {}, TOKEN, "b is stopped and does not sleep"),
        ({"b": "asleep"}, {"target": "c"}, TOKEN, "the activator tells of another switch"),
        ({"b": "asleep"}, {"kind": "cold"}, TOKEN, "it was no wake switch but by cold"),
        ({"b": "asleep"}, {}, 'data: {"error": {"message": "it died"}}', "b: it died"),
        ({"b": "asleep"}, {}, ": nothing", "b streamed no token"),
        ({"b": "asleep"}, {}, (500, "no"), "B: 500: no"),
    ],
)
def test_a_switch_that_is_not_what_was_to_be_measured_is_a_fault_and_no_number(
    stand_in: StandIn, states: dict[str, str], last: dict[str, str], answer: Any, fault: str
) -> None:
    up(stand_in, a="ready", **states)
    assert stand_in.status is not None
    stand_in.status["last"] = LAST | last
    stand_in.completions = [answer]
    found = Scene(stand_in).switch("wake")
    assert (found.fault, found.total, dict(found.seconds)) == (fault, 0, {})
