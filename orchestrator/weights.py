"""Runs pull.py in a container beside whatever is up: pulls, lists, verifies and removes weights."""

import itertools
import json
import os
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from orchestrator import commands
from orchestrator.engine import Engine
from orchestrator.errors import TandemError
from orchestrator.profiles import Profile
from orchestrator.project import Project
from orchestrator.pulls import Event, event, wish
from orchestrator.settings import TOKENS

OLD_IMAGE = "the image is older than this Tandem and knows no such thing: python -m orchestrator build {name}"
_NUMBERS = itertools.count(1)


class Weights:
    """The weights of a project, as the hub's client in its images sees them."""

    def __init__(self, whole: Project, engine: Engine) -> None:
        self._project = whole
        self._engine = engine

    def pull(self, profile: Profile, options: Iterable[str] = ()) -> Generator[Event, None, None]:
        """Pull a profile's weights, or what is missing of them; give what it says as it goes.

        Raises TandemError when it fails. Closing the generator ends the pull; what was fetched stays.
        """
        given = self._token(profile)
        words = wish(profile, [*options, *(["--token-on-stdin"] if given else [])])
        yield from self._run(profile, words, given, alone="--for-start" not in words)

    def verify(self, profile: Profile) -> Generator[Event, None, None]:
        """Hash a profile's weights again. Raises TandemError when they are damaged or not whole."""
        yield from self._run(profile, ["verify", "--events", profile.model], None)

    def remove(self, profile: Profile, model: str) -> Generator[Event, None, None]:
        """Remove a model's weights with a profile's image."""
        yield from self._run(profile, ["remove", "--events", model], None)

    def listing(self, profile: Profile, models: Sequence[str]) -> dict[str, Any]:
        """Look at what is there, with a profile's image: `models`, `others` and `free` as care.listed gives them."""
        done = self._engine.run(self._argv(profile, self._name(profile), ["list", *models]), check=False)
        try:
            return dict(json.loads(done.stdout).items())
        except (ValueError, AttributeError):
            said = (done.stderr or done.stdout).strip().splitlines() or ["it said nothing"]
            old = " " + OLD_IMAGE.format(name=profile.name) if "pull.py" in done.stderr else ""
            raise TandemError(f"the weights cannot be looked at: {said[-1]}{old}") from None

    def _argv(self, profile: Profile, container: str, words: Iterable[str], *, alone: bool = True) -> list[str]:
        return commands.weights(self._project.settings.env_files, profile.name, container, words, alone=alone)

    def _name(self, profile: Profile) -> str:
        # Of this process alone: another's pull of the same model is not ours to end.
        return f"{self._engine.project}-pull-{profile.name}-{os.getpid()}-{next(_NUMBERS)}"

    def _run(
        self, profile: Profile, words: list[str], given: str | None, *, alone: bool = True
    ) -> Generator[Event, None, None]:
        container = self._name(profile)
        said: list[str] = []
        error: str | None = None
        code = ""
        try:
            with closing(self._engine.stream(self._argv(profile, container, words, alone=alone), given)) as lines:
                for line in lines:
                    # The last line alone is the code: another program may say "=====".
                    code = line if line.startswith("=") else ""
                    found = event(line)
                    if found is None:
                        said.append(line)
                    elif found.kind == "error":
                        error = found.text
                    else:
                        yield found
        finally:
            if code == "":
                # Compose leaves the container behind when it is told to end.
                self._engine.discard(container)
        if code != "=0" or error is not None:
            raise TandemError(error or _unsaid(profile, said[:-1]))

    def _token(self, profile: Profile) -> str | None:
        """Read the hub's token; it goes to the container by its standard input, where nobody else sees it."""
        name, file = TOKENS[profile.source]
        settings = self._project.settings
        if settings.get(name):
            return settings.get(name)
        path = settings.get(file)
        if not path:
            return None
        try:
            return Path(path).read_text(encoding="utf-8").strip() or None
        except (OSError, UnicodeDecodeError) as error:
            raise TandemError(f"{file}: {path} cannot be read: {error}") from None


def follow(events: Generator[Event, None, None], tell: Callable[[Event], None]) -> None:
    """Tell of each event; an interruption ends what gives them."""
    with closing(events):
        for each in events:
            tell(each)


def _unsaid(profile: Profile, said: list[str]) -> str:
    lines = [line for line in said if line.strip()] or ["it said nothing"]
    if any("pull.py" in line or "could not pull" in line for line in lines):
        return OLD_IMAGE.format(name=profile.name)
    return lines[-1]
