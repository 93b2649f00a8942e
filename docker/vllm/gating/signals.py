"""Signals as answers to a wait, so that nothing is missed between two looks and nothing interrupts a step."""

import os
import signal
import time

ENDING = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT})
_HEARD = ENDING | {signal.SIGCHLD}
# What Python itself ignores, and a program that it starts should not.
_IGNORED = (signal.SIGPIPE, signal.SIGXFSZ)


class Stopped(Exception):  # noqa: N818 (not an error: somebody stopped the server before it started)
    """A signal asked for the end before there was a server."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.code = 128 + number


def listen() -> None:
    """Keep signals for wait() from now on. Their default handling would end the first process of a container never."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _HEARD)
    for number in _HEARD:
        signal.signal(number, signal.SIG_DFL)


def wait(seconds: float) -> int | None:
    """Wait until a signal comes, and give its number, or None when none came in so many seconds."""
    got = signal.sigtimedwait(_HEARD, seconds)
    return got.si_signo if got else None


def pause(seconds: float) -> None:
    """Wait so long; raises Stopped at once when a signal asks for the end."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        got = wait(left)
        if got in ENDING:
            raise Stopped(got)


def spawn(argv: list[str], environment: dict[str, str]) -> int:
    """Start a program in a session of its own, with no signal blocked or ignored; its process id."""
    return os.posix_spawnp(
        argv[0], argv, environment, setsid=True, setsigmask=(), setsigdef=(*_HEARD, *_IGNORED)
    )  # fmt: skip
