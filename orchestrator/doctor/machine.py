"""What lasts of a machine with GPUs: how it is built, without what changes from minute to minute. Pure."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any, Literal

Peer = Literal["yes", "no", "unknown"]
# As `nvidia-smi topo -p2p r` spells it; U and what else is not listed here says nothing.
WORKS = "OK"
REFUSED = {
    "CNS": "the chipset does not support it",
    "GNS": "the GPUs do not support it",
    "TNS": "the topology does not support it",
    "NS": "it is not supported",
    "DR": "it is disabled by a registry key",
}
# From the 40 series on a GeForce has no NVLink, and NVIDIA's own drivers keep peer-to-peer over PCIe from it.
NEVER = re.compile(r"GeForce RTX [45]0\d\d")
Link = tuple[int, int, str]


@dataclass(frozen=True)
class Box:
    """A machine: its driver's version, the names of its GPUs by index, and what the driver says of each pair."""

    wsl: bool
    driver: str
    gpus: Mapping[int, str]
    links: tuple[Link, ...] = field(default=())

    def has(self, gpus: Iterable[int]) -> bool:
        """Whether it has all of these GPUs."""
        return set(gpus) <= set(self.gpus)

    def peer(self, gpus: Iterable[int]) -> Peer:
        """Whether these GPUs reach each other's memory: told by the driver, else by what kind of GPU they are."""
        told = {frozenset((one, other)): word for one, other, word in self.links}
        words = [told.get(frozenset(pair), "") for pair in combinations(sorted(set(gpus)), 2)]
        if any(word in REFUSED for word in words):
            return "no"
        if words and all(word == WORKS for word in words):
            return "yes"
        return "no" if any(NEVER.search(self.gpus.get(gpu, "")) for gpu in gpus) else "unknown"

    def why(self, gpus: Iterable[int]) -> str:
        """Say why these GPUs have no peer-to-peer, in the driver's words where it has any."""
        wanted = set(gpus)
        words = (word for one, other, word in self.links if {one, other} <= wanted and word in REFUSED)
        return next((f"{REFUSED[word]} ({word})" for word in words), "NVIDIA's drivers keep it from a GeForce")


def merged(before: Box | None, now: Box) -> Box:
    """Give what lasts of two looks: what the driver said once of pairs of GPUs holds where it says nothing now."""
    same = before is not None and (before.wsl, before.driver, before.gpus) == (now.wsl, now.driver, now.gpus)
    return replace(now, links=before.links) if before is not None and same and not now.links else now


def values(box: Box) -> dict[str, Any]:
    """Turn a machine into what JSON can hold."""
    return {
        "wsl": box.wsl,
        "driver": box.driver,
        "gpus": {str(index): name for index, name in box.gpus.items()},
        "links": [list(link) for link in box.links],
    }


def read(found: Any) -> Box:
    """Read a machine back. Raises ValueError when it is none."""
    try:
        gpus = {int(index): str(name) for index, name in found["gpus"].items()}
        links = tuple((int(one), int(other), str(word)) for one, other, word in found["links"])
        driver, wsl = found["driver"], found["wsl"]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"no description of a machine ({error!r})") from None
    if not isinstance(driver, str) or not isinstance(wsl, bool):
        raise ValueError("no description of a machine (driver should be a string, wsl true or false)")
    return Box(wsl, driver, gpus, links)
