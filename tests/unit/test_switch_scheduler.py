"""Which model is up: events in, decisions out, as tables of a conversation."""

from dataclasses import replace

import pytest

from orchestrator.switch.scheduler import Scheduler
from orchestrator.switch.world import (
    Abandon,
    Asked,
    Changed,
    Decision,
    Ended,
    Event,
    Forward,
    Left,
    Model,
    Policy,
    Progress,
    Refuse,
    Rest,
    Switch,
    Tick,
    Unwished,
    Used,
    Wished,
)

BOTH = frozenset({0, 1})
MODELS = {
    "a": Model("a", ("a",), BOTH),
    "b": Model("b", ("b",), BOTH),
    "c": Model("c", ("c",), BOTH),
    "idle": Model("idle", ("idle",), BOTH, ttl=60),
    "left": Model("left", ("left",), frozenset({0})),
    "right": Model("right", ("right",), frozenset({1})),
    "cpu": Model("cpu", ("cpu",), frozenset()),
}
POLICY = Policy(queue_requests=3, queue_bytes=100, min_awake=5, backoff=5, longest_backoff=300)


def short(decision: Decision) -> str:
    match decision:
        case Forward():
            return f"forward {decision.model} {','.join(map(str, decision.idents))}"
        case Refuse():
            idents = ",".join(map(str, decision.idents))
            return f"refuse {idents} {decision.status} {decision.code} {decision.retry_after:g}: {decision.message}"
        case Rest():
            return f"rest {decision.target}{' stop' if decision.stop else ''}: {decision.cause}"
    return f"{type(decision).__name__.lower()} {decision.target}: {decision.cause}"


class Talk:
    """A scheduler at second 100, and a clock that is told how far to go."""

    def __init__(self, policy: Policy = POLICY) -> None:
        self.scheduler = Scheduler(MODELS, policy)
        self.now = 100.0

    def say(self, *events: Event, after: float = 0) -> list[str]:
        self.now += after
        return [short(decision) for event in events for decision in self.scheduler.handle(event, self.now)]

    def states(self, *names: str) -> list[str]:
        return [self.scheduler.servers[name].state for name in names]


def with_ready(*names: str, policy: Policy = POLICY) -> Talk:
    """These were wished, and have been ready for ten seconds."""
    talk = Talk(policy)
    for name in names:
        talk.say(Wished(name, "up"), Ended(name, "ready"))
    talk.now += 10
    return talk


# --- failures ---------------------------------------------------------------------------------------------------------


def test_a_failed_start_answers_who_waits_and_brings_the_last_good_model_back() -> None:
    talk = with_ready("a")
    assert talk.say(Asked(1, "b"), Asked(2, "b")) == ["switch b: 1 request waits for it"]
    assert talk.say(Ended("b", "failed", "out of memory", evicted=("a",)), after=60) == [
        "refuse 1,2 503 model_failed 5: b failed: out of memory",
        "switch a: it was the last good model",
    ]
    assert talk.scheduler.servers["b"].reason == "out of memory"
    assert talk.say(Ended("a", "ready")) == []
    assert talk.states("a", "b") == ["ready", "failed"]


def test_others_who_wait_come_before_the_last_good_model() -> None:
    talk = with_ready("a")
    talk.say(Asked(1, "b"), Asked(2, "c"))
    assert talk.say(Ended("b", "failed", "no"))[1:] == ["switch c: 1 request waits for it"]
    # And it is the last good one still when these fail too.
    assert talk.say(Ended("c", "failed", "no"))[1:] == ["switch a: it was the last good model"]


def test_a_wish_that_fails_goes_back_to_the_last_good_model() -> None:
    talk = with_ready("left", "right")
    assert talk.say(Wished("b", "up")) == ["switch b: up wants it"]
    assert talk.scheduler.wanted == ("b",)
    assert talk.say(Ended("b", "failed", "no", evicted=("left", "right"))) == [
        "switch left: it was the last good model"
    ]
    assert talk.scheduler.wanted == ("left", "right")
    assert talk.say(Ended("left", "ready")) == ["switch right: it was the last good model"]


