"""The shared pieces of the tests of the router: they find what they are there to find."""

import json
from typing import Any

import pytest

from tests.routing import paths, schema
from tests.routing.compare import Answer, differences, joined, settled
from tests.routing.paths import Decision

ASK = Decision("/ask", "body", "")
HEAR = Decision("/hear", "form", "", of="written")
SLEEP = Decision("/sleep", "refused", "", ())
DECIDED = {decision.path: decision for decision in (ASK, HEAR, SLEEP)}


def found(**methods: str) -> paths.Paths:
    return {f"/{path}": frozenset(names.split()) for path, names in methods.items()}


def test_a_path_or_a_method_that_nobody_decided_about_is_named() -> None:
    assert paths.undecided(found(ask="POST", sleep="GET POST"), DECIDED) == []
    assert paths.undecided(found(ask="POST DELETE", new="GET"), DECIDED) == ["DELETE /ask", "GET /new"]


def test_a_path_that_no_server_has_is_named() -> None:
    text, written = found(ask="POST", sleep="POST"), found(ask="POST", hear="POST")
    assert paths.missing(text, written, DECIDED.values()) == []
    assert paths.missing(found(ask="GET", sleep="POST"), found(), DECIDED.values()) == [
        "POST /ask: no server has it (text)",
        "POST /hear: no server has it (written)",
    ]
    assert paths.missing({**text, **found(hear="POST")}, written, DECIDED.values()) == [
        "/hear: a server of a text model has it (not only written)"
    ]


def test_every_path_is_decided_once() -> None:
    assert len(paths.BY_PATH) == len(paths.DECIDED)


def answer(body: Any, status: int = 200, **headers: str) -> Answer:
    text = body if isinstance(body, str) else json.dumps(body)
    kind = "text/event-stream" if isinstance(body, str) else "application/json"
    return Answer(status, {"content-type": kind, **headers}, text.encode())


def test_ids_times_and_the_headers_of_the_router_may_differ() -> None:
    one = answer({"id": "cmpl-0123456789abcdef", "created": 1, "text": "Hi"}, date="today", server="uvicorn")
    other = answer(
        {"id": "cmpl-7-1.5", "created": 2, "text": "Hi"},
        **{"x-request-id": "7-1.5", "vary": "Origin", "access-control-allow-origin": "*"},
    )
    assert differences(one, other) == []
    # An id that is none stays what it is.
    assert settled({"id": "resp_0", "created": None}) == {"id": "resp_0", "created": None}


@pytest.mark.parametrize(
    ("other", "what"),
    [
        (answer({"text": "Hi"}, 201), "status"),
        (answer({"text": "Ho"}), "body"),
        (answer({"text": "Hi", "more": 1}), "body"),
        (answer({"text": "Hi"}, **{"x-more": "1"}), "headers"),
        (Answer(200, {}, b'{"text": "Hi"}'), "headers"),
        (answer({"text": "Hi"}, **{"content-length": "3"}), "headers"),
    ],
)
def test_whatever_else_differs_is_named(other: Answer, what: str) -> None:
    assert what in {line.partition(":")[0] for line in differences(answer({"text": "Hi"}), other)}


def test_a_stream_is_the_same_however_its_text_is_cut() -> None:
    def stream(*texts: str, end: str = "data: [DONE]\n\n") -> str:
        return "".join(f"data: {json.dumps({'n': 0, 'text': text})}\n\n" for text in texts) + end

    assert joined(stream("a", "b", "c")) == joined(stream("ab", "c"))
    assert joined(stream("a", "b", "c")) != joined(stream("a", "c", "b"))
    assert joined(stream("a")) != joined(stream("a", end=""))
    assert joined('event: x\ndata: {"n": 0}\n\n') != joined('event: y\ndata: {"n": 0}\n\n')


OURS = {"error": {"message": "m", "type": "server_error", "param": None, "code": "router_error"}}
ITS = {"error": {"message": "m", "type": "InternalServerError", "param": None, "code": 500}}


@pytest.mark.parametrize(
    ("status", "kind", "body", "wrong"),
    [
        (200, "text/plain", "", ""),
        (404, "application/json", json.dumps(OURS), ""),
        (500, "application/json", json.dumps(ITS), ""),
        (404, "application/json", '{"detail": "Not Found"}', ""),
        (400, "application/json", '{"type": "error", "error": {"type": "t", "message": "m"}}', ""),
        (500, "application/json", json.dumps(OURS), "a 5xx of the router"),
        (502, "text/html", "<html>", "an error in text/html"),
        (400, "", "", "an error in no type at all"),
        (400, "application/json", "{", "an error that is no JSON"),
        (400, "application/json", "[]", "an error in no known shape"),
        (400, "application/json", '{"error": "m"}', "an error in no known shape"),
        (500, "application/json", '{"detail": "m"}', "an error in no known shape"),
    ],
)
def test_an_error_that_is_not_as_it_should_be_is_told(status: int, kind: str, body: str, wrong: str) -> None:
    assert schema.fault(status, kind, body.encode()) == wrong
