"""The fuzz of the router can fail: a wrong choice, a wrong refusal and a changed body are found, and made small."""

import json
import re
import zlib

import pytest

from tests.routing import bodies, corpus, forms, lines, wire
from tests.routing.bed import NAMES, READY
from tests.routing.client import Mismatch
from tests.routing.fuzz import search
from tests.routing.linecheck import SERVED
from tests.routing.reference import SPEECH, Case, read, reading
from tests.routing.tape import Tape
from tests.routing.verdict import judge

ALPHA = Case(b'{"model":"alpha"}')


def served(case: Case, by: str, model: str | None, **more: object) -> wire.Answer:
    said = {"by": by, "for": None, "read": model, "crc": zlib.crc32(case.body), "bytes": len(case.body), **more}
    return wire.Answer(200, {"x-standin": by}, json.dumps(said).encode())


def refused(status: int, code: str) -> wire.Answer:
    error = {"message": "It is so.", "type": "invalid_request_error", "param": None, "code": code}
    return wire.Answer(status, {}, json.dumps({"error": error}).encode())


def test_what_is_right_is_right() -> None:
    assert judge(ALPHA, served(ALPHA, "alpha", "alpha"), READY) == ""
    gamma = Case(b'{"model":"org/gamma"}')
    assert judge(gamma, served(gamma, "activator", "org/gamma", **{"for": "gamma"}), READY) == ""
    assert judge(Case(b'{"model":"nobody"}'), refused(404, "model_not_found"), READY) == ""
    none = Case(b"{}")
    assert judge(none, refused(400, "model_required"), READY) == ""
    assert judge(none, served(none, "alpha", None), ["alpha"]) == ""
    assert judge(Case(b'{"model":"alpha","model":"beta"}'), refused(400, "invalid_json"), READY) == ""


@pytest.mark.parametrize(
    ("case", "answer", "complaint"),
    [
        (ALPHA, served(ALPHA, "beta", "alpha"), "the router chose beta, which read 'alpha'"),
        (ALPHA, served(ALPHA, "alpha", "alpha", crc=1), "alpha got other bytes than were sent"),
        (ALPHA, served(ALPHA, "activator", "alpha", **{"for": "alpha"}), "alpha is ready, and activator was asked"),
        (ALPHA, refused(400, "invalid_json"), "it names 'alpha', and was refused"),
        (ALPHA, refused(500, "router_error"), "the router's own answer is 500"),
        (ALPHA, wire.Answer(400, {}, b"Bad Request"), "not OpenAI's error shape"),
        (Case(b"{}"), served(Case(b"{}"), "alpha", None), "it names no model, ['alpha', 'beta'] are ready"),
        (Case(b'{"model":"nobody"}'), refused(400, "model_required"), "it names 'nobody', and was refused"),
        (Case(b"x", path=SPEECH, plain="alpha"), refused(400, "invalid_form"), "it names 'alpha', and was refused"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(case: Case, answer: wire.Answer, complaint: str) -> None:
    assert judge(case, answer, READY).startswith(complaint)


def by_a_quick_look(case: Case) -> str | None:
    found = re.search(rb'"model":"([^"]*)"', case.body)
    return found[1].decode("utf-8", "replace") if found else None


def test_a_router_that_takes_a_quick_look_is_found_out_and_its_example_is_small() -> None:
    def check(case: Case) -> None:
        meant, chosen = read(case), by_a_quick_look(case)
        if meant.kind == "names" and chosen in NAMES and NAMES.get(str(meant.model)) != NAMES[chosen]:
            raise Mismatch(str(case.body))

    with pytest.raises(Mismatch) as found:
        search(bodies.case, check, 500, 1)
    assert len(str(found.value)) < 150
    edges = [case for case in corpus.cases() if len(case.body) < 1000]
    assert sum(read(case).kind == "names" and by_a_quick_look(case) != read(case).model for case in edges) > 100


def test_draws_are_of_every_kind() -> None:
    kinds: set[str] = set()
    search(bodies.case, lambda case: kinds.add(str(read(case))), 500, 2)
    assert kinds >= {"names, plain", "names", "own, plain", "wrong, plain", "unreadable"}
    assert reading(Case(b"", path="/v1/realtime?model=x", method="GET")).kind == "query"
    drawn: list[Case] = []
    search(forms.case, drawn.append, 200, 3)
    assert any(b"beta" in case.body and b"alpha" in case.body for case in drawn)


def test_a_tape_of_zeros_or_of_nothing_draws_the_plainest() -> None:
    assert bodies.case(b"").body == bodies.case(bytes(100)).body
    assert lines.line(b"") == lines.line(bytes(100))
    assert [Tape(b"\x01\x02").number(300), Tape(b"\x05").pick("abc"), Tape(b"\x09").once_in(10)] == [258, "c", True]


@pytest.mark.parametrize(
    "request_line",
    ["POST /sleep", "GET /v1/completions", "POST /v1/responses/x", "GET /v1/responses/render", "INVALID",
     "GET /metrics?x=/version", "POST /v1/score\n", "POST /v1/completions/"],
)  # fmt: skip
def test_no_other_path_counts_as_served(request_line: str) -> None:
    assert not SERVED.fullmatch(request_line)


def test_answers_are_taken_apart() -> None:
    data = b"HTTP/1.1 404 x\r\nContent-Length: 2\r\n\r\n{}"
    data += b"HTTP/1.1 200 y\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nrest"
    assert [(answer.status, answer.body) for answer in wire.answers(data)] == [
        (404, b"{}"),
        (200, b"abc"),
        (0, b"rest"),
    ]
