"""The bars that the router has to clear, and whether a run of its benchmark cleared them. Pure."""

from dataclasses import dataclass
from statistics import median

from tests.routing import bench_tables, bench_turns
from tests.routing.bench_measure import Results
from tests.routing.bench_tables import middle, more, pairs, spread
from tests.routing.bench_wrk import Sample

# Of a body's size: milliseconds that Tandem may add to plain nginx at the median of one connection, and the percentage
# of plain nginx's requests a second that it has to keep.
BARS = {"1 KB": (0.05, 88), "200 KB": (0.15, 75)}
WAIT = 30
RIVALS = ("vllm-router", "litellm")
MEASURES = {
    "median": lambda sample: sample.median,
    "99 %": lambda sample: sample.p99,
    "requests/s": lambda sample: -sample.rate,
}


@dataclass(frozen=True)
class Bar:
    """What is asked, what was measured, and whether that is enough."""

    asked: str
    measured: str
    met: bool


def _added(results: Results) -> list[Bar]:
    found = []
    for body, rounds in results.turns.items():
        size = body.partition(",")[0]
        if size in BARS:
            values = [bench_turns.added(times, "tandem", "plain") for times in rounds]
            limit = BARS[size][0]
            asked = f"{body}: at most {limit} ms more than plain nginx at the median"
            found.append(Bar(asked, spread(values, bench_tables.ms), median(values) <= limit))
    return found


def _kept(results: Results) -> list[Bar]:
    found = []
    for cell in results.cells:
        size = cell.body.partition(",")[0]
        if size in BARS:
            values = bench_tables.kept(results, cell)
            limit = BARS[size][1]
            asked = f"{cell}: at least {limit} % of plain nginx's requests a second"
            found.append(Bar(asked, spread(values, "{:.1f}".format), bool(values) and median(values) >= limit))
    return found


def _waits(results: Results) -> list[Bar]:
    found = []
    for kind, seen in results.waits.items():
        values = pairs(seen, "plain", lambda sample: sample.longest, more)
        asked = f"{kind} keep coming: no other request waits more than {WAIT} ms longer than behind plain nginx"
        found.append(Bar(asked, spread(values, bench_tables.ms), bool(values) and median(values) <= WAIT))
    return found


def _better(ours: list[Sample], theirs: list[Sample]) -> list[str]:
    """Name the measures in which Tandem is not ahead."""
    return [name for name, value in MEASURES.items() if middle(ours, value) >= middle(theirs, value)]


def _ahead(results: Results) -> list[Bar]:
    found = []
    for rival in RIVALS:
        cells = {cell: seen for cell, seen in results.cells.items() if rival in seen and "tandem" in seen}
        behind = {cell: names for cell, seen in cells.items() if (names := _better(seen["tandem"], seen[rival]))}
        if cells:
            said = f"ahead in {len(cells) - len(behind)} of {len(cells)}"
            listed = "; ".join(f"{cell}: {', '.join(names)}" for cell, names in behind.items())
            asked = f"ahead of {bench_tables.TITLES[rival]} in every cell"
            found.append(Bar(asked, f"{said}, not in {listed}" if behind else said, not behind))
    return found


def bars(results: Results) -> list[Bar]:
    """Every bar that this run has something to say about."""
    return [*_added(results), *_kept(results), *_waits(results), *_ahead(results)]


def text(found: list[Bar]) -> str:
    rows = ([bar.asked, bar.measured, "met" if bar.met else "**not met**"] for bar in found)
    return bench_tables.table(["bar", "measured", ""], rows)
