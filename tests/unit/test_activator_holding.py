"""What a client gets while the activator holds its request, seen by the clients themselves."""

import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import openai
import pytest

from orchestrator.activator.holding import Signs, asked, comment, reasoning, words
from orchestrator.activator.ports import Phase
from tests.checkout import PATIENCE
from tests.unit.activating import CHAT, LOADING, NEVER, Stage, says, streams, until

Build = Callable[[Signs], Stage]
HEADERS = {"X-Tandem-Model": "qwen"}
SIGN = b": start, about 42 s left: qwen is loading\n\n"


def chunk(text: str) -> bytes:
    delta = {"index": 0, "delta": {"role": "assistant", "content": text}, "finish_reason": None}
    body = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "qwen", "choices": [delta]}
    return b"data: " + json.dumps(body).encode() + b"\n\n"


WORDS = [chunk("one "), chunk("two "), chunk("three"), b"data: [DONE]\n\n"]
COMPLETION = {
    "id": "c",
    "object": "chat.completion",
    "created": 1,
    "model": "qwen",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "whole"}}],
}


@pytest.fixture
def quick(stage: Build) -> Stage:
    """A stream's first sign comes at once."""
    return stage(Signs(0, 0.02, hold_timeout=NEVER))


@pytest.fixture
def patient(stage: Build) -> Stage:
    """No sign comes, and no hold ends, within a test."""
    return stage(Signs(NEVER, NEVER, hold_timeout=NEVER))


@pytest.fixture
def aside() -> Iterator[Any]:
    """Run something in a thread beside the test."""
    with ThreadPoolExecutor(4) as pool:
        yield pool.submit


def ask(stand: Stage, stream: bool, path: str = CHAT, timeout: float = PATIENCE) -> httpx.Response:
    body = {"model": "qwen", "stream": stream}
    return httpx.post(stand.url + path, json=body, headers=HEADERS, timeout=timeout, trust_env=False)


@contextmanager
def client(stand: Stage, stream: bool) -> Iterator[socket.socket]:
    """The connection of a client that has sent its request, and leaves with the block."""
    body = json.dumps({"model": "qwen", "stream": stream}).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nX-Tandem-Model: qwen\r\nContent-Length: {len(body)}\r\n\r\n"
    host, port = stand.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as connection:
        connection.sendall(head.encode() + body)
        yield connection


def openai_client(stand: Stage) -> openai.OpenAI:
    return openai.OpenAI(
        api_key="none",
        base_url=f"{stand.url}/v1",
        max_retries=0,
        default_headers=HEADERS,
        timeout=PATIENCE,
        http_client=httpx.Client(trust_env=False),
    )


def streamed(stand: Stage) -> list[tuple[str, str]]:
    """(reasoning, content) of each chunk that the real client gives."""
    with openai_client(stand) as client:
        stream = client.chat.completions.create(model="qwen", messages=[{"role": "user", "content": "?"}], stream=True)
        deltas = [each.choices[0].delta for each in stream]
    return [(getattr(delta, "reasoning_content", None) or "", delta.content or "") for delta in deltas]


# --- a stream ---------------------------------------------------------------------------------------------------------


def test_openais_client_streams_through_a_hold(quick: Stage, aside: Any) -> None:
    quick.server.script = streams(*WORDS)
    answer: Future[Any] = aside(streamed, quick)
    ticket = quick.driver.ticket()
    until(lambda: ticket.told >= 3, "three signs of life")
    ticket.forward()
    assert answer.result(PATIENCE) == [("", "one "), ("", "two "), ("", "three")]
    assert (ticket.model, ticket.stream, ticket.unreachable) == ("qwen", True, False)
    assert quick.driver.closed() == [1]


def test_a_held_stream_is_comments_and_then_the_servers_bytes(quick: Stage, aside: Any) -> None:
    quick.server.script = streams(*WORDS)
    answer: Future[httpx.Response] = aside(ask, quick, True)
    ticket = quick.driver.ticket()
    until(lambda: ticket.told >= 2, "two signs of life")
    ticket.forward()
    got = answer.result(PATIENCE)
    assert got.status_code == 200
    assert got.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert got.headers["cache-control"] == "no-cache"
    held, _, rest = got.content.partition(b"data: ")
    assert held == SIGN * held.count(SIGN)
    assert held.count(SIGN) >= 2
    assert b"data: " + rest == b"".join(WORDS)


