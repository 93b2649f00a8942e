"""Requests whose answer has to be the same with the router between, for every path that passes: good ones and bad."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.routing.paths import DECIDED, Decision
from tests.routing.served import MODEL

ASKED = "Who are you?"
TALK = [{"role": "user", "content": ASKED}]
IMAGE = {"type": "image_url", "image_url": {"url": "data:,"}}
LOOK = {"name": "look", "input_schema": {"type": "object", "properties": {}}}
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGFuZGVtIHRlc3RzIGl0IQ==",
}
FORM = "multipart/form-data; boundary=edge"


@dataclass(frozen=True)
class Case:
    """A request, and what it is to show."""

    what: str
    path: str
    body: Any = None
    method: str = "POST"
    headers: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.path} {self.what}"


def form(**fields: str) -> bytes:
    """Write a form with these fields and a file that is no sound."""
    part = "--edge\r\nContent-Disposition: form-data; name="
    texts = [f'{part}"{name}"\r\n\r\n{value}\r\n' for name, value in fields.items()]
    return f'{"".join(texts)}{part}"file"; filename="a.wav"\r\n\r\nRIFF\r\n--edge--\r\n'.encode()


def _body(path: str, what: str, **body: Any) -> Case:
    return Case(what, path, {"model": MODEL, **body})


def _raw(path: str, what: str, body: str, **headers: str) -> Case:
    return Case(what, path, body.encode(), headers={name.replace("_", "-"): value for name, value in headers.items()})


CHAT, TEXT, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"
COUNT = "/v1/messages/count_tokens"
GOOD = (
    _body(CHAT, "plain", messages=TALK),
    _body(CHAT, "streamed, with usage", messages=TALK, stream=True, stream_options={"include_usage": True}),
    _body(CHAT, "two choices with logprobs", messages=TALK, n=2, logprobs=True, top_logprobs=2, max_tokens=4),
    _body(CHAT, "in Chinese", messages=[{"role": "user", "content": "你是谁?"}]),
    _body(TEXT, "plain", prompt=ASKED),
    _body(TEXT, "streamed", prompt=ASKED, stream=True),
    _body(TEXT, "echoed, with logprobs", prompt=ASKED, echo=True, logprobs=1, max_tokens=4),
    _body(TEXT, "a list of prompts", prompt=[ASKED, "Hi"], max_tokens=4),
    _body(RESPONSES, "plain", input=ASKED),
    _body(RESPONSES, "streamed", input=ASKED, stream=True),
    _body(MESSAGES, "plain", messages=TALK, max_tokens=40),
    _body(MESSAGES, "streamed", messages=TALK, max_tokens=40, stream=True),
    _body(f"{MESSAGES}?beta=true", "as a beta is asked", messages=TALK, max_tokens=4),
    _body(COUNT, "plain", messages=TALK),
    _body("/tokenize", "text", prompt=ASKED),
    _body("/tokenize", "a conversation", messages=TALK),
    _body("/detokenize", "plain", tokens=[70, 71, 72]),
    Case("plain", "/version", method="GET"),
    # The server takes its own model, and it is the one that is ready.
    Case("no model", CHAT, {"messages": TALK}),
    Case("null as a model", TEXT, {"model": None, "prompt": ASKED}),
    Case("an empty model", "/tokenize", {"model": "", "prompt": ASKED}),
    _raw(TEXT, "the model last, as an escape", f'{{"prompt": "{ASKED}", "\\u006dodel": "demo"}}'),
    _raw(TEXT, "two models", f'{{"model": "gpt-4", "prompt": "{ASKED}", "model": "demo"}}'),
)
BAD = (
    _body(CHAT, "tools that it does not take", messages=TALK, tools=[TOOL]),
    _body(CHAT, "a tool that must be used", messages=TALK, tools=[TOOL], tool_choice="required"),
    _body(CHAT, "an image for a model that sees none", messages=[{"role": "user", "content": [IMAGE]}]),
    _body(CHAT, "a temperature that there is not", messages=TALK, temperature=-1),
    _body(CHAT, "streamed, and refused", messages=TALK, stream=True, max_tokens=99999),
    _body(TEXT, "too long", prompt="word " * 5000),
    _body(TEXT, "half a megabyte", prompt="x" * 500_000),
    _body(RESPONSES, "an answer that is not kept", input=ASKED, previous_response_id="resp_0"),
    _body(MESSAGES, "tools that it does not take", messages=TALK, max_tokens=9, tools=[LOOK]),
    _body(MESSAGES, "more than it has", messages=TALK, max_tokens=99999),
    _body("/detokenize", "a token that there is not", tokens=[-1]),
    Case("an answer that is not kept", "/v1/responses/resp_0", method="GET"),
    Case("an answer that is not kept", "/v1/responses/resp_0?stream=true", method="GET"),
    Case("an answer that is not kept", "/v1/responses/resp_0/cancel"),
    _raw(TEXT, "JSON that says to be text", json.dumps({"model": MODEL, "prompt": ASKED}), Content_Type="text/plain"),
    Case("a socket for sound", f"/v1/realtime?model={MODEL}", method="GET", headers=UPGRADE),
)


def _of(decision: Decision) -> list[Case]:
    """Give what is sent to every path, with nothing that it needs and with what it cannot take."""
    if decision.way == "form":
        headers = {"Content-Type": FORM}
        return [Case("a file that is none", decision.example(), form(model=MODEL), headers=headers)]
    wrong = {key: {"no": 5} for key in ("messages", "prompt", "input", "tokens", "query", "documents")}
    return [
        Case("nothing but the model", decision.example(), {"model": MODEL}),
        Case("what it cannot take", decision.example(), {"model": MODEL, **wrong}),
    ]


EVERYWHERE = [case for decision in DECIDED if decision.way in ("body", "form") for case in _of(decision)]
CASES = (*GOOD, *BAD, *EVERYWHERE)