def test_a_failure_with_nothing_to_go_back_to_leaves_nothing_wanted() -> None:
    talk = Talk()
    talk.say(Wished("a", "up"))
    assert talk.say(Ended("a", "failed", "no")) == []
    assert talk.scheduler.wanted == ()
    assert talk.scheduler.next_time(talk.now) is None


def test_a_model_that_failed_is_left_alone_and_its_requests_hear_why() -> None:
    talk = Talk()
    talk.say(Asked(1, "a"), Ended("a", "failed", "bad weights"))
    assert talk.say(Asked(2, "a"), after=2) == ["refuse 2 503 model_failed 3: a failed: bad weights"]
    assert talk.say(Asked(3, "a"), after=3) == ["switch a: 1 request waits for it"]
    talk.say(Ended("a", "failed", "bad weights"))
    assert talk.say(Asked(4, "a")) == ["refuse 4 503 model_failed 10: a failed: bad weights"]


def test_backoff_doubles_up_to_the_longest_and_a_success_ends_it() -> None:
    talk = Talk()
    waits = []
    for _ in range(8):
        talk.say(Asked(1, "a"), Ended("a", "failed", "no"))
        waits.append(talk.scheduler.backoff.until("a") - talk.now)
        talk.now += waits[-1]
    assert waits == [5, 10, 20, 40, 80, 160, 300, 300]
    talk.say(Asked(1, "a"), Ended("a", "ready"), Asked(2, "b"))
    talk.say(Tick(), after=5)
    talk.say(Ended("b", "ready"), Asked(3, "a"))
    talk.say(Tick(), after=5)
    talk.say(Ended("a", "failed", "no"))
    assert talk.scheduler.backoff.until("a") == talk.now + 5


def test_a_wish_is_tried_at_once_whatever_failed_before() -> None:
    talk = Talk()
    talk.say(Asked(1, "a"), Ended("a", "failed", "no"))
    assert talk.say(Wished("a", "up"), Asked(2, "a")) == ["switch a: up wants it"]
    assert talk.say(Ended("a", "ready")) == ["forward a 2"]


def test_a_wanted_model_that_died_starts_again_and_requests_wait_for_it() -> None:
    talk = with_ready("a")
    assert talk.say(Changed("a", "failed", "Killed")) == ["switch a: it died: Killed"]
    assert talk.say(Asked(1, "a")) == []
    assert talk.say(Ended("a", "ready")) == ["forward a 1"]


def test_a_model_that_keeps_dying_waits_longer_each_time() -> None:
    talk = with_ready("a")
    waits = []
    for _ in range(4):
        talk.say(Changed("a", "failed", "Killed"))
        due = talk.scheduler.next_time(talk.now)
        waits.append(0 if due is None else due - talk.now)
        if due is not None:
            assert talk.say(Asked(9, "a"))[0].startswith("refuse 9 503 model_failed")
            assert talk.say(Tick(), after=waits[-1]) == ["switch a: it died: Killed"]
        talk.say(Ended("a", "ready"))
    assert waits == [0, 5, 10, 20]
    talk.now += POLICY.longest_backoff
    assert talk.say(Changed("a", "failed", "Killed")) == ["switch a: it died: Killed"]


def test_a_restart_that_fails_is_tried_again_as_the_model_is_wanted_still() -> None:
    talk = with_ready("a")
    talk.say(Changed("a", "failed", "Killed"))
    assert talk.say(Ended("a", "failed", "no engine")) == []
    assert talk.scheduler.next_time(talk.now) == talk.now + 5
    assert talk.say(Tick(), after=5) == ["switch a: it died: no engine"]


def test_a_model_stopped_by_hand_stays_so_and_that_is_no_death() -> None:
    talk = with_ready("a")
    assert talk.say(Unwished("a", "docker"), Changed("a", "stopped")) == []
    assert talk.scheduler.wanted == ()
    assert talk.say(Wished("a", "docker"), Ended("a", "ready")) == ["switch a: docker wants it"]
    assert talk.say(Changed("a", "failed", "Killed")) == ["switch a: it died: Killed"]  # the first death


def test_a_dead_sleeper_is_just_stopped() -> None:
    talk = with_ready("a")
    talk.say(Wished("b", "up"), Changed("a", "asleep"), Ended("b", "ready", evicted=("a",)))
    assert talk.states("a") == ["asleep"]
    assert talk.say(Changed("a", "failed", "Killed")) == []
    assert talk.states("a") == ["stopped"]
    assert talk.say(Asked(1, "a")) == []  # waits for min_awake, not refused


