"""What a pull is asked, and what it says: pull.py's arguments, its events, and tables of weights. Pure."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.errors import TandemError
from orchestrator.profiles import Profile

# What nobody needs to read who sees the progress.
_SMALL = frozenset({"file"})


@dataclass(frozen=True)
class Event:
    """One thing that happened: its kind, the words for a person, and what else pull.py says of it."""

    kind: str
    text: str
    more: Mapping[str, Any]

    @property
    def small(self) -> bool:
        """Whether it is one of many that a line of progress tells of as well."""
        return self.kind in _SMALL

    @property
    def json(self) -> str:
        """The event as pull.py said it."""
        return json.dumps({"event": self.kind, "text": self.text, **self.more}, ensure_ascii=False)


def wish(profile: Profile, options: Iterable[str] = (), *, way: str = "--events") -> list[str]:
    """Build pull.py's arguments for a profile; with --for-start as its way for Compose, before a server starts."""
    return ["pull", way, "--source", profile.source, *options, profile.model, profile.branch]


def event(line: str) -> Event | None:
    """Read a line of pull.py's; None when it is another program's."""
    if not line.startswith("{"):
        return None
    try:
        said = dict(json.loads(line))
        kind, text = str(said.pop("event")), str(said.pop("text"))
    except (ValueError, TypeError, LookupError):
        return None
    return Event(kind, text, said)


def wanted(profiles: Iterable[Profile]) -> list[Profile]:
    """Choose a profile for each model that is to be pulled, once; folders of this machine need none.

    Raises TandemError when two want different revisions of one model, which has one place in the volume.
    """
    found: dict[str, Profile] = {}
    for profile in profiles:
        if not profile.pulled:
            continue
        other = found.setdefault(profile.model, profile)
        if (other.source, other.branch) != (profile.source, profile.branch):
            raise TandemError(
                f"{other.name} and {profile.name} want {profile.model} from different places or revisions "
                f"({other.source} {other.branch}, {profile.source} {profile.branch}); there is room for one of them"
            )
    return list(found.values())
