"""What a held request's client gets while it waits: nothing, comments in a stream of events, or reasoning."""

import asyncio
import json
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal

from orchestrator.activator import faults
from orchestrator.activator.exchange import EVENTS, Exchange
from orchestrator.activator.faults import Fault
from orchestrator.activator.ports import Phase, Ticket
from orchestrator.switch.world import Forward, Refuse

CHAT = "/v1/chat/completions"
# Where "stream" asks for a stream of events; anywhere else the answer is one piece of JSON.
STREAMING = frozenset({CHAT, "/v1/completions", "/v1/responses", "/v1/messages"})


@dataclass(frozen=True)
class Signs:
    """How clients are kept waiting.

    A streaming one gets headers and a sign of life after first seconds and one every so many more; wait_as is what the
    signs are where the client asked for a chat. A plain one waits for hold_timeout seconds.
    """

    first: float = 3
    every: float = 5
    wait_as: Literal["comment", "reasoning"] = "comment"
    hold_timeout: float = 300


def asked(path: str, body: bytes, *, form: bool) -> tuple[bool, str]:
    """Read from a body whether it asks for a stream, and the name that it calls the model by; "" when it has none.

    A body that is a form asks for no stream. Raises ValueError, which says where, for JSON that no server could read.
    """
    if not body or form:
        return False, ""
    try:
        said = json.loads(body)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(said, dict):
        raise ValueError("it is no object")
    name = said.get("model")
    return said.get("stream") is True and path in STREAMING, name if isinstance(name, str) else ""


def words(phase: Phase) -> str:
    """Say a phase in one line, for a person."""
    return " ".join((phase.text or phase.phase).split()) + _left(phase)


def comment(phase: Phase) -> bytes:
    """Write a phase as a comment, which clients of a stream of events skip."""
    text = " ".join(phase.text.split())
    return f": {phase.phase}{_left(phase)}{': ' if text else ''}{text}\n\n".encode()


def reasoning(phase: Phase, name: str, now: float) -> bytes:
    """Write a phase as reasoning of the model that is waited for.

    It has no role: clients join what they are given, and the server's first chunk has one.
    """
    choice = {"index": 0, "delta": {"reasoning_content": words(phase) + "\n"}, "finish_reason": None}
    chunk: dict[str, Any] = {
        "id": "chatcmpl-tandem-wait",
        "object": "chat.completion.chunk",
        "created": int(now),
        "model": name,
        "choices": [choice],
    }
    return b"data: " + json.dumps(chunk, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


def _left(phase: Phase) -> str:
    return "" if phase.left is None else f", about {max(1, math.ceil(phase.left))} s left"


class Hold:
    """One held request: waits for its outcome, and gives its client signs of life meanwhile.

    Raises ValueError for a body that no server could read: no model is brought up for that.
    """

    def __init__(self, exchange: Exchange, model: str, body: bytes, *, signs: Signs, wall: Callable[[], float]) -> None:
        self.exchange = exchange
        self.model = model
        self.body = body
        form = exchange.header(b"content-type").lower().startswith("multipart/form-data")
        self.stream, self._name = asked(exchange.path, body, form=form)
        self._signs = signs
        self._wall = wall
        self._began = asyncio.get_running_loop().time()
        self._due = self._began + signs.first

    async def outcome(self, ticket: Ticket) -> Forward | Fault:
        """Wait until the model is ready or the driver refuses; a plain request at most until its hold ends."""
        loop = asyncio.get_running_loop()
        async with self.signs(ticket):
            timeout = None if self.stream else self._began + self._signs.hold_timeout - loop.time()
            # Waits on the future itself: whoever polled would be late. A cancelled one must not look like our own end.
            await asyncio.wait({ticket.outcome}, timeout=timeout)
        phase = ticket.phase()
        if ticket.outcome.cancelled() or not ticket.outcome.done():
            return faults.not_ready(self.model, round(loop.time() - self._began, 1), words(phase), phase.left)
        outcome = ticket.outcome.result()
        return faults.refused(outcome) if isinstance(outcome, Refuse) else outcome

    @asynccontextmanager
    async def signs(self, ticket: Ticket) -> AsyncIterator[None]:
        """Give signs of life to a streaming client for as long as this lasts."""
        if not self.stream:
            yield
            return
        signing = asyncio.create_task(self._keep_signing(ticket))
        try:
            yield
        finally:
            signing.cancel()
            (end,) = await asyncio.gather(signing, return_exceptions=True)
        if end is not None and not isinstance(end, asyncio.CancelledError):
            raise end

    async def _keep_signing(self, ticket: Ticket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._due - loop.time())
            if not self.exchange.started:
                # nginx would keep the events back otherwise.
                headers = {b"content-type": EVENTS + b"; charset=utf-8", b"cache-control": b"no-cache"}
                await self.exchange.start(200, [*headers.items(), (b"x-accel-buffering", b"no")])
            await self.exchange.write(self._sign(ticket.phase()))
            self._due = loop.time() + self._signs.every

    def _sign(self, phase: Phase) -> bytes:
        if self._signs.wait_as == "reasoning" and self.exchange.path == CHAT:
            return reasoning(phase, self._name or self.model, self._wall())
        return comment(phase)
