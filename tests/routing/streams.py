"""Clients that stream: each knows every byte that it should get, and its own tag is in each."""

import asyncio
import json
import resource
import time
from collections import Counter
from dataclasses import dataclass, field

from tests.routing.bed import NAMES, READY
from tests.routing.reference import CHAT, JSON_TYPE
from tests.routing.wire import request

MODELS = ("alpha", "org/beta", "gamma", "beta", "alpha-too", "org/gamma", "constructor")


def raise_limits() -> None:
    """Let this process have as many connections as it may."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


@dataclass
class Tally:
    """What came of the answers."""

    whole: int = 0
    wrong: Counter[str] = field(default_factory=Counter)

    def count(self, complaint: str) -> None:
        if complaint:
            self.wrong[complaint] += 1
        else:
            self.whole += 1

    def __str__(self) -> str:
        first = "".join(f"\n  {count} times: {complaint}" for complaint, count in self.wrong.most_common(5))
        return f"{self.whole} answers whole, {self.wrong.total()} not{first}"


def model_of(tag: str) -> str:
    """The model that a client asks for."""
    return MODELS[sum(tag.encode()) % len(MODELS)]


def expected(tag: str, events: int) -> bytes:
    """Every byte of the stream that a stand-in gives."""
    model = model_of(tag)
    by = NAMES[model] if NAMES[model] in READY else "activator"
    told = ({"by": by, "model": model, "tag": tag, "number": number} for number in range(events))
    return ("".join(f"data: {json.dumps(each)}\n\n" for each in told) + "data: [DONE]\n\n").encode()


async def stream(
    port: int, tag: str, *, events: int, every: float, patience: float, begun: asyncio.Event | None = None
) -> str:
    """Ask for one over a connection of its own, and hold it against what it should be; nothing if it is that."""
    # Some are long, and come in pieces.
    pad = "x" * (0, 0, 0, 3_000, 200_000)[sum(tag.encode()) % 5]
    body = {"pad": pad, "model": model_of(tag), "do": {"events": events, "every": every, "tag": tag}}
    try:
        async with asyncio.timeout(patience):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(request("POST", CHAT, (JSON_TYPE, ("Connection", "close")), json.dumps(body).encode()))
                head = await reader.readuntil(b"\r\n\r\n")
                if begun is not None:
                    begun.set()
                got = await whole(head, reader)
            finally:
                writer.close()
    except TimeoutError:
        return "no end"
    except (OSError, EOFError, ValueError) as error:
        return f"broke off: {type(error).__name__}"
    if not head.startswith(b"HTTP/1.1 200"):
        return f"{head.split(chr(13).encode())[0].decode()}: {got[:200]!r}"
    return "" if got == expected(tag, events) else f"not its own answer: {got[:100]!r}"


async def whole(head: bytes, reader: asyncio.StreamReader) -> bytes:
    """Read a body to its end, which in chunks must be said: a connection that just ends is broken off."""
    if b"chunked" not in head.lower():
        return await reader.read()
    pieces = []
    while length := int(await reader.readuntil(b"\r\n"), 16):
        pieces.append(await reader.readexactly(length))
        await reader.readexactly(2)
    await reader.readuntil(b"\r\n")
    return b"".join(pieces)


class Plain:
    """Asks short questions one after the other over one connection, and knows how long each answer took."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.times: list[float] = []
        self.bad: list[str] = []

    async def ask(self, times: int, pause: float = 0) -> None:
        wanted = request("POST", CHAT, (JSON_TYPE,), b'{"model":"alpha"}')
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        for _ in range(times):
            began = time.perf_counter()
            writer.write(wanted)
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            body = await reader.readexactly(length)
            self.times.append(time.perf_counter() - began)
            if not head.startswith(b"HTTP/1.1 200") or json.loads(body)["read"] != "alpha":
                self.bad.append(f"{head[:40]!r} {body[:100]!r}")
            if b"connection: close" in head.lower():
                writer.close()
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            await asyncio.sleep(pause)
        writer.close()

    def at(self, share: float) -> float:
        """The time, in ms, that this share of the answers stayed below."""
        return sorted(self.times)[min(len(self.times) - 1, int(share * len(self.times)))] * 1000

    def __str__(self) -> str:
        return f"{len(self.times)} requests, median {self.at(0.5):.1f} ms, 99th percentile {self.at(0.99):.1f} ms"
