"""Which of our images are of use, and which may go. Pure: images and what the profiles want in, rows out."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.states import Image


@dataclass(frozen=True)
class Row:
    """An image and what is to be said of it: used, stale (docker/ changed since), old (nobody wants it)."""

    image: Image
    profiles: tuple[str, ...]
    state: str

    @property
    def name(self) -> str:
        """Its name, or the start of its id when a newer image has the name."""
        return self.image.name or self.image.ident.removeprefix("sha256:")[:12]

    @property
    def removable(self) -> bool:
        """Whether nobody would miss it."""
        return self.state == "old" and not self.image.used_by

    def json(self) -> dict[str, Any]:
        """The same for scripts; size is in bytes, created in Unix seconds."""
        labels = {key: value for key, value in self.image.labels.items() if value}
        return {
            "image": self.name,
            "id": self.image.ident,
            "size": self.image.size,
            "created": self.image.created,
            "state": self.state,
            "profiles": list(self.profiles),
            "containers": list(self.image.used_by),
            "labels": labels,
        }


def rows(images: Iterable[Image], wanted: Mapping[str, Iterable[str]], digests: Mapping[str, str]) -> list[Row]:
    """Judge images: wanted gives the profiles that use a name, digests what each name would be built from now."""
    return [_row(image, tuple(wanted.get(image.name, ())), digests) for image in images]


def _row(image: Image, profiles: tuple[str, ...], digests: Mapping[str, str]) -> Row:
    if not profiles:
        return Row(image, profiles, "old")
    expected = digests.get(image.name)
    return Row(image, profiles, "used" if expected in (None, image.inputs) else "stale")


def table(found: Iterable[Row], now: float) -> str:
    """Show rows in at most 80 columns, as far as the names of profiles allow; now is in Unix seconds."""
    lines = [("IMAGE", "SIZE", "AGE", "STATE", "FOR")]
    lines += [
        (row.name, size(row.image.size), age(now - row.image.created), row.state, _users(row.profiles)) for row in found
    ]
    if len(lines) == 1:
        return "no image of Tandem is on this machine; build those of a profile: python -m orchestrator build NAME"
    widths = [max(len(line[column]) for line in lines) for column in range(5)]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    if any(line[3] == "stale" for line in lines):
        text += ["", "stale: docker/ changed since; python -m orchestrator build NAME builds it anew"]
    if any(line[3] == "old" for line in lines):
        text += ["", "old: no profile uses it; python -m orchestrator images --prune removes it"]
    return "\n".join(text)


def _users(profiles: tuple[str, ...]) -> str:
    return ", ".join(profiles) if len(profiles) < 3 else f"{profiles[0]} and {len(profiles) - 1} more"


def size(count: int) -> str:
    """Write a number of bytes as Docker does: 9.42 GB."""
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def age(seconds: float) -> str:
    """Write a time span in its largest unit: 3 days."""
    for length, unit in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= length:
            count = int(seconds // length)
            return f"{count} {unit}{'s' if count != 1 else ''}"
    return "now"
