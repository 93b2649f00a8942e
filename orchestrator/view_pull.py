"""Shows a pull as it goes: bars on a terminal, a line every 10 s anywhere else, events for scripts."""

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from orchestrator.pulls import Event
from orchestrator.view import redraws

if TYPE_CHECKING:
    from rich.progress import TaskID

# Seconds between two lines of progress when nobody watches live.
LINE_SECONDS = 10.0


class PullView(Protocol):
    """What a pull tells of itself."""

    def tell(self, event: Event) -> None:
        """Something happened."""

    def close(self) -> None:
        """Leave the terminal as it was."""


class Json:
    """Each event as it is, on standard output."""

    def tell(self, event: Event) -> None:
        sys.stdout.write(f"{event.json}\n")
        sys.stdout.flush()

    def close(self) -> None:
        pass


class Lines:
    """A line for what happens, and one every 10 s of how far it is."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last = clock()

    def tell(self, event: Event) -> None:
        now = self._clock()
        if event.small or (event.kind == "progress" and now - self._last < LINE_SECONDS):
            return
        self._last = now
        sys.stderr.write(f"{event.text}\n")
        sys.stderr.flush()

    def close(self) -> None:
        pass


class Bars:
    """A bar for the whole and one for each file that comes now; what else happens stands above them."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )
        from rich.table import Column

        # A file may be called [/]: what it is called is no markup.
        name = TextColumn(
            "{task.description}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)
        )
        self._bars = Progress(
            name, BarColumn(bar_width=16), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn(),
            console=Console(stderr=True), transient=True, expand=True,
        )  # fmt: skip
        self._whole: TaskID | None = None
        self._files: dict[str, TaskID] = {}
        self._bars.start()

    def tell(self, event: Event) -> None:
        if event.kind not in ("progress", "begin"):
            if not event.small:
                self._bars.console.print(event.text, markup=False, highlight=False, soft_wrap=True)
            return
        more = event.more
        if self._whole is None:
            self._whole = self._bars.add_task("", total=None)
        verb = event.text.partition(":")[0]
        self._bars.update(self._whole, description=verb, completed=more["bytes"], total=more["total"])
        now = {file["name"]: file for file in more["files"]}
        for gone in set(self._files) - set(now):
            self._bars.remove_task(self._files.pop(gone))
        for name, file in now.items():
            if name not in self._files:
                self._files[name] = self._bars.add_task(f"  {name}", total=file["size"])
            self._bars.update(self._files[name], completed=file["bytes"])

    def close(self) -> None:
        self._bars.stop()


def choose(*, as_json: bool, environment_term: str | None) -> PullView:
    """Events for scripts, bars on a terminal that can redraw, lines otherwise."""
    if as_json:
        return Json()
    return Bars() if redraws(environment_term) else Lines()
