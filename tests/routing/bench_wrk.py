"""The load of the router's benchmark: runs wrk, which Debian and others package, and reads what it saw."""

import contextlib
import math
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SCRIPT = Path(__file__).with_name("bench.lua")
PATH = "/v1/chat/completions"


class CannotMeasureError(Exception):
    """What stands in the way of measuring; the text says what it is."""


@dataclass(frozen=True)
class Sample:
    """What wrk saw: requests answered, how many a second, and milliseconds from their starts to their answers' ends."""

    requests: int
    rate: float
    median: float
    p99: float
    longest: float
    # Answers that are errors, and connections that broke. With no answer at all the times are endless.
    refused: int = 0
    broken: int = 0
    # Milliseconds of a core that the contender itself took for each.
    cpu: float = math.nan


def read(text: str) -> Sample:
    """Understand the line that bench.lua has wrk write last."""
    words = text.splitlines()[-1].split() if text.strip() else []
    if len(words) != 8 or words[0] != "seen":
        raise CannotMeasureError(f"wrk did not say what it saw: {text!r}")
    requests, took, median, p99, longest, refused, broken = map(int, words[1:])
    if requests == 0:
        return Sample(0, 0, math.inf, math.inf, math.inf, refused, broken)
    return Sample(requests, requests / (took / 1e6), median / 1000, p99 / 1000, longest / 1000, refused, broken)


def threads(connections: int, cores: int) -> int:
    """wrk's threads: a quarter of the cores, as a power of two that divides the connections."""
    found = 1
    while found * 2 <= cores // 4 and connections % (found * 2) == 0:
        found *= 2
    return found


def argv(port: int, connections: int, seconds: int) -> list[str]:
    """The command line. A slow answer must count too, and wrk forgets what takes longer than its timeout."""
    many = threads(connections, os.cpu_count() or 1)
    return [
        "wrk", f"-t{many}", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s", "-s", str(SCRIPT),
        f"http://127.0.0.1:{port}{PATH}",
    ]  # fmt: skip


def run(port: int, body: Path, connections: int, seconds: int, *, pause: int = 0) -> Sample:
    """Send this body over so many connections, for so long; pause: milliseconds at the mean, before each request."""
    with running(port, body, connections, seconds, pause=pause) as process:
        seen, _ = process.communicate(timeout=seconds + 60)
    return read(seen)


@contextlib.contextmanager
def running(
    port: int, body: Path, connections: int, seconds: int, *, pause: int = 0
) -> Iterator["subprocess.Popen[str]"]:
    """The same, while something else is done; it is ended with the block."""
    environment = {**os.environ, "BENCH_BODY": str(body), "BENCH_PAUSE": str(pause)}
    with subprocess.Popen(
        argv(port, connections, seconds), env=environment, stdout=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL
    ) as process:
        try:
            yield process
        finally:
            process.kill()
