"""What a start and a status look like: in lines where nobody watches live, redrawn in place on a terminal."""

import io
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest
from rich.console import Console

from orchestrator.progress import Phase
from orchestrator.view import Live, Pages, Plain, Screen, View, choose, cut, watch
from tests.checkout import PATIENCE


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def told(capsys: pytest.CaptureFixture[str], *steps: tuple[float, Phase, str]) -> list[str]:
    """The lines after (seconds since the start, phase, text) were said."""
    clock = Clock()
    view: View = Plain(clock)
    for seconds, phase, text in steps:
        clock.now = 100 + seconds
        view.phase(phase, text)
    view.close()
    seen = capsys.readouterr()
    assert seen.out == ""
    return seen.err.splitlines()


def test_each_new_phase_is_told_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert told(
        capsys,
        (0, "image", "on this machine"),
        (0.1, "container", "creating qwen-14b"),
        (0.2, "start", "importing vLLM"),
        (61, "prove", "asking for a first token"),
    ) == [
        "[   0 s] image: on this machine",
        "[   0 s] container: creating qwen-14b",
        "[   0 s] start: importing vLLM",
        "[  61 s] prove: asking for a first token",
    ]


def test_a_phase_is_told_again_after_five_seconds_and_not_before(capsys: pytest.CaptureFixture[str]) -> None:
    assert told(
        capsys,
        (0, "weights", "0%"),
        (1, "weights", "10%"),
        (4.9, "weights", "49%"),
        (5, "weights", "50%"),
        (9.9, "weights", "99%"),
        (10, "weights", "100%"),
    ) == ["[   0 s] weights: 0%", "[   5 s] weights: 50%", "[  10 s] weights: 100%"]


def test_a_phase_that_comes_back_is_new_again(capsys: pytest.CaptureFixture[str]) -> None:
    assert told(capsys, (0, "container", "a"), (1, "weights", "b"), (2, "container", "c")) == [
        "[   0 s] container: a",
        "[   1 s] weights: b",
        "[   2 s] container: c",
    ]


