"""A fake driver and a stand-in server around the real HTTP side of the activator, on free ports of this machine."""

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Future
from typing import Any

import httpx
import uvicorn
from starlette.types import ASGIApp

from orchestrator.activator.app import application
from orchestrator.activator.exchange import Exchange
from orchestrator.activator.forwarding import new_client
from orchestrator.activator.holding import Signs
from orchestrator.activator.ports import Phase, Slept
from orchestrator.switch.world import Forward, Refuse
from tests.checkout import PATIENCE

CHAT = "/v1/chat/completions"
LOADING = Phase("qwen", "start", "qwen is loading", 3, 41.2)
# Far beyond what a test lasts: such a sign never comes.
NEVER = 1000.0


def until(true: Callable[[], Any], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end, f"not within {PATIENCE:g} s: {what}"
        time.sleep(0.005)


class FakeTicket:
    def __init__(self, model: str, size: int, stream: bool, unreachable: bool, now: Callable[[], Phase]) -> None:
        self.model, self.size, self.stream, self.unreachable = model, size, stream, unreachable
        self.loop = asyncio.get_running_loop()
        self.outcome: asyncio.Future[Forward | Refuse] = self.loop.create_future()
        self.told = 0
        self.closed = 0
        self._now = now

    def phase(self) -> Phase:
        self.told += 1
        return self._now()

    def close(self) -> None:
        self.closed += 1

    def forward(self) -> None:
        self.loop.call_soon_threadsafe(self.outcome.set_result, Forward((1,), self.model))

    def refuse(self, code: str = "model_failed", retry_after: float = 7.2, status: int = 503) -> None:
        refusal = Refuse((1,), code, "out of memory on GPU 0", retry_after, status)
        self.loop.call_soon_threadsafe(self.outcome.set_result, refusal)


class FakeDriver:
    """Holds what it is asked until the test says what comes of it; ready: everything is forwarded at once."""

    def __init__(self) -> None:
        self.tickets: list[FakeTicket] = []
        self.calls: list[tuple[str, ...]] = []
        self.now = LOADING
        self.ready = False
        self.bug: Exception | None = None
        self.phases: list[Phase | Exception] = []
        self.more = threading.Event()
        # Whether it knows how the models are.
        self.knows = True

    def ask(self, model: str, size: int, *, stream: bool, unreachable: bool) -> FakeTicket:
        if self.bug is not None:
            raise self.bug
        ticket = FakeTicket(model, size, stream, unreachable, lambda: self.now)
        self.tickets.append(ticket)
        if self.ready:
            ticket.outcome.set_result(Forward((1,), model))
        return ticket

    def ticket(self, index: int = 0) -> FakeTicket:
        until(lambda: len(self.tickets) > index, f"request {index} is asked for")
        return self.tickets[index]

    def closed(self) -> list[int]:
        """How often each ticket was closed, as soon as all are; a client has its answer a moment before."""
        until(lambda: all(each.closed for each in self.tickets), "every request is over")
        return [each.closed for each in self.tickets]

    async def _tell(self, *call: str) -> AsyncIterator[Phase]:
        self.calls.append(call)
        for phase in self.phases:
            if isinstance(phase, Exception):
                raise phase
            yield phase
        if self.phases and self.phases[-1].phase in ("ready", "stopped", "failed", "asleep"):  # type: ignore[union-attr]
            return
        try:
            await asyncio.Event().wait()
        finally:
            self.calls.append(("unheard",))

    def up(self, model: str, by: str) -> AsyncIterator[Phase]:
        return self._tell("up", model, by)

    def down(self, model: str, by: str) -> AsyncIterator[Phase]:
        return self._tell("down", model, by)

    def sleep(self, model: str, by: str, *, trial: bool = False) -> AsyncIterator[Phase]:
        return self._tell("sleep", model, by, *(["trial"] if trial else []))

    def wake(self, model: str, by: str) -> AsyncIterator[Phase]:
        return self._tell("wake", model, by)

    def slept(self, model: str, found: Slept) -> None:
        if self.bug is not None:
            raise self.bug
        self.calls.append(("slept", model, str(found)))

    def take_back(self, model: str) -> None:
        self.calls.append(("take_back", model))

    async def looked(self) -> None:
        while not self.knows:
            await asyncio.sleep(0.001)

    def status(self) -> dict[str, Any]:
        if self.bug is not None:
            raise self.bug
        return {"models": [{"name": "qwen", "state": "ready"}, {"name": "qwq", "state": "stopped"}]}

    def metrics(self) -> str:
        return "tandem_queue_length 0\n"


class Server:
    """A stand-in for a model's server: keeps what it is sent, and answers as the test's script says."""

    def __init__(self) -> None:
        self.got: list[tuple[Exchange, bytes]] = []
        self.left = threading.Event()
        self.script: Callable[[Exchange], Awaitable[None]] = says(b'{"ok": true}')

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        exchange = Exchange(scope, receive, send)
        self.got.append((exchange, await exchange.read() or b""))
        answering = asyncio.create_task(self.script(exchange))
        leaving = asyncio.create_task(exchange.gone())
        await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not answering.done() and not exchange.ended:
            self.left.set()
            answering.cancel()
        leaving.cancel()
        await asyncio.gather(answering, leaving, return_exceptions=True)


def says(body: bytes, status: int = 200, kind: bytes = b"application/json", **headers: str) -> Any:
    async def script(exchange: Exchange) -> None:
        more = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        length = (b"content-length", str(len(body)).encode())
        await exchange.start(status, [(b"content-type", kind), length, *more])
        await exchange.write(body)
        await exchange.end()

    return script


def streams(*pieces: bytes, then: threading.Event | None = None, cut: bool = False) -> Any:
    """Stream events; `then` is waited for before the last piece; cut: the connection ends before the answer does."""

    async def script(exchange: Exchange) -> None:
        await exchange.start(200, [(b"content-type", b"text/event-stream; charset=utf-8")])
        for number, piece in enumerate(pieces, 1):
            if number == len(pieces) and then is not None:
                await asyncio.to_thread(then.wait, PATIENCE)
            await exchange.write(piece)
        if not cut:
            await exchange.end()

    return script


class Loop(asyncio.SelectorEventLoop):
    """A loop whose time a test can set forward."""

    ahead = 0.0

    def time(self) -> float:
        return super().time() + self.ahead

    def passes(self, seconds: float) -> None:
        """Have so many seconds gone by, for all that waits in this loop; for another thread to call."""

        def pass_by() -> None:
            self.ahead += seconds

        self.call_soon_threadsafe(pass_by)


class Stage:
    """The activator with a fake driver, and one stand-in server at the address of every model.

    passes has seconds go by for both.
    """

    def __init__(self, url: str, upstream: str, passes: Callable[[float], None]) -> None:
        self.url = url
        self.upstream = upstream
        self.passes = passes
        self.driver = FakeDriver()
        self.server = Server()
        # Where models' servers listen in the next tries; the stand-in's address after that.
        self.addresses: list[str] = []

    def address(self, _: str) -> str:
        return self.addresses.pop(0) if self.addresses else self.upstream


class Theatre:
    """Two uvicorns on free ports, the activator's and the stand-in server's, for one stage after the other.

    Starting and ending them takes longer than most tests.
    """

    def __init__(self) -> None:
        self._client: Future[httpx.AsyncClient] = Future()
        self._sockets = [free_port(), free_port()]
        self._servers = [served(self._front), served(self._back)]
        self._loop = Loop()
        self._thread = threading.Thread(target=self._all)

    def __enter__(self) -> "Theatre":
        self._thread.start()
        until(lambda: all(each.started for each in self._servers), "uvicorn serves")
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._servers:
            server.should_exit = True
        self._thread.join(PATIENCE)
        for listening in self._sockets:
            listening.close()

    def stage(self, signs: Signs) -> Stage:
        url, upstream = (f"http://127.0.0.1:{each.getsockname()[1]}" for each in self._sockets)
        stand = Stage(url, upstream, self._loop.passes)
        self._app = application(
            stand.driver,
            self._client.result(PATIENCE),
            names=lambda: ["qwen", "qwq"],
            address=stand.address,
            signs=signs,
            wall=lambda: 7,
        )
        self._server = stand.server
        return stand

    async def _front(self, scope: Any, receive: Any, send: Any) -> None:
        await self._app(scope, receive, send)

    async def _back(self, scope: Any, receive: Any, send: Any) -> None:
        await self._server(scope, receive, send)

    def _all(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._run())

    async def _run(self) -> None:
        async with new_client() as client:
            self._client.set_result(client)
            pairs = zip(self._servers, self._sockets, strict=True)
            await asyncio.gather(*(server.serve(sockets=[listening]) for server, listening in pairs))


def free_port() -> socket.socket:
    """A port of this machine that nobody else gets; who connects is refused as long as nobody listens."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    return listening


def served(app: ASGIApp) -> uvicorn.Server:
    config = uvicorn.Config(
        app, interface="asgi3", log_config=None, access_log=False, lifespan="off", http="h11",
        server_header=False, date_header=False, timeout_graceful_shutdown=1,
    )  # fmt: skip
    return uvicorn.Server(config)
