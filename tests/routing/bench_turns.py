"""What a router adds, request by request: each contender in turn gets one request, and all get the next one.

What the machine does besides falls on all alike, so that differences of some microseconds show where it is busy.
"""

import contextlib
import socket
import time
from collections.abc import Iterator
from statistics import median

from tests.routing.bench_wrk import PATH, CannotMeasureError


class Client:
    """One connection that is kept, as long as the other side keeps it."""

    def __init__(self, port: int, body: bytes) -> None:
        self._address = ("127.0.0.1", port)
        head = (
            f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        )
        self._request = f"{head}\r\n\r\n".encode() + body
        self._socket: socket.socket | None = None

    def ask(self) -> float:
        """Send the request; give the milliseconds until its answer was there."""
        connection = self._socket or self._connect()
        began = time.perf_counter()
        connection.sendall(self._request)
        head, _, rest = self._read(connection).partition(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        missing = next(int(line[15:]) for line in lines if line.startswith(b"content-length:")) - len(rest)
        while missing > 0:
            missing -= len(self._read(connection))
        took = time.perf_counter() - began
        if not lines[0].startswith(b"http/1.1 200"):
            raise CannotMeasureError(f"port {self._address[1]}: {lines[0].decode()}")
        if b"connection: close" in lines:
            self.close()
        return took * 1000

    def close(self) -> None:
        if self._socket:
            self._socket.close()
        self._socket = None

    def _connect(self) -> socket.socket:
        self._socket = socket.create_connection(self._address, timeout=30)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self._socket

    @staticmethod
    def _read(connection: socket.socket) -> bytes:
        data = connection.recv(65536)
        if not data:
            raise ConnectionError("closed before the answer was whole")
        return data


@contextlib.contextmanager
def clients(ports: dict[str, int], body: bytes) -> Iterator[dict[str, Client]]:
    """One for each port, until the block ends."""
    made = {name: Client(port, body) for name, port in ports.items()}
    try:
        yield made
    finally:
        for client in made.values():
            client.close()


def take(ports: dict[str, int], body: bytes, seconds: float) -> dict[str, list[float]]:
    """Give everybody requests in turn for so long; give each one's times, the nth of all belonging together."""
    times: dict[str, list[float]] = {name: [] for name in ports}
    with clients(ports, body) as asked:
        for client in asked.values():
            client.ask()
        order, deadline = list(asked), time.monotonic() + seconds
        while time.monotonic() < deadline:
            for name in order:
                times[name].append(asked[name].ask())
            # Nobody always comes after the same one.
            order = order[1:] + order[:1] if len(times[order[0]]) % 2 else order[::-1]
    return times


def added(times: dict[str, list[float]], ours: str, other: str) -> float:
    """The median of the differences of those that belong together."""
    return median(mine - theirs for mine, theirs in zip(times[ours], times[other], strict=True))
