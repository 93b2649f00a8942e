"""Turns bytes into choices, so that hypothesis draws one cheap value for a whole request and still makes it smaller."""

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Tape:
    """Choices one after the other; zeros, and what comes after the end, mean the first and plainest one each time."""

    def __init__(self, entropy: bytes) -> None:
        self._entropy = entropy
        self._at = 0

    def number(self, below: int) -> int:
        drawn, reach = 0, 1
        while reach < below:
            drawn, reach = drawn * 256 + self._next(), reach * 256
        return drawn % below

    def pick(self, options: Sequence[T]) -> T:
        return options[self.number(len(options))]

    def once_in(self, times: int) -> bool:
        """Hold about once in so many times."""
        return self.number(times) == times - 1

    def _next(self) -> int:
        self._at += 1
        return self._entropy[self._at - 1] if self._at <= len(self._entropy) else 0
