"""Writes findings for people: a table of 80 columns, or the line that a start ends with. Pure."""

import textwrap
from collections.abc import Sequence

from orchestrator.doctor.finding import Finding, Status

COLUMNS = 80
_ORDER: tuple[Status, ...] = ("bad", "warn", "unknown")
_INDENT = " " * 10


def table(findings: Sequence[Finding]) -> str:
    """Lay out all findings: status and check, what was found, and below what is not well why it matters and the fix."""
    width = max((len(finding.check) for finding in findings), default=0)
    lines: list[str] = []
    for finding in findings:
        head = f"{finding.status:<8}{finding.check:<{width}}  "
        lines += _wrapped(finding.found, head, " " * len(head))
        if finding.status != "ok":
            if finding.why:
                lines += _wrapped(finding.why, f"{_INDENT}why  ", f"{_INDENT}     ")
            lines += _fix(finding.fix)
    return "\n".join([*lines, "", summary(findings)])


def _wrapped(text: str, first: str, rest: str) -> list[str]:
    return textwrap.wrap(
        text, COLUMNS, initial_indent=first, subsequent_indent=rest, break_long_words=False, break_on_hyphens=False
    ) or [first.rstrip()]


def _fix(text: str) -> list[str]:
    """A fix is to be pasted, so its lines stay whole."""
    lines = text.splitlines()
    return [f"{_INDENT}{'fix  ' if number == 0 else '     '}{line}" for number, line in enumerate(lines)]


def summary(findings: Sequence[Finding]) -> str:
    """Count what is not well."""
    counts = {status: sum(finding.status == status for finding in findings) for status in _ORDER}
    bad, warn, unknown = (counts[status] for status in _ORDER)
    said = [
        f"{bad} {'stands' if bad == 1 else 'stand'} in the way" if bad else "nothing stands in the way",
        *([f"{warn} {'costs' if warn == 1 else 'cost'} something"] if warn else []),
        *([f"{unknown} could not be looked at"] if unknown else []),
    ]
    return "; ".join(said)


def refusal(finding: Finding) -> str:
    """The line that a start ends with: the same as in the table."""
    fix = "".join(f"\n  {line}" for line in finding.fix.splitlines())
    return f"{finding.check}: {finding.found.removesuffix('.')}: {finding.why}{fix}"
