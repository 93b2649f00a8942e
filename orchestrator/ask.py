"""Asks the activator, through the router, as the machine's owner: what is up, and to bring models up or down."""

import functools
import json
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from orchestrator import host, http, project
from orchestrator.errors import TandemError
from orchestrator.project import Project

Verb = Literal["up", "down", "sleep", "wake", "try"]
# The paths of those that are more than their verb; "try" is sleep in spite of an earlier failure of it.
_PATHS = {"try": ("sleep", "?trial=1")}
# What ends a stream of phases.
FINAL = frozenset({"ready", "asleep", "stopped", "failed"})
STATUS, STATUS_SECONDS = "/-/status", 5.0
STRANGER = "what answers at {0} is no router of Tandem's\n  TANDEM_PORT in .env says where the router is to be."
Lines = Callable[..., Generator[str, None, None]]


@dataclass(frozen=True)
class Told:
    """One phase of a switch, as the activator tells it; left is in seconds, None where nobody knows."""

    model: str
    phase: str
    text: str = ""
    seconds: float = 0
    left: float | None = None
    reason: str = ""

    @property
    def line(self) -> str:
        """Say it to a person."""
        left = f", about {self.left:.0f} s left" if self.left else ""
        return f"{self.text or self.model}{left}"


class Activator:
    """The activator of one project. What it refuses is a TandemError; that it is silent is told as each method says."""

    def __init__(
        self, address: str, key: str = "", *, client_key: str = "", shut: str = "", lines: Lines = http.lines
    ) -> None:
        """Ask at the router's address, with the owner's key, and with a client's for what clients ask.

        shut says why the router would let nobody in.
        """
        self.address = address
        self._key = key
        self._client_key = client_key
        self._shut = shut
        self._lines = lines
        # Why the last look found nobody; "" when it found the activator.
        self.away = ""

    def check(self) -> None:
        """Raise TandemError, with what to do, when the router keeps everybody from the activator."""
        if self._shut:
            raise TandemError(self._shut)

    def status(self) -> dict[str, Any] | None:
        """Ask what is up, in the shape of GET /-/status; since is RFC 3339 in UTC. None when nobody answers."""
        self.away = self._shut
        if self._shut:
            return None
        try:
            with closing(self._ask(STATUS, seconds=STATUS_SECONDS)) as said:
                found = dict(json.loads("\n".join(said)))
        except http.SilentError as error:
            self.away = f"at {self.address}: {error}"
            return None
        except (ValueError, TypeError):
            self.away = STRANGER.format(self.address)
            return None
        for entry in found.get("models", []):
            entry["since"] = _moment(entry.get("since"))
        return found

    def require(self) -> dict[str, Any]:
        """Ask what is up, as status does. Raises TandemError, with what to do, when nobody answers."""
        self.check()
        found = self.status()
        if found is None:
            raise TandemError(
                f"the activator does not answer: {self.away}\n"
                "  'python -m orchestrator up NAME' starts what is missing; 'logs activator' shows what it says."
            )
        return found

    def phases(self, verb: Verb, model: str, *, bound: bool = False) -> Generator[Told, None, None]:
        """Ask for something and give its phases, the last of which is final.

        With bound, closing the generator before that takes the wish back. Raises http.SilentError when the activator
        goes away meanwhile.
        """
        self.check()
        word, query = _PATHS.get(verb, (verb, "?bound=1" if bound else ""))
        path = f"/-/{word}/{http.quoted(model)}{query}"
        with closing(self._ask(path, post=True)) as said:
            for line in said:
                told = _told(line)
                if told is not None:
                    yield told
                    if told.phase in FINAL:
                        return
        raise http.SilentError("the answer broke off")

    def do(self, verb: Verb, model: str, show: Callable[[Told], None] = lambda _: None) -> Told:
        """Ask for something and return its last phase. Raises TandemError when it fails, or the activator goes away."""
        last = Told(model, "failed", reason="it said nothing")
        try:
            with closing(self.phases(verb, model)) as told:
                for last in told:
                    show(last)
        except http.SilentError as error:
            raise TandemError(silent(error)) from None
        if last.phase == "failed":
            raise TandemError(f"{model}: {last.reason or last.text}")
        return last

    def slept(self, model: str, result: Mapping[str, Any]) -> None:
        """Have the activator keep what a sleep test found. Raises TandemError when it does not."""
        self.check()
        try:
            with closing(
                self._ask(f"/-/slept/{http.quoted(model)}", result, post=True, seconds=STATUS_SECONDS)
            ) as said:
                list(said)
        except http.SilentError as error:
            raise TandemError(silent(error)) from None

    def complete(self, body: Mapping[str, Any], *, seconds: float) -> Generator[str, None, None]:
        """Ask a model for a completion, as a client does, and give the lines of the answer.

        Raises TandemError when it is an error, or none comes.
        """
        try:
            yield from self._lines(
                f"{self.address}/v1/completions", body, post=True, key=self._client_key, seconds=seconds
            )
        except http.RefusedError as error:
            raise TandemError(f"{body['model']}: {error.status}: {error}") from None
        except http.SilentError as error:
            raise TandemError(f"{body['model']} does not answer: {error}") from None

    def _ask(
        self, path: str, body: Mapping[str, Any] | None = None, *, post: bool = False, seconds: float | None = None
    ) -> Generator[str, None, None]:
        try:
            yield from self._lines(f"{self.address}{path}", body, post=post, key=self._key, seconds=seconds)
        except http.RefusedError as error:
            if error.status == 404 and path == STATUS:
                raise ValueError("it knows no such path") from None
            raise TandemError(f"the router refused {path}: {error}") from None


def silent(error: http.SilentError) -> str:
    """Say that the activator does not answer, and where it says why."""
    return f"the activator does not answer: {error}\n  Its log: python -m orchestrator logs activator"


def lines(whole: Project) -> Lines:
    """What asks the router of a project, and trusts its certificate where it has one."""
    return functools.partial(http.lines, certificate=whole.settings.certificate)


def activator(whole: Project) -> Activator:
    """The activator of a project. Raises ConfigError when its key cannot be read."""
    settings = whole.settings
    key = project.admin_key(settings)
    return Activator(settings.address, key, client_key=whole.client_key, shut=settings.shut, lines=lines(whole))


def _told(line: str) -> Told | None:
    """Read an event; None for a line that is none."""
    try:
        said = json.loads(line)
        return Told(
            str(said["model"]),
            str(said["phase"]),
            str(said.get("text") or ""),
            float(said.get("seconds") or 0),
            None if said.get("left") is None else float(said["left"]),
            str(said.get("reason") or ""),
        )
    except (ValueError, TypeError, LookupError):
        return None


def _moment(since: Any) -> str | None:
    """Write Unix seconds as RFC 3339 in UTC; what is written so stays."""
    if isinstance(since, int | float) and not isinstance(since, bool):
        return host.rfc3339(datetime.fromtimestamp(since, UTC))
    return str(since) if since else None
