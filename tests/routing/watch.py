"""Watches the router while it is fuzzed: no process may end or grow, and what it logs and counts must make sense."""

import json
import re
import time
from dataclasses import dataclass, field

from tests.checkout import eventually
from tests.routing.bed import SERVICES, Bed
from tests.routing.client import Mismatch

# KiB that a worker may hold beyond what it held once it had seen the corpus with its largest bodies: what Lua has not
# collected yet comes and goes. A leak of 1 KiB a request would be three times that in a whole run.
GROWTH = 32 * 1024
LEVELS = ("[crit]", "[alert]", "[emerg]")
# A machine may allow fewer open files than the router asks for, and nginx goes on with those.
LIMIT = "setrlimit(RLIMIT_NOFILE"


@dataclass
class Watch:
    bed: Bed
    pids: set[int] = field(init=False)
    first: dict[int, int] = field(init=False)
    most: dict[int, int] = field(init=False)
    began: float = field(default_factory=time.time)

    def __post_init__(self) -> None:
        self.first = self.most = self.bed.workers()
        self.pids = set(self.first)

    def settled(self) -> None:
        """From here on memory counts."""
        self.look()
        self.first = self.most = self.bed.workers()

    def look(self) -> None:
        """Raise when a process is another one, or holds much more than it did."""
        now = self.bed.workers()
        if set(now) != self.pids:
            raise Mismatch(f"the router's processes were {sorted(self.pids)} and are {sorted(now)}")
        self.most = {pid: max(size, self.most[pid]) for pid, size in now.items()}
        for pid, size in now.items():
            if size > self.first[pid] + GROWTH:
                raise Mismatch(f"process {pid} held {self.first[pid]} KiB and holds {size}")

    def end(self) -> str:
        """Look for the last time, and at what was said of it all: the log, and the counts."""
        eventually(lambda: not self.bed.in_flight(), what="nothing in flight")
        self.look()
        lines, other = self.bed.logs(since=self.began)
        bad = [line for line in other if any(level in line for level in LEVELS) and LIMIT not in line]
        bad += [f"no line of JSON: {line[:1000]!r}" for line in lines if not whole(line)]
        models = set(re.findall(r'model="(.*?)"', self.bed.metrics()))
        self.bed.forget()
        bad += [f"counts of a model that nobody has: {model!r}" for model in models - {"", *SERVICES}]
        if bad:
            raise Mismatch("the router said:\n  " + "\n  ".join(bad[:10]))
        sizes = "; ".join(f"{pid}: {self.first[pid]} KiB, at most {self.most[pid]}" for pid in sorted(self.pids))
        return f"the same processes to the end; memory {sizes}; nothing in flight; {len(lines)} lines logged"


def whole(line: bytes) -> bool:
    """Whether a line of the access log is JSON, in UTF-8."""
    try:
        return isinstance(json.loads(line.decode()), dict)
    except ValueError:
        return False
