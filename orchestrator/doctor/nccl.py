"""The all-reduce between a model's GPUs: what came of a try, for what it counts, what to try when it hangs. Pure."""

import json
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, get_args

from orchestrator.doctor.derived import CUMEM, CUSTOM, P2P, SHM
from orchestrator.profiles import Profile, gpu_names

State = Literal["works", "wrong", "hung", "failed"]
# Seconds that the all-reduce itself may take; connecting two GPUs takes one or two.
SECONDS = 60
# What the program (docker/vllm/verify/allreduce.py) may take in all: torch comes from a cold disk, and is imported
# before the time of the all-reduce counts.
LIMIT = 180 + SECONDS + 30


@dataclass(frozen=True)
class Tried:
    """For what a result counts: an image by its id, a driver, GPUs by their indexes. tag is the image's build."""

    image: str
    tag: str
    driver: str
    gpus: tuple[int, ...]


@dataclass(frozen=True)
class Result:
    """What came of one all-reduce.

    seconds is the first one, with what connects the ranks; rate is in gigabytes (10^9 bytes) of a rank's data a second.
    environment are the variables that it ran with; needed are those of them without which it did not end.
    """

    state: State
    backend: str
    phase: str = ""
    why: str = ""
    seconds: float | None = None
    rate: float | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    needed: Mapping[str, str] = field(default_factory=dict)

    @property
    def counts(self) -> bool:
        """Whether it may be kept: an error may have had its cause in the moment."""
        return self.state != "failed"

    @property
    def stops(self) -> bool:
        """Whether a model on these GPUs cannot work like this."""
        return self.state in ("hung", "wrong")

    def __str__(self) -> str:
        if self.state != "works":
            said = {"hung": "hung", "wrong": "gave wrong sums", "failed": "failed"}[self.state]
            return f"{self.backend} {said}: {self.why or 'it did not say why'}" + (
                f" (at: {self.phase})" if self.state == "hung" and self.phase else ""
            )
        rate = f", then {self.rate:.1f} GB/s" if self.rate is not None else ""
        took = f" in {self.seconds:.1f} s" if self.seconds is not None else ""
        return f"{self.backend} works: an all-reduce ended{took}{rate}"


@dataclass(frozen=True)
class Trial:
    """One thing to try: variables, the server's flags that belong to them, and why it may help."""

    environment: Mapping[str, str]
    reason: str
    flags: tuple[str, ...] = ()

    def __str__(self) -> str:
        words = [f"{name}={value}" for name, value in self.environment.items()] + [f"--{flag}" for flag in self.flags]
        return " ".join(words)


MEND = "python -m orchestrator doctor --fix"
# In the order of what they cost: each takes a way from NCCL, the fastest first. The later ones keep what the earlier
# ones say, as NCCL falls from one way to the next (its user guide, Environment Variables).
TRIALS = (
    Trial({P2P: "1"}, "NCCL takes the GPUs for peers that are none; it goes through shared memory then", (CUSTOM,)),
    Trial(
        {P2P: "1", CUMEM: "0"},
        "shared memory the older way, by /dev/shm and not by CUDA's own, which containers and WSL2 may refuse",
        (CUSTOM,),
    ),
    Trial({P2P: "1", CUMEM: "0", SHM: "1"}, "through the loopback network, the slowest way there is", (CUSTOM,)),
)


def trials(environment: Mapping[str, str]) -> list[Trial]:
    """List what is left to try, in order, for an all-reduce that hung, or was wrong, with these variables."""
    return [trial for trial in TRIALS if not trial.environment.items() <= environment.items()]


def walk(
    environment: Mapping[str, str], run: Callable[[Mapping[str, str]], Result], say: Callable[[str], None]
) -> Result:
    """Try one after the other until an all-reduce ends with the right sums; give the last result.

    run tries it with variables beside those of the server. That of a trial which works says what was needed.
    """
    last = Result("hung", "nccl", environment=environment, why="nothing is left to try")
    for trial in trials(environment):
        say(f"trying {trial}: {trial.reason}")
        last = run({**environment, **trial.environment})
        say(str(last))
        if last.state == "works":
            more = {name: value for name, value in trial.environment.items() if environment.get(name) != value}
            return replace(last, needed=more)
        if last.state == "failed":
            return last
    return last


