"""Requests in turn, against servers of this process: everybody gets as many, whole, and only answers count."""

import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

from tests.routing import bench_turns
from tests.routing.bench_wrk import CannotMeasureError


class Answering(BaseHTTPRequestHandler):
    """Answers after it has read all, and closes its connection after every second request."""

    protocol_version = "HTTP/1.1"
    asked: ClassVar[list[tuple[int, bytes]]] = []
    status = 200

    def do_POST(self) -> None:
        self.asked.append((self.server.server_port, self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(self.status)
        if len(self.asked) % 2 == 0:
            self.send_header("Connection", "close")
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def servers(handler: type[BaseHTTPRequestHandler], names: str) -> Iterator[dict[str, int]]:
    with contextlib.ExitStack() as stack:
        ports = {}
        for name in names:
            server = stack.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), handler))
            threading.Thread(target=server.serve_forever, daemon=True).start()
            stack.callback(server.shutdown)
            ports[name] = server.server_port
        yield ports


def test_requests_in_turn_reach_everybody_equally_often_and_whole_over_connections_that_may_close() -> None:
    handler = type("Handler", (Answering,), {"asked": []})
    with servers(handler, "abc") as ports:
        times = bench_turns.take(ports, b"x" * 100_000, 0.1)
    many = len(times["a"])
    assert many > 1
    assert [len(taken) for taken in times.values()] == [many] * 3
    # Each one's first, which opens its connection, is not counted.
    assert sorted(port for port, _ in handler.asked) == sorted([*ports.values()] * (many + 1))
    assert {body for _, body in handler.asked} == {b"x" * 100_000}


def test_an_error_is_not_measured() -> None:
    with (
        servers(type("Handler", (Answering,), {"asked": [], "status": 503}), "a") as ports,
        pytest.raises(CannotMeasureError, match="503"),
    ):
        bench_turns.take(ports, b"x", 0.1)
