"""What the activator passes on to a model's server and back, and what becomes of it when the server breaks off."""

import gzip
import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from orchestrator.activator.faults import told
from orchestrator.activator.forwarding import TIMEOUT, end_to_end
from orchestrator.activator.holding import Signs
from tests.checkout import PATIENCE
from tests.unit.activating import CHAT, NEVER, Stage, free_port, says, streams, until

HEADERS = {"X-Tandem-Model": "qwen"}
EVENT = b'data: {"n": 1}\n\n'


@pytest.fixture
def ready(stage: Callable[[Signs], Stage]) -> Stage:
    """The model is ready whenever it is asked for."""
    stand = stage(Signs(NEVER, NEVER, hold_timeout=NEVER))
    stand.driver.ready = True
    return stand


@pytest.fixture
def held(stage: Callable[[Signs], Stage]) -> Stage:
    """A stream's headers are out before its model is ready."""
    return stage(Signs(0, 0.02))


@pytest.fixture
def aside() -> Iterator[Any]:
    """Run something in a thread beside the test."""
    with ThreadPoolExecutor(4) as pool:
        yield pool.submit


def ask(stand: Stage, content: Any = b"{}", path: str = CHAT, **headers: str) -> httpx.Response:
    named = {**HEADERS, **{name.replace("_", "-"): value for name, value in headers.items()}}
    return httpx.post(stand.url + path, content=content, headers=named, timeout=PATIENCE, trust_env=False)


def after_headers(stand: Stage, aside: Any) -> bytes:
    """Ask for a stream, let the model be ready after a sign of life, and give what follows the signs."""
    answer: Future[httpx.Response] = aside(ask, stand, b'{"stream": true}')
    ticket = stand.driver.ticket()
    until(lambda: ticket.told, "a sign of life")
    ticket.forward()
    got = answer.result(PATIENCE)
    assert got.status_code == 200
    assert set(stand.driver.closed()) == {1}
    return b"\n\n".join(part for part in got.content.split(b"\n\n") if not part.startswith(b":"))


def error_in(events: bytes) -> Any:
    data, done, rest = events.split(b"\n\n")[-3:]
    assert (done, rest) == (b"data: [DONE]", b"")
    return json.loads(data.removeprefix(b"data: "))["error"]


# --- unchanged --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 5_000_000])
def test_the_body_stays_as_it_is_both_ways(ready: Stage, size: int) -> None:
    body = os.urandom(size)
    ready.server.script = says(body, kind=b"application/octet-stream")
    # A form may hold any bytes.
    got = ask(ready, body, **{"content-type": "multipart/form-data; boundary=a"})
    ((exchange, sent),) = ready.server.got
    assert hashlib.sha256(sent).digest() == hashlib.sha256(body).digest() == hashlib.sha256(got.content).digest()
    assert exchange.header(b"content-length") == got.headers["content-length"] == str(size)
    assert ready.driver.ticket().size == size


def test_a_body_in_chunks_comes_whole_and_with_its_length(ready: Stage) -> None:
    ask(ready, iter([b'{"a": ', b"1}"]))
    ((exchange, sent),) = ready.server.got
    assert (sent, exchange.header(b"content-length")) == (b'{"a": 1}', "8")
    assert exchange.header(b"transfer-encoding") == ""


def test_method_path_and_query_stay_as_they_are(ready: Stage) -> None:
    target = "/v1/a%2Fb/%7Ec?x=%20y&x=1+2&z={}|"
    with httpx.Client(timeout=PATIENCE, trust_env=False) as client:
        client.send(
            httpx.Request("PUT", ready.url, headers=HEADERS, extensions={"target": target.encode()}, content=b"")
        )
    ((exchange, _),) = ready.server.got
    assert (exchange.method, exchange.target) == ("PUT", target.encode())


def test_only_what_is_meant_for_the_server_reaches_it(ready: Stage) -> None:
    ask(
        ready, Host="models.example", Authorization="Bearer secret", Accept_Encoding="br", User_Agent="x/1",
        Accept="a/b", Connection="keep-alive, X-Mine", X_Mine="1", X_Tandem_Unreachable="0", X_Tandem_More="1",
        TE="trailers", Keep_Alive="timeout=5", Proxy_Authorization="Basic x", X_Forwarded_For="10.0.0.1",
    )  # fmt: skip
    ((exchange, _),) = ready.server.got
    assert sorted(exchange.headers) == [
        (b"accept", b"a/b"),
        (b"accept-encoding", b"br"),
        (b"authorization", b"Bearer secret"),
        (b"content-length", b"2"),
        (b"host", b"models.example"),
        (b"user-agent", b"x/1"),
        (b"x-forwarded-for", b"10.0.0.1"),
    ]


