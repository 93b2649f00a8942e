"""What the router's benchmark prints: Markdown tables of medians over rounds, with their spread. Pure."""

import math
from collections.abc import Callable, Iterable
from statistics import median

from tests.routing.bench_measure import Cell, Results
from tests.routing.bench_turns import added
from tests.routing.bench_wrk import Sample

TITLES = {
    "bare": "upstream bare",
    "plain": "plain nginx",
    "tandem": "Tandem",
    "vllm-router": "vllm-router",
    "litellm": "LiteLLM",
}
Value = Callable[[Sample], float]
Cells = dict[Cell, dict[str, list[Sample]]]
# Of a pair: what Tandem's is, given the other's.
Compare = Callable[[float, float], float]


def more(ours: float, theirs: float) -> float:
    return ours - theirs


def share(ours: float, theirs: float) -> float:
    return 100 * ours / theirs


def middle(samples: list[Sample], value: Value) -> float:
    return median(value(sample) for sample in samples)


def pairs(found: dict[str, list[Sample]], other: str, value: Value, compare: Compare) -> list[float]:
    """Compare Tandem with another, round by round: both were measured within seconds."""
    both = zip(found.get("tandem", []), found.get(other, []), strict=False)
    return [compare(value(ours), value(theirs)) for ours, theirs in both if ours.requests and theirs.requests]


def kept(results: Results, cell: Cell) -> list[float]:
    """Percent of plain nginx's requests a second, of all that were measured side by side."""
    apart = results.pairs.get(cell, [])
    further = {"plain": [plain for plain, _ in apart], "tandem": [tandem for _, tandem in apart]}
    return [
        ratio
        for found in (results.cells.get(cell, {}), further)
        for ratio in pairs(found, "plain", lambda sample: sample.rate, share)
    ]


def ms(value: float) -> str:
    """Milliseconds, as exact as they are worth."""
    if math.isinf(value):
        return "no answer"
    size = abs(value)
    return f"{value:.3f}" if size < 10 else f"{value:.1f}" if size < 100 else f"{value:,.0f}"


def whole(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def spread(values: list[float], form: Callable[[float], str]) -> str:
    """The median, and from the lowest to the highest."""
    if not values:
        return "–"
    return f"{form(median(values))} ({form(min(values))} to {form(max(values))})"


def table(head: list[str], rows: Iterable[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def who(cells: Cells) -> list[str]:
    """Whom these cells have something of, in the order of the tables."""
    return [name for name in TITLES if any(name in found for found in cells.values())]


def _row(
    cell: Cell, found: dict[str, list[Sample]], names: list[str], value: Value, form: Callable[[float], str]
) -> list[str]:
    shown = [form(middle(found[name], value)) if name in found else "–" for name in names]
    return [cell.body, str(cell.connections), *shown]


def turns(results: Results) -> str:
    """What Tandem adds to a request, as requests in turn show it."""
    names = ["bare", "plain", "tandem"]
    head = ["body", *(TITLES[name] for name in names), "Tandem adds to bare", "Tandem adds to plain"]
    return table(
        head,
        (
            [
                body,
                *(ms(median(median(times[name]) for times in rounds)) for name in names),
                *(spread([added(times, "tandem", other) for times in rounds], ms) for other in ("bare", "plain")),
            ]
            for body, rounds in results.turns.items()
        ),
    )


def times(cells: Cells, names: list[str], value: Value) -> str:
    """Times of each contender, and what Tandem adds to the bare upstream and to plain nginx; nothing of no cells."""
    if not cells:
        return ""
    head = ["body", "connections", *(TITLES[name] for name in names), "Tandem adds to bare", "Tandem adds to plain"]
    return table(
        head,
        (
            [
                *_row(cell, found, names, value, ms),
                spread(pairs(found, "bare", value, more), ms),
                spread(pairs(found, "plain", value, more), ms),
            ]
            for cell, found in cells.items()
        ),
    )


def rates(results: Results, names: list[str]) -> str:
    """Requests a second of each contender, and Tandem's share of plain nginx's."""

    def value(sample: Sample) -> float:
        return sample.rate

    head = ["body", "connections", *(TITLES[name] for name in names), "Tandem of plain, %"]
    return table(
        head,
        (
            [*_row(cell, found, names, value, whole), spread(kept(results, cell), "{:.0f}".format)]
            for cell, found in results.cells.items()
        ),
    )


def cpu(results: Results, names: list[str]) -> str:
    """What a request costs each contender itself, where little is cut off at a run's end."""

    def value(sample: Sample) -> float:
        return sample.cpu

    head = ["body", *(TITLES[name] for name in names), "Tandem over plain"]
    return table(
        head,
        (
            [cell.body, *_row(cell, found, names, value, ms)[2:], spread(pairs(found, "plain", value, more), ms)]
            for cell, found in results.cells.items()
            if cell.connections == 1
        ),
    )


def unkept(results: Results) -> str:
    """What keeping connections to the server is worth to plain nginx."""
    head = ["body", "connections", "median ms, kept", "new each time", "requests/s, kept", "new each time"]
    return table(
        head,
        (
            [
                *_row(cell, found, ["plain", "unkept"], lambda sample: sample.median, ms),
                *_row(cell, found, ["plain", "unkept"], lambda sample: sample.rate, whole)[2:],
            ]
            for cell, found in results.cells.items()
            if "unkept" in found
        ),
    )


def waits(results: Results) -> str:
    """How long requests of 1 KB wait while large bodies keep coming."""
    head = [
        "bodies that keep coming",
        "plain nginx: 99 %",
        "longest",
        "Tandem: 99 %",
        "longest",
        "Tandem's longest over plain's",
    ]
    return table(
        head,
        (
            [
                kind,
                ms(middle(found["plain"], lambda sample: sample.p99)),
                spread([sample.longest for sample in found["plain"]], ms),
                ms(middle(found["tandem"], lambda sample: sample.p99)),
                spread([sample.longest for sample in found["tandem"]], ms),
                spread(pairs(found, "plain", lambda sample: sample.longest, more), ms),
            ]
            for kind, found in results.waits.items()
        ),
    )


def noise(results: Results) -> str:
    """Say how quiet the machine was: the same thing, measured again and again."""
    cell, found = next(iter(results.cells.items()))
    rates = [sample.rate for sample in found.get("bare", [])]
    if not rates or median(rates) == 0:
        return ""
    percent = 100 * (max(rates) - min(rates)) / median(rates)
    return f" Between rounds the bare upstream's own requests a second differed by {percent:.0f} % ({cell})."


def faults(results: Results) -> list[str]:
    """Say where answers were errors or connections broke: such a cell says nothing about speed."""
    cells = [*results.cells.items(), *results.paced.items()]
    listed = [*((str(cell), found) for cell, found in cells), *results.waits.items()]
    return [
        f"{where}: {TITLES.get(name, name)} refused {refused} and broke off {broken}"
        for where, found in listed
        for name, samples in found.items()
        if (refused := sum(sample.refused for sample in samples)) + (broken := sum(sample.broken for sample in samples))
    ]
