"""A stand-in for router and activator: answers below /-/ and completions as a test tells it, and keeps count."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.standins.serving import serving

Event = dict[str, Any]


class StandIn:
    """What it says and what it heard. script gives the events of each verb; a str in it breaks the connection off."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.keys: list[str] = []
        self.status: dict[str, Any] | None = {"models": [], "wanted": [], "switch": None, "queue": [], "last": None}
        # Gives the status anew at each look, where a test cares how often that is.
        self.look: Callable[[], dict[str, Any] | None] = lambda: self.status
        self.script: dict[str, list[Event | str]] = {}
        self.refusal: tuple[int, str] | None = None
        self.completions: list[str | tuple[int, str]] = []
        # Set when a client left before the last event; a script that ends with "wait" waits for it.
        self.left = threading.Event()
        self.address = ""


def _handler(stand_in: StandIn) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            stand_in.heard.append(f"GET {self.path}")
            stand_in.keys.append(self.headers.get("Authorization", ""))
            if self._refused():
                return
            status = stand_in.look()
            if status is None:
                self._error(503, "nobody is there")
                return
            self._json(status)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            stand_in.heard.append(f"POST {self.path}" + (f" {body.decode()}" if body else ""))
            stand_in.keys.append(self.headers.get("Authorization", ""))
            if self._refused():
                return
            if self.path.startswith("/v1/"):
                self._complete(stream=bool(json.loads(body).get("stream")))
                return
            if self.path.startswith("/-/slept/"):
                self._json({})
                return
            self._head("application/x-ndjson")
            for event in stand_in.script.get(self.path.split("/")[2], []):
                if isinstance(event, str):
                    self._break(wait=event == "wait")
                    return
                self._line(json.dumps(event))

        def _complete(self, *, stream: bool) -> None:
            said = stand_in.completions.pop(0) if len(stand_in.completions) > 1 else stand_in.completions[0]
            if isinstance(said, tuple):
                self._error(*said)
            elif stream:
                self._head("text/event-stream")
                self._line(": start, about 3 s left")
                self._line(said)
                self._line("data: [DONE]")
            else:
                self._json({"choices": [{"text": said}]})

        def _break(self, *, wait: bool) -> None:
            """End without the last event; with wait, once the client is gone."""
            if wait:
                # Longer than any client of a test stays.
                self.connection.settimeout(600)
                if not self.connection.recv(1):
                    stand_in.left.set()
            self.close_connection = True

        def _refused(self) -> bool:
            if stand_in.refusal is not None:
                self._error(*stand_in.refusal)
            return stand_in.refusal is not None

        def _error(self, status: int, message: str) -> None:
            self._json({"error": {"message": message}}, status)

        def _json(self, value: Any, status: int = 200) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(value).encode())

        def _head(self, kind: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.end_headers()

        def _line(self, text: str) -> None:
            self.wfile.write(text.encode() + b"\n")
            self.wfile.flush()

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


@contextmanager
def running() -> Iterator[StandIn]:
    """Run one on a free port of this machine."""
    stand_in = StandIn()
    with serving(_handler(stand_in)) as where:
        stand_in.address = f"http://{where}"
        yield stand_in
