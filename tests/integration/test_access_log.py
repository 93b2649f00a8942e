"""The access log: every line is JSON of one shape, whatever was sent, and tells no secret."""

import json
import re
import select
import subprocess
from collections import Counter
from typing import Any

import pytest

from tests.checkout import ROOT, Checkout, eventually
from tests.observe.lab import CHAT, Lab, lab

pytestmark = pytest.mark.docker

START = ROOT / "docker/router/start.sh"
KEY, BODY, QUERY = "sk-a-key-of-somebodys", "a-word-of-a-body", "a-word-of-a-query"
HEAD = (
    f"Host: x\r\nAuthorization: Bearer {KEY}\r\nX-Api-Key: {KEY}\r\nCookie: key={KEY}\r\nConnection: close\r\n".encode()
)
TEXTS = {"time", "id", "model", "request", "upstream", "way", "key", "agent"}


def post(path: str, body: bytes, *more: bytes) -> bytes:
    return b"POST %s HTTP/1.1\r\n%s%sContent-Length: %d\r\n\r\n%s" % (
        path.encode(),
        HEAD,
        b"".join(more),
        len(body),
        body,
    )


def get(path: bytes, *more: bytes) -> bytes:
    return b"GET %s HTTP/1.1\r\n%s%s\r\n" % (path, HEAD, b"".join(more))


def chat(**more: Any) -> bytes:
    return json.dumps({"model": "one", "messages": [{"role": "user", "content": BODY}], **more}).encode()


