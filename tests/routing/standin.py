"""Stands in for a model's server, or for the activator: reads a body with vLLM's parsers, and says what it read.

    python3 standin.py NAME PORT-OR-SOCKET

It runs in vLLM's image, as uvicorn, FastAPI, pydantic and python-multipart there are what a body meets. On port 9000 it
is told what to do: /seen (every request line since /forget, with how often), /open/NAME/ADDRESS:PORT and /close/NAME
(routes), /in-flight (the router's counts), /hold and /go (streams stop after their first event, and go on).
"""

import asyncio
import http.client
import json
import resource
import socket
import sys
import zlib
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

import uvicorn
from fastapi import Depends, FastAPI, Form, HTTPException, Request, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from paths import DECIDED
from pydantic import BaseModel, ConfigDict
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

RUN = Path("/run/tandem")
# Seconds; UNSEEN in orchestrator/activator/draining.py, which is not here.
UNSEEN = 0.01
NAME = sys.argv[1] if len(sys.argv) > 1 else ""
SEEN: Counter[str] = Counter()
# Set, but while streams are held.
GO = asyncio.Event()
GO.set()


class Asked(BaseModel):
    """What vLLM's request models have in common: a model that need not be there."""

    model_config = ConfigDict(extra="allow")
    model: str | None = None


class Told(BaseModel):
    """As vLLM's transcription request, but without its file one can be read as well."""

    model_config = ConfigDict(extra="allow")
    file: UploadFile | None = None
    model: str | None = None


async def only_json(request: Request) -> None:
    """Refuse what vLLM's own check of the type refuses."""
    if request.headers.get("content-type", "").lower().split(";", maxsplit=1)[0] != "application/json":
        raise RequestValidationError(["not application/json"])


def said(request: Request, model: str | None) -> dict[str, Any]:
    """What came, and which model it names."""
    got = request.scope["got"]
    return {"by": NAME, "for": request.headers.get("x-tandem-model"), "read": model, "crc": got[0], "bytes": got[1]}


app = FastAPI(openapi_url=None)


async def read_json(request: Request, asked: Asked) -> Response:
    stream = (asked.model_extra or {}).get("do")
    if isinstance(stream, dict) and "events" in stream:
        return StreamingResponse(events(stream, asked.model), media_type="text/event-stream")
    return JSONResponse(said(request, asked.model))


async def read_form(request: Request, told: Annotated[Told, Form()]) -> Response:
    return JSONResponse(said(request, told.model))


for _decision in DECIDED:
    if _decision.way == "body":
        app.post(_decision.path, dependencies=[Depends(only_json)])(read_json)
    elif _decision.way == "form":
        app.post(_decision.path)(read_form)


@app.get("/v1/realtime")
async def read_query(request: Request) -> Response:
    # What Starlette makes of the query. vLLM takes the model that the WebSocket's first message names.
    return JSONResponse(said(request, request.query_params.get("model")))


@app.exception_handler(RequestValidationError)
async def _unreadable(request: Request, error: RequestValidationError) -> Response:
    # As vLLM's own handler: 400 and not 422.
    return JSONResponse({"by": NAME, "error": {"message": str(error.errors())[:200]}}, 400)


@app.exception_handler(HTTPException)
async def _failed(request: Request, error: HTTPException) -> Response:
    return JSONResponse({"by": NAME, "error": {"message": str(error.detail)[:200]}}, error.status_code)


async def events(stream: dict[str, Any], model: str | None) -> AsyncIterator[str]:
    """Give so many events, one each `every` seconds: who says it, for which model, the client's own tag, its number."""
    for number in range(stream["events"]):
        said = {"by": NAME, "model": model, "tag": stream.get("tag"), "number": number}
        yield f"data: {json.dumps(said)}\n\n"
        await GO.wait()
        await asyncio.sleep(stream.get("every", 0))
    yield "data: [DONE]\n\n"


async def recorded(scope: Any, receive: Any, send: Any) -> None:
    """The application with every request line written down, its body summed up, and its answers signed."""
    if scope["type"] != "http":
        return
    query = b"?" + scope["query_string"] if scope["query_string"] else b""
    SEEN[f"{scope['method']} {(scope['raw_path'] + query).decode('latin-1')}"] += 1
    scope["got"] = got = [0, 0]

    async def listen() -> Any:
        message = await receive()
        piece = message.get("body", b"")
        got[0], got[1] = zlib.crc32(piece, got[0]), got[1] + len(piece)
        return message

    async def sign(message: Any) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], (b"x-standin", NAME.encode())]
        await send(message)

    await app(scope, listen, sign)


class Protocol(HttpToolsProtocol):
    """Bytes that are no request are written down too: the router must not let any through."""

    def send_400_response(self, msg: str) -> None:
        SEEN["INVALID"] += 1
        super().send_400_response(msg)


class Router(http.client.HTTPConnection):
    """What the activator may ask the router."""

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(RUN / "router.sock"))


async def control(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    _, verb, *words = scope["path"].split("/")
    answer: Any = {"ok": True}
    if verb == "seen":
        answer = dict(SEEN)
    elif verb == "forget":
        SEEN.clear()
    elif verb == "hold":
        GO.clear()
    elif verb == "go":
        GO.set()
    elif verb == "in-flight":
        router = Router("router")
        router.request("GET", "/in-flight")
        answer = json.loads(router.getresponse().read())
    else:
        link = RUN / "open" / words[0]
        link.parent.mkdir(exist_ok=True)
        if link.is_symlink():
            link.unlink()
            # As the activator: for so long the router may still go by it.
            await asyncio.sleep(UNSEEN)
        if verb == "open":
            link.symlink_to(words[1])
    await JSONResponse(answer)(scope, receive, send)


async def main(where: str) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if where.isdigit():
        listen: dict[str, Any] = {"host": "0.0.0.0", "port": int(where)}
    else:
        Path(where).unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(where)
        Path(where).chmod(0o666)
        listen = {"fd": listener.detach()}
    quiet: dict[str, Any] = {"log_level": "critical", "access_log": False, "ws": "none", "lifespan": "off"}
    serving = uvicorn.Server(
        uvicorn.Config(recorded, http=Protocol, backlog=4096, timeout_keep_alive=75, **quiet, **listen)
    )
    told = uvicorn.Server(uvicorn.Config(control, host="0.0.0.0", port=9000, timeout_keep_alive=3600, **quiet))
    await asyncio.gather(serving.serve(), told.serve())


if __name__ == "__main__":
    asyncio.run(main(sys.argv[2]))
