"""The HTTP side that the stand-ins of hubs have in common: sends files, misbehaves as told, keeps a log.

Besides what a hub answers there is, whatever the switches say,
  POST /control {"rate": 1000000, ...}   sets switches (hub_switches.py) and answers all of them; so does GET
  POST /control {"reset": true, ...}     makes it a good hub before it sets others
  POST /control {"reset_log": true}      forgets the log; requests under way stay, with what they send from then on
  GET /log                               {"requests": [...], "totals": {"sent": N, "by_file": {path: N}}}
"""

import argparse
import fcntl
import json
import os
import re
import select
import socket
import ssl
import struct
import sys
import termios
import time
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import parse_qs, unquote, urlsplit

import hub_switches
from hub_log import Entry, Log, Pace
from hub_tree import Item, Repositories

PORTAL = b"<html><head><title>Welcome</title></head><body>Please log in to this network.</body></html>\n"
PIECE = 256 * 1024
PACED = 32 * 1024
# Little of what was handed over is then still on its way, when a client is killed.
SEND_BUFFER = 512 * 1024
LOOK_AGAIN = 0.02


class CutError(Exception):
    """The connection is gone, or is to go."""


class Hub(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self, address: tuple[str, int], handler: "type[HubHandler]", switches: hub_switches.Switches,
        repositories: Repositories,
    ) -> None:  # fmt: skip
        super().__init__(address, handler)
        self.switches, self.repositories = switches, repositories
        self.log, self.pace = Log(), Pace()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a client that hangs up, all of a bug."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class HubHandler(BaseHTTPRequestHandler):
    """A connection; subclasses answer() as their hub does."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Hub
    entry: Entry

    def answer(self, path: str, query: dict[str, str], body: bytes) -> None:
        raise NotImplementedError

    def error_json(self, status: int) -> Any:
        """The body of an answer with a status, of the server's and not for any one file."""
        return {"error": self.responses[status][0] if status in self.responses else "error"}

    def repository_and_file(self, path: str, query: dict[str, str]) -> tuple[str, str, str]:
        """What a request is about: ORG/NAME, a path in it, a revision; each may be ""."""
        raise NotImplementedError

    def log_message(self, *_: Any) -> None:
        pass

    def setup(self) -> None:
        self.request.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        super().setup()
        self.pace = Pace()

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        url = urlsplit(self.path)
        path, query = unquote(url.path), {key: values[0] for key, values in parse_qs(url.query).items()}
        if path in {"/control", "/log"}:
            self._steer(path, body)
            return
        self.entry = Entry(self.command, path, *self.repository_and_file(path, query), self.headers.get("Range"),
                           *self._credentials(), time.time())  # fmt: skip
        self.server.log.add(self.entry)
        try:
            if not self._misbehaved():
                self.answer(path, query, body)
        except FileNotFoundError:
            # What an earlier commit had, and nobody kept.
            self.json(410, self.error_json(410))
        except (CutError, OSError):
            self.entry.cut = self.close_connection = True
        finally:
            self.entry.done = True
            self._note()

    do_HEAD = do_POST = do_GET  # noqa: N815 (http.server's names)

    def _credentials(self) -> tuple[bool, bool]:
        """Whether something came that could be a token, and whether it was the token."""
        bearer = self.headers.get("Authorization", "").removeprefix("Bearer ")
        cookies = re.findall(r"m_session_id=([^;\s]+)", self.headers.get("Cookie", ""))
        came = [value for value in (bearer, *cookies) if value]
        token = self.server.switches.token
        return bool(came), bool(token) and token in came

    def _note(self) -> None:
        # One write: threads share stderr.
        noted = {"m": self.command, "p": self.path, "s": self.entry.status, "range": self.entry.range,
                 "auth": self.entry.auth, "sent": self.entry.sent}  # fmt: skip
        sys.stderr.write(json.dumps(noted) + "\n")
        sys.stderr.flush()

    def _steer(self, path: str, body: bytes) -> None:
        if path == "/log":
            self._plain(200, self.server.log.as_json())
            return
        try:
            wanted = json.loads(body or b"{}")
            if not isinstance(wanted, dict):
                raise ValueError("should be a JSON object")
            reset, good = wanted.pop("reset_log", False), wanted.pop("reset", False)
            self.server.switches.change({**hub_switches.GOOD, **wanted} if good else wanted)
        except ValueError as error:
            self._plain(400, {"error": str(error)})
            return
        if reset:
            self.server.log.reset()
        self._plain(200, self.server.switches.state())

    def _misbehaved(self) -> bool:
        """Whether the request got what all get at the moment."""
        switches = self.server.switches
        if switches.hang:
            self._wait(lambda: switches.hang)
            raise CutError
        if switches.down:
            raise CutError
        if switches.unavailable:
            self.json(switches.unavailable, self.error_json(switches.unavailable))
        elif switches.rubbish:
            self.respond(200, PORTAL, {"Content-Type": "text/html"})
        return bool(switches.unavailable or switches.rubbish)

    def respond(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        """Answer with a body that is no file of a repository."""
        self.entry.status = status
        if self.command != "HEAD":
            self.server.log.count(self.entry, len(body))
        self._send(status, body, headers)

    def json(self, status: int, data: Any, headers: dict[str, str] | None = None) -> None:
        self.respond(status, json.dumps(data).encode(), {"Content-Type": "application/json", **(headers or {})})

    def _plain(self, status: int, data: Any) -> None:
        self._send(status, json.dumps(data).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def list_slowly(self) -> None:
        """What a listing does before it answers."""
        until = time.monotonic() + self.server.switches.slow_listing
        self._wait(lambda: time.monotonic() < until)

    def listed_size(self, repository: str, item: Item) -> int:
        wrong = self.server.switches.wrong_size
        return wrong.get(item.path, wrong.get(f"{repository}/{item.path}", item.size))

    def opened(self, repository: str) -> bool:
        """Whether this client may see a repository that there is."""
        return repository not in self.server.switches.private or self.entry.authorized

    def send_file(self, stream: BinaryIO, repository: str, item: Item, headers: dict[str, str]) -> None:
        """Answer with a file, or the range of it that was asked for."""
        size, no_range = item.size, self.server.switches.no_range
        start, end, status = 0, size, 200
        asked = None if no_range else re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if asked and asked[0] != "bytes=-":
            status = 206
            start = int(asked[1]) if asked[1] else max(0, size - int(asked[2]))
            end = min(size, int(asked[2]) + 1) if asked[1] and asked[2] else size
            if start >= end:
                self.respond(416, b"", {"Content-Range": f"bytes */{size}"})
                return
            headers = {**headers, "Content-Range": f"bytes {start}-{end - 1}/{size}"}
        self.entry.status, self.entry.body = status, self.command != "HEAD"
        self.send_response(status)
        ranges = {} if no_range else {"Accept-Ranges": "bytes"}
        given = {"Content-Type": "application/octet-stream", "Content-Length": str(end - start), **ranges, **headers}
        for name, value in given.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            stream.seek(start)
            self._stream(stream, repository, item, start, end)

    def _stream(self, stream: BinaryIO, repository: str, item: Item, start: int, end: int) -> None:
        switches, buffer, at, bad = self.server.switches, memoryview(bytearray(PIECE)), start, item.size // 2
        while at < end:
            limit = self._limit(at - start)
            piece = buffer[: min(limit, end - at)]
            read = stream.readinto(piece)  # type: ignore[attr-defined]
            if not read:
                raise CutError  # the file became shorter
            piece = piece[:read]
            if at <= bad < at + read and switches.corrupts(repository, item.path):
                piece[bad - at] ^= 255
            self.pace.wait(read, switches.rate)
            self.server.pace.wait(read, switches.rate_total)
            self._hand_over(piece)
            at += read

    def _limit(self, sent: int) -> int:
        """How many bytes to send next, after so many of this answer; ends the connection where it is to end."""
        switches = self.server.switches
        self._wait(lambda: switches.stall_after is not None and sent >= switches.stall_after and not switches.down)
        stall, die = switches.stall_after, switches.die_after
        if switches.down or (die is not None and sent >= die and switches.dies()):
            if switches.down or not switches.die_gently:
                self._reset()
            raise CutError
        # Small pieces make a low rate even; and at the end of a killed client what is on its way is little.
        rates = [rate for rate in (switches.rate, switches.rate_total) if rate]
        limit = min([PACED if rates else PIECE, *(max(1, int(rate / 20)) for rate in rates)])
        return min([limit, *(at - sent for at in (stall, die) if at is not None and at > sent)])

    def _hand_over(self, piece: memoryview) -> None:
        """Send all of it. It is counted before, so that who has a byte finds it counted."""
        while piece:
            self.server.log.count(self.entry, len(piece))
            done = 0
            try:
                done = self.connection.send(piece)
            finally:
                self.server.log.count(self.entry, done - len(piece))
            piece = piece[done:]

    def _wait(self, still: Callable[[], bool]) -> None:
        """Wait as long as still() says so and the client is there."""
        poller = select.poll()
        poller.register(self.connection, select.POLLRDHUP)
        while still():
            if poller.poll(1000 * LOOK_AGAIN):
                raise CutError

    def _reset(self) -> None:
        """End the connection so that the client gets all that was sent, and then an error instead of an end."""
        # A client that has stopped for a while gets it all the same.
        until = time.monotonic() + 180
        while _on_its_way(self.connection) and time.monotonic() < until:
            time.sleep(LOOK_AGAIN / 10)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(self.connection.detach())


def _on_its_way(connection: socket.socket) -> int:
    """How many bytes the other side has not confirmed."""
    with suppress(OSError):
        return int(struct.unpack("i", fcntl.ioctl(connection, termios.TIOCOUTQ, b"\0\0\0\0"))[0])
    return 0


def main(handler: type[HubHandler], text: str) -> None:
    """Run a stand-in; its first line on stdout is its base URL, with its port when 0 asked for any."""
    parser = argparse.ArgumentParser(description=text)
    parser.add_argument("root", type=Path, help="the folder that has ORG/NAME/FILES")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--tls", nargs=2, metavar=("CERT", "KEY"))
    parser.add_argument("--history", action="store_true", help="keep serving earlier commits' small files")
    hub_switches.add_options(parser)
    given = parser.parse_args()
    try:
        switches = hub_switches.from_options(given)
    except ValueError as error:
        parser.error(str(error))
    hub = Hub((given.host, given.port), handler, switches, Repositories(given.root, history=given.history))
    if given.tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*given.tls)
        hub.socket = context.wrap_socket(hub.socket, server_side=True)
    print(f"http{'s' if given.tls else ''}://{given.host}:{hub.server_port}", flush=True)
    with suppress(KeyboardInterrupt):
        hub.serve_forever()
