"""The activator's own errors, in OpenAI's shape: as an answer, and as an event of a stream that has begun. Pure."""

import json
import math
from dataclasses import dataclass
from typing import Any

from orchestrator.switch.world import Refuse

# What a client is told to wait where nothing is known.
RETRY = 5


@dataclass(frozen=True)
class Fault:
    """An error for a client. retry_after is in seconds; a 503 always has one."""

    status: int
    code: str
    message: str
    param: str | None = None
    retry_after: float = RETRY

    def shape(self) -> dict[str, Any]:
        """Say it as OpenAI does."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def headers(self) -> dict[str, str]:
        """Name the headers that go with it."""
        return {"Retry-After": str(max(1, math.ceil(self.retry_after)))} if self.status == 503 else {}


def refused(refusal: Refuse) -> Fault:
    """Turn the driver's refusal into what the client gets."""
    return Fault(refusal.status, refusal.code, refusal.message, "model", refusal.retry_after)


def unknown(model: str, names: list[str]) -> Fault:
    """There is no such model profile."""
    return Fault(
        404, "model_not_found", f"The model '{model}' does not exist. Models here: {', '.join(names)}.", "model"
    )


def no_json(error: ValueError) -> Fault:
    """The body is not what a server could read; error says where."""
    return Fault(400, "invalid_json", f"The request's body is not JSON as it should be: {error}.")


def not_ready(model: str, seconds: float, phase: str, left: float | None) -> Fault:
    """A plain request was held for as long as it may be."""
    message = f"The model '{model}' was not ready within {seconds:g} s: {phase}."
    return Fault(503, "model_not_ready", message, "model", RETRY if left is None else min(left, 60))


def broke_off(model: str) -> Fault:
    """The server took the request, or part of it, and then was no longer there."""
    return Fault(
        503,
        "model_broke_off",
        f"The server of '{model}' took the request and broke off. 'python -m orchestrator logs {model}' shows why.",
        "model",
    )


def unreachable(model: str) -> Fault:
    """Nothing listened where the server should be, twice."""
    return Fault(
        503,
        "model_broke_off",
        f"The server of '{model}' went away before it took the request. 'python -m orchestrator logs {model}' shows "
        "why.",
        "model",
    )


def bug() -> Fault:
    """The activator itself failed; what failed is for its log and not for clients."""
    message = "The activator failed; 'python -m orchestrator logs activator' shows why."
    return Fault(500, "activator_error", message)


def event(path: str, shape: dict[str, Any]) -> bytes:
    """Write an error as the last event of a stream; /v1/messages speaks Anthropic's protocol."""
    if path == "/v1/messages":
        return b"event: error\ndata: " + _line({"type": "error", **shape}) + b"\n\n"
    return b"data: " + _line(shape) + b"\n\ndata: [DONE]\n\n"


def told(status: int, body: bytes) -> dict[str, Any]:
    """Read a server's own error, in any of the shapes that vLLM's versions have, as OpenAI's."""
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        said = None
    if isinstance(said, dict) and isinstance(said.get("error"), dict):
        return said
    # Before 0.10: the error with no envelope. "detail" is FastAPI's.
    fields = said if isinstance(said, dict) else {}
    message = fields.get("message") or fields.get("detail") or body.decode("utf-8", "replace").strip()
    words = message if isinstance(message, str) else json.dumps(message)
    fault = Fault(status, "model_error", words or f"The server answered {status} and said nothing.")
    return fault.shape()


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
