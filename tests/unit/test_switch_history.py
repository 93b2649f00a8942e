"""How long a switch has still to go, from what earlier ones took."""

import json
import re
from typing import Any

import pytest

from orchestrator.switch.history import History


def seen(*seconds: float, model: str = "a", kind: str = "cold", phase: str = "start") -> History:
    history = History()
    for value in seconds:
        history.add(model, kind, phase, value)
    return history


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ([], "history: should be a table, got []"),
        ({"a": 1}, "a: should be a table, got 1"),
        ({"a": {"cold": None}}, "a.cold: should be a table, got None"),
        ({"a": {"cold": {"start": 3}}}, "a.cold.start: should be a list of seconds, got 3"),
        ({"a": {"cold": {"start": []}}}, "a.cold.start: should be a list of seconds, got []"),
        ({"a": {"cold": {"start": ["3"]}}}, "a.cold.start: should be seconds of 0 or more, got '3'"),
        ({"a": {"cold": {"start": [-1]}}}, "a.cold.start: should be seconds of 0 or more, got -1"),
        ({"a": {"cold": {"start": [True]}}}, "a.cold.start: should be seconds of 0 or more, got True"),
        ({"a": {"cold": {"start": [float("nan")]}}}, "a.cold.start: should be seconds of 0 or more, got nan"),
        ({1: {}}, "history: should be a table, got {1: {}}"),
    ],
)
def test_what_is_no_history_is_refused_with_its_place(data: Any, said: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(said)}$"):
        History(data)


def test_a_duration_below_zero_is_refused_and_not_kept() -> None:
    history = History()
    with pytest.raises(ValueError, match=r"a\.cold\.start"):
        history.add("a", "cold", "start", -1)
    assert history.left("a", "cold", ["start"], 0) is None


def test_what_was_never_seen_is_not_known() -> None:
    history = seen(60)
    assert history.left("b", "cold", ["start"], 0) is None  # another model's start says nothing
    assert history.left("a", "wake", ["wake"], 0) is None
    assert history.left("a", "cold", ["start", "prove"], 0) is None


def test_the_median_of_the_last_five_counts() -> None:
    assert seen(1000, 1000, 10, 20, 30, 40, 50).left("a", "cold", ["start"], 0) == 30
    assert seen(10, 20).left("a", "cold", ["start"], 0) == 15


def test_the_phase_under_way_is_left_in_part_and_the_others_whole() -> None:
    history = seen(60)
    history.add("a", "cold", "prove", 2)
    assert history.left("a", "cold", ["start", "prove", "open"], 20) == 42
    assert history.left("a", "cold", ["start", "prove"], 70) == 2
    assert history.left("a", "cold", ["close", "start"], 5) == 60
    assert history.left("a", "cold", [], 5) == 0


def test_a_drain_or_a_stop_may_be_known_from_other_models() -> None:
    history = seen(4, model="b", phase="stop")
    assert history.left("a", "cold", ["stop"], 1) == 3


def test_it_survives_json() -> None:
    history = seen(1, 2, 3, 4, 5, 6)
    data = json.loads(json.dumps(history.data()))
    assert data == {"a": {"cold": {"start": [2, 3, 4, 5, 6]}}}
    assert History(data).data() == data
    history.add("a", "cold", "start", 7)
    assert data["a"]["cold"]["start"] == [2, 3, 4, 5, 6]  # what was given is a copy