# What is sent, and the status that the log has for it; None where nothing is logged or any will do.
SENT: list[tuple[bytes, int | None]] = [
    (post(CHAT, chat()), 200),
    (post(CHAT, chat(do="fail")), 500),
    (post(CHAT, chat(do="die")), 503),
    (post(CHAT, chat(model="deaf")), 503),
    (post(CHAT, chat(model="closed")), 503),
    (post(CHAT, chat(model=BODY)), 404),
    (post(CHAT, chat(model='"\\\n\u2028é' + BODY)), 404),
    (post(CHAT, b'{"model": "one", ' + BODY.encode()), None),
    (post(CHAT, b"\xff\xfe" + BODY.encode()), 400),
    (post(CHAT, b"", b"Content-Encoding: gzip\r\n"), 415),
    (post("/v1/audio/transcriptions", BODY.encode(), b"Content-Type: multipart/form-data\r\n"), 400),
    (post("/sleep", BODY.encode()), 404),
    (get(b"/v1/models"), 200),
    (get(b"/v1/models/none"), 404),
    (get(CHAT.encode()), 405),
    (get(b"/%22%0a%5c%ff%e4?" + QUERY.encode()), 404),
    (get("/模型?".encode() + QUERY.encode()), 404),
    (get(b"/\xff\xfe?" + QUERY.encode()), 404),
    (get(b"/v1/models?" + QUERY.encode(), b'User-Agent: "\\\xff\xfe\r\n'), 200),
    (get(b"/v1/models", b"User-Agent: " + b'"' * 5000 + b"\r\n"), 200),
    (get(b"/" + b'"' * 7000, b"User-Agent: " + b"\\" * 5000 + b"\r\n"), 404),
    (get(b"/v1/models", b'X-Request-Id: "\xff\\\r\n'), 200),
    (get(b"http://elsewhere/v1/models?" + QUERY.encode()), None),
    (get(b"/%00"), 400),
    (get(b"/..%2f../etc/passwd"), None),
    (get(b"/" + b"a" * 60000), 414),
    (get(b"/", b"X-Large: " + b"a" * 60000 + b"\r\n"), 431),
    (b"GET /v1/models HTTP/1.1\r\n\r\n", 400),
    (b"GET /v1/models\r\n", None),
    (b"GET /v1/models HTTP/1.0\r\n\r\n", 200),
    (b"GET /v1/models HTTP/9.9\r\nHost: x\r\n\r\n", 400),
    (b"\x16\x03\x01\x02\x00\x01\xff\xfe", 400),
    (b"rubbish\r\n\r\n", 400),
    (b"OPTIONS * HTTP/1.1\r\n" + HEAD + b"\r\n", None),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nrubbish", None),
    (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n", 413),
    (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: many\r\n\r\n", 400),
    (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: rubbish\r\n\r\n", 400),
]


def read(line: str) -> dict[str, Any]:
    """A line as a strict reader has it: no key twice, no NaN."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        assert len(dict(pairs)) == len(pairs), line
        return dict(pairs)

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} in {line}")

    return dict(json.loads(line, object_pairs_hook=unique, parse_constant=refuse))


def raw_log(here: Lab) -> tuple[bytes, bytes]:
    """The access log and nginx's own, byte for byte."""
    done = subprocess.run(["docker", "logs", here.name], capture_output=True, check=True)
    return done.stdout, done.stderr


def missing(here: Lab) -> Counter[int]:
    """The statuses of what was sent that have no line yet. Workers write in any order."""
    said = Counter(read(line)["status"] for line in raw_log(here)[0].decode().splitlines())
    return Counter(status for _, status in SENT if status) - said


def test_every_line_is_json_and_tells_no_secret(images: Checkout) -> None:
    with lab("one", "deaf", "closed") as here:
        here.server("one")
        (here.folder / "open/deaf").symlink_to(f"{here.gateway}:1")
        for sent, _ in SENT:
            here.raw(sent)
        # A client that leaves before its answer, and one that leaves before its body is whole.
        here.raw(post(CHAT, chat())[:-5], wait=False)
        eventually(lambda: not missing(here), what="a line of each")
        access, errors = raw_log(here)

    lines = [read(line) for line in access.decode("utf-8", errors="strict").splitlines()]
    for line in lines:
        assert line.keys() == TEXTS | {"status", "bytes", "seconds", "first_byte"}
        assert all(isinstance(line[name], str) for name in TEXTS)
        assert isinstance(line["bytes"], int)
        assert isinstance(line["seconds"], float)
        assert isinstance(line["first_byte"], float | None)
        assert isinstance(line["status"], int | None)
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d", line["time"])
        assert line["model"] in {"", "one", "deaf", "closed"}
        assert len(line["agent"]) <= 200
        assert len(line["request"]) <= len("OPTIONS ") + 1000
        assert re.fullmatch(r"[A-Z]+ [!-~]*|", line["request"])
    # What is written to a pipe in one piece: more of it, and another worker's line comes between.
    assert max(len(line) for line in access.splitlines()) < select.PIPE_BUF
    (buffer,) = re.findall(r"access_log /dev/stdout access buffer=(\d+)k ", START.read_text(encoding="utf-8"))
    assert int(buffer) * 1024 <= select.PIPE_BUF
    for secret in (KEY, BODY, QUERY, "Bearer"):
        assert secret.encode() not in access, secret
    for secret in (KEY, BODY):
        assert secret.encode() not in errors, secret


def test_a_line_tells_what_became_of_a_request(images: Checkout) -> None:
    with lab("one", "deaf") as here:
        here.server("one")
        here.activator()
        (here.folder / "open/deaf").symlink_to(f"{here.gateway}:1")
        here.send("POST", CHAT, {"model": "org/one"}, User_Agent="client/1.0", X_Request_Id="an-id-of-mine")
        here.send("POST", CHAT, {"model": "deaf"}, X_Request_Id="another")
        here.send("POST", f"{CHAT}/none?{QUERY}", {}, X_Request_Id="the-last")

        def lines() -> dict[str, dict[str, Any]]:
            return {line["id"]: line for line in map(read, here.log())}

        eventually(lambda: lines().keys() >= {"an-id-of-mine", "another", "the-last"}, what="three lines")
        straight, twice, none = (lines()[name] for name in ("an-id-of-mine", "another", "the-last"))
    assert straight["agent"] == "client/1.0"
    assert (straight["request"], straight["status"]) == (f"POST {CHAT}", 200)
    assert (straight["model"], straight["upstream"], straight["way"]) == ("org/one", "one", "server")
    assert straight["bytes"] == len('{"said": "an-answer"}')
    assert straight["first_byte"] <= straight["seconds"] + 0.001
    # Two were asked: the time is of the one that answered.
    assert (twice["upstream"], twice["way"], twice["status"]) == ("deaf", "server, activator", 200)
    assert twice["first_byte"] is not None
    assert (none["request"], none["status"], none["first_byte"]) == (f"POST {CHAT}/none", 404, None)
    assert (none["model"], none["upstream"], none["way"]) == ("", "", "")