def test_an_answers_headers_and_its_packing_stay(ready: Stage) -> None:
    packed = gzip.compress(b"x" * 1000)
    ready.server.script = says(
        packed, 201, content_encoding="gzip", x_request_id="7", keep_alive="timeout=5", x_tandem_a="b", server="vllm"
    )
    with httpx.stream("POST", ready.url + CHAT, headers=HEADERS, timeout=PATIENCE, trust_env=False) as got:
        assert b"".join(got.iter_raw()) == packed
    assert got.status_code == 201
    assert dict(got.headers) == {
        "content-type": "application/json",
        "content-length": str(len(packed)),
        "content-encoding": "gzip",
        "x-request-id": "7",
        "server": "vllm",
    }


def test_events_pass_as_they_come(ready: Stage) -> None:
    rest = threading.Event()
    ready.server.script = streams(EVENT, b"data: [DONE]\n\n", then=rest)
    with httpx.stream("POST", ready.url + CHAT, headers=HEADERS, timeout=PATIENCE, trust_env=False) as got:
        pieces = got.iter_raw()
        assert next(pieces) == EVENT
        rest.set()
        assert b"".join(pieces) == b"data: [DONE]\n\n"


def test_headers_of_one_connection_are_left_out() -> None:
    pairs = [
        (b"Connection", b"close, X-A"),
        (b"x-a", b"1"),
        (b"X-Tandem-Model", b"m"),
        (b"Upgrade", b"h2"),
        (b"b", b"2"),
    ]
    assert end_to_end(pairs) == [(b"b", b"2")]


def test_an_answer_may_take_an_hour() -> None:
    assert (TIMEOUT.read, TIMEOUT.write, TIMEOUT.connect) == (3600, 3600, 3)


# --- behind signs of life ---------------------------------------------------------------------------------------------


def test_a_servers_error_is_an_answer_before_headers_and_an_event_after(held: Stage, aside: Any) -> None:
    error = {"message": "too long", "type": "BadRequestError", "param": None, "code": 400}
    held.server.script = says(json.dumps({"error": error}).encode(), status=400)
    assert error_in(after_headers(held, aside)) == error


def test_an_answer_that_is_no_stream_is_no_success_behind_signs(held: Stage, aside: Any) -> None:
    held.server.script = says(b"<html>", kind=b"text/html")
    assert error_in(after_headers(held, aside))["message"] == "<html>"


def test_behind_signs_the_server_is_asked_for_no_packing(held: Stage, aside: Any) -> None:
    held.server.script = streams(EVENT)
    assert after_headers(held, aside) == EVENT
    assert held.server.got[0][0].header(b"accept-encoding") == ""


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"object": "error", "message": "of old", "type": "BadRequestError", "code": 400}', "of old"),
        (b'{"detail": "There was an error parsing the body"}', "There was an error parsing the body"),
        (b'{"detail": [{"loc": 1}]}', '[{"loc": 1}]'),
        (b"Internal Server Error", "Internal Server Error"),
        (b"[1]", "[1]"),
        (b"\xff", "\ufffd"),
        (b"", "The server answered 400 and said nothing."),
    ],
)
def test_errors_of_every_version_become_openais(body: bytes, message: str) -> None:
    assert told(400, body)["error"] == {
        "message": message,
        "type": "invalid_request_error",
        "param": None,
        "code": "model_error",
    }


# --- gone -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pieces", [(EVENT, b""), (b"",)])
def test_a_client_that_leaves_ends_the_servers_work(ready: Stage, pieces: tuple[bytes, ...]) -> None:
    forever = threading.Event()
    ready.server.script = streams(*pieces, then=forever)
    try:
        with httpx.Client(trust_env=False, timeout=PATIENCE) as client:
            with client.stream("POST", ready.url + CHAT, headers=HEADERS, content=b'{"stream": true}'):
                pass
            assert ready.server.left.wait(PATIENCE)
            assert ready.driver.closed() == [1]
    finally:
        forever.set()


# --- broken off -------------------------------------------------------------------------------------------------------


@pytest.fixture
def nowhere() -> Iterator[str]:
    """The address of a server that is not there."""
    with free_port() as closed:
        yield f"http://127.0.0.1:{closed.getsockname()[1]}"


