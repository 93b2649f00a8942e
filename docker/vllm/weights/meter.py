"""How far a pull is: bytes, rate and time left, as lines for people or events for programs; and its rate limit."""

import json
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

# Seconds between two lines for a person, and between two events for a program that redraws.
LINE_SECONDS = 10.0
EVENT_SECONDS = 0.5
# The rate is that of so many last seconds.
WINDOW_SECONDS = 30.0
# Files that are named in a line; in an event all are.
NAMED = 2


class Teller:
    """Says what happens, in one write each: the clients' threads tell at the same time."""

    def __init__(self, *, events: bool) -> None:
        """With events a JSON object a line: its kind as `event`, the words for a person as `text`."""
        self.events = events

    def say(self, event: str, text: str, **more: Any) -> None:
        line = (
            json.dumps({"event": event, "text": text, **more}, ensure_ascii=False) if self.events else f"tandem: {text}"
        )
        stream = sys.stderr if event == "error" and not self.events else sys.stdout
        stream.write(f"{line}\n")
        stream.flush()


class Limit:
    """Keeps all threads together below a rate of bytes a second; 0 is no limit."""

    def __init__(
        self, rate: int, clock: Callable[[], float] = time.monotonic, pause: Callable[[float], None] = time.sleep
    ) -> None:
        self._rate = rate
        self._clock = clock
        self._pause = pause
        self._next = 0.0
        self._lock = threading.Lock()

    def take(self, size: int) -> None:
        """Wait until so many bytes may have come. The client does not read on meanwhile, and TCP slows the sender."""
        if not self._rate or size <= 0:
            return
        with self._lock:
            now = self._clock()
            self._next = max(self._next, now) + size / self._rate
            wait = self._next - now
        self._pause(wait)


class Progress:
    """The bytes of each file of a pull, and the rate that they come at."""

    def __init__(self, sizes: dict[str, int], present: dict[str, int], clock: Callable[[], float]) -> None:
        """Sizes and what is there of them, in bytes, by file."""
        self._sizes = sizes
        self._bytes = dict(present)
        self._clock = clock
        self._lock = threading.Lock()
        self._samples: deque[tuple[float, int]] = deque([(clock(), self.bytes)])

    @property
    def bytes(self) -> int:
        """What is there of all files."""
        return sum(self._bytes.values())

    @property
    def total(self) -> int:
        """What all files have."""
        return sum(self._sizes.values())

    def at(self, name: str, size: int) -> int:
        """Note that a file has so many bytes; how many of them are new."""
        with self._lock:
            new = size - self._bytes.get(name, 0)
            self._bytes[name] = size
        return new

    def snapshot(self) -> dict[str, Any]:
        """Give bytes and total, rate (bytes a second), seconds_left (None: not known), and the files under way."""
        with self._lock:
            now, done = self._clock(), self.bytes
            self._samples.append((now, done))
            while len(self._samples) > 2 and now - self._samples[1][0] >= WINDOW_SECONDS:
                self._samples.popleft()
            since, before = self._samples[0]
            rate = max(0.0, (done - before) / (now - since)) if now > since else 0.0
            files = [
                {"name": name, "bytes": self._bytes[name], "size": size}
                for name, size in self._sizes.items()
                if 0 < self._bytes.get(name, 0) < size
            ]
        left = (self.total - done) / rate if rate else None
        return {"bytes": done, "total": self.total, "rate": round(rate), "seconds_left": left, "files": files}


def words(model: str, verb: str, seen: dict[str, Any]) -> str:
    """Say a snapshot in one line."""
    if not seen["total"]:
        return f"{verb} {model}"
    text = f"{verb} {model}: {percent(seen['bytes'], seen['total'])} of {amount(seen['total'])}"
    if seen["rate"]:
        text += f", {amount(seen['rate'])}/s"
        if seen["seconds_left"] is not None and seen["bytes"] < seen["total"]:
            text += f", {duration(seen['seconds_left'])} left"
    under_way = [f"{file['name']} {percent(file['bytes'], file['size'])}" for file in seen["files"][:NAMED]]
    more = len(seen["files"]) - NAMED
    return text + (f" ({', '.join(under_way)}{f', {more} more' if more > 0 else ''})" if under_way else "")


def percent(part: int, whole: int) -> str:
    """Say a share; 100 % is only what is whole."""
    return f"{min(99, 100 * part // whole) if part < whole else 100}%" if whole else "100%"


def amount(size: float) -> str:
    """Say bytes in the units that disks are sold in."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size:.0f} B"


def duration(seconds: float) -> str:
    """Say a time, roughly."""
    minutes = round(seconds / 60)
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


class Every:
    """Does something again and again, on a thread of its own, while its block runs."""

    def __init__(self, seconds: float, do: Callable[[], None]) -> None:
        self._seconds = seconds
        self._do = do
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Every":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._end.wait(self._seconds):
            self._do()


class Ticker(Every):
    """Tells of a progress as often as somebody wants to know."""

    def __init__(self, teller: Teller, model: str, verb: str, snapshot: Callable[[], dict[str, Any]]) -> None:
        def tell() -> None:
            seen = snapshot()
            teller.say("progress", words(model, verb, seen), model=model, **seen)

        super().__init__(EVENT_SECONDS if teller.events else LINE_SECONDS, tell)