def test_a_client_that_gives_up_after_ten_seconds_without_bytes_stays(stage: Build, aside: Any) -> None:
    stand = stage(Signs())
    stand.server.script = streams(*WORDS)
    came = bytearray()

    def listen() -> None:
        body = {"model": "qwen", "stream": True}
        with httpx.stream(
            "POST", stand.url + CHAT, json=body, headers=HEADERS, timeout=PATIENCE, trust_env=False
        ) as got:
            for piece in got.iter_raw():
                came.extend(piece)

    answer: Future[None] = aside(listen)
    ticket = stand.driver.ticket()
    for number in range(5):
        before = len(came)
        stand.passes(9.9)
        until(lambda before=before: len(came) > before, f"a byte in stretch {number} of less than 10 s")
    ticket.forward()
    answer.result(PATIENCE)
    assert came.endswith(WORDS[-1])


def test_a_client_that_gives_up_without_bytes_would_have_left(patient: Stage) -> None:
    with client(patient, True):
        ticket = patient.driver.ticket()
        patient.passes(50)
        # Another request is answered after that: whatever was due by then has been done.
        assert httpx.get(f"{patient.url}/-/status", timeout=PATIENCE, trust_env=False).status_code == 200
        assert ticket.told == 0
    assert ticket.stream
    assert patient.driver.closed() == [1]


def test_no_sign_comes_before_its_time_and_the_answer_passes_as_it_is(patient: Stage, aside: Any) -> None:
    patient.server.script = streams(*WORDS)
    answer: Future[httpx.Response] = aside(ask, patient, True)
    patient.driver.ticket().forward()
    assert answer.result(PATIENCE).content == b"".join(WORDS)


def test_a_waiting_stream_goes_on_the_moment_its_model_is_ready(stage: Build, aside: Any) -> None:
    stand = stage(Signs(0, NEVER))
    stand.server.script = streams(*WORDS)
    answer: Future[httpx.Response] = aside(ask, stand, True)
    ticket = stand.driver.ticket()
    until(lambda: ticket.told, "a sign of life")
    ticket.forward()
    assert answer.result(PATIENCE).content == SIGN + b"".join(WORDS)


def test_signs_go_on_until_the_server_says_something(quick: Stage, aside: Any) -> None:
    said = threading.Event()
    quick.server.script = streams(b"".join(WORDS), then=said)
    answer: Future[httpx.Response] = aside(ask, quick, True)
    ticket = quick.driver.ticket()
    until(lambda: ticket.told, "a sign of life")
    ticket.forward()
    until(lambda: quick.server.got, "the server is asked")
    before = ticket.told
    until(lambda: ticket.told > before + 3, "signs while the server thinks")
    said.set()
    assert answer.result(PATIENCE).content.endswith(b"left: qwen is loading\n\n" + b"".join(WORDS))


def test_two_are_held_side_by_side(quick: Stage, aside: Any) -> None:
    quick.server.script = streams(*WORDS)
    first: Future[Any] = aside(streamed, quick)
    quick.driver.ticket(0)
    second: Future[httpx.Response] = aside(ask, quick, False)
    quick.driver.ticket(1).forward()
    assert second.result(PATIENCE).content == b"".join(WORDS)
    assert not first.done()
    quick.driver.ticket(0).forward()
    assert [content for _, content in first.result(PATIENCE)] == ["one ", "two ", "three"]


# --- reasoning --------------------------------------------------------------------------------------------------------


def test_openais_client_shows_the_wait_as_reasoning(stage: Build, aside: Any) -> None:
    stand = stage(Signs(0, 0.02, "reasoning"))
    stand.server.script = streams(*WORDS)
    answer: Future[Any] = aside(streamed, stand)
    ticket = stand.driver.ticket()
    until(lambda: ticket.told >= 2, "two signs of life")
    ticket.forward()
    got = answer.result(PATIENCE)
    assert got[0] == ("qwen is loading, about 42 s left\n", "")
    assert got[-3:] == [("", "one "), ("", "two "), ("", "three")]


