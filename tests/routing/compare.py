"""Asks the router and its server the same, and tells what differs beside ids, times and added headers."""

import http.client
import json
import re
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

SECONDS = 180
# What the router adds to an answer of a server, and what is each connection's own.
ADDED = re.compile(r"x-request-id|vary|access-control-.*|date|server|connection|keep-alive")
TIMES = ("created", "created_at", "completed_at")
# chatcmpl-…, resp_…, msg_… and whatever else vLLM makes up.
ID = re.compile(r"\b([a-z]+(?:[-_][a-z]+)*)[-_][0-9a-f]{16,32}\b")
# How much text comes in one piece is a matter of time.
PIECES = ("text", "content", "delta")


@dataclass(frozen=True)
class Answer:
    """What came back; names of headers are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def ask(
    address: str,
    method: str,
    path: str,
    body: Any = None,
    headers: Mapping[str, str] | None = None,
    *,
    seconds: float = SECONDS,
) -> Answer:
    """Send one request on a connection of its own; a body that is no bytes is sent as JSON."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    sent = {} if data is None else {"Content-Type": "application/json"}
    parts = urllib.parse.urlsplit(address)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=seconds)
    try:
        connection.request(method, path, data, {**sent, **(headers or {})})
        answer = connection.getresponse()
        names = {name.lower(): value for name, value in answer.getheaders()}
        return Answer(answer.status, names, answer.read())
    finally:
        connection.close()


def settled(value: Any) -> Any:
    """Give a JSON value with every id and time made the same."""
    match value:
        case dict():
            return {key: 0 if key in TIMES and inner else settled(inner) for key, inner in value.items()}
        case list():
            return [settled(inner) for inner in value]
        case str():
            return ID.sub(r"\1-0", value)
        case float():
            # What else the server computes at the same time shows in the last digits.
            return round(value, 2)
    return value


def _events(stream: str) -> Iterator[tuple[str, Any]]:
    for block in stream.split("\n\n"):
        lines = [line.partition(":") for line in block.splitlines() if line]
        fields = {name: value.removeprefix(" ") for name, _, value in lines}
        if fields:
            data = fields.get("data", "")
            yield fields.get("event", ""), settled(json.loads(data)) if data.startswith("{") else data


def _taken(value: Any, texts: list[str]) -> Any:
    """Give an event without the text that it brings, which is added to texts."""
    match value:
        case dict():
            bare = {}
            for key, inner in value.items():
                if key in PIECES and isinstance(inner, str):
                    texts.append(inner)
                elif key != "sequence_number":
                    bare[key] = _taken(inner, texts)
            return bare
        case list():
            return [_taken(inner, texts) for inner in value]
    return value


def joined(stream: str) -> tuple[list[tuple[str, Any]], str]:
    """Give a stream's events without their text, alike ones that follow one another as one; and all of the text."""
    events: list[tuple[str, Any]] = []
    texts: list[str] = []
    for kind, data in _events(stream):
        event = (kind, _taken(data, texts))
        if events[-1:] != [event]:
            events.append(event)
    return events, "".join(texts)


def _body(answer: Answer) -> Any:
    kind = answer.headers.get("content-type", "")
    # Of the id that the router gives a request vLLM makes its own.
    given = answer.headers.get("x-request-id", "")
    body = answer.body.replace(given.encode(), b"0123456789abcdef") if given else answer.body
    if kind.startswith("text/event-stream"):
        return joined(body.decode())
    if kind.startswith("application/json"):
        return settled(json.loads(body))
    return body


def _headers(answer: Answer) -> dict[str, str]:
    kept = {name: value for name, value in answer.headers.items() if not ADDED.fullmatch(name)}
    # Ids are not of one length.
    if kept.get("content-length") == str(len(answer.body)):
        kept["content-length"] = "as it is"
    return kept


def differences(direct: Answer, routed: Answer) -> list[str]:
    """Name what of an answer is not the same through the router."""
    pairs: list[tuple[str, Any, Any]] = [
        ("status", direct.status, routed.status),
        ("headers", _headers(direct), _headers(routed)),
        ("body", _body(direct), _body(routed)),
    ]
    return [f"{what}: {one!r} became {other!r}" for what, one, other in pairs if one != other]
