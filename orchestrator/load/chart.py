"""What a picture of one or two results says: titles, points with their spread, notes. Pure; plot.py draws it."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.errors import TandemError
from orchestrator.load.compare import COMPARED, own_flags
from orchestrator.load.results import Case, Machine, Result, Spread

# From this ratio of the greatest to the least value on, a scale from 0 would press the small ones flat.
RATIO_OF_LOG = 20
# A panel has room for so many numbers below it, side by side.
MOST_TICKS = 9
LETTERS = "AB"


@dataclass(frozen=True)
class Point:
    """A metric at one concurrency: requests at once, and the median, the least and the most of the runs."""

    at_once: int
    spread: Spread


@dataclass(frozen=True)
class Panel:
    """One metric: for each result its points, by concurrency; None where it has no good run, so that its line breaks.

    low and high are the ends of its scale, which is a logarithmic one or begins with 0.
    """

    title: str
    lines: tuple[tuple[Point | None, ...], ...]
    low: float
    high: float
    log: bool


@dataclass(frozen=True)
class Chart:
    """A whole picture; labels are of the results, and none for a single one. ticks are requests at once."""

    title: str
    notes: tuple[str, ...]
    labels: tuple[str, ...]
    panels: tuple[Panel, ...]
    ticks: tuple[int, ...]


def describe(*named: tuple[str, Result]) -> Chart:
    """Say what a picture of one or two results, each with its name, shows.

    Raises TandemError when there is nothing to show: each run of theirs had a request that failed.
    """
    results = [result for _, result in named]
    there = sorted({case.concurrency for result in results for case in result.cases if case.good})
    if not there:
        raise TandemError(
            f"nothing to draw: in every run of {' and '.join(name for name, _ in named)} a request failed"
        )
    said = [_facts(result) for result in results]
    common = {what: fact for what, fact in said[0].items() if all(each[what] == fact for each in said)}
    title = [fact for what, fact in common.items() if what in ("model", "vllm", "machine", "date")]
    measured = [fact for what, fact in common.items() if what in ("lengths", "runs")]
    notes = ["; ".join([*measured, "points are medians, bars go from the least to the most of the runs"])]
    return Chart(
        " · ".join(title) or "bench",
        (*notes, *_missing(results)),
        tuple(_labels(named, said, common)) if len(named) > 1 else (),
        tuple(_panel(metric, what, more, results) for metric, what, more in COMPARED),
        ticks(there),
    )


def ticks(there: Sequence[int]) -> tuple[int, ...]:
    """Choose what to write below a logarithmic axis, of numbers that rise: no two so close that they would overlap."""
    apart = math.log2(there[-1] / there[0]) / MOST_TICKS
    chosen = [there[0]]
    for number in there[1:]:
        if math.log2(number / chosen[-1]) >= apart:
            chosen.append(number)
    return tuple(chosen)


def _facts(result: Result) -> Mapping[str, str]:
    options = result.options
    runs = "a single run" if options.runs == 1 else f"{options.runs} runs"
    requests = "1 request" if options.per == 1 else f"{options.per} requests"
    return {
        "model": f"{result.profile} ({result.model})",
        "vllm": f"vLLM {result.server.vllm}",
        "machine": hardware(result.machine),
        "date": f"{result.date[:10]} {result.date[11:16]} UTC",
        "lengths": f"prompts of {options.input} random tokens, answers of {options.output}",
        "runs": f"{runs} of {requests} for each at once",
    }


def hardware(machine: Machine) -> str:
    """Name what a model runs on: the GPUs, else the processor."""
    if not machine.gpus:
        return f"{machine.cpu} ({machine.cores} cores)"
    names = [gpu.name for gpu in machine.gpus]
    counted = [(names.count(name), name) for name in dict.fromkeys(names)]
    return " + ".join(f"{number}x {name}" if number > 1 else name for number, name in counted)


def _labels(
    named: Sequence[tuple[str, Result]], said: Sequence[Mapping[str, str]], common: Mapping[str, str]
) -> Iterator[str]:
    """Say of each which it is, and in what it differs from the other."""
    (_, one), (_, other) = named
    flags = [" ".join(words for words in side if words) for side in zip(*own_flags(one, other), strict=True)] or [
        "",
        "",
    ]
    for letter, (name, _), facts, words in zip(LETTERS, named, said, flags, strict=True):
        differs = [fact for what, fact in facts.items() if what not in common]
        yield " · ".join([f"{letter}  {name}", *differs, *([f"flags: {words}"] if words else [])])


def _missing(results: Sequence[Result]) -> Iterator[str]:
    """Say which concurrencies have no point, though they were measured."""
    found = [
        f"{case.concurrency} at once" + (f" ({letter})" if len(results) > 1 else "")
        for letter, result in zip(LETTERS, results, strict=False)
        for case in result.cases
        if not case.good
    ]
    if found:
        yield f"not drawn, as a request failed in every run: {', '.join(found)}"


def _panel(metric: str, what: str, more: bool, results: Sequence[Result]) -> Panel:
    lines = tuple(
        tuple(_point(case, metric) for case in sorted(result.cases, key=lambda case: case.concurrency))
        for result in results
    )
    spreads = [point.spread for line in lines for point in line if point is not None]
    least, most = min(spread.low for spread in spreads), max(spread.high for spread in spreads)
    log = 0 < least < most / RATIO_OF_LOG
    ends = _around(least, most) if log else (0.0, most * 1.06 or 1.0)
    return Panel(f"{what} ({'more' if more else 'less'} is better)", lines, *ends, log)


def _around(least: float, most: float) -> tuple[float, float]:
    """The closest numbers around two that are 1, 2 or 5 times a power of ten: both ends of a scale have a number."""
    low, high = (math.floor(math.log10(value)) for value in (least, most))
    below = [times * 10.0**low for times in (1, 2, 5)]
    above = [times * 10.0**high for times in (1, 2, 5, 10)]
    # Just above a power of ten, its logarithm may be rounded down to it, and the other way round.
    return (
        max((each for each in below if each <= least), default=10.0**low),
        min((each for each in above if each >= most), default=10.0 ** (high + 1)),
    )


def _point(case: Case, metric: str) -> Point | None:
    return Point(case.concurrency, case.spread[metric]) if case.good else None
