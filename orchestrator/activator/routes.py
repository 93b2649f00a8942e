"""Owns /run/tandem/open: a file there says that a model's route is open, and the router asks no more than that."""

import logging
from pathlib import Path

OPEN = Path("/run/tandem/open")

_log = logging.getLogger(__name__)


class Routes:
    """The open routes. A file is made and removed by one system call each, so that the router never sees half."""

    def __init__(self, folder: Path = OPEN) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def open(self, model: str) -> None:
        """Let requests for the model pass straight to its server."""
        (self._folder / model).touch()

    def close(self, model: str) -> None:
        """Let new requests for the model come here. One that is closed stays so."""
        (self._folder / model).unlink(missing_ok=True)

    def opened(self) -> frozenset[str]:
        """Name the models whose routes are open."""
        return frozenset(path.name for path in self._folder.iterdir())

    def only(self, models: frozenset[str]) -> None:
        """Close all routes but these: what an activator that was killed left open may lead to nobody."""
        for model in self.opened() - models:
            _log.info("route of %s closed: it was left open", model)
            self.close(model)
