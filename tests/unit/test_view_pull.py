"""A pull as it is shown: events for scripts, a line every 10 s where nobody watches, bars on a terminal."""

import io
import json
import sys
from typing import Any

import pytest

from orchestrator import view_pull
from orchestrator.pulls import Event


class Terminal(io.StringIO):
    """Standard error that is a terminal."""

    def isatty(self) -> bool:
        return True


def progress(text: str = "pulling a/b: 42%", *files: str, **said: Any) -> Event:
    listed = [{"name": name, "bytes": 1, "size": 2} for name in files]
    return Event("progress", text, {"bytes": 42, "total": 100, "rate": 1, "seconds_left": 5.0, "files": listed} | said)


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def told(capsys: pytest.CaptureFixture[str], *steps: tuple[float, Event]) -> list[str]:
    clock = Clock()
    view = view_pull.Lines(clock)
    for seconds, event in steps:
        clock.now = 100 + seconds
        view.tell(event)
    view.close()
    seen = capsys.readouterr()
    assert seen.out == ""
    return seen.err.splitlines()


def test_progress_is_a_line_every_ten_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    steps = [(seconds / 2, progress(f"{seconds / 2:g}")) for seconds in range(1, 81)]
    assert told(capsys, *steps) == ["10", "20", "30", "40"]


def test_what_happens_is_a_line_at_once_and_what_progress_tells_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert told(
        capsys,
        (0, Event("listing", "asking", {})),
        (0, Event("begin", "begins", {})),
        (1, Event("file", "pulled x", {})),
        (2, Event("retry", "the line broke", {})),
        (11.9, progress("too soon")),
        (12, progress("10 s after the last line")),
        (13, Event("complete", "complete", {})),
    ) == ["asking", "begins", "the line broke", "10 s after the last line", "complete"]


def test_events_are_json_lines_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    view = view_pull.choose(as_json=True, environment_term="xterm")
    events = [progress(), Event("file", "pulled 千问", {"file": "千问"}), Event("error", "a\nb", {"profile": "x"})]
    for event in events:
        view.tell(event)
    view.close()
    seen = capsys.readouterr()
    assert seen.err == ""
    assert [json.loads(line) for line in seen.out.splitlines()] == [
        {"event": event.kind, "text": event.text, **event.more} for event in events
    ]


@pytest.mark.parametrize("term", [None, "", "dumb", "xterm-256color"])
def test_without_a_terminal_lines_are_chosen(term: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    assert isinstance(view_pull.choose(as_json=False, environment_term=term), view_pull.Lines)


@pytest.mark.parametrize("term", [None, "", "dumb"])
def test_a_terminal_that_cannot_redraw_has_lines(term: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert isinstance(view_pull.choose(as_json=False, environment_term=term), view_pull.Lines)


def on_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Have standard error be a terminal; what is shown there."""
    shown = Terminal()
    monkeypatch.setattr(sys, "stderr", shown)
    for name, value in (("TERM", "xterm-256color"), ("COLUMNS", "100"), ("LINES", "30")):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NO_COLOR", raising=False)
    return shown


def test_bars_show_the_whole_and_the_files_that_come_now(monkeypatch: pytest.MonkeyPatch) -> None:
    on_terminal(monkeypatch)
    view = view_pull.choose(as_json=False, environment_term="xterm-256color")
    assert isinstance(view, view_pull.Bars)
    view.tell(Event("begin", "pulling a/b: 0% of 100 B", progress().more))
    view.tell(progress("pulling a/b: 42% of 100 B", "one.bin", "two.bin"))
    assert [task.description.strip() for task in view._bars.tasks] == ["pulling a/b", "one.bin", "two.bin"]
    assert [(task.completed, task.total) for task in view._bars.tasks] == [(42, 100), (1, 2), (1, 2)]
    view.tell(progress("pulling a/b: 60% of 100 B", "two.bin", bytes=60))
    assert [task.description.strip() for task in view._bars.tasks] == ["pulling a/b", "two.bin"]
    view.tell(progress("checking a/b: 0% of 100 B", total=50, bytes=0))
    assert [(task.description, task.completed, task.total) for task in view._bars.tasks] == [("checking a/b", 0, 50)]
    view.close()


@pytest.mark.parametrize("name", ["[red]x", "a[/b].bin", "[/]", "x [1] it's.txt", "千问", "x" * 300])
def test_a_file_of_any_name_has_its_bar(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    terminal = on_terminal(monkeypatch)
    view = view_pull.Bars()
    view.tell(progress("pulling a/b: 42%", name))
    view._bars.refresh()
    view.close()
    assert name[:20] in terminal.getvalue()


def test_what_happens_stands_above_the_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_terminal(monkeypatch)
    view = view_pull.Bars()
    view.tell(Event("file", "pulled small.bin", {}))
    view.tell(Event("retry", "the line broke at [/] of a/b", {}))
    view.close()
    assert "the line broke at [/] of a/b" in terminal.getvalue()
    assert "small.bin" not in terminal.getvalue()


def test_a_view_without_an_event_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    on_terminal(monkeypatch)
    view_pull.Bars().close()
