"""Waiting that says what for: at once, and every ten seconds until it is over."""

import time
from collections.abc import Callable

from gating import signals

EVERY = 10.0


def until(look: Callable[[], str | None], say: Callable[[str], None], interval: float) -> None:
    """Look again and again until it gives None; "" means not yet, and nothing to say of it.

    Raises signals.Stopped when a signal asks for the end.
    """
    begun = time.monotonic()
    said: float | None = None
    while (text := look()) is not None:
        now = time.monotonic()
        if text and (said is None or now - said >= EVERY):
            after = "" if said is None else f" ({round(now - begun)} s)"
            say(f"waiting for {text}{after}")
            said = now
        signals.pause(interval)
