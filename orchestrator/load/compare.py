"""Two results side by side: whether they can be compared, and what is beyond the spread of their runs. Pure."""

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from orchestrator.load.results import Machine, Result, Spread
from orchestrator.load.words import between
from orchestrator.report import table, wrapped

# none: the spreads overlap; unknown: one of the two has a single good run, and so no spread.
Difference = Literal["better", "worse", "none", "unknown"]
# What is compared, what it is called, and whether more of it is better.
COMPARED = (
    ("output_tokens", "output tokens a second", True),
    ("ttft_ms", "time to first token, ms", False),
    ("tpot_ms", "time per token after it, ms", False),
)


@dataclass(frozen=True)
class Row:
    """One metric at one concurrency; ratio is of the medians, B to A, None where A's is 0."""

    concurrency: int
    metric: str
    a: Spread
    b: Spread
    ratio: float | None
    difference: Difference


def obstacles(a: Result, b: Result) -> list[str]:
    """Say why the figures of two results do not mean the same; nothing where they do."""
    pairs = (
        ("model", a.model, b.model),
        ("tokens of a prompt", a.options.input, b.options.input),
        ("tokens of an answer", a.options.output, b.options.output),
        ("requests of a run for each at once", a.options.per, b.options.per),
    )
    return [f"{what}: {one} and {other}" for what, one, other in pairs if one != other]


def rows(a: Result, b: Result) -> list[Row]:
    """Compare at each concurrency that both have good runs of."""
    other = {case.concurrency: case for case in b.cases}
    found = []
    for metric, _, more in COMPARED:
        for case in a.cases:
            match = other.get(case.concurrency)
            if match is not None and case.good and match.good:
                single = min(case.good, match.good) < 2
                found.append(_row(case.concurrency, metric, case.spread[metric], match.spread[metric], more, single))
    return found


def _row(concurrency: int, metric: str, a: Spread, b: Spread, more: bool, single: bool) -> Row:
    difference: Difference
    if single:
        difference = "unknown"
    elif a.low <= b.high and b.low <= a.high:
        difference = "none"
    else:
        difference = "better" if (b.median > a.median) == more else "worse"
    return Row(concurrency, metric, a, b, b.median / a.median if a.median else None, difference)


def other_than(a: Result, b: Result) -> list[str]:
    """Say in what else the two differ: what the comparison is about, or what spoils it."""
    pairs = (
        ("profile", a.profile, b.profile),
        ("vLLM", a.server.vllm, b.server.vllm),
        ("image", a.server.image_id, b.server.image_id),
        ("runs", a.options.runs, b.options.runs),
        ("machine", machine(a.machine), machine(b.machine)),
        ("tandem", a.commit or a.tandem, b.commit or b.tandem),
    )
    flags = [f"flags: {one or '(none)'} and {other or '(none)'}" for one, other in own_flags(a, b)]
    return [f"{what}: {one} and {other}" for what, one, other in pairs if one != other] + flags


def own_flags(a: Result, b: Result) -> list[tuple[str, str]]:
    """The words that one command line has and the other lacks; those that both have in the same order are left out."""
    one, other = a.server.command, b.server.command
    codes = difflib.SequenceMatcher(None, one, other, autojunk=False).get_opcodes()
    return [(" ".join(one[i:j]), " ".join(other[k:m])) for way, i, j, k, m in codes if way != "equal"]


def machine(found: Machine) -> str:
    """Name a machine in a few words."""
    gpus = ", ".join(gpu.name for gpu in found.gpus) or "no GPU"
    driver = f", driver {found.driver}" if found.driver else ""
    return f"{gpus}{driver}, {found.cpu} ({found.cores} cores)"


def text(a: Result, b: Result, names: tuple[str, str], against: Sequence[str]) -> str:
    """Print a comparison in at most 80 columns; against is what stood against it and was waived."""
    compared = rows(a, b)
    lines = [*wrapped(f"A  {names[0]}"), *wrapped(f"B  {names[1]}")]
    lines += [line for said in against for line in wrapped(f"not the same {said}")]
    lines += [line for said in other_than(a, b) for line in wrapped(f"differs: {said}")]
    for metric, title, _ in COMPARED:
        mine = [row for row in compared if row.metric == metric]
        if mine:
            lines += ["", title, *table(("AT ONCE", "A", "B", "B/A", "B IS"), map(_cells, mine))]
    lines += ["", *_notes(a, b, compared)]
    return "\n".join(lines)


def _cells(row: Row) -> tuple[str, ...]:
    ratio = "-" if row.ratio is None else f"{row.ratio:.2f}"
    words = {"none": "the same", "unknown": "unknown"}.get(row.difference, row.difference)
    return str(row.concurrency), between(row.a), between(row.b), ratio, words


def _notes(a: Result, b: Result, compared: Sequence[Row]) -> Iterator[str]:
    yield from wrapped("median (least to most of the runs); B/A is of the medians")
    if any(row.difference == "none" for row in compared):
        yield from wrapped("the same: no difference beyond the spread of the runs, which overlap")
    if any(row.difference == "unknown" for row in compared):
        yield from wrapped("unknown: a single run has no spread that would tell")
    left = sorted({case.concurrency for case in (*a.cases, *b.cases)} - {row.concurrency for row in compared})
    if left:
        yield from wrapped(f"not compared, as not both have good runs of it: {', '.join(map(str, left))} at once")


def values(a: Result, b: Result, names: tuple[str, str], against: Sequence[str]) -> dict[str, Any]:
    """The same for scripts."""
    return {
        "a": names[0],
        "b": names[1],
        "not_comparable": list(against),
        "differs": other_than(a, b),
        "rows": [{**asdict(row), "a": row.a.model_dump(), "b": row.b.model_dump()} for row in rows(a, b)],
    }