def test_what_the_target_does_during_its_switch_is_not_handled_twice() -> None:
    talk = with_ready("a")
    talk.say(Asked(1, "b"))
    for state in ("stopped", "starting", "ready", "failed"):
        assert talk.say(Changed("b", state, "x")) == []
    assert talk.states("b") == ["starting"]
    assert talk.say(Ended("b", "ready")) == ["forward b 1"]


def test_a_rival_that_dies_while_it_gives_way_is_no_death() -> None:
    talk = with_ready("a")
    talk.say(Asked(1, "b"))
    assert talk.say(Changed("a", "failed", "Killed"), Ended("b", "ready")) == ["forward b 1"]
    assert talk.scheduler.backoff.reason("a") == ""


def test_an_ended_of_something_else_changes_nothing() -> None:
    talk = with_ready("a")
    assert talk.say(Ended("b", "ready"), Asked(1, "b"), Ended("c", "ready")) == ["switch b: 1 request waits for it"]
    assert talk.states("b", "c") == ["starting", "stopped"]


# --- waiting ----------------------------------------------------------------------------------------------------------


def test_a_request_for_a_ready_model_goes_on_at_once_also_while_another_switches() -> None:
    talk = with_ready("left")
    assert talk.say(Asked(1, "left")) == ["forward left 1"]
    assert talk.say(Asked(2, "right"), Asked(3, "left")) == ["switch right: 1 request waits for it", "forward left 3"]


def test_requests_for_a_model_that_gives_way_wait() -> None:
    talk = with_ready("a")
    assert talk.say(Asked(1, "b"), Asked(2, "a")) == ["switch b: 1 request waits for it"]
    assert talk.say(Ended("b", "ready", evicted=("a",))) == ["forward b 1"]
    assert talk.scheduler.next_time(talk.now) == talk.now + 5
    assert talk.say(Asked(3, "b")) == ["forward b 3"]
    assert talk.say(Tick(), after=4.9) == []
    assert talk.say(Tick(), after=0.1) == ["switch a: 1 request waits for it"]


def test_a_wish_does_not_wait_for_min_awake() -> None:
    talk = with_ready("a")
    talk.say(Wished("b", "up"), Ended("b", "ready"))
    assert talk.say(Wished("a", "up")) == ["switch a: up wants it"]


def test_turns_go_by_the_oldest_request() -> None:
    talk = with_ready("a", policy=replace(POLICY, min_awake=0))
    talk.say(Asked(1, "b"), Asked(2, "c"), Wished("a", "up"), Asked(3, "b"))
    assert talk.say(Ended("b", "ready")) == ["forward b 1,3", "switch c: 1 request waits for it"]
    talk.say(Asked(4, "b"))
    assert talk.say(Ended("c", "ready")) == ["forward c 2", "switch a: up wants it"]
    assert talk.say(Ended("a", "ready")) == ["switch b: 1 request waits for it"]


def test_a_wish_that_came_before_a_request_comes_first() -> None:
    talk = with_ready("a", policy=replace(POLICY, min_awake=0))
    talk.say(Asked(1, "b"), Wished("c", "up"), Asked(2, "left"))
    assert talk.say(Ended("b", "ready")) == ["forward b 1", "switch c: up wants it"]


@pytest.mark.parametrize(("sizes", "size"), [((0, 0, 0), 0), ((60, 40), 1), ((), 101)])
def test_the_queue_is_bounded_in_number_and_bytes(sizes: tuple[int, ...], size: int) -> None:
    talk = Talk()
    for ident, each in enumerate(sizes):
        talk.say(Asked(ident, "a", each))
    talk.say(Wished("a", "up"), Progress("a", 10, 42))
    assert talk.say(Asked(9, "b", size)) == ["refuse 9 503 queue_full 42: too many requests wait for their models"]


def test_one_that_left_makes_room_and_leaving_twice_is_fine() -> None:
    talk = Talk()
    talk.say(Asked(1, "a"), Asked(2, "a"), Asked(3, "a"), Left(1), Left(1), Left(99))
    assert talk.say(Asked(4, "a"), Ended("a", "ready")) == ["forward a 2,3,4"]


