"""The file of the keys that clients send: reads its lines, and writes lines for it. Pure.

docker/router/keys.lua reads the same file by the same rules.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from orchestrator.errors import ConfigError, TandemError

PREFIX = "tdm-"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_KEY = re.compile(r"[!-~]{16,512}")
_RATE = re.compile(r"[1-9][0-9]{0,8}/[smh]")
_COUNT = re.compile(r"[1-9][0-9]{0,5}")
NAME_RULE = "a name of at most 64 letters, digits, dots, underscores and dashes, a letter or digit first"
RATE_RULE = "a number of requests and /s, /m or /h, such as 60/m"
COUNT_RULE = "a number of requests at once, such as 4"


@dataclass(frozen=True)
class Key:
    """One key: who has it, and how much they may ask for; "" and 0 are no limit."""

    name: str
    key: str
    rate: str = ""
    concurrent: int = 0

    @property
    def line(self) -> str:
        """Write it as a line of the file."""
        rate = [f"rate={self.rate}"] if self.rate else []
        concurrent = [f"concurrent={self.concurrent}"] if self.concurrent else []
        return " ".join([self.name, self.key, *rate, *concurrent])

    @property
    def shown(self) -> dict[str, str | int | None]:
        """What may be told of it: never the key, of which the end tells two apart."""
        return {
            "name": self.name,
            "rate": self.rate or None,
            "concurrent": self.concurrent or None,
            "ends": self.key[-4:],
        }


def fault(name: str, rate: str, concurrent: str) -> str | None:
    """Say what is wrong with a name and limits; None when nothing is."""
    if not _NAME.fullmatch(name):
        return f'NAME: should be {NAME_RULE}, got "{name}"'
    if rate and not _RATE.fullmatch(rate):
        return f'rate: should be {RATE_RULE}, got "{rate}"'
    if concurrent and not _COUNT.fullmatch(concurrent):
        return f'concurrent: should be {COUNT_RULE}, got "{concurrent}"'
    return None


def parse(text: str, file: str) -> list[Key]:
    """Read the file's lines. Raises ConfigError with every line that is wrong; it never repeats a key."""
    found: list[Key] = []
    problems: list[str] = []
    for number, line in enumerate(text.split("\n"), start=1):
        words = _words(line)
        if not words:
            continue
        read = _read(words)
        if isinstance(read, Key):
            read = _clash(read, found) or read
        if isinstance(read, Key):
            found.append(read)
        else:
            problems.append(f"{file}: line {number}: {read}")
    if problems:
        raise ConfigError(problems)
    return found


def _words(line: str) -> list[str]:
    """Split a line; a word that begins with # begins a comment."""
    words = re.findall(r"[^ \t\r\n]+", line)
    end = next((place for place, word in enumerate(words) if word.startswith("#")), len(words))
    return words[:end]


def _read(words: list[str]) -> Key | str:
    if len(words) < 2 or not _KEY.fullmatch(words[1]):
        return "should be NAME KEY [rate=N/s, N/m or N/h] [concurrent=N], the key of 16 signs at the least"
    limits = {"rate": "", "concurrent": ""}
    for word in words[2:]:
        option, sign, value = word.partition("=")
        if option not in limits or not sign or not value or limits[option]:
            return "has words after the key that are not one rate= and one concurrent="
        limits[option] = value
    wrong = fault(words[0], **limits)
    return wrong or Key(words[0], words[1], limits["rate"], int(limits["concurrent"] or 0))


def _clash(key: Key, earlier: Iterable[Key]) -> str | None:
    for other in earlier:
        if other.name == key.name:
            return f"{key.name} has a key already, in an earlier line"
        if other.key == key.key:
            return f"{key.name} has the same key as {other.name}"
    return None


def added(text: str, key: Key) -> str:
    """Put a key at the end of the file's text; what is there stays as it is."""
    gap = "\n" if text and not text.endswith("\n") else ""
    return f"{text}{gap}{key.line}\n"


def removed(text: str, name: str, file: str) -> str:
    """Take a key out of the file's text. Raises TandemError when there is none of that name."""
    names = [key.name for key in parse(text, file)]
    if name not in names:
        there = f"there are: {', '.join(names)}" if names else "there is none at all"
        raise TandemError(f"{name}: no such key; {there}")
    return "".join(line for line in re.findall(r"[^\n]*\n|[^\n]+", text) if _words(line)[:1] != [name])
