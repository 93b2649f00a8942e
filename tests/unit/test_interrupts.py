"""What ends a command from outside, in programs that signals are sent to, and on terminals that are closed."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.checkout import eventually
from tests.unit.terminals import CTRL_C, Terminal, on_terminal
from tests.unit.values import ROOT

# Keeps in a file what it does, waits for others, and writes to where its terminal may have gone.
PROGRAM = """
import os, sys, time
from pathlib import Path
from orchestrator import interrupts

folder = Path(sys.argv[1])

def wait(name):
    while not (folder / name).exists():
        time.sleep(0.01)

def tell(text):
    with (folder / "told").open("a") as told:
        told.write(text + "\\n")

interrupts.listen()
try:
    {body}
except KeyboardInterrupt:
    tell("interrupted")
print("out", flush=True)
print("err", file=sys.stderr, flush=True)
tell("over")
"""
WAITS = 'tell("begun"); wait("go")'
GUARDED = """with interrupts.Guard() as guard:
        try:
            try:
                tell("begun")
                wait("go")
            finally:
                guard.hold()
        finally:
            print("putting back", file=sys.stderr, flush=True)
            tell("putting back")
            wait("back")
            {then}
            tell("put back")"""
PUT_BACK = ["begun", "putting back", "put back", "interrupted", "over"]


@dataclass
class Run:
    """A program under way, and its terminal, where it has one."""

    folder: Path
    process: "subprocess.Popen[bytes]"
    terminal: Terminal

    @property
    def told(self) -> list[str]:
        path = self.folder / "told"
        return path.read_text(encoding="utf-8").splitlines() if path.exists() else []

    def waits(self, text: str) -> None:
        eventually(lambda: text in self.told, what=text)

    def may(self, name: str) -> None:
        (self.folder / name).touch()


@contextmanager
def program(folder: Path, body: str, *, deaf: bool = False) -> Iterator[Run]:
    """Run a body on a terminal of its own; deaf: it is not told of the terminal's end."""
    argv = ["-c", PROGRAM.format(body=body), str(folder)]
    with on_terminal(argv, {**os.environ, "PYTHONPATH": str(ROOT)}, deaf=deaf) as (process, terminal):
        yield Run(folder, process, terminal)
    assert process.returncode == 0


ENDING = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.mark.parametrize("number", ENDING)
def test_what_ends_a_command_is_as_ctrl_c(tmp_path: Path, number: int) -> None:
    with program(tmp_path, WAITS) as run:
        run.waits("begun")
        run.process.send_signal(number)
    assert run.told == ["begun", "interrupted", "over"]


def test_a_terminal_that_is_closed_is_as_ctrl_c_and_no_write_to_it_fails(tmp_path: Path) -> None:
    with program(tmp_path, WAITS) as run:
        run.waits("begun")
        run.terminal.close()
    assert run.told == ["begun", "interrupted", "over"]


def test_a_shell_that_tells_of_it_once_more_ends_nothing_else(tmp_path: Path) -> None:
    body = """
    try:
        tell("begun")
        wait("go")
    finally:
        tell("putting back")
        wait("back")
        tell("put back")"""
    with program(tmp_path, body.strip()) as run:
        run.waits("begun")
        run.process.send_signal(signal.SIGHUP)
        run.waits("putting back")
        run.process.send_signal(signal.SIGHUP)
        run.may("back")
    assert run.told == PUT_BACK


@pytest.mark.parametrize("second", ENDING)
@pytest.mark.parametrize("first", ENDING)
def test_a_second_signal_does_not_break_off_what_is_put_back(tmp_path: Path, first: int, second: int) -> None:
    with program(tmp_path, GUARDED.format(then="pass")) as run:
        run.waits("begun")
        run.process.send_signal(first)
        run.waits("putting back")
        for _ in range(3):
            run.process.send_signal(second)
        run.may("back")
    assert run.told == PUT_BACK


@pytest.mark.parametrize("number", ENDING)
def test_a_signal_while_something_is_put_back_is_as_ctrl_c_after_that(tmp_path: Path, number: int) -> None:
    with program(tmp_path, GUARDED.format(then="pass")) as run:
        run.may("go")
        run.waits("putting back")
        run.process.send_signal(number)
        run.may("back")
    assert run.told == PUT_BACK


def test_what_is_put_back_is_so_also_where_the_terminal_is_closed_meanwhile(tmp_path: Path) -> None:
    with program(tmp_path, GUARDED.format(then='print("x", file=sys.stderr, flush=True)')) as run:
        run.waits("begun")
        run.terminal.close()
        run.waits("putting back")
        run.may("back")
    assert run.told == PUT_BACK


def test_one_that_hears_nothing_of_its_terminals_end_goes_on_and_puts_back_what_it_must(tmp_path: Path) -> None:
    # What it prints after that is another matter.
    with program(tmp_path, GUARDED.format(then="os.dup2(2, 1)"), deaf=True) as run:
        run.waits("begun")
        run.terminal.close()
        run.may("go")
        run.may("back")
    assert run.told == ["begun", "putting back", "put back", "over"]


def test_where_nobody_reads_any_more_what_must_be_put_back_is_so(tmp_path: Path) -> None:
    # As of `tee`, which Ctrl-C ends at the same moment.
    pipe = "here, there = os.pipe(); os.dup2(there, 2); os.close(here); os.close(there)"
    with program(tmp_path, f"{pipe}\n    {GUARDED.format(then='print(9, file=sys.stderr)')}") as run:
        run.waits("begun")
        run.process.send_signal(signal.SIGINT)
        run.waits("putting back")
        run.may("back")
    assert run.told == PUT_BACK


def test_what_may_be_broken_off_again_is_by_that_signal_alone(tmp_path: Path) -> None:
    then = 'import signal; guard.let(signal.SIGINT); tell("let"); wait("end")'
    with program(tmp_path, GUARDED.format(then=then)) as run:
        run.may("go")
        run.may("back")
        run.waits("let")
        run.process.send_signal(signal.SIGTERM)
        run.process.send_signal(signal.SIGINT)
    assert run.told == ["begun", "putting back", "let", "interrupted", "over"]


def test_without_a_terminals_end_its_words_are_still_read(tmp_path: Path) -> None:
    with program(tmp_path, GUARDED.format(then="pass")) as run:
        run.waits("begun")
        run.terminal.types(CTRL_C)
        run.waits("putting back")
        run.may("back")
        assert "putting back" in run.terminal.shows("err")
    assert run.told == PUT_BACK
