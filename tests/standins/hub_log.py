"""What a stand-in of a hub was asked for and how much it sent, and the pace at which it sends."""

import threading
import time
from dataclasses import dataclass
from typing import Any


@dataclass
class Entry:
    """One request of the log; sent counts the bytes of the body that were handed to the socket."""

    method: str
    path: str
    repository: str
    file: str
    revision: str
    range: str | None
    auth: bool
    authorized: bool
    started: float
    status: int | None = None
    sent: int = 0
    body: bool = False
    cut: bool = False
    done: bool = False

    def as_json(self) -> dict[str, Any]:
        said = {name: value for name, value in vars(self).items() if name not in {"file", "body"}}
        return {**said, "FilePath": self.file}


class Log:
    """What was asked for, in the order in which it was."""

    def __init__(self) -> None:
        self._entries: list[Entry] = []
        self._lock = threading.Lock()

    def add(self, entry: Entry) -> None:
        with self._lock:
            self._entries.append(entry)

    def count(self, entry: Entry, size: int) -> None:
        with self._lock:
            entry.sent += size

    def reset(self) -> None:
        with self._lock:
            self._entries = [entry for entry in self._entries if not entry.done]
            for entry in self._entries:
                entry.sent = 0

    def as_json(self) -> dict[str, Any]:
        with self._lock:
            by_file: dict[str, int] = {}
            for entry in self._entries:
                if entry.body:
                    by_file[entry.file] = by_file.get(entry.file, 0) + entry.sent
            totals = {"sent": sum(by_file.values()), "by_file": by_file}
            return {"requests": [entry.as_json() for entry in self._entries], "totals": totals}


class Pace:
    """Lets so many bytes a second through, evenly, for all who share it."""

    def __init__(self) -> None:
        self._free = 0.0
        self._lock = threading.Lock()

    def wait(self, size: int, rate: float) -> None:
        if rate:
            with self._lock:
                now = time.monotonic()
                self._free = max(self._free, now) + size / rate
                delay = self._free - now
            time.sleep(delay)
