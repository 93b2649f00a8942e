"""Programs on terminals of their own, which a test types into and closes."""

import os
import pty
import select
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.checkout import PATIENCE

# Has its standard input as the terminal that signals come from, then becomes the program.
_ON_TERMINAL = """
import fcntl, os, signal, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
if sys.argv[1] == "deaf":
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""
CTRL_C = b"\x03"


class Terminal:
    """What a user has before them. It shows a Ctrl-C once the programs in it have got that."""

    def __init__(self, ours: int) -> None:
        self._ours = ours
        self._said = ""

    def types(self, keys: bytes) -> None:
        os.write(self._ours, keys)

    def shows(self, words: str, times: int = 1) -> str:
        """Read until something was shown so often; all that was."""
        end = time.monotonic() + PATIENCE
        while self._said.count(words) < times:
            assert time.monotonic() < end, f"not shown {times} times: {words!r}; but: {self._said!r}"
            if select.select([self._ours], [], [], 0.1)[0]:
                self._said += os.read(self._ours, 65536).decode()
        return self._said

    def close(self) -> None:
        if self._ours >= 0:
            os.close(self._ours)
        self._ours = -1


@contextmanager
def on_terminal(
    argv: Sequence[str], environment: Mapping[str, str], *, folder: Path | None = None, deaf: bool = False
) -> Iterator[tuple["subprocess.Popen[bytes]", Terminal]]:
    """Run Python with these words; deaf: it is not told of the terminal's end. Waits for its end."""
    ours, its = pty.openpty()
    # Or what is written around a Ctrl-C may be lost.
    how = termios.tcgetattr(its)
    how[3] |= termios.NOFLSH
    termios.tcsetattr(its, termios.TCSANOW, how)
    process = subprocess.Popen(
        [sys.executable, "-c", _ON_TERMINAL, "deaf" if deaf else "hears", *argv], stdin=its, stdout=its, stderr=its,
        env=environment, cwd=folder, start_new_session=True,
    )  # fmt: skip
    os.close(its)
    terminal = Terminal(ours)
    try:
        yield process, terminal
        process.wait(PATIENCE)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        process.wait()
        terminal.close()
