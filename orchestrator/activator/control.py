"""What the machine's owner asks the activator: status, metrics, and to bring models up or down."""

import asyncio
import dataclasses
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, TypeGuard

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from orchestrator.activator import faults
from orchestrator.activator.exchange import Exchange, while_here
from orchestrator.activator.faults import Fault
from orchestrator.activator.ports import FINAL, Driver, Phase, Slept
from orchestrator.switch.world import Footprint

log = logging.getLogger(__name__)
Endpoint = Callable[[Request], Awaitable[Response]]
# A fault is a line or two.
FAULT = 500
# Who asks for the status waits so long for the first look at the servers, and 5 s for the answer.
LOOK_SECONDS = 3.0


def said(phase: Phase) -> dict[str, Any]:
    """Write a phase as an event of a stream; reason only where there is one."""
    event = dataclasses.asdict(phase)
    event["seconds"] = round(phase.seconds, 3)
    event["left"] = None if phase.left is None else round(phase.left, 3)
    if not phase.reason:
        del event["reason"]
    return event


def slept(said: Any) -> Slept:
    """Read what a sleep test found. Raises ValueError with what is wrong with it."""
    if not isinstance(said, dict):
        raise ValueError("should be a JSON object")
    cycles, fault, gpu, host = (said.get(key) for key in ("cycles", "fault", "gpu", "host"))
    if not _count(cycles) or cycles == 0:
        raise ValueError('"cycles" should be how many there were')
    if not isinstance(fault, str):
        raise ValueError('"fault" should be what went wrong, "" for nothing')
    if any(size is not None and not _count(size) for size in (gpu, host)):
        raise ValueError('"gpu" and "host" should be bytes, or null')
    return Slept(cycles, fault[:FAULT], Footprint(gpu, host) if _count(gpu) and _count(host) else None)


def _count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


class Phases(Response):
    """Tells phases, one JSON object a line, until a final one; on_left is called when the client leaves before it."""

    def __init__(self, model: str, phases: AsyncIterator[Phase], on_left: Callable[[], None] | None) -> None:
        super().__init__()
        self._model = model
        self._phases = phases
        self._on_left = on_left
        self._final = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer; Starlette calls it."""
        exchange = Exchange(scope, receive, send)
        stayed = await exchange.read() is not None and await while_here(exchange, self._tell(exchange))
        if not stayed and not self._final and self._on_left is not None:
            self._on_left()

    async def _tell(self, exchange: Exchange) -> None:
        await exchange.start(200, [(b"content-type", b"application/x-ndjson"), (b"x-accel-buffering", b"no")])
        try:
            async for phase in self._phases:
                await self._say(exchange, phase)
                if self._final:
                    break
        except Exception:
            # Headers are out: the stream's last line is the only place left to say it.
            log.exception("telling the phases of %s failed", self._model)
        if not self._final:
            reason = faults.bug().message
            await self._say(exchange, Phase(self._model, "failed", "failed", reason=reason))
        await exchange.end()

    async def _say(self, exchange: Exchange, phase: Phase) -> None:
        self._final = phase.phase in FINAL
        await exchange.write(json.dumps(said(phase), ensure_ascii=False).encode() + b"\n")


class Control:
    """Answers below /-/. Its endpoints are coroutines as the driver wants the event loop's thread."""

    def __init__(self, driver: Driver, names: Callable[[], Collection[str]]) -> None:
        self._driver = driver
        self._names = names

    def application(self) -> Starlette:
        """Make the routes; any other path is 404, as a request that is held names its model in a header."""
        driver = self._driver
        verbs = {"up": driver.up, "down": driver.down, "wake": driver.wake}
        app = Starlette(
            routes=[
                Route("/-/status", self._status),
                Route("/-/metrics", self._metrics),
                *(
                    Route(f"/-/{verb}/{{model:path}}", self._switching(verb, ask), methods=["POST"])
                    for verb, ask in verbs.items()
                ),
                Route("/-/sleep/{model:path}", self._sleep, methods=["POST"]),
                Route("/-/slept/{model:path}", self._slept, methods=["POST"]),
            ],
            exception_handlers={HTTPException: _refuse, Exception: _bug},
        )
        # A redirect has no body in OpenAI's shape, and leads nowhere that would be better.
        app.router.redirect_slashes = False
        return app

    async def _status(self, _: Request) -> Response:
        # Before the first look, as after a change of the models, every model would count as stopped.
        with suppress(TimeoutError):
            await asyncio.wait_for(self._driver.looked(), LOOK_SECONDS)
        return JSONResponse(self._driver.status())

    async def _metrics(self, _: Request) -> Response:
        return PlainTextResponse(self._driver.metrics(), media_type="text/plain; version=0.0.4")

    async def _sleep(self, request: Request) -> Response:
        trial = request.query_params.get("trial") == "1"
        return await self._switching("sleep", partial(self._driver.sleep, trial=trial))(request)

    async def _slept(self, request: Request) -> Response:
        model, known = request.path_params["model"], list(self._names())
        if model not in known:
            return _answer(faults.unknown(model, known))
        try:
            self._driver.slept(model, slept(await request.json()))
        except LookupError:
            return _answer(Fault(409, "never_seen", f"No container of '{model}' was seen, so nothing can be tested."))
        except (ValueError, RecursionError) as error:
            return _answer(Fault(400, "invalid_request", f"{request.url.path}: {error}"))
        return JSONResponse({"model": model})

    def _switching(self, verb: str, ask: Callable[[str, str], AsyncIterator[Phase]]) -> Endpoint:
        async def switch(request: Request) -> Response:
            model = request.path_params["model"]
            known = list(self._names())
            if model not in known:
                return _answer(faults.unknown(model, known))
            bound = verb == "up" and request.query_params.get("bound") == "1"
            take_back = partial(self._driver.take_back, model) if bound else None
            return Phases(model, ask(model, verb), take_back)

        return switch


def _answer(fault: Fault, headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse(fault.shape(), fault.status, {**fault.headers(), **(headers or {})})


async def _refuse(request: Request, error: Exception) -> Response:
    path = request.url.path
    if isinstance(error, HTTPException) and error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        message = f"{path} takes {allowed}, not {request.method}."
        return _answer(Fault(405, "method_not_allowed", message), error.headers)
    return _answer(Fault(404, "not_found", f"There is no {path} here."))


async def _bug(_: Request, __: Exception) -> Response:
    return _answer(faults.bug())
