"""Runs pull.py in a container beside whatever is up: pulls, lists, verifies and removes weights."""

import itertools
import json
import os
import re
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from orchestrator import commands, failures
from orchestrator.engine import Engine
from orchestrator.errors import TandemError
from orchestrator.profiles import Profile
from orchestrator.project import Project
from orchestrator.pulls import Event, event, wish
from orchestrator.settings import TOKENS

KILLED = "its container was ended from outside ({code}). Run it again, and it goes on: what was fetched is kept"
# What Python and pull.py's own argparse say where the program is another than this Tandem's.
_OTHER_PROGRAM = re.compile(
    r"can't open file .*pull\.py|invalid choice: |unrecognized arguments: |tandem: could not pull"
)
OLD_IMAGE = "the image is older than this Tandem and knows no such thing: python -m orchestrator build {name}"
_NUMBERS = itertools.count(1)


class PullError(TandemError):
    """What a pull, or a look at weights, failed with; event is all that was said of it."""

    def __init__(self, event: Event) -> None:
        super().__init__(event.text)
        self.event = event


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
        self._check_place()
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
        error: Event | None = None
        code = ""
        self._check_place()
        try:
            with closing(self._engine.stream(self._argv(profile, container, words, alone=alone), given)) as lines:
                for line in lines:
                    # The last line alone is the code: another program may say "=====".
                    code = line if line.startswith("=") else ""
                    found = event(line)
                    if found is None:
                        said.append(line)
                    elif found.kind == "error":
                        error = found
                    else:
                        yield found
        finally:
            if code == "":
                # Compose leaves the container behind when it is told to end.
                self._engine.discard(container)
        if error is not None:
            raise PullError(error)
        if code != "=0":
            raise PullError(Event("error", _unsaid(profile, said[:-1], code.removeprefix("=")), {}))

    def _check_place(self) -> None:
        """Docker would make a folder that is not there, as one that only root may write to."""
        place = self._project.settings.get("TANDEM_MODELS")
        if place.startswith("/") and not Path(place).is_dir():
            raise TandemError(
                f"TANDEM_MODELS: the folder {place} is not there. Make it for user 1000, which pulls: "
                f"sudo install -d -o 1000 -g 1000 {place}"
            )

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


def _unsaid(profile: Profile, said: list[str], code: str) -> str:
    """Say why a run failed that did not say so itself."""
    lines = [line for line in said if line.strip()]
    if any(map(_OTHER_PROGRAM.search, lines)):
        return OLD_IMAGE.format(name=profile.name)
    if lines:
        return failures.cause(lines)
    # By a signal, or with Docker itself.
    ended = code == "" or int(code) > 128
    return KILLED.format(code=f"exit code {code}" if code else "no exit code") if ended else f"it said nothing ({code})"