# --- giving up --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("progress", "policy", "given_up"),
    [
        (Progress("b", 10, 60), POLICY, True),
        (Progress("b", 60, 10), POLICY, False),
        (Progress("b", 10, 10), POLICY, False),
        (Progress("b", 10, None), POLICY, False),
        (Progress("a", 10, 60), POLICY, False),
        (Progress("b", 10, 60), replace(POLICY, abandon=False), False),
    ],
)
def test_a_start_that_nobody_waits_for_is_given_up_if_more_lies_ahead(
    progress: Progress, policy: Policy, given_up: bool
) -> None:
    talk = with_ready("a", policy=policy)
    talk.say(Asked(1, "b"), progress, Asked(2, "c"))
    expected = ["abandon b: nobody waits for it any more, and c is waited for"] if given_up else []
    assert talk.say(Left(1)) == expected
    assert talk.say(Tick()) == []  # once


@pytest.mark.parametrize("event", [Asked(2, "c"), Asked(2, "b"), Asked(2, "cpu"), Left(7), Wished("b", "up")])
def test_a_start_is_not_given_up_while_wanted_or_for_nobody(event: Event) -> None:
    talk = with_ready("a")
    talk.say(Asked(1, "b"), Progress("b", 10, 60))
    leaves = [] if event == Asked(2, "c") else [Left(1)]
    assert talk.say(event, *leaves) == []


def test_after_one_was_given_up_the_next_comes_and_else_the_last_good() -> None:
    talk = with_ready("a")
    talk.say(Asked(1, "b"), Progress("b", 10, 60), Asked(2, "c"), Left(1))
    assert talk.say(Asked(3, "b")) == []
    assert talk.say(Ended("b", "abandoned")) == ["switch c: 1 request waits for it"]
    talk.say(Left(2), Left(3), Unwished("c", "up"))
    assert talk.say(Ended("c", "abandoned")) == ["switch a: it was the last good model"]


def test_a_wish_taken_back_gives_its_start_up_unless_somebody_waits() -> None:
    talk = with_ready("a")
    talk.say(Wished("b", "up"))
    assert talk.say(Unwished("b", "up")) == ["abandon b: its wish was taken back"]
    assert talk.say(Ended("b", "abandoned", evicted=("a",))) == ["switch a: it was the last good model"]
    talk.say(Ended("a", "ready"), Wished("b", "up"), Asked(1, "b"))
    assert talk.say(Unwished("b", "up")) == []
    assert talk.say(Ended("b", "ready")) == ["forward b 1"]


def test_of_two_wishes_the_latest_counts() -> None:
    talk = with_ready("a")
    talk.say(Wished("b", "up"), Progress("b", 1, 60))
    assert talk.say(Wished("c", "up")) == ["abandon b: nobody waits for it any more, and c is waited for"]
    assert talk.scheduler.wanted == ("c",)
    assert talk.say(Ended("b", "abandoned")) == ["switch c: up wants it"]


# --- what is wanted ---------------------------------------------------------------------------------------------------


def test_a_model_that_became_ready_through_a_request_is_wanted() -> None:
    talk = with_ready("a")
    talk.say(Asked(1, "b"))
    assert talk.scheduler.wanted == ("a",)
    talk.say(Ended("b", "ready"))
    assert talk.scheduler.wanted == ("b",)


def test_what_is_wanted_never_overlaps_and_the_rest_stays() -> None:
    talk = with_ready("left", "right", "cpu")
    assert set(talk.scheduler.wanted) == {"left", "right", "cpu"}
    talk.say(Wished("b", "up"))
    assert set(talk.scheduler.wanted) == {"b", "cpu"}
    talk.say(Wished("left", "up"))
    assert set(talk.scheduler.wanted) == {"left", "right", "cpu"}


def test_a_wish_for_a_ready_model_is_fulfilled() -> None:
    talk = with_ready("a")
    talk.say(Unwished("a", "up"))
    assert talk.say(Wished("a", "up")) == []
    assert talk.scheduler.wanted == ("a",)


