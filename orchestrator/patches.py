"""docker/vllm/patches: which patches a version of vLLM gets, and what their headers say. Pure."""

import re
from dataclasses import dataclass

from orchestrator.errors import TandemError
from orchestrator.versions import number

# What each patch says of itself before its diff, in this order.
FIELDS = ("Fault", "What-breaks", "Upstream", "Versions", "Remove-when")
_BOUND = re.compile(r"(==|<=|>=|<|>)(\d+\.\d+\.\d+)")


@dataclass(frozen=True)
class Patch:
    """A line of the series: a patch, and the versions of vLLM that it is for, such as >=0.15.0,<=0.33.0."""

    name: str
    versions: str

    def applies_to(self, version: str) -> bool:
        """Whether this version gets the patch."""
        return all(_holds(number(version), *bound) for bound in _BOUND.findall(self.versions))


def series(text: str) -> list[Patch]:
    """Read the series' text, in its order. Raises TandemError with the first fault."""
    found: list[Patch] = []
    for place, line in enumerate(text.splitlines(), start=1):
        words = line.split()
        if not words or line.startswith("#"):
            continue
        where = f"docker/vllm/patches/series: line {place}"
        if len(words) != 2 or not all(_BOUND.fullmatch(bound) for bound in words[1].split(",")):
            raise TandemError(f"{where}: should be a patch and its versions, such as lora.patch >=0.15.0,<=0.33.0")
        if words[0] in {patch.name for patch in found}:
            raise TandemError(f"{where}: {words[0]} is listed twice")
        found.append(Patch(*words))
    return found


def applicable(text: str, version: str) -> list[Patch]:
    """Name the patches that a version gets, in the order of the series."""
    return [patch for patch in series(text) if patch.applies_to(version)]


def header(name: str, text: str) -> dict[str, str]:
    """Read what a patch says of itself, by the names of FIELDS. Raises TandemError when it says less or more."""
    found: dict[str, str] = {}
    key = ""
    for line in text.split("\n--- ", maxsplit=1)[0].splitlines():
        start = re.match(r"([A-Z][a-z-]+): +(\S.*)", line)
        if start:
            key = start[1]
            found[key] = start[2]
        elif line.startswith(" ") and key:
            found[key] += f"\n{line.strip()}"
    if tuple(found) != FIELDS:
        raise TandemError(f"docker/vllm/patches/{name}: its header should have {', '.join(FIELDS)}, in this order")
    return found


def _holds(version: tuple[int, ...], sign: str, other: str) -> bool:
    bound = number(other)
    return {
        "==": version == bound,
        "<=": version <= bound,
        ">=": version >= bound,
        "<": version < bound,
        ">": version > bound,
    }[sign]
