"""The locks of servers that start: what one that waits says of who has the lock."""

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from gating import locks, signals


def held(path: Path) -> int:
    """The lock of a start that has not written its name yet."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def looks(monkeypatch: pytest.MonkeyPatch, *steps: Callable[[], object]) -> None:
    """Do one of these between each look and the next."""
    left = iter(steps)
    monkeypatch.setattr(signals, "pause", lambda interval: next(left)())


def test_the_holder_is_named_once_its_name_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = held(tmp_path / "lock-0")
    said: list[str] = []
    looks(monkeypatch, lambda: None, lambda: os.pwrite(lock, b"first", 0), lambda: os.close(lock))
    locks.Locks(said.append).take(tmp_path, [0], "second")
    assert said == ["waiting for GPU 0: first is starting on it"]
    assert (tmp_path / "lock-0").read_text() == "second"


def test_a_name_goes_with_its_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = locks.Locks(print)
    first.take(tmp_path, [0], "first")
    first.let_go()
    lock = held(tmp_path / "lock-0")
    said: list[str] = []
    looks(monkeypatch, lambda: os.pwrite(lock, b"next", 0), lambda: os.close(lock))
    locks.Locks(said.append).take(tmp_path, [0], "last")
    assert said == ["waiting for GPU 0: next is starting on it"]


def test_one_that_is_stopped_while_it_waits_leaves_the_holders_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = held(tmp_path / "lock-0")
    os.pwrite(lock, b"first", 0)

    def stop() -> None:
        raise signals.Stopped(15)

    looks(monkeypatch, stop)
    waits = locks.Locks(print)
    with pytest.raises(signals.Stopped):
        waits.take(tmp_path, [0], "second")
    waits.let_go()
    assert (tmp_path / "lock-0").read_text() == "first"
