"""Which servers of tests/gpu/flags.py lie on the GPUs at once, in which order they are asked, and how long it takes.

Values in, values out.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tests.gpu.variants import TUTORIAL, Spec

# Output tokens a second at 1, 16 and 64 requests, as 2x H200 gave with vLLM 0.24.0 (docs/benchmarks.md): what a run is
# taken to last until one was seen. By whether the weights are quantized, and the server has no graphs.
SEEN: Mapping[tuple[bool, bool], Mapping[int, float]] = {
    (False, False): {1: 167, 16: 2217, 64: 5868},
    (False, True): {1: 31, 16: 596, 64: 2125},
    (True, False): {1: 110, 16: 1168, 64: 2131},
    (True, True): {1: 25, 16: 434, 64: 1204},
}
# A run may last so much longer than the one before it, and what is around it takes seconds of its own.
SLACK, AROUND = 1.15, 1.5
# Warm-ups of a server, for each number of requests at once; and the end of all servers.
WARMING, STOPPING = 2.0, 20.0


@dataclass(frozen=True)
class Load:
    """What is asked: tokens of a prompt and of an answer; at c requests at once, c times `per` of them, or `least`."""

    input: int = 512
    output: int = 128
    per: int = 1
    least: int = 2

    def asked(self, at_once: int) -> int:
        """Count the requests of a run."""
        return max(self.least, self.per * at_once)

    @property
    def key(self) -> tuple[int, int, int, int]:
        return self.input, self.output, self.per, self.least


@dataclass(frozen=True)
class Turn:
    """A run that is to be made."""

    round: int
    at_once: int
    spec: Spec


@dataclass
class Known:
    """What was seen in this folder: runs made, seconds of the longest by server and requests at once, starts.

    failed are the servers that did not come up, or died: they are not tried again.
    """

    made: dict[tuple[Spec, int], int] = field(default_factory=dict)
    lasted: dict[tuple[Spec, int], float] = field(default_factory=dict)
    started: list[float] = field(default_factory=list)
    failed: set[Spec] = field(default_factory=set)


@dataclass(frozen=True)
class Limits:
    """What bounds a batch: GiB of each GPU, servers at once, seconds that are left, and those that a start takes."""

    room: float
    servers: int
    seconds: float
    start: float


class Plan:
    """What is to be measured, how often, and what of it is done."""

    def __init__(
        self, wanted: Sequence[Spec], against: Callable[[Spec], Spec], claim: Callable[[Spec], float],
        load: Load, concurrency: Sequence[int], rounds: int,
    ) -> None:  # fmt: skip
        self.wanted, self._against, self.claim = list(wanted), against, claim
        self.load, self.concurrency, self.rounds = load, tuple(concurrency), rounds

    def missing(self, spec: Spec, known: Known) -> int:
        """Count the rounds that a server lacks, at the number of requests at once at which most are lacking.

        0 where it failed, or what it is held against did.
        """
        if {spec, self._against(spec)} & known.failed:
            return 0
        return max(0, *(self.rounds - known.made.get((spec, at_once), 0) for at_once in self.concurrency))

    def open(self, known: Known) -> list[Spec]:
        """List what is not done, in the order that it is to be measured."""
        return [spec for spec in self.wanted if self.missing(spec, known) > 0]

    def batch(self, known: Known, limits: Limits) -> list[Spec]:
        """Choose servers that are up at once, each with the one that it is held against; none where nothing fits.

        The first of them is taken where a single round of it fits into the seconds, the others where all do.
        """
        chosen: list[Spec] = []
        left = self.open(known)
        # What another one is held against comes along with that one.
        along = {self._against(spec) for spec in left if self._against(spec) != spec}
        for spec in (one for one in left if one not in along):
            more = [one for one in (self._against(spec), spec) if one not in chosen]
            trial = [*chosen, *dict.fromkeys(more)]
            if not self.fits(trial, limits):
                continue
            rounds = self.rounds_of(trial, known)
            if not chosen:
                rounds = {at_once: min(number, 1) for at_once, number in rounds.items()}
            if self.seconds(trial, rounds, known, limits.start) <= limits.seconds:
                chosen = trial
        return chosen

    def fits(self, specs: Sequence[Spec], limits: Limits) -> bool:
        """Whether so many servers may be up at once."""
        return len(specs) <= limits.servers and sum(map(self.claim, specs)) <= limits.room

    def too_large(self, known: Known, limits: Limits) -> list[Spec]:
        """List what does not even fit beside the server alone that it is held against."""
        return [spec for spec in self.open(known) if not self.fits(list({self._against(spec), spec}), limits)]

    def rounds_of(self, specs: Iterable[Spec], known: Known) -> dict[int, int]:
        """Count the rounds that a batch has at each number of requests at once: all that its servers lack."""
        lacking = [spec for spec in specs if spec in self.wanted and self.missing(spec, known)]
        return {
            at_once: max([0, *(self.rounds - known.made.get((spec, at_once), 0) for spec in lacking)])
            for at_once in self.concurrency
        }

    def seconds(self, specs: Sequence[Spec], rounds: Mapping[int, int], known: Known, start: float) -> float:
        """Reckon how long a batch takes: its start, warm-ups, rounds and end."""
        begun = max(known.started) * SLACK if known.started else start
        runs = sum(number * self.run_seconds(spec, at_once, known) for at_once, number in rounds.items()
                   for spec in specs)  # fmt: skip
        return begun + WARMING * len(specs) * len(self.concurrency) + runs + STOPPING

    def run_seconds(self, spec: Spec, at_once: int, known: Known) -> float:
        """Reckon how long a run lasts: as the longest of its like, else by what was seen elsewhere."""
        if (spec, at_once) in known.lasted:
            return known.lasted[spec, at_once] * SLACK + AROUND
        eager = spec.variant.startswith((TUTORIAL, "eager"))
        rates = SEEN["awq" in spec.profile, eager]
        nearest = max((number for number in rates if number <= at_once), default=min(rates))
        return self.load.asked(at_once) * self.load.output / rates[nearest] * SLACK + AROUND

    def turns(self, specs: Sequence[Spec], known: Known) -> Iterator[Turn]:
        """Give the runs of a batch: in each round, at each number of requests, one server after the other.

        So a drift of the machine falls on all alike. Every server has every round, whatever it had before: figures
        are held against those of the same round.
        """
        rounds = self.rounds_of(specs, known)
        for number in range(1, max(rounds.values()) + 1):
            for at_once in self.concurrency:
                if number <= rounds[at_once]:
                    yield from (Turn(number, at_once, spec) for spec in specs)
