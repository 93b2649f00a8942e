"""Shows a start as it goes: live on a terminal, a line at a time anywhere else. Everything goes to standard error."""

import os
import re
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from orchestrator import progress
from orchestrator.progress import ALWAYS, CHATTY, PHASES, Phase

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

# Seconds between two lines of the same phase when nobody watches live.
PLAIN_SECONDS = 5.0


class View(Protocol):
    """What an `up` tells of itself."""

    def phase(self, phase: Phase, text: str) -> None:
        """Say that a phase is under way, and how far it is."""

    def close(self) -> None:
        """Leave the terminal as it was."""


def show(view: View, phase: str, text: str) -> None:
    """Show what the activator tells; a phase of its that no start has is not shown."""
    known = progress.phase(phase)
    if known is not None:
        view.phase(known, text)


class Plain:
    """A line for each change, and a sign of life every few seconds; numbers alone are no change."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, width: int | None = None) -> None:
        """Lines are cut to width, in columns; by default to the terminal's, and nowhere else."""
        self._clock = clock
        self._width = width or _columns()
        self._began = clock()
        self._last: tuple[tuple[str, str], float] = (("", ""), 0)

    def phase(self, phase: Phase, text: str) -> None:
        now = self._clock()
        told = (phase, "" if phase in CHATTY else re.sub(r"[\d.,]+", "#", text))
        if told == self._last[0] and now - self._last[1] < PLAIN_SECONDS:
            return
        self._last = (told, now)
        # In one write: others write there too, and lines must not run into one another.
        sys.stderr.write(cut(f"[{now - self._began:4.0f} s] {phase}: {text}", self._width) + "\n")
        sys.stderr.flush()

    def close(self) -> None:
        pass


def _columns() -> int | None:
    """The width of the terminal that standard error is; None where it is none, or has no width."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or None
    except (OSError, ValueError):
        return None


def cut(line: str, width: int | None) -> str:
    """Cut a line to so many columns; None leaves it as it is."""
    if width is None:
        return line
    from rich.cells import cell_len, set_cell_size

    return line if cell_len(line) <= width else set_cell_size(line, width - 1).rstrip() + "…"


class Live:
    """The phases as a list, the current one with a spinner; redrawn in place."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, console: "Console | None" = None) -> None:
        from rich.console import Console
        from rich.live import Live as RichLive
        from rich.spinner import Spinner

        self._clock = clock
        self._texts: dict[Phase, str] = {}
        self._began = clock()
        self._current: Phase | None = None
        self._spinner = Spinner("dots")
        self._live = RichLive(
            console=console or Console(stderr=True), get_renderable=self._table, refresh_per_second=8, transient=True
        )
        self._live.start()

    def phase(self, phase: Phase, text: str) -> None:
        if phase != self._current:
            # A phase may come again: what did not wake is started.
            self._current, self._began = phase, self._clock()
        self._texts[phase] = text

    def _table(self) -> "Table":
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 1))
        for phase in PHASES:
            if phase not in self._texts:
                if phase in ALWAYS:
                    table.add_row(" ", Text(phase, style="dim"), "", "")
                continue
            current = phase == self._current
            mark = self._spinner if current else Text("✓", style="green")
            seconds = f"{self._clock() - self._began:.0f} s" if current else ""
            line = Text(self._texts[phase], no_wrap=True, overflow="ellipsis")
            table.add_row(mark, Text(phase, style="bold" if current else ""), Text(seconds, style="dim"), line)
        return table

    def close(self) -> None:
        self._live.stop()


class Pages:
    """What `status --watch` shows where nothing can be redrawn: one text after another, each when it differs in words.

    Where numbers alone differ, such as seconds, a text waits until so many seconds after the one before.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, between: float = PLAIN_SECONDS) -> None:
        self._clock, self._between = clock, between
        self._last: tuple[str, str, float] = ("", "", 0)

    def show(self, text: str) -> None:
        """Print a text, at once."""
        now, words = self._clock(), re.sub(r"[\d.]+", "#", text)
        if text == self._last[1] or (words == self._last[0] and now - self._last[2] < self._between):
            return
        self._last = (words, text, now)
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()

    def close(self) -> None:
        pass


class Screen:
    """A text that is redrawn in its place."""

    def __init__(self, console: "Console | None" = None) -> None:
        from rich.console import Console
        from rich.live import Live as RichLive

        self._live = RichLive(console=console or Console(), auto_refresh=False)
        self._live.start()

    def show(self, text: str) -> None:
        """Put a text in the place of the one before."""
        from rich.text import Text

        self._live.update(Text(text, no_wrap=True, overflow="ellipsis"), refresh=True)

    def close(self) -> None:
        self._live.stop()


def watch(show: Callable[[], str], pages: Pages | Screen, pause: Callable[[], None]) -> None:
    """Show a text again and again until Ctrl-C, which it ends with, or until nobody reads it any more."""
    try:
        while True:
            pages.show(show())
            pause()
    except KeyboardInterrupt:
        pass
    except BrokenPipeError:
        # Python would write what is left once more as it ends, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def screen(environment_term: str | None) -> Screen | None:
    """A screen where standard output is a terminal that can redraw; None anywhere else."""
    return Screen() if sys.stdout.isatty() and environment_term not in (None, "", "dumb") else None


def redraws(environment_term: str | None) -> bool:
    """Whether standard error is a terminal that can redraw."""
    return sys.stderr.isatty() and environment_term not in (None, "", "dumb")


def choose(environment_term: str | None) -> View:
    """A live view on a terminal that can redraw, plain lines otherwise."""
    return Live() if redraws(environment_term) else Plain()
