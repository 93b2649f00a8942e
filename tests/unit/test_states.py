"""What Docker says of a container becomes the state of the server in it."""

from dataclasses import replace
from typing import Any

import pytest

from orchestrator import states
from orchestrator.states import Container, Observed
from tests.unit.values import container


@pytest.mark.parametrize(
    ("status", "health", "state", "alive"),
    [
        ("created", "", "stopped", False),
        ("running", "starting", "starting", True),
        ("running", "healthy", "ready", True),
        ("running", "unhealthy", "failed", True),
        # No health check, or none that has run yet.
        ("running", "", "ready", True),
        ("running", "none", "starting", True),
        ("paused", "healthy", "stopped", True),
        ("restarting", "", "failed", True),
        ("restarting", "healthy", "failed", True),
        ("removing", "healthy", "stopping", True),
        ("removing", "", "stopping", True),
        ("exited", "", "stopped", False),
        # Docker keeps the last health of a container that has ended.
        ("exited", "healthy", "stopped", False),
        ("exited", "unhealthy", "stopped", False),
        ("dead", "", "failed", False),
        ("dead", "healthy", "failed", False),
    ],
)
def test_the_state_follows_from_status_and_health(status: str, health: str, state: str, alive: bool) -> None:
    found = container("qwen-14b", status, health)
    assert (found.state, found.alive) == (state, alive)


@pytest.mark.parametrize(
    ("exit_code", "oom_killed", "state"),
    [
        (0, False, "stopped"),
        (130, False, "stopped"),
        (137, False, "stopped"),
        (143, False, "stopped"),
        (1, False, "failed"),
        (2, False, "failed"),
        (127, False, "failed"),
        (134, False, "failed"),
        (139, False, "failed"),
        (-1, False, "failed"),
        # The kernel killed it for its memory: the code is that of a stop.
        (137, True, "failed"),
        (0, True, "failed"),
    ],
)
def test_a_server_that_ended_was_stopped_or_failed_by_its_exit_code(
    exit_code: int, oom_killed: bool, state: str
) -> None:
    found = container("qwen-14b", "exited", "", exit_code=exit_code, oom_killed=oom_killed)
    assert (found.state, found.alive) == (state, False)


@pytest.mark.parametrize(("exit_code", "oom_killed"), [(1, False), (137, True)])
def test_an_earlier_end_says_nothing_about_a_server_that_runs_again(exit_code: int, oom_killed: bool) -> None:
    assert container("qwen-14b", exit_code=exit_code, oom_killed=oom_killed).state == "ready"
    assert container("qwen-14b", "created", "", exit_code=exit_code, oom_killed=oom_killed).state == "stopped"


SEEN = Container("qwen-14b", "tandem-qwen-14b", "running", config_hash="abc")


@pytest.mark.parametrize(
    ("wanted", "current"),
    [
        ({"qwen-14b": "abc"}, True),
        ({"qwen-14b": "def"}, False),
        ({"other": "def"}, True),
        ({}, True),
        (None, True),
    ],
)
def test_a_container_is_current_when_compose_would_make_the_same(wanted: dict[str, str] | None, current: bool) -> None:
    observed = Observed({"qwen-14b": SEEN}, frozenset(), wanted_hashes=wanted)
    assert observed.current("qwen-14b") is current


def test_a_container_without_a_hash_is_not_what_compose_would_make() -> None:
    observed = Observed({"qwen-14b": replace(SEEN, config_hash="")}, frozenset(), wanted_hashes={"qwen-14b": "abc"})
    assert observed.current("qwen-14b") is False


def test_a_container_that_is_not_there_is_not_current() -> None:
    assert Observed({}, frozenset(), wanted_hashes={"qwen-14b": "abc"}).current("qwen-14b") is False
    assert Observed({}, frozenset()).current("qwen-14b") is False


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ({"state": "ready"}, {}),
        ({"state": "starting"}, {}),
        ({"waiting": 2}, {}),
        ({}, {"wanted": ["other"]}),
        ({}, {"switch": {"target": "other"}}),
    ],
)
def test_a_rival_is_up_or_coming_up_or_wanted_on_the_same_gpus(said: dict[str, Any], status: dict[str, Any]) -> None:
    other = {"name": "other", "state": "stopped", "waiting": 0, "gpus": [1, 2], **said}
    mine = {"name": "mine", "state": "ready", "gpus": [0, 1], "waiting": 1}
    told = {"models": [mine, other], "wanted": ["mine"], "switch": None, **status}
    assert states.rivals(told, "mine", [0, 1]) == ["other"]
    # Beside one another they may both be up.
    assert states.rivals(told, "mine", [0]) == []
    assert states.rivals(told, "mine", []) == []


@pytest.mark.parametrize("state", ["stopped", "asleep", "stopping", "failed"])
def test_one_that_is_not_up_and_that_nobody_wants_is_no_rival(state: str) -> None:
    told = {"models": [{"name": "other", "state": state, "gpus": [0]}], "wanted": [], "switch": None}
    assert states.rivals(told, "mine", [0]) == []
    assert states.rivals(None, "mine", [0]) == []
