"""How long the phases of past switches took, by model, and how much is left of one under way. Pure."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

# Of each phase so many are kept: enough for a median, few enough to follow a change of the machine.
KEPT = 5
# What takes no time worth telling.
QUICK = frozenset({"close", "open"})
# What differs so much from model to model that another's seconds say nothing.
OWN = frozenset({"start", "wake"})


class History:
    """Seconds by model, kind of switch (cold, wake, rest) and phase (drain, stop, release, start, prove, …)."""

    def __init__(self, data: Any = None) -> None:
        """Take what `data()` gave before. Raises ValueError, naming the place, when it is not of that shape."""
        self._seconds: dict[tuple[str, str, str], list[float]] = {}
        for key, values in _entries({} if data is None else data):
            self._seconds[key] = values[-KEPT:]

    def add(self, model: str, kind: str, phase: str, seconds: float) -> None:
        """Remember that a phase took so long. Raises ValueError for what is no duration."""
        kept = self._seconds.setdefault((model, kind, phase), [])
        kept.append(_duration(seconds, f"{model}.{kind}.{phase}"))
        del kept[:-KEPT]

    def left(self, model: str, kind: str, phases: Sequence[str], elapsed: float) -> float | None:
        """Tell the seconds left of a switch, or None where nothing like it was seen.

        phases are the one under way, since `elapsed` seconds, and those still to come. A phase that takes longer than
        usual counts as just about to end.
        """
        usual = [self._usual(model, kind, phase) for phase in phases]
        known = [seconds for seconds in usual if seconds is not None]
        if len(known) < len(usual):
            return None
        return max(0.0, known[0] - elapsed) + sum(known[1:]) if known else 0.0

    def data(self) -> dict[str, dict[str, dict[str, list[float]]]]:
        """Give everything as JSON can hold it: model, kind, phase, seconds with the newest last."""
        found: dict[str, dict[str, dict[str, list[float]]]] = {}
        for (model, kind, phase), values in self._seconds.items():
            found.setdefault(model, {}).setdefault(kind, {})[phase] = list(values)
        return found

    def _usual(self, model: str, kind: str, phase: str) -> float | None:
        if phase in QUICK:
            return 0.0
        own = self._seconds.get((model, kind, phase))
        if own or phase in OWN:
            return median(own or [])
        return median([seconds for key, values in self._seconds.items() if key[2] == phase for seconds in values])


def median(values: Sequence[float]) -> float | None:
    """Give the middle value, or the mean of the two in the middle; None for none."""
    ordered = sorted(values)
    middle = len(ordered) // 2
    return (ordered[middle] + ordered[-1 - middle]) / 2 if ordered else None


def _entries(data: Any) -> Iterator[tuple[tuple[str, str, str], list[float]]]:
    for model, kinds in _table(data, "history").items():
        for kind, phases in _table(kinds, model).items():
            for phase, values in _table(phases, f"{model}.{kind}").items():
                where = f"{model}.{kind}.{phase}"
                if not isinstance(values, list) or not values:
                    raise ValueError(f"{where}: should be a list of seconds, got {values!r}")
                yield (model, kind, phase), [_duration(value, where) for value in values]


def _table(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise ValueError(f"{where}: should be a table, got {value!r}")
    return value


def _duration(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise ValueError(f"{where}: should be seconds of 0 or more, got {value!r}")
    return float(value)
