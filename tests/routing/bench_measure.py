"""The order of the router's benchmark: in rounds, so that whoever is compared was measured within seconds."""

import math
import random
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

from tests.routing import bench_cpu, bench_turns, bench_wrk
from tests.routing.bench_wrk import CannotMeasureError, Sample

# So much slower than Tandem in the first round, and no further round is needed to see it.
HOPELESS = 10
# Milliseconds of a core that an idle process may take in a tenth of a second, and how many seconds one may go on with
# what its clients have given up.
IDLE = 5
REST = 30
# How often plain nginx and Tandem are measured side by side, beside once a round: what is asked of their ratio is less
# than one second differs from the next.
PAIRS = 5
# What waits behind large bodies: a request every so many milliseconds on each connection, at the mean.
PAUSE = 5
# Of a body's size: requests a second that all but the hopeless can carry, a fifth of what the slowest of them does at
# most, and for how many seconds they come.
PACE = {"1 KB": (1000, 1), "200 KB": (200, 1), "8 MB": (20, 3)}


@dataclass(frozen=True)
class Cell:
    """One row of the tables: a body, and over how many connections it comes."""

    body: str
    connections: int

    @property
    def size(self) -> str:
        """How large the body is, wherever its key stands."""
        return self.body.partition(",")[0]

    def __str__(self) -> str:
        return f"{self.body}, {self.connections} connection{'s' * (self.connections != 1)}"


@dataclass(frozen=True)
class Contender:
    """Someone who answers at a port; slow ones are given more time and a rest, and not all are asked for everything."""

    name: str
    port: int
    # Its first process.
    pid: int
    # How many times longer than nginx it is measured: for small bodies, and for those of 8 MB.
    patience: tuple[int, int] = (1, 1)
    asked: Callable[[Cell], bool] = lambda cell: True


@dataclass
class Results:
    """What was seen: of each cell and contender one sample a round."""

    cells: dict[Cell, dict[str, list[Sample]]] = field(default_factory=dict)
    # The same, with as many requests a second for each contender.
    paced: dict[Cell, dict[str, list[Sample]]] = field(default_factory=dict)
    # Of each cell, plain nginx and Tandem once more, one right after the other.
    pairs: dict[Cell, list[tuple[Sample, Sample]]] = field(default_factory=dict)
    # Of each body, a round each: what bare, plain and Tandem took for requests that they got in turn.
    turns: dict[str, list[dict[str, list[float]]]] = field(default_factory=dict)
    # Of each kind of large bodies: how requests of 1 KB fared meanwhile.
    waits: dict[str, dict[str, list[Sample]]] = field(default_factory=dict)

    def add(self, cell: Cell, name: str, sample: Sample) -> None:
        self.cells.setdefault(cell, {}).setdefault(name, []).append(sample)

    def add_paced(self, cell: Cell, name: str, sample: Sample) -> None:
        self.paced.setdefault(cell, {}).setdefault(name, []).append(sample)

    def add_wait(self, kind: str, name: str, sample: Sample) -> None:
        self.waits.setdefault(kind, {}).setdefault(name, []).append(sample)

    def hopeless(self, cell: Cell, name: str) -> bool:
        """Whether it needs no further round, as it is far behind Tandem."""
        found = self.cells.get(cell, {})
        theirs, ours = found.get(name, []), found.get("tandem", [])
        return bool(theirs and ours) and theirs[0].rate * HOPELESS < ours[0].rate


def shuffled(contenders: Iterable[Contender], cell: Cell, number: int) -> list[Contender]:
    """Give another order for each cell and round, the same in each run: who comes after whom is to be nobody's lot."""
    listed = list(contenders)
    random.Random(f"{cell}, {number}").shuffle(listed)
    return listed


def rotated(contenders: Iterable[Contender], by: int) -> Iterator[Contender]:
    """Begin with another one each round: who comes first after a pause fares differently."""
    listed = list(contenders)
    start = by % len(listed)
    yield from islice([*listed, *listed], start, start + len(listed))


