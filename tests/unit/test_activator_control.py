"""What the machine's owner asks below /-/, and what a wrong address or a bug looks like to a client."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from orchestrator.activator import control
from orchestrator.activator.control import Phases
from orchestrator.activator.holding import Signs
from orchestrator.activator.ports import Phase, Slept
from orchestrator.switch.world import Footprint
from tests.checkout import PATIENCE
from tests.unit.activating import CHAT, NEVER, Stage, until

START = Phase("qwen", "start", "loading weights", 1.23456, 40.5)
READY = Phase("qwen", "ready", "ready", 41)


@pytest.fixture
def here(stage: Callable[[Signs], Stage]) -> Stage:
    return stage(Signs(NEVER, NEVER, hold_timeout=NEVER))


def call(stand: Stage, path: str, method: str = "POST", **more: Any) -> httpx.Response:
    return httpx.request(method, stand.url + path, timeout=PATIENCE, trust_env=False, **more)


def lines(got: httpx.Response) -> list[Any]:
    return [json.loads(line) for line in got.text.splitlines()]


def test_status_is_what_the_driver_says(here: Stage) -> None:
    assert call(here, "/-/status", "GET").json() == here.driver.status()


def test_status_waits_until_the_driver_knows_how_the_models_are_and_not_for_ever(
    here: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    here.driver.knows = False
    with ThreadPoolExecutor() as pool:
        got = pool.submit(call, here, "/-/status", "GET")
        with pytest.raises(TimeoutError):
            got.result(timeout=0.1)
        here.driver.knows = True
        assert got.result(timeout=PATIENCE).json() == here.driver.status()
    here.driver.knows = False
    monkeypatch.setattr(control, "LOOK_SECONDS", 0.01)
    assert call(here, "/-/status", "GET").json() == here.driver.status()


def test_metrics_are_prometheus_text(here: Stage) -> None:
    got = call(here, "/-/metrics", "GET")
    assert got.text == "tandem_queue_length 0\n"
    assert got.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"


@pytest.mark.parametrize("verb", ["up", "down", "sleep", "wake"])
def test_phases_come_line_by_line_until_the_last(here: Stage, verb: str) -> None:
    failed = Phase("qwen", "failed", "failed", 5, None, "out of memory")
    here.driver.phases = [START, failed, READY]
    got = call(here, f"/-/{verb}/qwen")
    assert (got.status_code, got.headers["content-type"]) == (200, "application/x-ndjson")
    assert lines(got) == [
        {"model": "qwen", "phase": "start", "text": "loading weights", "seconds": 1.235, "left": 40.5},
        {"model": "qwen", "phase": "failed", "text": "failed", "seconds": 5, "left": None, "reason": "out of memory"},
    ]
    assert here.driver.calls[0] == (verb, "qwen", verb)


def leave(stand: Stage, path: str) -> None:
    """Read the first phase, and go away."""
    with httpx.stream("POST", stand.url + path, timeout=PATIENCE, trust_env=False) as got:
        assert json.loads(next(got.iter_lines()))["phase"] == "start"
    until(lambda: ("unheard",) in stand.driver.calls, "the driver knows that nobody listens")


def test_who_stops_listening_undoes_nothing(here: Stage) -> None:
    here.driver.phases = [START]
    leave(here, "/-/up/qwen")
    assert call(here, "/-/status", "GET").status_code == 200
    assert here.driver.calls == [("up", "qwen", "up"), ("unheard",)]


def test_a_wish_that_is_bound_is_taken_back_with_its_client(here: Stage) -> None:
    here.driver.phases = [START]
    leave(here, "/-/up/qwen?bound=1")
    until(lambda: len(here.driver.calls) == 3, "the wish is taken back")
    assert here.driver.calls[2] == ("take_back", "qwen")


def test_a_bound_wish_that_was_fulfilled_stays(here: Stage) -> None:
    here.driver.phases = [START, READY]
    assert lines(call(here, "/-/up/qwen?bound=1"))[-1]["phase"] == "ready"
    assert call(here, "/-/status", "GET").status_code == 200
    assert here.driver.calls == [("up", "qwen", "up")]


def test_a_client_that_leaves_with_its_last_line_takes_nothing_back() -> None:
    left = asyncio.Event()
    taken: list[str] = []
    messages = iter([{"type": "http.request"}, {"type": "http.disconnect"}])

    async def phases() -> AsyncIterator[Phase]:
        yield READY

    async def receive() -> Any:
        message = next(messages)
        if message["type"] == "http.disconnect":
            await left.wait()
        return message

    async def send(message: Any) -> None:
        if b"ready" in message.get("body", b""):
            left.set()
            await asyncio.Event().wait()

    scope = {"type": "http", "method": "POST", "path": "/-/up/qwen", "query_string": b"", "headers": []}
    answer = Phases("qwen", phases(), lambda: taken.append("qwen"))
    asyncio.run(asyncio.wait_for(answer(scope, receive, send), PATIENCE))
    assert left.is_set()
    assert taken == []


def test_a_model_sleeps_on_trial_only_when_it_is_tested(here: Stage) -> None:
    here.driver.phases = [Phase("qwen", "asleep")]
    call(here, "/-/sleep/qwen")
    call(here, "/-/sleep/qwen?trial=1")
    assert here.driver.calls == [("sleep", "qwen", "sleep"), ("sleep", "qwen", "sleep", "trial")]


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ({"cycles": 3, "fault": ""}, Slept(3)),
        ({"cycles": 1, "fault": "it answers otherwise", "gpu": None, "host": 5}, Slept(1, "it answers otherwise")),
        ({"cycles": 1, "fault": "", "gpu": 4, "host": 0, "more": 1}, Slept(1, "", Footprint(4, 0))),
        ({"cycles": 1, "fault": "x" * 9999}, Slept(1, "x" * 500)),
    ],
)
def test_what_a_sleep_test_found_is_kept(here: Stage, said: dict[str, Any], found: Slept) -> None:
    got = call(here, "/-/slept/qwen", json=said)
    assert (got.status_code, got.json()) == (200, {"model": "qwen"})
    assert here.driver.calls == [("slept", "qwen", str(found))]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("{", "Expecting property name"),
        ("[" * 100_000, "recursion"),
        ("[]", "should be a JSON object"),
        ("{}", '"cycles" should be how many there were'),
        ('{"cycles": 0, "fault": ""}', '"cycles" should be how many there were'),
        ('{"cycles": true, "fault": ""}', '"cycles" should be how many there were'),
        ('{"cycles": 1}', '"fault" should be what went wrong, "" for nothing'),
        ('{"cycles": 1, "fault": "", "gpu": -1}', '"gpu" and "host" should be bytes, or null'),
        ('{"cycles": 1, "fault": "", "host": 1.5}', '"gpu" and "host" should be bytes, or null'),
    ],
)
def test_a_result_that_is_none_is_refused_and_not_kept(here: Stage, body: str, words: str) -> None:
    got = call(here, "/-/slept/qwen", content=body)
    assert error(got)[:3] == (400, "invalid_request_error", "invalid_request")
    assert words in error(got)[3]
    assert here.driver.calls == []


def test_a_result_of_a_model_that_never_ran_is_refused(here: Stage) -> None:
    here.driver.bug = LookupError("qwen")
    assert error(call(here, "/-/slept/qwen", json={"cycles": 1, "fault": ""}))[::2] == (409, "never_seen")


def test_only_up_can_be_bound(here: Stage) -> None:
    here.driver.phases = [START]
    leave(here, "/-/down/qwen?bound=1")
    assert call(here, "/-/status", "GET").status_code == 200
    assert ("take_back", "qwen") not in here.driver.calls


def test_a_bug_ends_the_phases_with_a_reason_and_no_traceback(here: Stage, caplog: pytest.LogCaptureFixture) -> None:
    here.driver.phases = [START, ZeroDivisionError("secret")]
    last = lines(call(here, "/-/up/qwen"))[-1]
    assert last["phase"] == "failed"
    assert last["reason"] == "The activator failed; 'python -m orchestrator logs activator' shows why."
    until(lambda: "ZeroDivisionError: secret" in caplog.text, "the bug is in the log")


# --- errors -----------------------------------------------------------------------------------------------------------


def error(got: httpx.Response) -> tuple[int, str, str, str]:
    said = got.json()["error"]
    return got.status_code, said["type"], said["code"], said["message"]


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("POST", "/-/up/gpt", {}),
        ("POST", "/-/sleep/gpt", {}),
        ("POST", "/-/slept/gpt", {}),
        ("POST", CHAT, {"X-Tandem-Model": "gpt"}),
    ],
)
def test_an_unknown_model_is_told_which_there_are(here: Stage, method: str, path: str, headers: dict[str, str]) -> None:
    assert error(call(here, path, method, headers=headers)) == (
        404,
        "invalid_request_error",
        "model_not_found",
        "The model 'gpt' does not exist. Models here: qwen, qwq.",
    )
    assert here.driver.calls == here.driver.tickets == []


def test_the_method_is_told_that_a_path_takes(here: Stage) -> None:
    got = call(here, "/-/up/qwen", "GET")
    assert error(got) == (
        405,
        "invalid_request_error",
        "method_not_allowed",
        "/-/up/qwen takes POST, not GET.",
    )
    assert got.headers["allow"] == "POST"


@pytest.mark.parametrize("path", ["/-/nothing", "/-/up", CHAT])
def test_a_path_that_is_none_is_no_held_request(here: Stage, path: str) -> None:
    assert error(call(here, path))[:3] == (404, "invalid_request_error", "not_found")


def test_a_path_below_is_for_the_server_when_a_request_is_held(here: Stage) -> None:
    here.driver.ready = True
    assert call(here, "/-/up/qwen", headers={"X-Tandem-Model": "qwen"}).json() == {"ok": True}
    assert here.driver.calls == []


@pytest.mark.parametrize(
    ("method", "path", "headers"), [("GET", "/-/status", {}), ("POST", CHAT, {"X-Tandem-Model": "qwen"})]
)
def test_a_bug_is_an_error_without_its_traceback(
    here: Stage, caplog: pytest.LogCaptureFixture, method: str, path: str, headers: dict[str, str]
) -> None:
    here.driver.bug = ZeroDivisionError("secret")
    got = call(here, path, method, headers=headers)
    assert error(got) == (
        500,
        "server_error",
        "activator_error",
        "The activator failed; 'python -m orchestrator logs activator' shows why.",
    )
    until(lambda: "ZeroDivisionError: secret" in caplog.text, "the bug is in the log")
