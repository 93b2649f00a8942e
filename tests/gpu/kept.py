"""What tests/gpu/flags.py keeps in its folder: a line of JSON for each start and each run, written as it comes."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.errors import TandemError
from orchestrator.load.results import Machine, Run
from tests.gpu.batches import Known, Load
from tests.gpu.variants import Spec


@dataclass(frozen=True)
class Start:
    """One server's start: ready, died (also later, while it was measured), or late.

    seconds are those until then, held is GiB of each GPU, said is what vLLM tells of itself. reason is why it counts
    as failed, "" where it does not: one is late without fault when the call's time was up. lines are the last telling
    ones of its log.
    """

    batch: int
    profile: str
    variant: str
    state: str
    seconds: float
    argv: list[str]
    env: dict[str, str]
    date: str
    held: list[float] = field(default_factory=list)
    said: dict[str, str] = field(default_factory=dict)
    reason: str = ""
    lines: list[str] = field(default_factory=list)

    @property
    def spec(self) -> Spec:
        return Spec(self.profile, self.variant)


@dataclass(frozen=True)
class Made:
    """One run, in the batch and the round of which it is held against others'."""

    batch: int
    round: int
    profile: str
    variant: str
    at_once: int
    load: tuple[int, int, int, int]
    run: Run
    drafts: dict[str, float] = field(default_factory=dict)

    @property
    def spec(self) -> Spec:
        return Spec(self.profile, self.variant)


class Kept:
    """A folder of starts and runs, all of one machine and one vLLM."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.starts_file, self.runs_file = folder / "starts.jsonl", folder / "runs.jsonl"
        self.machine_file = folder / "machine.json"

    def machine(self) -> tuple[Machine, str, bool]:
        """Read where it was measured, with which vLLM, and whether as the cards are. Raises TandemError for nothing."""
        try:
            said = json.loads(self.machine_file.read_text(encoding="utf-8"))
            # Before there was a choice, nothing was as the cards are.
            return Machine.model_validate(said["machine"]), str(said["vllm"]), bool(said.get("as_is", False))
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise TandemError(f"{self.folder}: holds no measurement: {error}") from None

    def same(self, machine: Machine, vllm: str, *, as_is: bool) -> None:
        """See that what was measured is of this machine. Raises TandemError when not: figures are not mixed.

        as_is says whether vLLM chooses by the size of these cards, or as on 24 GiB.
        """
        if not self.machine_file.exists():
            said = {"machine": machine.model_dump(), "vllm": vllm, "as_is": as_is}
            self.machine_file.write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
            return
        before, version, was = self.machine()
        if (_gpus(before), before.driver, version) != (_gpus(machine), machine.driver, vllm):
            raise TandemError(
                f"{self.folder}: was measured on {_gpus(before)}, driver {before.driver or 'none'}, vLLM {version}; "
                f"here it is {_gpus(machine)}, driver {machine.driver or 'none'}, vLLM {vllm}: name another folder"
            )
        if was != as_is:
            raise TandemError(
                f"{self.folder}: was measured {'with' if was else 'without'} --as-is: name another folder"
            )

    def started(self, start: Start) -> None:
        self._add(self.starts_file, asdict(start))

    def made(self, made: Made) -> None:
        self._add(self.runs_file, {**asdict(made), "run": made.run.model_dump()})

    def _add(self, path: Path, value: dict[str, Any]) -> None:
        with path.open("a", encoding="utf-8") as file:
            # A call that was killed may have left half a line: it ends here, and is not read.
            file.write(("" if _whole(path) else "\n") + json.dumps(value, ensure_ascii=False) + "\n")

    def starts(self) -> list[Start]:
        return [Start(**value) for value in self._read(self.starts_file)]

    def runs(self) -> list[Made]:
        return [
            Made(**{**value, "load": tuple(value["load"]), "run": Run.model_validate(value["run"])})
            for value in self._read(self.runs_file)
        ]

    def _read(self, path: Path) -> Iterator[dict[str, Any]]:
        if not path.exists():
            return
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            try:
                value = json.loads(line)
            except ValueError:
                # What a call that was killed had begun to write; what it was about is made again.
                if not line.endswith("}"):
                    continue
                raise TandemError(f"{path}: line {number} is not JSON") from None
            yield value

    def batch(self) -> int:
        """Number the next batch."""
        return 1 + max((start.batch for start in self.starts()), default=0)

    def known(self, load: Load, *, again: bool) -> Known:
        """Sum up what was seen; with `again`, what failed counts for nothing."""
        found = Known()
        for made in self.runs():
            if made.load == load.key:
                key = (made.spec, made.at_once)
                found.made[key] = found.made.get(key, 0) + 1
                found.lasted[key] = max(found.lasted.get(key, 0.0), made.run.seconds)
        starts = self.starts()
        for start in starts:
            if start.state == "ready":
                found.failed.discard(start.spec)
            elif start.reason and not again:
                found.failed.add(start.spec)
        # The last batch's start is what the next one's will be like: kernels are kept.
        found.started = _last_batch(starts)
        return found


def _last_batch(starts: Sequence[Start]) -> list[float]:
    ready = [start for start in starts if start.state == "ready"]
    return [start.seconds for start in ready if start.batch == ready[-1].batch]


def _whole(path: Path) -> bool:
    """Whether a file ends with a line's end; an empty one does."""
    text = path.read_bytes() if path.exists() else b""
    return not text or text.endswith(b"\n")


def _gpus(machine: Machine) -> str:
    return ", ".join(gpu.name for gpu in machine.gpus) or f"no GPU ({machine.cpu}, {machine.cores} cores)"
