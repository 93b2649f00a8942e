"""Owns /run/tandem/open: a link there says that a model's route is open and where its server is.

Beside it, states.json tells the router's clients what state each model is in.
"""

import json
import logging
import socket
from collections.abc import Callable, Mapping
from pathlib import Path

RUN = Path("/run/tandem")
# Where vLLM listens in each server's container.
PORT = 8000

_log = logging.getLogger(__name__)


def address(model: str) -> str:
    """Find a server by its container's name: ADDRESS:PORT, or "nowhere" when Docker knows no such name."""
    try:
        return f"{socket.gethostbyname(model)}:{PORT}"
    except OSError as error:
        _log.warning("route of %s opened to nobody: %s", model, error)
        return "nowhere"


class Routes:
    """The open routes. A link is made and removed by one system call each, so that the router never sees half."""

    def __init__(self, folder: Path = RUN, address: Callable[[str], str] = address) -> None:
        self._open, self._states, self._address = folder / "open", folder / "states.json", address
        self._told: Mapping[str, str] | None = None
        self._open.mkdir(parents=True, exist_ok=True)

    def open(self, model: str) -> None:
        """Let requests for the model pass straight to its server, where it is now."""
        self._link(model)

    def _link(self, model: str) -> None:
        # Made aside and moved: a link that is there is replaced.
        made = self._open.with_name(f"{model}.opening")
        made.unlink(missing_ok=True)
        made.symlink_to(self._address(model))
        made.rename(self._open / model)

    def close(self, model: str) -> None:
        """Let new requests for the model come here. One that is closed stays so."""
        (self._open / model).unlink(missing_ok=True)

    def opened(self) -> frozenset[str]:
        """Name the models whose routes are open."""
        return frozenset(path.name for path in self._open.iterdir())

    def only(self, models: frozenset[str]) -> None:
        """Close all routes but these: what an activator that was killed left open may lead to nobody.

        A server that was started again meanwhile has another address.
        """
        for model in self.opened():
            if model in models:
                self._link(model)
            else:
                _log.info("route of %s closed: it was left open", model)
                self.close(model)

    def tell(self, states: Mapping[str, str]) -> None:
        """Say which state each model is in, for GET /v1/models."""
        if states == self._told:
            return
        made = self._states.with_suffix(".new")
        made.write_text(json.dumps(states), encoding="utf-8")
        made.rename(self._states)
        self._told = dict(states)
