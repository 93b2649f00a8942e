"""What came of asking a model, as text for people and values for scripts. Pure."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from orchestrator.errors import TandemError
from orchestrator.proof.checks import Check, passed
from orchestrator.proof.texts import columns_of
from orchestrator.proof.wording import NAMES

WIDTH = 80
# Where the last result of each model is kept, in the project's folder; git ignores it.
FOLDER = ".tandem/verify"
_MARKS: Mapping[str, str] = {"ok": "ok", "miss": "MISS", "warn": "warn", "skipped": "skipped"}


@dataclass(frozen=True)
class Result:
    """All rows of one run. when is RFC 3339 in UTC, seconds how long it took; plumbing leaves words out."""

    profile: str
    model: str
    address: str
    when: str
    seconds: float
    plumbing: bool
    rows: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong."""
        return passed(self.rows)

    @property
    def missed(self) -> list[str]:
        """Name what is wrong."""
        return [row.name for row in self.rows if row.state == "miss"]


def path(profile: str) -> str:
    """Name the file of a profile's last result, in the project's folder."""
    return f"{FOLDER}/{profile}.json"


def values(result: Result) -> dict[str, Any]:
    """Show a result to scripts; the file of the last result holds the same."""
    return {
        "profile": result.profile,
        "model": result.model,
        "address": result.address,
        "when": result.when,
        "seconds": round(result.seconds, 1),
        "plumbing": result.plumbing,
        "passed": result.passed,
        "checks": [asdict(row) for row in result.rows],
    }


def read(found: Any, name: str) -> Result:
    """Take what `values` showed for a result again. Raises TandemError, naming the file, when it is none."""
    try:
        rows = tuple(Check(row["name"], row["state"], row["fact"]) for row in found["checks"])
        if not rows or any(row.state not in _MARKS for row in rows):
            raise ValueError("no checks, or one of a state that there is not")
        words = {key: str(found[key]) for key in ("profile", "model", "address", "when")}
        return Result(**words, seconds=float(found["seconds"]), plumbing=bool(found["plumbing"]), rows=rows)
    except (LookupError, TypeError, ValueError) as error:
        raise TandemError(f"{name}: is no result of verify: {error}") from None


def table(result: Result) -> str:
    """Show a result in at most 80 columns."""
    width = max(len(row.name) for row in result.rows)
    lines = [f"{result.profile}: {result.address}, {result.seconds:.0f} s", ""]
    for row in result.rows:
        head = f"  {_MARKS[row.state]:<7}  {row.name:<{width}}  "
        first, *rest = _wrapped(row.fact, WIDTH - len(head))
        lines += [head + first, *(" " * len(head) + line for line in rest)]
    return "\n".join([*lines, "", *verdict(result)])


def verdict(result: Result) -> list[str]:
    """Sum a result up, and say what can be done."""
    if result.passed:
        return [f"{result.profile} is right" + (", but for its words, which nobody judged" if result.plumbing else "")]
    said = _wrapped(f"{result.profile} is up, and not right: {', '.join(result.missed)}", WIDTH)
    said += ["docs/verify.md says what each row means, and what to do"]
    # As checks.py calls the one row beside these that needs sense.
    if any(name in (*NAMES, "8 at once") for name in result.missed):
        again = f"python -m orchestrator verify {result.profile} --plumbing"
        said += ["Words without sense are meant, as of random weights? Leave them out:", f"  {again}"]
    return said


def _wrapped(text: str, width: int) -> list[str]:
    """Break a text between words into lines of so many columns; signs of Chinese take two."""
    lines: list[str] = []
    for word in " ".join(text.split()).split(" "):
        if lines and columns_of(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines += _cut(word, width)
    return lines


def _cut(word: str, width: int) -> list[str]:
    """Cut a word that is longer than a line."""
    pieces = [""]
    for sign in word:
        if columns_of(pieces[-1] + sign) > width:
            pieces.append("")
        pieces[-1] += sign
    return pieces
