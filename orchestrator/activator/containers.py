"""Starts and stops servers, with patience for a daemon that restarts, and remembers which of that was its own doing."""

import logging
from collections.abc import Awaitable, Callable, Collection
from typing import TypeVar

from orchestrator import failures
from orchestrator.activator.docker import AwayError, Docker, DockerError, Seen, Stray

Result = TypeVar("Result")
Pause = Callable[[float], Awaitable[None]]

# Seconds that the daemon may be away: it restarts within some.
PATIENCE = 120
# What a failed server said last; its cause is within these lines, a traceback of several processes included.
LOG_LINES = 600
# Seconds that a server has to end by itself, as in docker/vllm/service.yaml.
GRACE = 30
# Exit codes above are signals.
SIGNALLED = 128

_log = logging.getLogger(__name__)


class Containers:
    """The containers of the models. All calls can be repeated: what is done already is not done again."""

    def __init__(self, docker: Docker, *, clock: Callable[[], float], pause: Pause) -> None:
        self._docker, self._clock, self._pause = docker, clock, pause
        # Models whose next start or die event is the activator's doing, and nobody's wish.
        self.starts: set[str] = set()
        self.stops: set[str] = set()

    async def look(self, model: str) -> Seen | None:
        """Look at a model's container; None when it has none. Raises DockerError."""
        return await self._patiently(lambda: self._docker.inspect(model))

    async def strays(self, models: Collection[str]) -> list[Stray]:
        """List the servers that run and are none of these models'. Raises DockerError."""
        return await self._patiently(lambda: self._docker.strays(models))

    async def start(self, model: str) -> Seen | None:
        """See that a model's container runs, and look at it; None when it has none. Raises DockerError."""
        seen = await self.look(model)
        if seen is None or seen.container.alive:
            return seen
        self.starts.add(model)
        try:
            await self._patiently(lambda: self._docker.start(model))
        except DockerError:
            self.starts.discard(model)
            raise
        return await self.look(model)

    async def stop(self, model: str) -> None:
        """See that no process of a model's container runs. Raises DockerError."""
        seen = await self.look(model)
        if seen is None or not seen.container.alive:
            return
        self.stops.add(model)
        try:
            await self._patiently(lambda: self._docker.stop(model, GRACE))
        except DockerError:
            self.stops.discard(model)
            raise

    async def cause(self, model: str, seen: Seen | None) -> str:
        """Say why a model's server ended, from its log."""
        if seen is None:
            return "its container was removed"
        if seen.container.oom_killed:
            return failures.cause(["OOMKilled: the machine's memory ran out, and the kernel ended it"])
        try:
            lines = await self._docker.tail(model, LOG_LINES, seen.since)
        except DockerError as error:
            lines = [f"it ended with code {seen.container.exit_code}, and its log cannot be read: {error}"]
        code = seen.container.exit_code
        told = failures.cause(lines or [f"it ended with code {code} and said nothing"])
        if code > SIGNALLED and lines and told == failures.cause(lines[-1:]):
            # Nothing in its log is a cause: its last line would only mislead.
            return f"signal {code - SIGNALLED} ended it"
        return told

    async def _patiently(self, call: Callable[[], Awaitable[Result]]) -> Result:
        deadline = self._clock() + PATIENCE
        while True:
            try:
                return await call()
            except AwayError as error:
                if self._clock() >= deadline:
                    raise
                _log.warning("%s; trying again", error)
            await self._pause(1)
