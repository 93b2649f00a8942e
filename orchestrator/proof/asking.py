"""Asks a model through the router, as a client does, each time within a limit; and the activator whether it is up."""

import json
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, TypeVar

from orchestrator import http, states
from orchestrator.ask import Activator, Lines
from orchestrator.errors import TandemError
from orchestrator.proof import answers
from orchestrator.proof.answers import Answer

# Seconds that an answer may take, and one to the longest prompt; and all of them together.
ANSWER_SECONDS, LONG_SECONDS, TOTAL_SECONDS = 120.0, 300.0, 600.0
# States of a model that was up and comes back by itself, as nobody else wanted its GPUs: it died.
_DIED = ("failed", "starting")
T = TypeVar("T")


class UnaskedError(TandemError):
    """A model could not be asked, so nothing is known of it: it is not up, or somebody switched meanwhile."""

    exit_code = 2


@dataclass(frozen=True)
class Tokens:
    """How many tokens a prompt has, and how many the server takes, None where it does not tell; or the fault."""

    count: int = 0
    limit: int | None = None
    fault: str = ""


class Asker:
    """Asks one model, by its profile's name and the name that clients send. It never brings one up."""

    def __init__(
        self,
        activator: Activator,
        profile: str,
        served: str,
        *,
        key: str = "",
        lines: Lines = http.lines,
        clock: Callable[[], float] = time.monotonic,
        total: float = TOTAL_SECONDS,
    ) -> None:
        """Ask at the activator's router, with a client's key; total is for how many seconds from now."""
        self.profile = profile
        self._activator = activator
        self._served = served
        self._key = key
        self._lines = lines
        self._clock = clock
        self._end = clock() + total
        self._total = total

    # --- whether it is up ---------------------------------------------------------------------------------------------

    def entry(self) -> Mapping[str, Any]:
        """Give what the activator says of the model. Raises UnaskedError when it says nothing."""
        try:
            return states.entry(self._activator.require(), self.profile)
        except TandemError as error:
            raise UnaskedError(str(error)) from None

    def require(self) -> None:
        """Raise UnaskedError, with what to do, unless the model is up."""
        state = self.entry().get("state", "stopped")
        if state != "ready":
            raise UnaskedError(
                f"{self.profile} is {state}, so it cannot be asked\n"
                f"  Bring it up first: python -m orchestrator up {self.profile}"
            )

    def died(self) -> str:
        """Say how the model is when it is up no more by itself; "" when it is up.

        Raises UnaskedError when somebody switched: a request would switch back.
        """
        entry = self.entry()
        state = str(entry.get("state", "stopped"))
        if state == "ready":
            return ""
        if state in _DIED:
            return f"{self.profile} is up no more, it is {state}" + (
                f": {entry['reason']}" if entry.get("reason") else ""
            )
        raise UnaskedError(f"{self.profile} is {state}: somebody switched meanwhile, so it was not asked to the end")

    # --- what it says -------------------------------------------------------------------------------------------------

    def models(self) -> Any:
        """Give what GET /v1/models answers, None where it is no JSON. Raises UnaskedError when nobody answers."""
        try:
            return json.loads("\n".join(self._said("/v1/models", None, ANSWER_SECONDS)))
        except ValueError:
            return None
        except (http.RefusedError, http.SilentError) as error:
            raise UnaskedError(f"the router does not answer /v1/models: {error}") from None

    def completion(self, body: Mapping[str, Any], *, seconds: float = ANSWER_SECONDS, name: str = "") -> Answer:
        """Ask for a completion, by another name if one is given."""
        return self._ask("/v1/completions", body, answers.completion, seconds, name)

    def chat(self, body: Mapping[str, Any]) -> Answer:
        """Ask in a chat."""
        return self._ask("/v1/chat/completions", body, answers.chat, ANSWER_SECONDS)

    def completion_stream(self, body: Mapping[str, Any]) -> Answer:
        """Ask for a completion that streams."""
        return self._ask("/v1/completions", {**body, "stream": True}, answers.streamed, ANSWER_SECONDS)

    def chat_stream(self, body: Mapping[str, Any]) -> Answer:
        """Ask in a chat, and have the answer stream."""
        return self._ask("/v1/chat/completions", {**body, "stream": True}, answers.streamed, ANSWER_SECONDS)

    def tokens(self, prompt: str) -> Tokens:
        """Count a prompt's tokens as the server does for a completion."""
        try:
            body = {"model": self._served, "prompt": prompt}
            said = json.loads("\n".join(self._said("/tokenize", body, ANSWER_SECONDS)))
            limit = said.get("max_model_len")
            return Tokens(int(said["count"]), limit if isinstance(limit, int) else None)
        except (http.RefusedError, http.SilentError) as error:
            return Tokens(fault=f"/tokenize: {error}")
        except (ValueError, LookupError, TypeError, AttributeError):
            return Tokens(fault="/tokenize answers no count of tokens")

    def together(self, asks: Sequence[Callable[[], T]]) -> list[T]:
        """Ask all at once, and give what came in their order."""
        found: dict[int, T] = {}

        def worker(place: int, ask: Callable[[], T]) -> http.Worker:
            return http.Worker(lambda: found.update({place: ask()}))

        workers = [worker(place, ask) for place, ask in enumerate(asks)]
        for each in workers:
            each.start()
        for each in workers:
            # Each ends by itself: what it asks has a limit.
            each.finish()
        return [found[place] for place in range(len(asks))]

    def _ask(
        self,
        path: str,
        body: Mapping[str, Any],
        read: Callable[[Iterable[str]], Answer],
        seconds: float,
        name: str = "",
    ) -> Answer:
        try:
            return read(self._said(path, {"model": name or self._served, **body}, seconds))
        except http.RefusedError as error:
            return Answer(error.status, str(error) or "no reason given")
        except http.SilentError as error:
            return Answer(0, str(error) or "no answer")

    def _said(self, path: str, body: Mapping[str, Any] | None, seconds: float) -> Generator[str, None, None]:
        """Give an answer's lines, for so many seconds in all. Raises as http.lines does, UnaskedError for our key."""
        now = self._clock()
        if now >= self._end:
            raise http.SilentError(f"not asked, as the {self._total:g} s for all are over")
        if body is not None and self.entry().get("state") != "ready":
            # The router would hold the request, and have the model brought up for it.
            raise http.SilentError("not asked, as it is up no more")
        allowed = min(seconds, self._end - now)
        address = f"{self._activator.address}{path}"
        try:
            said = self._lines(address, body, post=body is not None, key=self._key, seconds=allowed)
            with closing(said):
                for line in said:
                    yield line
                    if self._clock() - now > allowed:
                        # One that drips is never silent, and never over.
                        raise http.SilentError(f"not over after {allowed:.0f} s")
        except http.RefusedError as error:
            if error.status in (401, 403, 429):
                raise UnaskedError(
                    f"the router refused {path}: {error}\n"
                    "  A key without limits serves best: python -m orchestrator keys add verify"
                ) from None
            raise