def test_a_server_that_went_away_before_it_was_asked_is_waited_for_again(ready: Stage, nowhere: str) -> None:
    ready.addresses.append(nowhere)
    assert ask(ready).json() == {"ok": True}
    assert [each.unreachable for each in ready.driver.tickets] == [False, True]
    assert ready.driver.closed() == [1, 1]


def test_a_stream_is_held_on_while_its_server_comes_again(held: Stage, aside: Any, nowhere: str) -> None:
    held.addresses.append(nowhere)
    held.server.script = streams(EVENT)
    answer: Future[bytes] = aside(after_headers, held, aside)
    again = held.driver.ticket(1)
    until(lambda: again.told >= 2, "signs of life for the second wait")
    again.forward()
    assert answer.result(PATIENCE) == EVENT


def test_a_server_that_is_away_twice_is_an_error(ready: Stage, nowhere: str) -> None:
    ready.addresses += [nowhere, nowhere]
    got = ask(ready)
    assert (got.status_code, got.headers["retry-after"]) == (503, "5")
    assert got.json()["error"]["code"] == "model_broke_off"
    assert ready.driver.closed() == [1, 1]


def test_what_the_router_found_is_told_to_the_driver(ready: Stage) -> None:
    ask(ready, X_Tandem_Unreachable="1")
    assert [each.unreachable for each in ready.driver.tickets] == [True]


def whole_request(connection: Any) -> None:
    """Read to the end of a request whose body is a JSON object: with a byte left unread, closing resets."""
    connection.settimeout(PATIENCE)
    sent = b""
    while not sent.endswith(b"}"):
        sent += connection.recv(65536)


def cuts(listening: Any, answer: bytes) -> None:
    """Serve one request on a bare socket: this answer, then the connection's end."""
    connection, _ = listening.accept()
    with connection:
        whole_request(connection)
        connection.sendall(answer)


def waits(listening: Any, answer: bytes) -> bytes:
    """Serve one request on a bare socket: this answer, then whatever comes next on the connection."""
    connection, _ = listening.accept()
    with connection:
        whole_request(connection)
        connection.sendall(answer)
        return bytes(connection.recv(65536))


def broken(stand: Stage, aside: Any, answer: bytes, serve: Callable[[Any, bytes], Any] = cuts) -> Any:
    listening = free_port()
    listening.listen()
    stand.addresses.append(f"http://127.0.0.1:{listening.getsockname()[1]}")
    serving = aside(serve, listening, answer)
    serving.add_done_callback(lambda _: listening.close())
    return serving


STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunked(data: bytes) -> bytes:
    return STREAM + b"%x\r\n%s\r\n" % (len(data), data)


def test_no_connection_is_kept_that_a_server_could_close_meanwhile(ready: Stage, aside: Any) -> None:
    serving = broken(ready, aside, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", waits)
    assert ask(ready).content == b"{}"
    assert serving.result(PATIENCE) == b""


def test_a_server_that_dies_before_it_answers_is_not_asked_twice(ready: Stage, aside: Any) -> None:
    broken(ready, aside, b"")
    got = ask(ready)
    assert (got.status_code, got.headers["retry-after"]) == (503, "5")
    assert got.json()["error"]["code"] == "model_broke_off"
    assert ready.server.got == []
    assert ready.driver.closed() == [1]


def test_a_server_that_dies_behind_signs_is_the_streams_last_event(held: Stage, aside: Any) -> None:
    broken(held, aside, b"")
    assert error_in(after_headers(held, aside))["code"] == "model_broke_off"


def test_a_server_that_dies_between_events_is_the_streams_last_event(ready: Stage, aside: Any) -> None:
    broken(ready, aside, chunked(EVENT))
    got = ask(ready, b'{"stream": true}')
    assert got.content.startswith(EVENT)
    assert error_in(got.content)["code"] == "model_broke_off"


@pytest.mark.parametrize(
    "answer",
    [
        # Within an event: an error behind it would be read as a part of it.
        chunked(b'data: {"n'),
        # Of a length that is known, packed, or of JSON: there is no way to write an error into it.
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 99\r\n\r\n" + EVENT,
        chunked(EVENT).replace(b"Transfer", b"Content-Encoding: x-packed\r\nTransfer"),
        STREAM.replace(b"text/event-stream", b"application/json") + b'2\r\n{"\r\n',
    ],
)
def test_a_part_never_looks_like_the_whole(ready: Stage, aside: Any, answer: bytes) -> None:
    broken(ready, aside, answer)
    with pytest.raises(httpx.RemoteProtocolError):
        ask(ready)
    assert ready.driver.closed() == [1]
