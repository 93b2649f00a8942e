"""Shows a start as it goes: live on a terminal, a line at a time anywhere else. Everything goes to standard error."""

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from orchestrator.progress import PHASES, Phase

if TYPE_CHECKING:
    from rich.table import Table

# Seconds between two lines of the same phase when nobody watches live.
PLAIN_SECONDS = 5.0


class View(Protocol):
    """What an `up` tells of itself."""

    def phase(self, phase: Phase, text: str) -> None:
        """Say that a phase is under way, and how far it is."""

    def close(self) -> None:
        """Leave the terminal as it was."""


class Plain:
    """A line for each phase, and one every few seconds in between."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = clock()
        self._last: tuple[str, float] = ("", -PLAIN_SECONDS)

    def phase(self, phase: Phase, text: str) -> None:
        now = self._clock()
        if phase == self._last[0] and now - self._last[1] < PLAIN_SECONDS:
            return
        self._last = (phase, now)
        # In one write: phases are told from a thread too, and lines must not run into one another.
        sys.stderr.write(f"[{now - self._began:4.0f} s] {phase}: {text}\n")
        sys.stderr.flush()

    def close(self) -> None:
        pass


class Live:
    """The phases as a list, the current one with a spinner; redrawn in place."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        from rich.console import Console
        from rich.live import Live as RichLive
        from rich.spinner import Spinner

        self._clock = clock
        self._texts: dict[Phase, str] = {}
        self._began: dict[Phase, float] = {}
        self._current: Phase | None = None
        self._spinner = Spinner("dots")
        self._live = RichLive(
            console=Console(stderr=True), get_renderable=self._table, refresh_per_second=8, transient=True
        )
        self._live.start()

    def phase(self, phase: Phase, text: str) -> None:
        self._began.setdefault(phase, self._clock())
        if self._current is None or PHASES.index(phase) >= PHASES.index(self._current):
            self._current = phase
        self._texts[phase] = text

    def _table(self) -> "Table":
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 1))
        for phase in PHASES:
            if phase not in self._texts:
                table.add_row(" ", Text(phase, style="dim"), "", "")
                continue
            current = phase == self._current
            mark = self._spinner if current else Text("✓", style="green")
            seconds = f"{self._clock() - self._began[phase]:.0f} s" if current else ""
            line = Text(self._texts[phase], no_wrap=True, overflow="ellipsis")
            table.add_row(mark, Text(phase, style="bold" if current else ""), Text(seconds, style="dim"), line)
        return table

    def close(self) -> None:
        self._live.stop()


def redraws(environment_term: str | None) -> bool:
    """Whether standard error is a terminal that can redraw."""
    return sys.stderr.isatty() and environment_term not in (None, "", "dumb")


def choose(environment_term: str | None) -> View:
    """A live view on a terminal that can redraw, plain lines otherwise."""
    return Live() if redraws(environment_term) else Plain()
