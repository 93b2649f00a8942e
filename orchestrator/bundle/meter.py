"""Says how far a long step is, in bytes. Pure but for the clock and say() that it is given."""

from collections.abc import Callable

# A line at most this often, as pulls have it: enough to see that it goes on.
SECONDS = 5.0
Say = Callable[[str], None]
Clock = Callable[[], float]


def amount(size: float) -> str:
    """Write a number of bytes for a person: 9.4 GB."""
    unit, name = _unit(size)
    return f"{size / unit:.1f} {name}"


def _unit(size: float) -> tuple[float, str]:
    return next(((unit, name) for unit, name in ((1e9, "GB"), (1e6, "MB")) if size >= unit), (1e3, "kB"))


class Meter:
    """Counts the bytes of one step and says `what: 3.1 of 9.4 GB` from time to time."""

    def __init__(self, what: str, total: int, say: Say, clock: Clock) -> None:
        self.what = what
        self.total = total
        self.done = 0
        self._say = say
        self._clock = clock
        self._moved = self._said = clock()

    def add(self, count: int) -> None:
        """Count bytes; none says only that time goes by."""
        self.done += count
        now = self._clock()
        if now - self._said >= SECONDS:
            self._said = now
            self._say(f"{self.what}: {self._progress() if count else f'waiting for Docker, {now - self._moved:.0f} s'}")
        if count:
            self._moved = now

    def _progress(self) -> str:
        # A total may be an estimate.
        total = max(self.total, self.done)
        unit, name = _unit(total)
        return f"{self.done / unit:.1f} of {total / unit:.1f} {name}"
