"""Runs a stand-in's handler on a free port of this machine for as long as a test needs it."""

import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from typing import Any


class _Server(ThreadingHTTPServer):
    # Of the usual five, those that come at once are turned away, and come again a second later.
    request_queue_size = 128


class _Local(_Server):
    address_family = socket.AF_UNIX

    def server_bind(self) -> None:
        # Not HTTPServer's, which asks for the name of a host.
        TCPServer.server_bind(self)
        self.server_name, self.server_port = "localhost", 0

    def get_request(self) -> tuple[socket.socket, Any]:
        return self.socket.accept()[0], ("localhost", 0)


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """Serve, and give the address, such as 127.0.0.1:4321."""
    server = _Server(("127.0.0.1", 0), handler)
    with _running(server):
        yield f"127.0.0.1:{server.server_address[1]}"


@contextmanager
def serving_locally(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """Serve on a socket in a folder of its own, and give its path, which a test's own folder may make too long."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "socket")
        with _running(_Local(path, handler)):  # type: ignore[arg-type]  # a path, of this family
            yield path


@contextmanager
def _running(server: ThreadingHTTPServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
