"""Reads models.json and the settings again and again, until it is time to begin anew with what they say now."""

import logging
from collections.abc import Awaitable, Callable

from orchestrator.activator.settings import Settings
from orchestrator.errors import ConfigError

# Seconds between two looks.
BETWEEN = 1.0

_log = logging.getLogger(__name__)


async def until_changed(
    load: Callable[[], Settings],
    settings: Settings,
    busy: Callable[[], bool],
    pause: Callable[[float], Awaitable[None]],
) -> None:
    """Return when load gives other settings and nothing is under way. What cannot be read is waited out."""
    told = ""
    while True:
        await pause(BETWEEN)
        try:
            found = load()
        except ConfigError as error:
            if str(error) != told:
                told = str(error)
                _log.warning("going on with the models as they were: %s", error)
            continue
        told = ""
        if found != settings and not busy():
            _log.info("the models have changed: beginning anew")
            return