def advice(environment: Mapping[str, str]) -> str:
    """Say what tries what is left when it hangs, and how the next of that is tried by hand."""
    left = trials(environment)
    if not left:
        return "nothing is left to switch off: look at the driver (wsl --update, a newer one), and at the cards alone"
    words = ", ".join(f'{name} = "{value}"' for name, value in left[0].environment.items())
    return (
        f"{MEND}   # tries all that is left, in order, and keeps what works\n"
        f"or by hand: env = {{ {words} }} for the model in models.toml; the next up tries it with them"
    )


def said(text: str, environment: Mapping[str, str]) -> Result:
    """Read what the program printed. Raises ValueError when it is no answer of its."""
    try:
        found = json.loads(text.strip().splitlines()[-1])
        state, why = found["state"], str(found["why"])
        if state not in get_args(State):
            raise ValueError(f"state {state}")
        return Result(
            state, str(found["backend"]), str(found["phase"]), why, _float(found["seconds"]),
            _float(found["gigabytes_per_second"]), dict(environment),
        )  # fmt: skip
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"the all-reduce printed no answer ({error!r})") from None


def _float(value: Any) -> float | None:
    return None if value is None else float(value)


def due(profile: Profile, tried: Tried, kept: Mapping[Tried, Result]) -> str:
    """Say why an all-reduce has to be tried before a profile's server starts; "" when it has not.

    One that hung is tried again: something was changed since, or the same is said again.
    """
    if profile.image != "cuda" or len(profile.gpus) < 2 or not tried.driver:
        return ""
    found = kept.get(tried)
    if found is None:
        return "none was tried with this image and driver"
    return f"the last one {found.state}" if found.stops else ""


def needed(kept: Mapping[Tried, Result], tag: str, driver: str, gpus: Sequence[int]) -> dict[str, str]:
    """Give the variables without which an all-reduce did not end here, for images of a build; the newest counts."""
    mine = [
        result for key, result in kept.items()
        if (key.tag, key.driver, key.gpus) == (tag, driver, tuple(gpus)) and result.state == "works"
    ]  # fmt: skip
    return dict(mine[-1].needed) if mine else {}


def values(kept: Mapping[Tried, Result]) -> list[dict[str, Any]]:
    """Turn results into what JSON can hold, the oldest first."""
    return [{**asdict(key), "gpus": list(key.gpus), **asdict(result)} for key, result in kept.items()]


def read(found: Any) -> dict[Tried, Result]:
    """Read results back. Raises ValueError when they are none."""
    try:
        return dict(_pair(entry) for entry in found)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"no results of all-reduces ({error!r})") from None


def _pair(entry: Mapping[str, Any]) -> tuple[Tried, Result]:
    key = Tried(str(entry["image"]), str(entry["tag"]), str(entry["driver"]), tuple(int(gpu) for gpu in entry["gpus"]))
    if entry["state"] not in get_args(State):
        raise ValueError(f"state {entry['state']}")
    tables = [{str(name): str(value) for name, value in entry[word].items()} for word in ("environment", "needed")]
    return key, Result(
        entry["state"], str(entry["backend"]), str(entry["phase"]), str(entry["why"]), _float(entry["seconds"]),
        _float(entry["rate"]), *tables,
    )  # fmt: skip


def with_result(kept: Mapping[Tried, Result], key: Tried, result: Result) -> dict[Tried, Result]:
    """Add a result, as the newest; an older one of the same is gone."""
    return {**{other: found for other, found in kept.items() if other != key}, key: result}


def refusal(profile: Profile, result: Result, environment: Mapping[str, str]) -> str:
    """The error of an `up`: what came of it, and what to do."""
    return (
        f"{profile.name} would hang: the all-reduce between {gpu_names(profile.gpus)} {_short(result)}.\n"
        f"{textwrap.indent(advice(environment), '  ')}\n"
        f"  To start it all the same: up {profile.name} --force"
    )


def _short(result: Result) -> str:
    return {"hung": f"did not end ({result.why})", "wrong": "gave wrong sums"}.get(result.state, str(result))
