"""Where nobody watches live, a start is told in lines: each phase at once, and then every few seconds."""

import pytest

from orchestrator.progress import Phase
from orchestrator.view import Plain, View, choose


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
        (0.2, "engine", "waiting"),
        (61, "ready", "asking for a first token"),
    ) == [
        "[   0 s] image: on this machine",
        "[   0 s] container: creating qwen-14b",
        "[   0 s] engine: waiting",
        "[  61 s] ready: asking for a first token",
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


def test_a_start_of_hours_is_told_in_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    assert told(capsys, (12345.6, "weights", "99%")) == ["[12346 s] weights: 99%"]


@pytest.mark.parametrize("term", [None, "", "dumb", "xterm-256color"])
def test_without_a_terminal_lines_are_chosen(term: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = choose(term)
    assert isinstance(chosen, Plain)
    assert capsys.readouterr().err == ""