def test_a_change_of_words_is_told_at_once_and_one_of_numbers_with_the_next_sign_of_life(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert told(
        capsys,
        (0, "start", "importing vLLM"),
        (0.5, "start", "importing vLLM"),
        (1, "start", "loading weights 10% (1/8), about 40 s left"),
        (2, "start", "loading weights 20% (2/8), about 39 s left"),
        (6.5, "start", "loading weights 60% (5/8), about 35 s left"),
        (7, "start", "the API server is up"),
        (7.5, "prove", "asking for a first token"),
    ) == [
        "[   0 s] start: importing vLLM",
        "[   1 s] start: loading weights 10% (1/8), about 40 s left",
        "[   6 s] start: loading weights 60% (5/8), about 35 s left",
        "[   7 s] start: the API server is up",
        "[   8 s] prove: asking for a first token",
    ]


def test_what_a_build_prints_is_a_sign_of_life_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    assert told(capsys, (0, "image", "#1 one"), (1, "image", "#2 two"), (5, "image", "#3 three")) == [
        "[   0 s] image: #1 one",
        "[   5 s] image: #3 three",
    ]


def test_a_line_is_cut_to_the_terminals_width(capsys: pytest.CaptureFixture[str]) -> None:
    Plain(Clock(), width=31).phase("start", "waiting for 显存 that nobody gives back")
    assert capsys.readouterr().err == "[   0 s] start: waiting for 显…\n"
    assert cut("12345", 5) == "12345"
    assert cut("12345", 4) == "123…"


def test_a_start_of_hours_is_told_in_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    assert told(capsys, (12345.6, "weights", "99%")) == ["[12346 s] weights: 99%"]


@pytest.mark.parametrize("term", [None, "", "dumb", "xterm-256color"])
def test_without_a_terminal_lines_are_chosen(term: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = choose(term)
    assert isinstance(chosen, Plain)
    assert capsys.readouterr().err == ""


class Terminal:
    """A terminal of 80 columns, and what is on it at last."""

    def __init__(self, **said: object) -> None:
        self.file = io.StringIO()
        self.console = Console(file=self.file, force_terminal=True, width=80, height=30, **said)  # type: ignore[arg-type]


def drawn(view: Live) -> list[str]:
    """The rows as they are now."""
    file = io.StringIO()
    Console(file=file, width=80).print(view._table())
    return [row.rstrip() for row in file.getvalue().splitlines()]


def test_on_a_terminal_each_phase_is_a_row_and_none_is_wider_than_it() -> None:
    terminal, clock = Terminal(), Clock()
    view = Live(clock, terminal.console)
    view.phase("container", "router started")
    view.phase("start", "loading weights, and much more than anybody could ever want to know of it, " * 2)
    clock.now += 7
    rows = drawn(view)
    view.close()
    assert [row[2:].split()[0] for row in rows] == ["image", "container", "weights", "start", "prove", "ready"]
    assert rows[1].startswith("✓ container")
    assert (rows[3][12:15], rows[3][-1], len(rows[3])) == ("7 s", "…", 80)


def test_a_phase_that_comes_back_on_a_terminal_is_the_current_one() -> None:
    terminal, clock = Terminal(), Clock()
    view = Live(clock, terminal.console)
    phases: tuple[Phase, ...] = ("wake", "prove", "start")
    for phase in phases:
        view.phase(phase, "said")
        clock.now += 10
    rows = drawn(view)
    view.close()
    assert [row[2:].split()[0] for row in rows if "10 s" in row] == ["start"]


def test_who_wants_no_colour_gets_none() -> None:
    terminal = Terminal(_environ={"NO_COLOR": "1"})
    view = Live(Clock(), terminal.console)
    view.phase("container", "router started")
    view.phase("start", "loading weights")
    view.close()
    assert "router started" in terminal.file.getvalue()
    assert not re.search(r"\x1b\[[0-9;]*\b(?:3[0-7]|9[0-7]|38)m", terminal.file.getvalue())


class Shown:
    """A text for each look, and Ctrl-C after the last."""

    def __init__(self, clock: Clock, *texts: str) -> None:
        self.clock = clock
        self.texts: Iterator[str] = iter(texts)

    def __call__(self) -> str:
        text = next(self.texts, None)
        if text is None:
            raise KeyboardInterrupt
        return text

    def pause(self) -> None:
        self.clock.now += 1


def test_a_status_that_is_watched_plainly_is_told_when_its_words_change(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    shown = Shown(
        clock, "a stopped", "a stopped", "a starting, 1 s", "a starting, 2 s", *["a starting, 9 s"] * 4, "a ready"
    )
    watch(shown, Pages(clock), shown.pause)
    assert capsys.readouterr().out.splitlines() == ["a stopped", "a starting, 1 s", "a starting, 9 s", "a ready"]


def test_scripts_that_watch_get_every_change_once(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    shown = Shown(clock, '{"a": 1}', '{"a": 2}', '{"a": 2}', '{"a": 3}')
    watch(shown, Pages(clock, between=0), shown.pause)
    assert capsys.readouterr().out.splitlines() == ['{"a": 1}', '{"a": 2}', '{"a": 3}']


def test_a_status_that_is_watched_on_a_terminal_is_redrawn_in_its_place() -> None:
    clock, terminal = Clock(), Terminal()
    shown = Shown(clock, "a stopped\n" + "x" * 100, "a ready")
    screen = Screen(terminal.console)
    watch(shown, screen, shown.pause)
    screen.close()
    said = terminal.file.getvalue()
    assert "x" * 79 + "…" in said
    assert "x" * 80 not in said
    # The first text is wiped before the second stands in its place.
    assert said.index("a stopped") < said.index("\x1b[1A") < said.index("a ready")


def test_who_watches_through_a_pipe_may_go_away() -> None:
    program = (
        "from orchestrator.view import Pages, watch; numbers = iter(range(10**6)); "
        "watch(lambda: f'{next(numbers)} ' * 999, Pages(between=0), lambda: None)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith(b"0 0 ")
        process.stdout.close()
        assert (process.stderr.read(), process.wait(PATIENCE)) == (b"", 0)