def test_only_a_chat_shows_reasoning(stage: Build, aside: Any) -> None:
    stand = stage(Signs(0, NEVER, "reasoning"))
    answer: Future[httpx.Response] = aside(ask, stand, True, "/v1/completions")
    ticket = stand.driver.ticket()
    until(lambda: ticket.told, "a sign of life")
    ticket.refuse()
    assert answer.result(PATIENCE).content.startswith(SIGN)


# --- a plain request --------------------------------------------------------------------------------------------------


def test_openais_client_gets_a_plain_answer_after_a_hold(quick: Stage, aside: Any) -> None:
    def plain() -> str | None:
        with openai_client(quick) as client:
            messages: Any = [{"role": "user", "content": "?"}]
            return client.chat.completions.create(model="qwen", messages=messages).choices[0].message.content

    quick.server.script = says(json.dumps(COMPLETION).encode())
    answer: Future[Any] = aside(plain)
    ticket = quick.driver.ticket()
    assert not ticket.stream
    ticket.forward()
    assert answer.result(PATIENCE) == "whole"


def test_a_plain_request_is_refused_when_its_hold_ends(stage: Build) -> None:
    stand = stage(Signs(NEVER, NEVER, hold_timeout=0.05))
    got = ask(stand, False)
    assert (got.status_code, got.headers["retry-after"]) == (503, "42")
    error = got.json()["error"]
    # As long as it really was.
    waited = re.fullmatch(r"(.+ within )([0-9.]+)( s: .+)", error.pop("message"))
    assert waited is not None
    assert waited[1] + waited[3] == "The model 'qwen' was not ready within  s: qwen is loading, about 42 s left."
    assert 0.05 <= float(waited[2]) < PATIENCE
    assert error == {
        "type": "server_error",
        "param": "model",
        "code": "model_not_ready",
    }
    assert stand.driver.closed() == [1]
    assert stand.server.got == []


def test_a_stream_is_held_beyond_the_hold_of_a_plain_request(stage: Build, aside: Any) -> None:
    stand = stage(Signs(0, 0.02, hold_timeout=0.01))
    stand.server.script = streams(*WORDS)
    answer: Future[httpx.Response] = aside(ask, stand, True)
    ticket = stand.driver.ticket()
    until(lambda: ticket.told >= 4, "signs of life beyond the hold")
    ticket.forward()
    assert answer.result(PATIENCE).content.endswith(WORDS[-1])


# --- refused ----------------------------------------------------------------------------------------------------------

REFUSED = {"message": "out of memory on GPU 0", "type": "server_error", "param": "model", "code": "model_failed"}


@pytest.mark.parametrize("stream", [False, True])
def test_a_refusal_before_headers_is_an_answer(patient: Stage, aside: Any, stream: bool) -> None:
    answer: Future[httpx.Response] = aside(ask, patient, stream)
    ticket = patient.driver.ticket()
    ticket.refuse()
    got = answer.result(PATIENCE)
    assert (got.status_code, got.headers["retry-after"], got.headers["content-type"]) == (503, "8", "application/json")
    assert got.json() == {"error": REFUSED}
    assert patient.driver.closed() == [1]


def test_a_refusal_that_is_no_503_has_its_own_status(patient: Stage, aside: Any) -> None:
    answer: Future[httpx.Response] = aside(ask, patient, False)
    patient.driver.ticket().refuse("too_large", status=413)
    got = answer.result(PATIENCE)
    assert (got.status_code, got.json()["error"]["type"]) == (413, "invalid_request_error")
    assert "retry-after" not in got.headers


def refused_after_headers(stand: Stage, aside: Any, path: str) -> bytes:
    answer: Future[httpx.Response] = aside(ask, stand, True, path)
    ticket = stand.driver.ticket()
    until(lambda: ticket.told, "a sign of life")
    ticket.refuse()
    content = answer.result(PATIENCE).content
    assert stand.driver.closed() == [1]
    return content.replace(SIGN, b"")


def test_a_refusal_after_headers_is_the_streams_last_event(quick: Stage, aside: Any) -> None:
    events = refused_after_headers(quick, aside, CHAT).split(b"\n\n")
    assert json.loads(events[0].removeprefix(b"data: ")) == {"error": REFUSED}
    assert events[1:] == [b"data: [DONE]", b""]


