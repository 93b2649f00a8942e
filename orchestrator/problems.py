"""A fault of models.toml: where it is, in TOML's own spelling, and the fact. Pure."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

Path = tuple[str | int, ...]
# What JSON allows inside quotes, and YAML does not or takes for a line end.
_CONTROLS = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")
_BARE = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True)
class Problem:
    """One fault: the keys that lead to it, and what is wrong there with the valid values."""

    path: Path
    fact: str

    def __str__(self) -> str:
        return f"{'.'.join(_key(part) for part in self.path)}: {self.fact}"


def quoted(text: str) -> str:
    """Quote a text on one line, in a way that TOML, YAML and JSON read back as it is."""
    return _CONTROLS.sub(lambda match: f"\\u{ord(match[0]):04x}", json.dumps(text, ensure_ascii=False))


def suggest(word: str, valid: Iterable[str], otherwise: str) -> str:
    """Give what goes behind a fact about an unknown word: whether the nearest valid one was meant, or another text."""
    close = get_close_matches(word, list(valid), n=1)
    return f", did you mean {close[0]}?" if close else otherwise


def _key(part: str | int) -> str:
    return str(part) if isinstance(part, int) or _BARE.fullmatch(part) else quoted(part)


def show(value: Any) -> str:
    """Write a value as TOML does."""
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(show, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(key)} = {show(given)}" for key, given in value.items()) + "}"
    return str(value)
