"""What the command line asks the activator, and what it makes of each answer; the activator is a stand-in."""

from collections.abc import Iterator
from contextlib import closing

import pytest

from orchestrator.ask import Activator, Told
from orchestrator.errors import TandemError
from orchestrator.http import SilentError
from tests.checkout import PATIENCE
from tests.standins.activator import StandIn, running

START = {"model": "qwen-14b", "phase": "start", "text": "loading weights", "seconds": 1.5, "left": 40.2}
READY = {"model": "qwen-14b", "phase": "ready", "text": "ready", "seconds": 41, "left": None}
FAILED = {"model": "qwen-14b", "phase": "failed", "text": "failed", "seconds": 3, "reason": "CUDA out of memory"}
LOG = "\n  Its log: python -m orchestrator logs activator"


@pytest.fixture
def stand_in() -> Iterator[StandIn]:
    with running() as found:
        yield found


def asked(stand_in: StandIn, key: str = "") -> Activator:
    return Activator(stand_in.address, key)


def test_phases_come_one_after_another_until_the_last(stand_in: StandIn) -> None:
    stand_in.script["up"] = [START, READY, START]
    told = list(asked(stand_in).phases("up", "qwen-14b", bound=True))
    assert told == [
        Told("qwen-14b", "start", "loading weights", 1.5, 40.2),
        Told("qwen-14b", "ready", "ready", 41, None),
    ]
    assert stand_in.heard == ["POST /-/up/qwen-14b?bound=1"]
    assert [one.line for one in told] == ["loading weights, about 40 s left", "ready"]


def test_who_stops_listening_is_gone_at_once_so_that_the_wish_is_taken_back(stand_in: StandIn) -> None:
    stand_in.script["up"] = [START, "wait"]
    with closing(asked(stand_in).phases("up", "qwen-14b", bound=True)) as told:
        assert next(told).phase == "start"
    assert stand_in.left.wait(PATIENCE)


def test_an_activator_that_dies_in_the_middle_is_silent(stand_in: StandIn) -> None:
    stand_in.script["up"] = [START, "break"]
    with pytest.raises(SilentError):
        list(asked(stand_in).phases("up", "qwen-14b"))
    with pytest.raises(TandemError) as caught:
        asked(stand_in).do("up", "qwen-14b")
    assert str(caught.value) == f"the activator does not answer: the answer broke off{LOG}"


def test_what_fails_is_told_with_its_reason(stand_in: StandIn) -> None:
    stand_in.script["sleep"] = [START, FAILED]
    with pytest.raises(TandemError) as caught:
        asked(stand_in).do("sleep", "qwen-14b")
    assert str(caught.value) == "qwen-14b: CUDA out of memory"


def test_lines_that_are_no_events_are_passed_over(stand_in: StandIn) -> None:
    stand_in.script["down"] = [{"other": 1}, {**READY, "phase": "stopped", "seconds": None}]
    assert asked(stand_in).do("down", "qwen-14b") == Told("qwen-14b", "stopped", "ready")


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_router_with_nobody_behind_it_is_silence_and_not_a_refusal(stand_in: StandIn, status: int) -> None:
    stand_in.refusal = (status, "nobody is there")
    assert asked(stand_in).status() is None
    with pytest.raises(SilentError, match="nobody is there"):
        list(asked(stand_in).phases("up", "qwen-14b"))


def test_a_refusal_is_told_in_the_routers_words(stand_in: StandIn) -> None:
    stand_in.refusal = (403, "only from this machine, or with the admin key")
    with pytest.raises(TandemError) as caught:
        asked(stand_in).status()
    assert str(caught.value) == "the router refused /-/status: only from this machine, or with the admin key"


def test_where_nothing_listens_nobody_is_up() -> None:
    nobody = Activator("http://127.0.0.1:1")
    assert nobody.status() is None
    with pytest.raises(SilentError, match="connection refused"):
        list(nobody.phases("up", "qwen-14b"))


def test_it_is_told_why_nobody_answers(stand_in: StandIn) -> None:
    nobody = Activator("http://127.0.0.1:1")
    nobody.status()
    assert nobody.away == "at http://127.0.0.1:1: connection refused"
    activator = asked(stand_in)
    stand_in.refusal = (503, "The activator does not answer.")
    activator.status()
    assert activator.away == f"at {stand_in.address}: The activator does not answer."
    stand_in.refusal = None
    activator.status()
    assert activator.away == ""


def test_another_program_on_the_routers_port_is_taken_for_none(stand_in: StandIn) -> None:
    stand_in.refusal = (404, "Not Found")
    activator = asked(stand_in)
    assert activator.status() is None
    assert activator.away == (
        f"what answers at {stand_in.address} is no router of Tandem's\n"
        "  TANDEM_PORT in .env says where the router is to be."
    )


def test_the_key_goes_to_the_activator_and_not_to_models(stand_in: StandIn) -> None:
    stand_in.script["up"] = [READY]
    stand_in.completions = ["hello"]
    activator = asked(stand_in, "s3cret")
    activator.status()
    activator.do("up", "qwen-14b")
    list(activator.complete({"model": "qwen-14b"}, seconds=PATIENCE))
    assert stand_in.keys == ["Bearer s3cret", "Bearer s3cret", ""]


def test_models_get_a_clients_key_where_clients_need_one(stand_in: StandIn) -> None:
    stand_in.completions = ["hello"]
    activator = Activator(stand_in.address, "s3cret", client_key="tdm-1")
    activator.status()
    list(activator.complete({"model": "qwen-14b"}, seconds=PATIENCE))
    assert stand_in.keys == ["Bearer s3cret", "Bearer tdm-1"]


def test_where_the_router_is_shut_to_other_machines_nothing_is_asked() -> None:
    shut = Activator("http://127.0.0.1:1", shut="make a key")
    assert shut.status() is None
    assert shut.away == "make a key"
    with pytest.raises(TandemError, match="make a key"):
        list(shut.phases("up", "qwen-14b"))


@pytest.mark.parametrize(
    ("since", "told"),
    [(0, "1970-01-01T00:00:00Z"), (1764054000.7, "2025-11-25T07:00:00Z"), ("2025-11-25T07:00:00Z",) * 2, (None, None)],
)
def test_the_time_of_a_state_is_told_the_same_way_however_it_was_written(
    stand_in: StandIn, since: object, told: str | None
) -> None:
    stand_in.status = {"models": [{"name": "qwen-14b", "since": since}]}
    status = asked(stand_in).status()
    assert status is not None
    assert status["models"][0]["since"] == told


def test_an_answer_that_is_none_of_an_activator_is_nobodys(stand_in: StandIn) -> None:
    stand_in.status = []  # type: ignore[assignment]
    assert asked(stand_in).status() in (None, {})


def test_a_model_that_answers_an_error_is_told_so(stand_in: StandIn) -> None:
    stand_in.completions = [(500, "EngineDeadError")]
    with pytest.raises(TandemError) as caught:
        list(asked(stand_in).complete({"model": "qwen-14b"}, seconds=PATIENCE))
    assert str(caught.value) == "qwen-14b: 500: EngineDeadError"
