"""Stands in for a model's server and for the activator, as the router sees them: says back what it got.

Arguments: NAME, then where it listens: 8000 or the path of a socket. On port 9000 a test tells it what to do:
/seen (what came, in order), /release (the answers that wait go on), /leave and /return (its listener, gone or there;
/leave?stale keeps the socket's file), /lists?JSON (what GET /v1/models answers; text that is no JSON as it is, "wait"
nothing until released), and, for the router's volume, /open/NAME, /close/NAME, /asleep/NAME, /awake/NAME
/states?JSON (what states.json says) and /in-flight.

A request's "do" says how it is answered: "wait" (half, and the rest when released), "flood" (more than a
connection holds), "die" (not at all), "fail" (500), "steer" (with headers that tell nginx what to do). Every answer
says which pages may read it, as vLLM's do.
"""

import contextlib
import hashlib
import http.client
import json
import os
import socket
import socketserver
import sys
import threading
import time
import urllib.parse
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import MappingProxyType
from typing import Any

RUN = Path("/run/tandem")
# Seconds; UNSEEN in orchestrator/activator/draining.py, which is not here.
UNSEEN = 0.01
SEEN: list[dict[str, Any]] = []
RELEASED = threading.Condition()
# To another path in its place, and at a byte a second.
STEERING = {"X-Accel-Redirect": "/v1/realtime?model=deaf", "X-Accel-Limit-Rate": "1", "X-Accel-Charset": "utf-7"}
# What GET /v1/models answers.
LISTED = ["{}"]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    name = ""

    def say(self, status: int, body: Any, more: Mapping[str, str] = MappingProxyType({})) -> None:
        text = (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.send_header("Access-Control-Allow-Origin", "https://of-the-server.example.org")
        self.send_header("Access-Control-Allow-Credentials", "true")
        for name, value in more.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the name is http.server's)
        pass

    def address_string(self) -> str:
        return "-"


class Answering(Handler):
    def do_GET(self) -> None:
        if self.headers.get("Upgrade") == "websocket":
            self.echo()
        elif self.path == "/v1/models":
            self.list()
        else:
            self.do_POST()

    def list(self) -> None:
        SEEN.append({"path": self.path, "headers": {key.lower(): value for key, value in self.headers.items()}})
        if LISTED[0] == "wait":
            with RELEASED:
                RELEASED.wait(60)
        self.say(200, LISTED[0])

    def echo(self) -> None:
        """Change to another protocol, which says back what it hears."""
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.end_headers()
        self.wfile.flush()
        while heard := self.connection.recv(1000):
            self.connection.sendall(heard)
        self.close_connection = True

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        got = {
            "by": self.name,
            "method": self.command,
            "path": self.path,
            "headers": {key.lower(): value for key, value in self.headers.items()},
            "sha256": hashlib.sha256(body).hexdigest(),
        }
        SEEN.append(got)
        is_json = body and "multipart" not in self.headers.get("Content-Type", "")
        do = json.loads(body).get("do") if is_json else None
        if do == "die":
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
        elif do == "wait":
            self.wait(got)
        elif do == "flood":
            self.flood()
        else:
            self.say(500 if do == "fail" else 200, got, STEERING if do == "steer" else {})

    def wait(self, got: dict[str, Any]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        with RELEASED:
            self.chunk("data: first\n\n")
            RELEASED.wait(60)
        self.chunk(f"data: {json.dumps(got)}\n\n")
        self.wfile.write(b"0\r\n\r\n")

    def flood(self) -> None:
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        with contextlib.suppress(OSError):
            for _ in range(64):
                self.wfile.write(b"x" * 1_000_000)

    def chunk(self, text: str) -> None:
        self.wfile.write(f"{len(text):x}\r\n{text}\r\n".encode())
        self.wfile.flush()


class OnSocket(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


class Listener:
    """Where requests come in; it can be taken away and put back."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.server: socketserver.BaseServer | None = None

    def there(self) -> None:
        if self.where.isdigit():
            self.server = ThreadingHTTPServer(("0.0.0.0", int(self.where)), Answering)
        else:
            Path(self.where).unlink(missing_ok=True)
            self.server = OnSocket(self.where, Answering)
            Path(self.where).chmod(0o666)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def gone(self, *, stale: bool) -> None:
        if self.server is not None:
            self.server.shutdown()
            self.server.server_close()
            self.server = None
        if not stale and not self.where.isdigit():
            Path(self.where).unlink(missing_ok=True)


class Control(Handler):
    listener: Listener

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        verb, _, name = path[1:].partition("/")
        self.say(200, getattr(self, f"do_{verb.replace('-', '_')}")(name or query))

    def do_seen(self, _: str) -> list[dict[str, Any]]:
        return SEEN

    def do_release(self, _: str) -> None:
        with RELEASED:
            RELEASED.notify_all()

    def do_lists(self, said: str) -> None:
        LISTED[0] = urllib.parse.unquote(said)

    def do_leave(self, how: str) -> None:
        self.listener.gone(stale=how == "stale")

    def do_return(self, _: str) -> None:
        self.listener.there()

    def do_open(self, name: str) -> None:
        self.do_close(name)
        try:
            where = f"{socket.gethostbyname(name)}:8000"
        except OSError:
            where = "nowhere"
        (RUN / "open" / name).symlink_to(where)

    def do_states(self, said: str) -> None:
        (RUN / "states.json").write_text(urllib.parse.unquote(said))

    def do_close(self, name: str) -> None:
        link = RUN / "open" / name
        if link.is_symlink():
            link.unlink()
            # As the activator: for so long the router may still go by it.
            time.sleep(UNSEEN)

    def do_asleep(self, name: str) -> None:
        (RUN / "asleep" / name).touch()

    def do_awake(self, name: str) -> None:
        (RUN / "asleep" / name).unlink(missing_ok=True)

    def do_in_flight(self, _: str) -> Any:
        router = http.client.HTTPConnection("router")
        router.sock = socket.socket(socket.AF_UNIX)
        router.sock.connect(str(RUN / "router.sock"))
        router.request("GET", "/in-flight")
        return json.load(router.getresponse())


def main(name: str, where: str) -> None:
    Handler.name = name
    if not where.isdigit():
        for folder in ("open", "asleep"):
            (RUN / folder).mkdir(exist_ok=True)
    Control.listener = Listener(where)
    Control.listener.there()
    print(f"{name} is there, as user {os.getuid()}", flush=True)
    ThreadingHTTPServer(("0.0.0.0", 9000), Control).serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