def test_anthropics_protocol_names_its_error_events(quick: Stage, aside: Any) -> None:
    name, data, *_ = refused_after_headers(quick, aside, "/v1/messages").split(b"\n")
    assert name == b"event: error"
    assert json.loads(data.removeprefix(b"data: ")) == {"type": "error", "error": REFUSED}


def test_openais_client_raises_a_refusal_after_headers(quick: Stage, aside: Any) -> None:
    answer: Future[Any] = aside(streamed, quick)
    ticket = quick.driver.ticket()
    until(lambda: ticket.told, "a sign of life")
    ticket.refuse()
    with pytest.raises(openai.APIError, match="out of memory on GPU 0"):
        answer.result(PATIENCE)


def test_an_outcome_that_is_cancelled_answers_too(patient: Stage, aside: Any) -> None:
    answer: Future[httpx.Response] = aside(ask, patient, True)
    ticket = patient.driver.ticket()
    ticket.loop.call_soon_threadsafe(ticket.outcome.cancel)
    assert (answer.result(PATIENCE).status_code, answer.result().json()["error"]["code"]) == (503, "model_not_ready")


# --- gone -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("signs", [Signs(0, 0.02), Signs(NEVER, NEVER)])
@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_is_held_no_more(stage: Build, signs: Signs, stream: bool) -> None:
    stand = stage(signs)
    with client(stand, stream) as connection:
        ticket = stand.driver.ticket()
        if stream and not signs.first:
            assert connection.recv(1)
    assert ticket.stream is stream
    assert stand.driver.closed() == [1]
    assert stand.server.got == []


# --- pure -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body", "found"),
    [
        (CHAT, b'{"model": "a", "stream": true}', (True, "a")),
        (CHAT, b'\xef\xbb\xbf{"stream": true, "model": null}', (True, "")),
        (CHAT, '{"stream": true}'.encode("utf-16"), (True, "")),
        (CHAT, b'{"model": "a", "stream": false}', (False, "a")),
        (CHAT, b'{"stream": true, "stream": 0}', (False, "")),
        (CHAT, b"", (False, "")),
        # Its answer is one piece of JSON, whatever it asks for.
        ("/tokenize", b'{"model": "a", "stream": true}', (False, "a")),
    ],
)
def test_what_a_body_asks_for(path: str, body: bytes, found: tuple[bool, str]) -> None:
    assert asked(path, body, form=False) == found


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (b"[true]", "it is no object"),
        (b'{"model": "a",}', "line 1 column 15"),
        (b'{"model": "\xff"}', "invalid start byte"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_what_no_server_could_read_brings_up_no_model(patient: Stage, body: bytes, fault: str) -> None:
    got = httpx.post(patient.url + CHAT, content=body, headers=HEADERS, timeout=PATIENCE, trust_env=False)
    assert (got.status_code, got.json()["error"]["code"]) == (400, "invalid_json")
    assert fault in got.json()["error"]["message"]
    assert patient.driver.tickets == []
    assert asked(CHAT, body, form=True) == (False, "")


def test_a_sign_is_one_line_whatever_its_text() -> None:
    phase = Phase("qwen", "start", "loading\n\ndata: x\rweights", 1, None)
    assert comment(phase) == b": start: loading data: x weights\n\n"
    assert comment(Phase("qwen", "queued")) == b": queued\n\n"
    assert comment(Phase("qwen", "wake", left=-3.0)) == b": wake, about 1 s left\n\n"
    assert words(phase) == "loading data: x weights"
    assert words(Phase("qwen", "queued")) == "queued"


def test_a_piece_of_reasoning_reads_as_a_chunk_of_the_model() -> None:
    said = json.loads(reasoning(LOADING, "Qwen", 7.9).removeprefix(b"data: "))
    assert (said["model"], said["created"], said["object"]) == ("Qwen", 7, "chat.completion.chunk")
    assert said["choices"] == [
        {"index": 0, "delta": {"reasoning_content": "qwen is loading, about 42 s left\n"}, "finish_reason": None}
    ]


def test_the_signs_are_as_often_as_promised() -> None:
    assert (Signs().first, Signs().every, Signs().hold_timeout) == (3, 5, 300)
