"""Counts what happened, and prints it in Prometheus' text form."""

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from itertools import accumulate
from typing import get_args

from orchestrator.switch.world import Server, State

PREFIX = "tandem_"
# Seconds: from a wake within a breath to a start that compiles.
BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 60, 120, 300, 600, 1200)
# How each kind of a run can end. A counter is there from the beginning, or its first event would be none to a rate().
_OUTCOMES = (
    *((kind, outcome) for kind in ("cold", "wake") for outcome in ("ready", "failed", "abandoned")),
    *(("rest", outcome) for outcome in ("rested", "failed")),
)

Samples = Iterable[tuple[str, float]]


class _Histogram:
    """Durations in seconds by labels, as Prometheus' own clients count them."""

    def __init__(self, *labels: str) -> None:
        """Begin with none; labels are those of which it is known that there will be some."""
        self._counts: dict[str, list[int]] = defaultdict(lambda: [0] * (len(BUCKETS) + 1))
        self._sums: Counter[str] = Counter()
        for each in labels:
            self._counts[each] = self._counts[each]

    def observe(self, labels: str, seconds: float) -> None:
        """Count one."""
        self._counts[labels][bisect_left(BUCKETS, seconds)] += 1
        self._sums[labels] += seconds  # type: ignore[assignment]  # Counter holds any number

    def text(self, name: str, words: str) -> str:
        """Print it: how many lasted at most so long, and all of them."""
        lines = [_head(name, "histogram", words)]
        for labels, counts in sorted(self._counts.items()):
            limits = [*(f"{limit:g}" for limit in BUCKETS), "+Inf"]
            found = zip(limits, accumulate(counts), strict=True)
            buckets = [(_joined(labels, f'le="{limit}"'), count) for limit, count in found]
            lines.append(_lines(f"{name}_bucket", buckets))
            lines.append(_lines(f"{name}_sum", [(labels, self._sums[labels])]))
            lines.append(_lines(f"{name}_count", [(labels, sum(counts))]))
        return "".join(lines)


class Metrics:
    """Counts since the activator's start."""

    def __init__(self) -> None:
        self._switches: Counter[tuple[str, str]] = Counter(dict.fromkeys(_OUTCOMES, 0))
        self._seconds = _Histogram()
        self._waits = _Histogram("")
        self._refused: Counter[str] = Counter()
        self.given_up = 0

    def switched(self, kind: str, outcome: str, seconds: Mapping[str, float]) -> None:
        """Count a switch, or a rest, by its kind, outcome and the seconds of its phases."""
        self._switches[kind, outcome] += 1
        for phase, took in seconds.items():
            self._seconds.observe(f'kind="{kind}",phase="{phase}"', took)

    def waited(self, seconds: float) -> None:
        """Count a request that was forwarded after so long."""
        self._waits.observe("", seconds)

    def refused(self, code: str) -> None:
        """Count a request that was answered with an error."""
        self._refused[code] += 1

    def text(self, servers: Mapping[str, Server], waiting: int, asleep: Mapping[str, int]) -> str:
        """Print everything. asleep is what was measured of each GPU that sleepers keep, in bytes."""
        states = [
            (f'model="{name}",state="{state}"', int(server.state == state))
            for name, server in servers.items()
            for state in get_args(State)
        ]
        switches = [(f'kind="{kind}",outcome="{out}"', count) for (kind, out), count in sorted(self._switches.items())]
        refused = [(f'code="{code}"', count) for code, count in sorted(self._refused.items())]
        kept = [(f'model="{name}"', size) for name, size in asleep.items()]
        parts = [
            _family("switches_total", "counter", "Switches and rests by kind and outcome.", switches),
            self._seconds.text("switch_seconds", "Seconds of the phases of switches and rests."),
            self._waits.text("queue_wait_seconds", "Seconds that requests waited which were forwarded then."),
            _family("queue_length", "gauge", "Requests that wait for their model.", [("", waiting)]),
            _family(
                "holds_given_up_total", "counter", "Requests whose client, or hold_timeout, ended the wait.",
                [("", self.given_up)],
            ),
            _family("refused_total", "counter", "Requests that were refused, by code.", refused),
            _family("state", "gauge", "1 for the state that a model is in.", states),
            _family("asleep_gpu_bytes", "gauge", "What a model that sleeps keeps of each of its GPUs.", kept),
        ]  # fmt: skip
        return "".join(parts)


def _family(name: str, kind: str, words: str, samples: Samples) -> str:
    return _head(name, kind, words) + _lines(name, samples)


def _head(name: str, kind: str, words: str) -> str:
    return f"# HELP {PREFIX}{name} {words}\n# TYPE {PREFIX}{name} {kind}\n"


def _lines(name: str, samples: Samples) -> str:
    return "".join(f"{PREFIX}{name}{f'{{{labels}}}' if labels else ''} {value:.10g}\n" for labels, value in samples)


def _joined(*labels: str) -> str:
    return ",".join(label for label in labels if label)
