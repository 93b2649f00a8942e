"""The settings of switching: what each may be, in whose words, and what it is in Policy. Pure.

The orchestrator refuses a wrong one before anything is done, and the activator, which `docker compose up` starts with
no orchestrator, refuses it once more; both by this table.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from orchestrator.switch.world import Policy


@dataclass(frozen=True)
class Kind:
    """What values are: a pattern, its words for who wrote another one, and how the text is read and written."""

    pattern: str
    words: str
    read: Callable[[str], Any]

    def fits(self, text: str) -> bool:
        """Whether a text is such a value."""
        return re.fullmatch(self.pattern, text, re.ASCII) is not None


_SECONDS = Kind(r"(?=.*[1-9])[0-9]+(?:\.[0-9]+)?", "a number of seconds above 0, such as 300", float)
_NO_SECONDS = Kind(r"[0-9]+(?:\.[0-9]+)?", "a number of seconds, such as 5", float)
_REQUESTS = Kind(r"0*[1-9][0-9]*", "a number of requests of at least 1", int)
_SOME_BYTES = Kind(r"0*[1-9][0-9]*", "a number of bytes of at least 1, such as 268435456", int)
_BYTES = Kind(r"[0-9]+", "a number of bytes, such as 8589934592", int)
_SWITCH = Kind(r"[01]", "1 or 0", "1".__eq__)

# By setting: its field of Policy, and what it may be.
TUNABLES: dict[str, tuple[str, Kind]] = {
    "TANDEM_HOLD_TIMEOUT": ("hold_timeout", _SECONDS),
    "TANDEM_QUEUE_REQUESTS": ("queue_requests", _REQUESTS),
    "TANDEM_QUEUE_BYTES": ("queue_bytes", _SOME_BYTES),
    "TANDEM_DRAIN_TIMEOUT": ("drain_timeout", _SECONDS),
    "TANDEM_STALL_TIMEOUT": ("stall_timeout", _SECONDS),
    "TANDEM_MIN_AWAKE": ("min_awake", _NO_SECONDS),
    "TANDEM_ABANDON": ("abandon", _SWITCH),
    "TANDEM_HOST_RESERVE": ("host_reserve", _BYTES),
}
# What a held request hears while it waits: no field of Policy, as nothing is decided by it.
WAIT_AS = ("comment", "reasoning")


def defaults() -> dict[str, str]:
    """Give each setting as it would be written, of a Policy in which nothing was set."""
    usual = {each.name: each.default for each in fields(Policy)}
    return {name: f"{usual[key]:.15g}" for name, (key, _) in TUNABLES.items()}


def fault(name: str, text: str) -> str | None:
    """Say what is wrong with the text of a setting of the table; None when nothing is."""
    kind = TUNABLES[name][1]
    return None if kind.fits(text) else f'{name}: should be {kind.words}, got "{text}"'


def policy(environment: Mapping[str, str]) -> tuple[Policy, list[str]]:
    """Read all of them, and say what is wrong; an empty one is not set, as Compose passes what nobody set."""
    said = {name: environment[name].strip() for name in TUNABLES if environment.get(name, "").strip()}
    faults = [found for name, text in said.items() if (found := fault(name, text))]
    if faults:
        return Policy(), faults
    return Policy(**{TUNABLES[name][0]: TUNABLES[name][1].read(text) for name, text in said.items()}), []
