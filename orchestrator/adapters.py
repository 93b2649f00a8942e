"""The LoRA adapters that a server is started with: what the flag lora-modules says, read as vLLM reads it. Pure."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from orchestrator.problems import Path, show

FLAG, SWITCH = "lora-modules", "enable-lora"
# The fields of vLLM's LoRAModulePath: those that it needs, and what each of the others may be.
_NEEDED = ("name", "path")
_MAY: dict[str, tuple[type, ...]] = {"base_model_name": (str, type(None)), "is_3d_lora_weight": (bool,)}
_HALVES = re.compile("[\ud800-\udfff]")
SHAPES = '"name=path" with no comma, { name = "...", path = "..." } as a table or as JSON, or a list of such texts'


@dataclass(frozen=True)
class Adapter:
    """A name that clients may send, and where the server finds the adapter."""

    name: str
    path: str


@dataclass(frozen=True)
class Fault:
    """A value that names no adapter: where it is below the flag, and the fact."""

    place: Path
    fact: str


def read(args: dict[str, Any]) -> Iterator[Adapter | Fault]:
    """Read the adapters that a profile's args name, in their order; none where the flag is not given."""
    if FLAG not in args:
        return
    given = args[FLAG]
    if given == []:
        yield Fault((), f"should be {SHAPES}, got []")
    each: list[tuple[Path, Any]] = [((), given)]
    if isinstance(given, list):
        each = [((place,), one) for place, one in enumerate(given)]
    for place, one in each:
        # A table in a list has a fault of its own already: only texts and numbers may be there.
        if not place or isinstance(one, str | int | float):
            yield _adapter(one) or Fault(place, f"should be {SHAPES}, got {show(one)}")


def adapters(args: dict[str, Any]) -> list[Adapter]:
    """Give the adapters alone."""
    return [found for found in read(args) if isinstance(found, Adapter)]


def _adapter(given: Any) -> Adapter | None:
    """Read one; vLLM takes a text with = and no comma for name=path, and every other for JSON."""
    if isinstance(given, str) and "=" in given and "," not in given:
        name, _, path = given.partition("=")
        fields: Any = {"name": name, "path": path}
    elif isinstance(given, str):
        try:
            fields = json.loads(given)
        except (json.JSONDecodeError, RecursionError):
            return None
    else:
        fields = given
    return Adapter(fields["name"], fields["path"]) if _whole(fields) else None


def _whole(fields: Any) -> bool:
    """Say whether these are all the fields that an adapter needs and none that it has not, each of its type."""
    if not isinstance(fields, dict) or not fields.keys() <= {*_NEEDED, *_MAY}:
        return False
    if not all(isinstance(fields.get(key), str) and fields[key] for key in _NEEDED):
        return False
    # argparse would take the first for a flag; and JSON can escape halves of a character, which no file can hold.
    if fields["name"].startswith("-") or _HALVES.search(fields["name"] + fields["path"]):
        return False
    return all(isinstance(fields[key], kind) for key, kind in _MAY.items() if key in fields)
