"""What `vllm bench serve` found, as values: one run, all runs of one concurrency, a whole result. Pure."""

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from orchestrator.bench import median
from orchestrator.errors import TandemError

# From this version on `vllm bench serve` knows every option that it is given here. The command itself came with 0.8,
# with fewer (vLLM's pull request 13993); 0.7.3 has none.
SINCE = (0, 11)
# What is told of each run, and by which name vLLM tells it. Milliseconds for those that end so, else per second.
METRICS: Mapping[str, str] = {
    "output_tokens": "output_throughput",
    "total_tokens": "total_token_throughput",
    "requests": "request_throughput",
    "ttft_ms": "median_ttft_ms",
    "ttft_p99_ms": "p99_ttft_ms",
    "tpot_ms": "median_tpot_ms",
    "tpot_p99_ms": "p99_tpot_ms",
}
# So many different faults of one run are told.
FAULTS = 3
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]


class _Value(BaseModel):
    """A part of a result, as it is kept in a file: unknown keys and numbers that are none are faults."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Options(_Value):
    """What is measured: tokens of a prompt and of an answer, and how often.

    A run at a concurrency asks `per` times as many requests; a warm-up as many as the concurrency.
    """

    input: Positive
    output: Annotated[int, Field(ge=2)]
    per: Positive
    runs: Positive
    warmups: Count
    concurrency: Annotated[tuple[Positive, ...], Field(min_length=1)]


class Run(_Value):
    """One run. metrics are those of METRICS, over the requests that were answered; faults say why others were not.

    others is how many requests of other clients were in flight to the model when it began.
    """

    seed: Count
    asked: Positive
    failed: Count
    seconds: float
    input_tokens: Count
    metrics: dict[str, float]
    faults: tuple[str, ...] = ()
    others: Count = 0


class Spread(_Value):
    """The median of several runs, and the least and the most of them."""

    median: float
    low: float
    high: float


class Case(_Value):
    """All runs at one concurrency; spread is by metric and over those runs in which no request failed."""

    concurrency: Positive
    runs: tuple[Run, ...]
    spread: dict[str, Spread]

    @property
    def good(self) -> int:
        """How many runs the spread is over."""
        return sum(1 for run in self.runs if not run.faults)

    @model_validator(mode="after")
    def _has_its_spread(self) -> Self:
        missing = [name for name in METRICS if name not in self.spread]
        if self.good and missing:
            raise ValueError(f"spread should have {', '.join(missing)}")
        return self


class Gpu(_Value):
    """A GPU of the machine; memory in bytes."""

    index: Count
    name: str
    memory: Count


class Machine(_Value):
    """Where it was measured; driver is "" and gpus are none where there is no NVIDIA driver."""

    cpu: str
    cores: Count
    driver: str
    gpus: tuple[Gpu, ...]


class Server(_Value):
    """What was measured: vLLM's version, the image and its id, and the command line of the server's container."""

    vllm: str
    image: str
    image_id: str
    command: tuple[str, ...]


class Result(_Value):
    """A whole result, as its file holds it. date is RFC 3339 in UTC."""

    format: Literal[1] = 1
    profile: str
    model: str
    date: str
    tandem: str
    commit: str
    server: Server
    machine: Machine
    options: Options
    cases: tuple[Case, ...]

    @property
    def failed(self) -> bool:
        """Whether any request failed."""
        return any(run.faults for case in self.cases for run in case.runs)


def read(text: str, *, asked: int, output: int, seed: int, others: int = 0) -> Run:
    """Read the JSON that one `vllm bench serve` saved with --save-detailed, of so many requests and tokens of each.

    Raises TandemError when it is not of that shape.
    """
    try:
        said: dict[str, Any] = dict(json.loads(text))
        completed, tokens = int(said["completed"]), int(said["total_output_tokens"])
        failed = asked - completed
        return Run(
            seed=seed,
            asked=asked,
            failed=failed,
            seconds=said["duration"],
            input_tokens=said["total_input_tokens"],
            metrics={name: said[theirs] for name, theirs in METRICS.items()},
            faults=_faults(said.get("errors") or (), failed, completed * output, tokens),
            others=others,
        )
    except (ValueError, TypeError, LookupError) as error:
        raise TandemError(f"vllm bench serve saved what is no result: {_words(error)}") from None


def _words(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        # What is no JSON is wrong at no place of its own.
        return ": ".join(part for part in (".".join(map(str, first["loc"])), first["msg"]) if part)
    return f"no {error}" if isinstance(error, LookupError) else str(error)


def _faults(errors: Sequence[str], failed: int, wanted: int, tokens: int) -> tuple[str, ...]:
    """Say what went wrong, with how often: the last line of each error, as the first ones are a traceback."""
    counted: dict[str, int] = {}
    for error in errors:
        lines = [line.strip() for line in error.splitlines() if line.strip()]
        if lines:
            counted[lines[-1]] = counted.get(lines[-1], 0) + 1
    often = sorted(counted.items(), key=lambda each: -each[1])
    found = [f"{number} failed: {words}" for words, number in often[:FAULTS]]
    unsaid = failed - sum(number for _, number in often[:FAULTS])
    if unsaid > 0:
        found.append(f"{unsaid} failed" + (" otherwise" if found else ""))
    if tokens < wanted:
        # Every answer is as long as was asked for, as the end of a text is not heeded: less is a stream that broke off.
        found.append(f"answers broke off: {tokens} tokens in place of {wanted}")
    return tuple(found)


def case(concurrency: int, runs: Sequence[Run]) -> Case:
    """Put the runs of one concurrency together; those with a failed request are kept, and not counted."""
    good = [run for run in runs if not run.faults]
    spread = {name: _spread([run.metrics[name] for run in good]) for name in METRICS} if good else {}
    return Case(concurrency=concurrency, runs=tuple(runs), spread=spread)


def _spread(values: Sequence[float]) -> Spread:
    return Spread(median=median(values), low=min(values), high=max(values))


def load(text: str, name: str) -> Result:
    """Read a result's file. Raises TandemError, naming the file and the first fault, when it is none."""
    try:
        return Result.model_validate_json(text)
    except ValidationError as error:
        raise TandemError(f"{name}: is no result of bench: {_words(error)}") from None


def dump(result: Result) -> str:
    """Write a result's file."""
    return result.model_dump_json(indent=1) + "\n"
