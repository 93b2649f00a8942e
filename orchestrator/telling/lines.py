"""Chooses the lines of logs that matter: those that tell of a failure, and the last ones. Pure."""

import re
from collections.abc import Mapping, Sequence

from orchestrator import failures

# How many lines of all logs a report has, and how long one may be.
LINES, WIDTH = 100, 400
# Of a log's share, this part at the least is its end, whatever that says.
_TAIL = 3
_MATTERS = re.compile(
    r"\b(?:E\d{4}|err(?:or)?s?|warn(?:ing)?s?|crit(?:ical)?|emerg|alert|fatal|panic|traceback|refused|fail(?:ed|ure|s)?"
    r"|killed|oom\w*|timed out|time-?out|denied|unreachable|hung|abort(?:ed)?|gave up|not found)\b"
    r"|\w(?:Error|Exception)\b",
    re.IGNORECASE,
)


def matters(line: str) -> bool:
    """Whether a line tells that something is not as it should be."""
    return _MATTERS.search(line) is not None or failures.telling(line)


def chosen(logs: Mapping[str, Sequence[str]], total: int = LINES) -> dict[str, list[str]]:
    """Choose so many lines of all logs together, in their order; what is left out between them is counted."""
    shares = _shares({name: len(lines) for name, lines in logs.items()}, total)
    return {name: _of(lines, shares[name]) for name, lines in logs.items()}


def _shares(lengths: Mapping[str, int], total: int) -> dict[str, int]:
    """Share lines out evenly; what a short log does not need goes to the others."""
    shares: dict[str, int] = {}
    for place, name in enumerate(sorted(lengths, key=lambda name: lengths[name])):
        left = total - sum(shares.values())
        shares[name] = min(lengths[name], left // (len(lengths) - place))
    return shares


def _of(lines: Sequence[str], share: int) -> list[str]:
    tail = set(range(max(0, len(lines) - -(-share // _TAIL)), len(lines))) if share else set()
    telling = [place for place, line in enumerate(lines) if matters(line) and place not in tail]
    # The first failure says why, the last ones what came of it.
    room = share - len(tail)
    first = telling[: -(-room // 2)]
    taken = tail | set(first) | set(telling[len(first) :][max(0, len(telling) - room) :] if room else [])
    rest = [place for place in range(len(lines) - 1, -1, -1) if place not in taken]
    taken |= set(rest[: max(0, share - len(taken))])
    found: list[str] = []
    before = -1
    for place in sorted(taken):
        if place > before + 1:
            found.append(f"[… {place - before - 1} left out]")
        line = lines[place].rstrip()
        found.append(line if len(line) <= WIDTH else f"{line[:WIDTH]}…")
        before = place
    return found
