"""What ends a command from outside: all of it is as Ctrl-C is, and none of it breaks off what puts something back."""

import errno
import os
import signal
import sys
import termios
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self, TextIO, TypeVar, cast

Result = TypeVar("Result")

# Ctrl-C, a stop from outside, and a terminal that is closed.
ENDING = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP})


def listen() -> None:
    """Have a stop from outside, and a terminal that is closed, end a command as cleanly as Ctrl-C does."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # nohup has it ignored.
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        signal.signal(signal.SIGHUP, _hung_up)


def _hung_up(number: int, frame: FrameType | None) -> None:
    _end_of_terminal()
    signal.default_int_handler(number, frame)


def _end_of_terminal() -> None:
    # A shell tells its jobs of what the kernel has told them before. Programs that are run from now on ignore it too.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    for stream in (1, 2):
        try:
            termios.tcgetattr(stream)
        except termios.error as error:
            if error.args[0] != errno.EIO:
                # It is none, or was closed.
                continue
        _silence(stream)


def _silence(stream: int) -> None:
    """Write nowhere in place of where nobody reads: whoever wrote there would fail, and put nothing back."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream)
    os.close(nowhere)


class _Unread:
    """A stream that nobody may read any more: a terminal that has gone, or `tee`, which Ctrl-C ends too."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        return self._do(lambda: self._stream.write(text))

    def flush(self) -> None:
        self._do(self._stream.flush)

    def _do(self, what: Callable[[], Result]) -> Result:
        try:
            return what()
        except OSError:
            # Also of a disk that is full.
            _silence(self._stream.fileno())
            return what()


class Guard:
    """While it lasts the first signal is as Ctrl-C; from it on, or from hold() on, others wait until it is over.

    One that waited is as Ctrl-C at the end, unless something was raised there anyway. For the main thread.
    """

    def __init__(self) -> None:
        self._held: frozenset[int] = frozenset()
        self._came = False
        self._before: dict[int, object] = {}
        self._stderr: TextIO | None = None

    def hold(self) -> None:
        """Let nothing interrupt from here on: something is put back."""
        self._held = ENDING
        if self._stderr is None and sys.stderr is not None:
            # Of a reader that has gone nobody may have told us. What is said meanwhile is no reason to fail.
            self._stderr, sys.stderr = sys.stderr, cast(TextIO, _Unread(sys.stderr))

    def let(self, number: int) -> None:
        """Have one signal interrupt again, as Ctrl-C does."""
        self._held = ENDING - {number}

    def __enter__(self) -> Self:
        for number in ENDING:
            before = signal.getsignal(number)
            # What is ignored stays so, as a shell has it for what runs behind; None is no handler of Python's.
            if before not in (signal.SIG_IGN, None):
                self._before[number] = before
                signal.signal(number, self._take)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stderr is not None:
            sys.stderr = self._stderr
        for number, before in self._before.items():
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, before)  # type: ignore[arg-type]  # as getsignal gave it
        if self._came and kind is None:
            raise KeyboardInterrupt

    def _take(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            _end_of_terminal()
        if number in self._held:
            self._came = True
            return
        # At once: between here and whoever puts things back a second one may come.
        self.hold()
        signal.default_int_handler(number, frame)
