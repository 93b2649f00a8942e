"""HTTP for tests that need every byte: one connection, requests as they are given, answers as they come."""

import contextlib
import socket
from collections.abc import Iterable
from dataclasses import dataclass, field

# Seconds for an answer, or the next piece of it, also to the largest body.
PATIENCE = 180.0


class Broken(Exception):  # noqa: N818 (what came of a connection, and no error of ours)
    """The connection ended before a whole answer."""


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def closes(self) -> bool:
        return self.headers.get("connection", "").lower() == "close"


@dataclass
class Connection:
    """One connection to a port of 127.0.0.1."""

    port: int
    patience: float = PATIENCE
    _socket: socket.socket = field(init=False, repr=False)
    _buffer: bytes = b""

    def __post_init__(self) -> None:
        self._socket = socket.create_connection(("127.0.0.1", self.port), self.patience)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, data: bytes) -> None:
        """Send as much as the other side takes: it may answer and close before it has all."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._socket.sendall(data)

    def answer(self) -> Answer:
        """Read one answer."""
        head = self._until(b"\r\n\r\n")
        line, *rest = head[:-4].decode("latin-1").split("\r\n")
        headers = {name.strip().lower(): value.strip() for name, _, value in (each.partition(":") for each in rest)}
        status = int(line.split(" ")[1])
        if status < 200 or status in (204, 304):
            return self.answer() if status < 200 else Answer(status, headers, b"")
        if headers.get("transfer-encoding", "").lower() == "chunked":
            return Answer(status, headers, b"".join(self._chunks()))
        if "content-length" in headers:
            return Answer(status, headers, self._exactly(int(headers["content-length"])))
        return Answer(status, headers, self.rest())

    def rest(self, *, quiet: float | None = None) -> bytes:
        """Read until the other side closes; with quiet, until it has said nothing for so many seconds."""
        self._socket.settimeout(self.patience if quiet is None else quiet)
        try:
            while piece := self._socket.recv(65536):
                self._buffer += piece
        except ConnectionResetError:
            pass
        except TimeoutError:
            if quiet is None:
                raise
        finally:
            self._socket.settimeout(self.patience)
        data, self._buffer = self._buffer, b""
        return data

    def finish(self) -> None:
        """Say that nothing more comes."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._socket.close()

    def _more(self) -> None:
        try:
            piece = self._socket.recv(65536)
        except ConnectionResetError as error:
            raise Broken("reset") from error
        if not piece:
            raise Broken(f"closed after {self._buffer[:200]!r}")
        self._buffer += piece

    def _until(self, end: bytes) -> bytes:
        while end not in self._buffer:
            self._more()
        taken, end, self._buffer = self._buffer.partition(end)
        return taken + end

    def _exactly(self, length: int) -> bytes:
        while len(self._buffer) < length:
            self._more()
        taken, self._buffer = self._buffer[:length], self._buffer[length:]
        return taken

    def _chunks(self) -> Iterable[bytes]:
        while length := int(self._until(b"\r\n").split(b";")[0], 16):
            yield self._exactly(length)
            self._exactly(2)
        self._until(b"\r\n")


def request(method: str, path: str, headers: Iterable[tuple[str, str]], body: bytes, *, chunk: int = 0) -> bytes:
    """Write a request; in chunks of so many bytes, or with its length."""
    lines = [f"{method} {path} HTTP/1.1", "Host: router", *(f"{name}: {value}" for name, value in headers)]
    lines.append("Transfer-Encoding: chunked" if chunk else f"Content-Length: {len(body)}")
    head = "\r\n".join([*lines, "", ""]).encode("latin-1")
    if not chunk:
        return head + body
    pieces = (body[at : at + chunk] for at in range(0, len(body), chunk))
    return head + b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def answers(data: bytes) -> list[Answer]:
    """Take apart all that came over a connection; what has no status line counts as one of status 0."""
    found: list[Answer] = []
    while data:
        if not data.startswith(b"HTTP/1."):
            return [*found, Answer(0, {}, data)]
        head, _, data = data.partition(b"\r\n\r\n")
        line, *rest = head.decode("latin-1").split("\r\n")
        headers = {name.strip().lower(): value.strip() for name, _, value in (each.partition(":") for each in rest)}
        status = int(line.split(" ")[1])
        body = b""
        # An answer to HEAD tells a length and has no body, so that the next one follows.
        if status >= 200 and status not in (204, 304) and not data.startswith(b"HTTP/1."):
            body, data = _body(headers, data)
        found.append(Answer(status, headers, body))
    return found


def _body(headers: dict[str, str], data: bytes) -> tuple[bytes, bytes]:
    if headers.get("transfer-encoding", "").lower() == "chunked":
        body = b""
        while data:
            size, _, data = data.partition(b"\r\n")
            length = int(size.split(b";")[0], 16)
            body, data = body + data[:length], data[length + 2 :]
            if not length:
                break
        return body, data
    length = int(headers.get("content-length", len(data)))
    return data[:length], data[length:]
