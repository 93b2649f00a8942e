"""The weights that are there, as rows: by profile what is there of its model, and what may be removed. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from orchestrator.bundle.meter import amount
from orchestrator.errors import TandemError
from orchestrator.inventory import age
from orchestrator.profiles import Profile
from orchestrator.render.serve import folder
from orchestrator.rules import MODEL_ID
from orchestrator.states import Container

_COLUMNS = 80
# Which of the table's columns it is.
_REVISION = 3


@dataclass(frozen=True)
class Row:
    """A profile and its model's weights: state as care.listed names it, or folder, or by-id; sizes in bytes.

    total and used (Unix seconds) are None when they are not known; serving: a server has it now; aside: bytes of an
    update that is not whole.
    """

    profile: str
    model: str
    source: str
    state: str
    bytes: int | None
    total: int | None
    revision: str
    resolved: str | None
    used: float | None
    serving: bool
    aside: int = 0

    def json(self) -> dict[str, Any]:
        """The row for scripts."""
        return asdict(self)


def rows(
    profiles: Iterable[Profile], seen: Mapping[str, Any], containers: Mapping[str, Container], sizes: Mapping[str, int]
) -> list[Row]:
    """Lay out what was seen (care.listed's answer) by profile; sizes are those of folders of this machine."""
    found = []
    for profile in profiles:
        there = seen.get("models", {}).get(profile.model, {}) if profile.pulled else {}
        container = containers.get(profile.name)
        state, source, size = there.get("state", "unknown"), profile.source, there.get("bytes")
        if profile.local:
            state, source, size = "folder", "path", sizes.get(profile.name)
        elif not profile.pull:
            state = "by-id"
        elif state == "complete" and not _is_what(profile, there):
            state = "other revision"
        found.append(
            Row(
                profile=profile.name,
                model=profile.model,
                source=source,
                state=state,
                bytes=size,
                total=size if profile.local else there.get("total"),
                revision="" if profile.local else there.get("revision") or profile.branch,
                resolved=there.get("resolved"),
                used=there.get("used"),
                aside=there.get("aside", 0),
                serving=_serves(container, profile),
            )
        )
    return found


def _serves(container: Container | None, profile: Profile) -> bool:
    """Whether a server has a profile's model now, and not another that the profile named before."""
    if container is None or not container.alive:
        return False
    return container.serves in ("", folder(profile))


def _is_what(profile: Profile, there: Mapping[str, Any]) -> bool:
    """Whether a start would take what is there: weights.manifest's is_what."""
    return there["source"] == profile.source and profile.branch in (there["revision"], there["resolved"])


def table(found: Iterable[Row], seen: Mapping[str, Any], now: float) -> str:
    """Lay rows out in 80 columns, with what else lies there and how much room is left below."""
    head = ("PROFILE", "SIZE", "STATE", "REVISION", "LAST USED")
    cells = [(row.profile, _size(row), _state(row), _revision(row), _used(row, now)) for row in found]
    widths = [max(len(line[column]) for line in (head, *cells)) for column in range(len(head))]
    # A revision may be as long as it likes; it is what can be cut.
    rest = sum(widths) - widths[_REVISION] + 2 * len(widths) - 2
    widths[_REVISION] = min(widths[_REVISION], max(len(head[_REVISION]), _COLUMNS - rest))
    lines = [
        "  ".join(f"{_cut(cell, width):{width}}" for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in (head, *cells)
    ]
    others = [f"  {name} ({amount(row['bytes'] + row['aside'])})" for name, row in seen.get("others", {}).items()]
    if others:
        lines += ["", "in the volume and in no profile:", *others]
    if seen.get("free") is not None:
        lines += ["", f"free where the weights are: {amount(seen['free'])}"]
    return "\n".join(lines)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


def _size(row: Row) -> str:
    size = row.bytes if row.total is None else row.total
    return amount(size) if size else "-"


def _state(row: Row) -> str:
    if row.state in ("partial", "pulling") and row.total:
        return f"{row.state} {min(99, 100 * (row.bytes or 0) // row.total)}%"
    return f"{row.state}, {amount(row.aside)} aside" if row.aside else row.state


def _revision(row: Row) -> str:
    commit = f" ({row.resolved[:8]})" if row.resolved and row.resolved != row.revision else ""
    return f"{row.revision[:16]}{commit}" or "-"


def _used(row: Row, now: float) -> str:
    if row.serving:
        return "now"
    if row.used is None:
        return "-"
    return f"{age(now - row.used)} ago" if now - row.used >= 60 else "just now"


def removable(
    name: str, profiles: Mapping[str, Profile], containers: Mapping[str, Container], owned: Mapping[str, str]
) -> str:
    """Name the model that is meant. Raises TandemError when it is not ours to remove, or when a server has it.

    owned gives the profile of each folder of the user's own that lies where models are pulled to, as org/name.
    """
    named = next((p for p in profiles.values() if name == p.name or name in p.names), None)
    if named is not None and named.local:
        raise TandemError(f"{named.name}: {named.model} is a folder of yours; nothing of it is removed")
    if named is not None and not named.pull:
        raise TandemError(f"{named.name}: its server fetches {named.model} itself, so there is nothing to remove")
    if named is None and not MODEL_ID.fullmatch(name):
        raise TandemError(f"{name}: should be the org/name of a model, or a profile: {', '.join(profiles)}")
    model = named.model if named else name
    if model in owned:
        raise TandemError(f"{model} is the folder of {owned[model]}, and yours; nothing of it is removed")
    # What runs, and not what models.toml says by now.
    for container in containers.values():
        if container.alive and container.serves == f"/models/{model}":
            service = container.service
            raise TandemError(f"{model} is served by {service}: python -m orchestrator down {service}")
    return model
