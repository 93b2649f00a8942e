"""The bars that the router has to clear, and whether a run of its benchmark cleared them. Pure."""

from dataclasses import dataclass
from statistics import median

from tests.routing import bench_tables, bench_turns
from tests.routing.bench_measure import Cell, Results
from tests.routing.bench_tables import middle, more, pairs, spread
from tests.routing.bench_wrk import Sample

# Of a body's size: milliseconds that Tandem may add to plain nginx at the median of one connection, and the percentage
# of plain nginx's requests a second that it has to keep.
BARS = {"1 KB": (0.05, 88), "200 KB": (0.15, 75)}
WAIT = 30
RIVALS = ("vllm-router", "litellm")
Measures = dict[str, bench_tables.Value]
TIMES: Measures = {"median": lambda sample: sample.median, "99 %": lambda sample: sample.p99}
RATE: Measures = {"requests/s": lambda sample: -sample.rate}


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
        if cell.size in BARS:
            values = bench_tables.kept(results, cell)
            limit = BARS[cell.size][1]
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


def _behind(seen: dict[str, list[Sample]], rival: str, measures: Measures) -> list[str]:
    """Name the measures in which Tandem is not ahead."""
    return [name for name, value in measures.items() if middle(seen["tandem"], value) >= middle(seen[rival], value)]


def _both(cells: bench_tables.Cells, rival: str) -> bench_tables.Cells:
    return {cell: seen for cell, seen in cells.items() if rival in seen and "tandem" in seen}


def _said(behind: dict[Cell, list[str]]) -> str:
    """Say in how many cells Tandem is ahead, and where it is not."""
    where = "; ".join(f"{cell}: {', '.join(names)}" for cell, names in behind.items() if names)
    said = f"ahead in {sum(not names for names in behind.values())} of {len(behind)}"
    return f"{said}, not in {where}" if where else said


def _ahead(results: Results) -> list[Bar]:
    """Requests a second as many as each can take; times at one rate for all, where the rival could carry that."""
    found = []
    for rival in RIVALS:
        behind = {}
        for cell, seen in _both(results.cells, rival).items():
            paced = results.paced.get(cell, {})
            calm = paced if rival in paced and "tandem" in paced else seen
            behind[cell] = _behind(calm, rival, TIMES) + _behind(seen, rival, RATE)
        if behind:
            asked = f"ahead of {bench_tables.TITLES[rival]} in every cell"
            found.append(Bar(asked, _said(behind), not any(behind.values())))
    return found


def at_full_load(results: Results) -> str:
    """Say, of rivals that were given the same rate too, how times compare with as many requests as each can take."""
    lines = []
    for rival in RIVALS:
        both = {
            cell: seen for cell, seen in _both(results.cells, rival).items() if rival in results.paced.get(cell, {})
        }
        if both:
            said = _said({cell: _behind(seen, rival, TIMES) for cell, seen in both.items()})
            title = bench_tables.TITLES[rival]
            lines.append(f"No bar, times of {title} with as many requests as each can take: {said}.")
    return "\n".join(lines)


def bars(results: Results) -> list[Bar]:
    """Every bar that this run has something to say about."""
    return [*_added(results), *_kept(results), *_waits(results), *_ahead(results)]


def text(found: list[Bar]) -> str:
    rows = ([bar.asked, bar.measured, "met" if bar.met else "**not met**"] for bar in found)
    return bench_tables.table(["bar", "measured", ""], rows)
