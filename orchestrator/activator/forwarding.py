"""Passes a request on to its model's server, and the answer back: the same bytes, as they come."""

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

import httpx

from orchestrator.activator import faults
from orchestrator.activator.exchange import EVENTS, Headers
from orchestrator.activator.holding import Hold
from orchestrator.activator.ports import Ticket

# As the router's own: what is not there within 3 s is away; a long answer may take an hour.
TIMEOUT = httpx.Timeout(3600, connect=3)
HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        # The body is here already, and its length is counted anew.
        b"expect",
    }
)
# An error that is longer is none that anybody wrote.
LONGEST_ERROR = 1 << 20


class UnreachableError(Exception):
    """Nothing listened at the server's address: nothing was sent."""


def new_client() -> httpx.AsyncClient:
    """Make the client that requests are passed on with.

    It keeps no connection: one that a server closed meanwhile could not be told from a server that took a request and
    died, and a server that was started again has another address.
    """
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    return httpx.AsyncClient(timeout=TIMEOUT, limits=limits, trust_env=False, follow_redirects=False)


def end_to_end(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """Leave out what is meant for one connection alone, and what router and activator say to each other."""
    pairs = list(headers)
    named = {
        word.strip().lower() for name, value in pairs if name.lower() == b"connection" for word in value.split(b",")
    }
    return [
        (name, value)
        for name, value in pairs
        if name.lower() not in HOP_BY_HOP | named and not name.lower().startswith(b"x-tandem-")
    ]


class Forwarder:
    """Passes requests on. address gives where a model's server listens, as in http://qwen-14b:8000."""

    def __init__(self, client: httpx.AsyncClient, address: Callable[[str], str]) -> None:
        self._client = client
        self._address = address

    async def deliver(self, hold: Hold, ticket: Ticket) -> None:
        """Ask the server and give its answer to the client; UnreachableError when it can be asked again."""
        try:
            if hold.exchange.started:
                await self._into_stream(hold, ticket)
            else:
                await self._unchanged(hold)
        except (httpx.TransportError, httpx.StreamError):
            # It took the request: to send it once more could do the same thing twice.
            await hold.exchange.fail(faults.broke_off(hold.model))

    async def _unchanged(self, hold: Hold) -> None:
        async with self._asked(hold) as response:
            await hold.exchange.start(response.status_code, end_to_end(response.headers.raw))
            async for piece in response.aiter_raw():
                await hold.exchange.write(piece)
            await hold.exchange.end()

    async def _into_stream(self, hold: Hold, ticket: Ticket) -> None:
        """Put the answer behind the signs of life, which go on until the server says something."""
        async with self._asked(hold, ticket) as response:
            pieces = response.aiter_raw()
            if response.status_code == 200 and _is_events(response):
                async with hold.signs(ticket):
                    first = await anext(pieces, b"")
                await hold.exchange.write(first)
                async for piece in pieces:
                    await hold.exchange.write(piece)
                await hold.exchange.end()
                return
            async with hold.signs(ticket):
                body = await _read(pieces)
            await hold.exchange.fail_in_stream(faults.told(response.status_code, body))

    @asynccontextmanager
    async def _asked(self, hold: Hold, ticket: Ticket | None = None) -> AsyncIterator[httpx.Response]:
        request = self._request(hold, packed=ticket is None)
        try:
            if ticket is None:
                response = await self._client.send(request, stream=True)
            else:
                async with hold.signs(ticket):
                    response = await self._client.send(request, stream=True)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise UnreachableError(str(error)) from error
        try:
            yield response
        finally:
            await response.aclose()

    def _request(self, hold: Hold, *, packed: bool) -> httpx.Request:
        exchange = hold.exchange
        # A stream that has begun has no header left to say that it is packed.
        without = {b"content-length"} if packed else {b"content-length", b"accept-encoding"}
        headers = [pair for pair in end_to_end(exchange.headers) if pair[0].lower() not in without]
        return httpx.Request(
            exchange.method,
            self._address(hold.model),
            headers=headers,
            content=hold.body,
            # The target as it was sent: httpx would write some characters of it in another way.
            extensions={"target": exchange.target, "timeout": TIMEOUT.as_dict()},
        )


def _is_events(response: httpx.Response) -> bool:
    kind: str = response.headers.get("content-type", "")
    return kind.encode().startswith(EVENTS)


async def _read(pieces: AsyncIterator[bytes]) -> bytes:
    body = b""
    async for piece in pieces:
        body += piece
        if len(body) > LONGEST_ERROR:
            break
    return body[:LONGEST_ERROR]