def test_a_rival_started_by_hand_takes_over_and_may_be_wished_away_again() -> None:
    talk = with_ready("a")
    assert talk.say(Wished("b", "docker"), Changed("b", "starting")) == ["switch b: docker wants it"]
    talk = with_ready("a")
    talk.say(Changed("b", "starting"))
    assert talk.say(Wished("a", "up")) == ["switch a: up wants it"]


def test_of_two_that_are_found_ready_the_second_serves_nobody_and_gives_way() -> None:
    talk = Talk()
    assert talk.say(Changed("a", "ready")) == []
    assert talk.say(Changed("b", "ready")) == ["switch a: it was the last good model"]
    assert talk.say(Asked(1, "b"), Ended("a", "ready", evicted=("b",))) == []
    assert talk.states("a", "b") == ["ready", "stopped"]


def test_one_that_is_found_ready_serves_who_waits() -> None:
    talk = with_ready("a")
    talk.say(Wished("b", "up"), Ended("b", "ready"), Asked(1, "a"))
    talk.say(Unwished("b", "docker"))
    assert talk.say(Changed("b", "stopped")) == ["switch a: 1 request waits for it"]
    talk = Talk()
    talk.say(Asked(1, "cpu"), Asked(2, "a"))
    assert talk.say(Changed("a", "ready")) == ["forward a 2"]


# --- rest -------------------------------------------------------------------------------------------------------------


def test_a_model_rests_after_its_ttl_and_is_not_brought_back_by_itself() -> None:
    talk = with_ready("idle")
    assert talk.scheduler.next_time(talk.now) == talk.now + 50
    talk.say(Asked(1, "idle"), after=40)
    talk.say(Used("idle"), after=40)
    assert talk.say(Tick(), after=59) == []
    assert talk.scheduler.next_time(talk.now) == talk.now + 1
    assert talk.say(Tick(), after=1) == ["rest idle: no request for 60 s"]
    assert talk.scheduler.wanted == ()
    assert talk.say(Asked(2, "idle")) == []
    assert talk.say(Ended("idle", "rested", rested="asleep")) == ["switch idle: 1 request waits for it"]


def test_a_model_at_rest_stays_there() -> None:
    talk = with_ready("idle")
    talk.say(Tick(), after=60)
    assert talk.say(Ended("idle", "rested", rested="asleep"), Tick()) == []
    assert talk.states("idle") == ["asleep"]
    assert talk.scheduler.next_time(talk.now) is None


def test_down_stops_and_sleep_lets_sleep() -> None:
    talk = with_ready("a")
    assert talk.say(Unwished("a", "down", "stop")) == ["rest a stop: down does not want it any more"]
    assert talk.say(Ended("a", "rested", rested="stopped"), Unwished("a", "down", "stop")) == []
    talk = with_ready("a")
    assert talk.say(Unwished("a", "sleep-test", "sleep")) == ["rest a: sleep-test does not want it any more"]
    assert talk.say(Ended("a", "rested", rested="asleep"), Unwished("a", "sleep-test", "sleep")) == []
    assert talk.say(Unwished("a", "down", "stop")) == ["rest a stop: down does not want it any more"]


def test_a_rest_waits_for_the_switch_and_a_wish_takes_it_back() -> None:
    talk = with_ready("left")
    talk.say(Asked(1, "right"), Unwished("left", "down", "stop"))
    assert talk.say(Ended("right", "ready")) == ["forward right 1", "rest left stop: down does not want it any more"]
    talk = with_ready("left")
    talk.say(Asked(1, "right"), Unwished("left", "down", "stop"), Wished("left", "up"))
    assert talk.say(Ended("right", "ready")) == ["forward right 1"]


def test_a_rest_is_not_given_up() -> None:
    talk = with_ready("a")
    talk.say(Unwished("a", "down", "stop"), Progress("a", 1, 60))
    assert talk.say(Asked(1, "b")) == []


def test_a_rest_that_failed_is_a_failed_model_and_waiting_goes_on() -> None:
    talk = with_ready("a")
    talk.say(Unwished("a", "down", "stop"), Asked(1, "a"))
    assert talk.say(Ended("a", "failed", "no engine")) == ["switch a: 1 request waits for it"]


def test_decisions_are_values() -> None:
    assert Talk().scheduler.handle(Asked(1, "a"), 0) == [Switch("a", "1 request waits for it")]
    assert short(Abandon("a", "why")) == "abandon a: why"
