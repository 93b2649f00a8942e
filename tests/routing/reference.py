"""What a request is, and what its body means to a server."""

import email.message
import functools
import json
import re
from dataclasses import dataclass
from typing import Any

from tests.routing.paths import DECIDED
from tests.routing.wire import request

JSON_PATHS = tuple(decision.path for decision in DECIDED if decision.way == "body")
FORM_PATHS = tuple(decision.path for decision in DECIDED if decision.way == "form")

JSON_TYPE = ("Content-Type", "application/json")
CHAT = "/v1/chat/completions"
SPEECH = "/v1/audio/transcriptions"
# A body that nests deeper may be refused, though the server's parser itself goes to some 990 levels.
DEEP = 500
# Every way in which json.loads finds out how text is written, besides UTF-8.
ENCODINGS = ("utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be")


@dataclass(frozen=True)
class Case:
    """One request. plain: as its maker knows, it is well formed and names this model; of JSON that is found out."""

    body: bytes
    headers: tuple[tuple[str, str], ...] = (JSON_TYPE,)
    path: str = CHAT
    chunk: int = 0
    plain: str | None = None
    method: str = "POST"

    @property
    def wire(self) -> bytes:
        return request(self.method, self.path, self.headers, self.body, chunk=self.chunk)

    def __str__(self) -> str:
        body = self.body if len(self.body) < 1500 else self.body[:700] + b" ... " + self.body[-700:]
        how = f"chunks of {self.chunk}" if self.chunk else "with its length"
        return (
            f"{self.method} {self.path}, {how}, {len(self.body)} bytes\n  headers {list(self.headers)}\n  body {body!r}"
        )


@dataclass(frozen=True)
class Reading:
    """kind: names (a model), own (none, so the server takes its own), wrong (no name can be read) or unreadable."""

    kind: str
    model: str | None = None
    # Nothing about the body is out of the ordinary, so the router must do as the server would.
    plain: bool = False

    def __str__(self) -> str:
        return f"{self.kind}, plain" if self.plain else self.kind


def reading(case: Case) -> Reading:
    """What a case means: of a form and of a query, what its maker knows; their parsers are the server's alone."""
    if case.plain:
        return Reading("names", case.plain, plain=True)
    if case.path.startswith("/v1/audio/"):
        return Reading("form")
    return Reading("query") if case.method == "GET" else read(case)


@functools.lru_cache(maxsize=8)
def read(case: Case) -> Reading:
    """Read a JSON body as FastAPI does: json.loads of the bytes, when its type is JSON."""
    if not is_json(case):
        return Reading("unreadable")
    try:
        document = json.loads(case.body)
    except (ValueError, RecursionError):
        return Reading("unreadable")
    plain = is_plain(case)
    if not isinstance(document, dict):
        return Reading("wrong", plain=plain)
    model = document.get("model")
    if model is None or model == "":
        return Reading("own", plain=plain)
    if not isinstance(model, str):
        return Reading("wrong", plain=plain)
    return Reading("names", model, plain)


def is_json(case: Case) -> bool:
    given = [value for name, value in case.headers if name.lower() == "content-type"]
    message = email.message.Message()
    message["content-type"] = given[0] if given else ""
    return bool(given) and message.get_content_type() == "application/json"


def is_plain(case: Case) -> bool:
    """Whether any JSON parser there is reads the same in it, and the headers say nothing unusual.

    Not plain, so that the router may answer 400 or 415: a byte-order mark, UTF-16 and UTF-32, half of a surrogate pair,
    NaN and infinities, numbers beyond a double's, two `model` keys in one object, more than 500 levels, and any
    Content-Encoding.
    """
    if any(name.lower() == "content-encoding" for name, _ in case.headers):
        return False
    if sum(name.lower() == "content-type" for name, _ in case.headers) != 1:
        return False
    twice = False

    def pairs(members: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal twice
        twice = twice or sum(name == "model" for name, _ in members) > 1
        return dict(members)

    try:
        text = case.body.decode("utf-8")
        document = json.loads(text, parse_constant=refuse, parse_float=finite, object_pairs_hook=pairs)
        json.dumps(document, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError):
        return False
    return not (twice or text.startswith("\ufeff") or depth(text) > DEEP)


def refuse(constant: str) -> float:
    raise ValueError(constant)


def finite(number: str) -> float:
    value = float(number)
    if value in (float("inf"), float("-inf")):
        raise ValueError(number)
    return value


def depth(text: str) -> int:
    """How deep it nests at most; brackets in strings are no brackets."""
    deepest = now = 0
    for bracket in re.findall(r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]', text):
        now += {"[": 1, "{": 1, "]": -1, "}": -1}.get(bracket, 0)
        deepest = max(deepest, now)
    return deepest