def seconds(cell: Cell, contender: Contender) -> int:
    """How long: with many connections and large bodies each answer takes long."""
    large = cell.body.startswith("8 MB")
    return (2 if large and cell.connections > 16 else 1) * contender.patience[large]


def one_round(
    results: Results, number: int, cells: Iterable[Cell], contenders: list[Contender], bodies: dict[str, Path]
) -> None:
    """Measure every cell once with each contender that is asked for it."""
    for cell in cells:
        for contender in shuffled((one for one in contenders if one.asked(cell)), cell, number):
            if not results.hopeless(cell, contender.name):
                results.add(cell, contender.name, one(cell, contender, bodies[cell.body]))


def more_pairs(
    results: Results, cells: Iterable[Cell], plain: Contender, tandem: Contender, bodies: dict[str, Path], many: int
) -> None:
    """Measure these cells with plain nginx and Tandem again, so many times; another one begins each time."""
    for cell in cells:
        for number in range(many):
            seen = {each: one(cell, each, bodies[cell.body]) for each in rotated((plain, tandem), number)}
            results.pairs.setdefault(cell, []).append((seen[plain], seen[tandem]))


def pause(cell: Cell) -> int:
    """Milliseconds between the requests of each connection, at the mean, for as many a second as PACE says."""
    return round(1000 * cell.connections / PACE[cell.size][0])


def one_pace(
    results: Results, number: int, cells: Iterable[Cell], contenders: list[Contender], bodies: dict[str, Path]
) -> None:
    """Give everybody equally many requests a second: at full load a time is that of waiting for other requests."""
    for cell in cells:
        for contender in shuffled(contenders, cell, number):
            if not results.hopeless(cell, contender.name):
                many, long = cell.connections, PACE[cell.size][1]
                sample = bench_wrk.run(contender.port, bodies[cell.body], many, long, pause=pause(cell))
                results.add_paced(cell, contender.name, sample)


def one(cell: Cell, contender: Contender, body: Path) -> Sample:
    """Measure one cell with one contender."""
    pids = bench_cpu.family(contender.pid)
    before = bench_cpu.used(pids)
    sample = bench_wrk.run(contender.port, body, cell.connections, seconds(cell, contender))
    took = bench_cpu.used(pids) - before
    if max(contender.patience) > 1:
        rest(pids)
    return replace(sample, cpu=took / sample.requests) if sample.requests else sample


def rest(pids: list[int]) -> None:
    """Wait until it has nothing to do: some go on with requests whose clients are gone, beside whoever is next."""
    deadline = time.monotonic() + REST
    before, now = -math.inf, bench_cpu.used(pids)
    while now - before > IDLE and time.monotonic() < deadline:
        time.sleep(0.1)
        before, now = now, bench_cpu.used(pids)


def one_turn(results: Results, bodies: dict[str, Path], contenders: list[Contender]) -> None:
    """Give these contenders requests in turn, a second for each body."""
    for body, path in bodies.items():
        times = bench_turns.take({one.name: one.port for one in contenders}, path.read_bytes(), 1)
        results.turns.setdefault(body, []).append(times)


def one_wait(
    results: Results, number: int, kinds: dict[str, Path], contenders: list[Contender], small: Path, cores: int
) -> None:
    """Keep a large body coming for each worker of nginx; see how long small ones on connections of their own wait."""
    for kind, large in kinds.items():
        for contender in rotated(contenders, number):
            with bench_wrk.running(contender.port, large, cores, 3) as load:
                sample = bench_wrk.run(contender.port, small, 2 * cores, 2, pause=PAUSE)
                seen = bench_wrk.read(load.communicate(timeout=60)[0])
            if seen.requests == 0:
                raise CannotMeasureError(f"{contender.name} answered none of the bodies of {kind}")
            results.add_wait(kind, contender.name, sample)
