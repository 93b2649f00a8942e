"""What was measured of switches and of sleep, as values: medians, a matrix, words for people. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from orchestrator.report import table, wrapped
from orchestrator.switch import history

# cold: with no kernels compiled before; warm: a start with them; wake: it slept.
Kind = Literal["cold", "warm", "wake"]
KINDS: tuple[Kind, ...] = get_args(Kind)
# In the order of a switch.
PHASES = ("drain", "sleep", "stop", "release", "start", "wake", "prove")
MIB = 1 << 20
_TOKENS = "seconds from the request to its first token, medians of the rounds that worked"
_MEANING: Mapping[Kind, str] = {
    "cold": "a start with no kernels compiled before; its weights may still be in the machine's memory",
    "warm": "a start with the kernels that were compiled before",
    "wake": "it slept, and wakes",
}


@dataclass(frozen=True)
class Switch:
    """One switch: seconds by phase, in all, and from the request to its first token; fault is why there is none."""

    source: str
    target: str
    kind: Kind
    seconds: Mapping[str, float] = field(default_factory=dict)
    total: float = 0
    first_token: float = 0
    fault: str = ""


@dataclass(frozen=True)
class Cell:
    """All switches of one kind from one model to another: medians in seconds, over those that worked."""

    source: str
    target: str
    kind: Kind
    rounds: int
    first_token: float | None
    total: float | None
    seconds: Mapping[str, float]
    faults: tuple[str, ...] = ()


@dataclass(frozen=True)
class Part:
    """A sleep, or a wake: seconds in all and by phase; bytes afterwards, None where nobody can tell.

    gpu is what is in use on the fullest of the model's GPUs, host what the machine's memory has less than at first.
    """

    seconds: float
    phases: Mapping[str, float] = field(default_factory=dict)
    gpu: int | None = None
    host: int | None = None


@dataclass(frozen=True)
class Cycle:
    """One sleep and wake; same is whether the answer was what it was before."""

    sleep: Part
    wake: Part
    same: bool = True


@dataclass(frozen=True)
class SleepTest:
    """A sleep test: the cycles that came to their end, and what went wrong, "" for nothing."""

    model: str
    cycles: tuple[Cycle, ...]
    fault: str = ""


def median(values: Iterable[float]) -> float:
    """The middle value, or the mean of the two in the middle. Raises ValueError for none."""
    found = history.median(list(values))
    if found is None:
        raise ValueError("no values have no median")
    return found


def pairs(models: Sequence[str]) -> list[tuple[str, str]]:
    """List every way from one model to another."""
    return [(source, target) for source in models for target in models if source != target]


def matrix(switches: Iterable[Switch]) -> list[Cell]:
    """Put switches of the same kind between the same models together, in the order in which they came first."""
    found: dict[tuple[str, str, Kind], list[Switch]] = {}
    for switch in switches:
        found.setdefault((switch.source, switch.target, switch.kind), []).append(switch)
    return [_cell(*key, measured) for key, measured in found.items()]


def _cell(source: str, target: str, kind: Kind, measured: Sequence[Switch]) -> Cell:
    good = [switch for switch in measured if not switch.fault]
    phases = [phase for phase in PHASES if any(phase in switch.seconds for switch in good)]
    return Cell(
        source,
        target,
        kind,
        len(measured),
        median(switch.first_token for switch in good) if good else None,
        median(switch.total for switch in good) if good else None,
        {phase: median(switch.seconds.get(phase, 0) for switch in good) for phase in phases},
        tuple(dict.fromkeys(switch.fault for switch in measured if switch.fault)),
    )


def text(cells: Sequence[Cell]) -> str:
    """Print a matrix in at most 80 columns for names of usual length, and below it the phases of each switch."""
    kinds = [kind for kind in KINDS if any(cell.kind == kind for cell in cells)]
    tokens = {(cell.source, cell.target, cell.kind): _seconds(cell.first_token) for cell in cells}
    ways = list(dict.fromkeys((cell.source, cell.target) for cell in cells))
    rows = [(*way, *(tokens.get((*way, kind), "-") for kind in kinds)) for way in ways]
    matrix = table(("FROM", "TO", *(kind.upper() for kind in kinds)), rows)
    notes = [line for kind in kinds for line in wrapped(f"{kind}: {_MEANING[kind]}")]
    return "\n".join([_TOKENS, "", *matrix, "", *_details(cells), "", *notes])


def _details(cells: Sequence[Cell]) -> list[str]:
    rows = [(c.source, c.target, c.kind, str(c.rounds), _seconds(c.first_token), _seconds(c.total)) for c in cells]
    header, *lines = table(("FROM", "TO", "KIND", "ROUNDS", "FIRST TOKEN", "SWITCH"), rows)
    said = [header]
    for cell, line in zip(cells, lines, strict=True):
        said.append(line)
        phases = ", ".join(f"{phase} {seconds:.2f}" for phase, seconds in cell.seconds.items())
        said += [f"  {piece}" for piece in wrapped(phases)]
        said += [piece for fault in cell.faults for piece in wrapped(f"failed: {fault}")]
    return said


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def values(cells: Iterable[Cell], switches: Iterable[Switch]) -> dict[str, Any]:
    """The same for scripts, with every single switch."""
    return {"matrix": [asdict(cell) for cell in cells], "switches": [asdict(switch) for switch in switches]}


def cycle_text(cycle: Cycle) -> str:
    """Say in a line how a cycle went."""
    answer = "the same answer" if cycle.same else "another answer"
    return f"asleep in {cycle.sleep.seconds:.2f} s, awake in {cycle.wake.seconds:.2f} s, {answer}"


def sleep_text(test: SleepTest) -> str:
    """Print a sleep test in at most 80 columns."""
    rows = [
        (str(number), step, f"{part.seconds:.2f}", _mib(part.gpu), _mib(part.host), _phases(part.phases))
        for number, cycle in enumerate(test.cycles, 1)
        for step, part in (("sleep", cycle.sleep), ("wake", cycle.wake))
    ]
    lines = table(("CYCLE", "STEP", "SECONDS", "GPU MIB", "HOST MIB", "OF WHICH"), rows)
    if test.fault:
        end = f"{test.model} is not to sleep, and will not until it has another image: {test.fault}"
    else:
        end = f"{test.model} may sleep: the same answer after each of {len(test.cycles)} cycles"
    notes = (
        "MiB afterwards: in use on its fullest GPU, and what the machine has less than before the test" if rows else ""
    )
    return "\n".join([*lines, "", *wrapped(notes), *wrapped(end)])


def _phases(seconds: Mapping[str, float]) -> str:
    return ", ".join(f"{phase} {seconds[phase]:.2f}" for phase in PHASES if seconds.get(phase, 0) >= 0.005)


def _mib(size: int | None) -> str:
    return "-" if size is None else f"{size / MIB:,.0f}"


def verdict(test: SleepTest) -> dict[str, Any]:
    """Say what the activator is to keep of it; sizes in bytes, of the cycle that kept most."""
    sizes = [(cycle.sleep.gpu, cycle.sleep.host) for cycle in test.cycles]
    known = [(gpu, max(host, 0)) for gpu, host in sizes if gpu is not None and host is not None]
    gpu, host = (max(column) for column in zip(*known, strict=True)) if known else (None, None)
    # One that goes wrong in its first cycle has had it all the same.
    return {"cycles": max(len(test.cycles), 1), "fault": test.fault, "gpu": gpu, "host": host}


def sleep_values(test: SleepTest) -> dict[str, Any]:
    """The same for scripts; sizes in bytes."""
    return {
        "profile": test.model,
        "passed": not test.fault,
        "fault": test.fault or None,
        "cycles": [asdict(cycle) for cycle in test.cycles],
    }
