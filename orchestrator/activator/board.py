"""What the activator knows of the servers at this moment: the executor and the watch write it, the driver reads it."""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from orchestrator.switch.world import Footprint, Server, State

_log = logging.getLogger(__name__)


class Board:
    """The servers by the names of their models."""

    def __init__(self, models: Iterable[str], clock: Callable[[], float]) -> None:
        self._clock = clock
        self._servers = {model: Server(since=clock()) for model in models}
        self._images: dict[str, str] = {}
        # Called after each change; the driver wakes those who look on.
        self.changed: Callable[[], None] = lambda: None

    def __getitem__(self, model: str) -> Server:
        return self._servers[model]

    @property
    def servers(self) -> Mapping[str, Server]:
        """All servers as they are now."""
        return dict(self._servers)

    def set(self, model: str, state: State, reason: str = "") -> None:
        """Note the state that a server is in."""
        before = self._servers[model]
        if (before.state, before.reason) == (state, reason):
            return
        since = before.since if before.state == state else self._clock()
        self._servers[model] = replace(before, state=state, since=since, reason=reason)
        _log.info("%s is %s%s", model, state, f": {reason}" if reason else "")
        self.changed()

    def stood(self, model: str, since: float) -> None:
        """Note since when a server is in its state, which it got into before there was this activator."""
        self._servers[model] = replace(self._servers[model], since=since)

    def opened(self, model: str, is_open: bool) -> None:
        """Note whether a model's route is open."""
        self._servers[model] = replace(self._servers[model], open=is_open)

    def sleeps(self, model: str, can_sleep: bool, footprint: Footprint | None) -> None:
        """Note whether a server can sleep, and what it keeps then; None where that was not measured."""
        before = self._servers[model]
        self._servers[model] = replace(before, can_sleep=can_sleep, footprint=footprint or before.footprint)

    def awake(self, model: str, holds: int, starts_alone: bool) -> None:
        """Note what a server holds of each GPU while awake, 0 where that is not known, and whether it starts alone."""
        self._servers[model] = replace(self._servers[model], holds=holds, starts_alone=starts_alone)

    def image(self, model: str) -> str:
        """Give the id of the image that a model's container was made from; "" when it was not seen."""
        return self._images.get(model, "")

    def saw_image(self, model: str, image: str) -> None:
        """Note the image of a model's container."""
        self._images[model] = image

    def add(self, models: Iterable[str]) -> None:
        """Know of these models too."""
        for model in models:
            self._servers.setdefault(model, Server(since=self._clock()))
