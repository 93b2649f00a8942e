"""The activator's HTTP side: holds the requests that the router sends on, and answers the machine's owner below /-/."""

import logging
import time
from collections.abc import Callable, Collection
from contextlib import suppress

import httpx
from starlette.types import ASGIApp, Receive, Scope, Send

from orchestrator.activator import faults
from orchestrator.activator.control import Control
from orchestrator.activator.exchange import Exchange, while_here
from orchestrator.activator.faults import Fault
from orchestrator.activator.forwarding import Forwarder, UnreachableError
from orchestrator.activator.holding import Hold, Signs
from orchestrator.activator.ports import Driver

log = logging.getLogger(__name__)
# The router overwrites both, so that no client has a say in them.
MODEL = b"x-tandem-model"
UNREACHABLE = b"x-tandem-unreachable"


class Held:
    """Holds a request until its model is ready, and passes it on."""

    def __init__(
        self,
        driver: Driver,
        forwarder: Forwarder,
        names: Callable[[], Collection[str]],
        *,
        signs: Signs,
        wall: Callable[[], float],
    ) -> None:
        self._driver = driver
        self._forwarder = forwarder
        self._names = names
        self._signs = signs
        self._wall = wall

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; ASGI's server calls it."""
        exchange = Exchange(scope, receive, send)
        body = await exchange.read()
        if body is None:
            return
        model = exchange.header(MODEL)
        known = list(self._names())
        if model not in known:
            await exchange.fail(faults.unknown(model, known))
            return
        try:
            hold = Hold(exchange, model, body, signs=self._signs, wall=self._wall)
        except ValueError as error:
            await exchange.fail(faults.no_json(error))
            return
        await while_here(exchange, self._answer(hold))

    async def _answer(self, hold: Hold) -> None:
        try:
            fault = await self._try_twice(hold)
        except Exception:
            log.exception("a request for %s failed", hold.model)
            fault = faults.bug()
        if fault is not None:
            await hold.exchange.fail(fault)

    async def _try_twice(self, hold: Hold) -> Fault | None:
        # A server may go away between the driver's word and our try; nothing was sent then, so it is asked for once
        # more.
        for unreachable in (hold.exchange.header(UNREACHABLE) == "1", True):
            with suppress(UnreachableError):
                return await self._try(hold, unreachable=unreachable)
        return faults.unreachable(hold.model)

    async def _try(self, hold: Hold, *, unreachable: bool) -> Fault | None:
        ticket = self._driver.ask(hold.model, len(hold.body), stream=hold.stream, unreachable=unreachable)
        try:
            outcome = await hold.outcome(ticket)
            if isinstance(outcome, Fault):
                return outcome
            await self._forwarder.deliver(hold, ticket)
        finally:
            ticket.close()
        return None


def application(
    driver: Driver,
    client: httpx.AsyncClient,
    *,
    names: Callable[[], Collection[str]],
    address: Callable[[str], str] = "http://{}:8000".format,
    signs: Signs | None = None,
    wall: Callable[[], float] = time.time,
) -> ASGIApp:
    """Make the application that uvicorn serves.

    client is forwarding.new_client(), whoever makes it closes it; names gives the model profiles that there are now;
    address is where a model's server listens. uvicorn should add no header of its own: server_header=False and
    date_header=False, as answers bring theirs.
    """
    held = Held(driver, Forwarder(client, address), names, signs=signs or Signs(), wall=wall)
    control = Control(driver, names).application()

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        of_a_model = scope["type"] == "http" and any(name == MODEL for name, _ in scope["headers"])
        await (held if of_a_model else control)(scope, receive, send)

    return serve
