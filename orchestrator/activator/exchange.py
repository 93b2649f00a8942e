"""One request and its answer over ASGI: what was asked, what was answered so far, and whether its client is there."""

import asyncio
import json
from collections.abc import Coroutine, Iterable, Mapping
from typing import Any

from starlette.types import Receive, Scope, Send

from orchestrator.activator import faults
from orchestrator.activator.faults import Fault

Headers = list[tuple[bytes, bytes]]
EVENTS = b"text/event-stream"


class Exchange:
    """A request that is being answered.

    started: its status and headers are out. ended: its answer is whole. target is path and query as they were sent.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        query: bytes = scope["query_string"]
        self.target: bytes = scope.get("raw_path") or self.path.encode()
        self.target += b"?" + query if query else b""
        self.headers: Headers = list(scope["headers"])
        self.started = False
        self.ended = False
        self._receive = receive
        self._send = send
        self._events = False
        self._tail = b""

    def header(self, name: bytes) -> str:
        """Find a header by its lower-case name; "" when it is not there."""
        return next((value.decode("latin-1") for key, value in self.headers if key == name), "")

    async def read(self) -> bytes | None:
        """Read the whole body; None when the client left before its end."""
        parts = []
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                return None
            parts.append(message.get("body", b""))
            if not message.get("more_body"):
                return b"".join(parts)

    async def gone(self) -> None:
        """Wait until the client has left or has its whole answer. The body must have been read."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def start(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Send status and headers."""
        kept = list(headers)
        by_name = {name.lower(): value for name, value in kept}
        # Into a stream of known length, or a packed one, nothing can be written but what it had.
        self._events = by_name.get(b"content-type", b"").startswith(EVENTS) and not (
            by_name.keys() & {b"content-length", b"content-encoding"}
        )
        self.started = True
        await self._send({"type": "http.response.start", "status": status, "headers": kept})

    async def write(self, data: bytes) -> None:
        """Send a piece of the body; returns when the client's connection has room for more."""
        self._tail = (self._tail + data[-4:])[-4:]
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self) -> None:
        """Say that the answer is whole."""
        self.ended = True
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def answer(self, status: int, value: Any, headers: Mapping[str, str]) -> None:
        """Answer with JSON."""
        body = json.dumps(value, ensure_ascii=False).encode() + b"\n"
        named = {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}
        await self.start(status, [(name.lower().encode(), text.encode("latin-1")) for name, text in named.items()])
        await self.write(body)
        await self.end()

    async def fail(self, fault: Fault) -> None:
        """Tell the client what is wrong, in whichever way is left.

        With no way left nothing is said: the answer stays without its end, and the server cuts the connection, so that
        nobody takes a part for the whole.
        """
        if not self.started:
            await self.answer(fault.status, fault.shape(), fault.headers())
        else:
            await self.fail_in_stream(fault.shape())

    async def fail_in_stream(self, shape: dict[str, Any]) -> None:
        """End a stream of events with an error, if the last event is complete."""
        complete = not self._tail or self._tail.endswith((b"\n\n", b"\n\r\n"))
        if self._events and complete and not self.ended:
            await self.write(faults.event(self.path, shape))
            await self.end()


async def while_here(exchange: Exchange, work: Coroutine[Any, Any, None]) -> bool:
    """Do the work for as long as the client stays, and cancel it when it leaves; tell whether it stayed."""
    doing = asyncio.create_task(work)
    leaving = asyncio.create_task(exchange.gone())
    try:
        await asyncio.wait({doing, leaving}, return_when=asyncio.FIRST_COMPLETED)
        # A whole answer looks to ASGI as if the client had left.
        if doing.done() or exchange.ended:
            await doing
            return True
        return False
    finally:
        doing.cancel()
        leaving.cancel()
        await asyncio.gather(doing, leaving, return_exceptions=True)
