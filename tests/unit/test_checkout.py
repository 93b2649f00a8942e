"""What the tests themselves count on: ports that nobody else gets, and waits that end."""

import os
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests import checkout
from tests.checkout import PATIENCE, eventually, free_port
from tests.unit.values import ROOT

OTHER = "from tests.checkout import free_port; print(*(free_port() for _ in range(20)), flush=True); input()"
ENV = os.environ | {"PYTHONPATH": str(ROOT)}


def another() -> "subprocess.Popen[str]":
    """Another process that takes ports and tells which."""
    return subprocess.Popen(
        [sys.executable, "-c", OTHER], env=ENV, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def test_no_two_tests_are_given_the_same_port_and_no_connection_gets_one() -> None:
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    given = []
    with ExitStack() as others:
        # All live until the last has told: a port is another's again once its process is gone.
        streams = [others.enter_context(another()).stdout for _ in range(2)]
        given += [free_port() for _ in range(20)]
        for stream in streams:
            assert stream is not None
            given += map(int, stream.readline().split())
    assert len(set(given)) == len(given) == 60
    assert max(given) < lowest


def test_a_port_that_somebody_listens_at_is_not_given() -> None:
    port = free_port()
    with socket.create_server(("127.0.0.1", port)):
        # As one that is no test's has it.
        os.close(checkout._TAKEN.pop())
        told, _ = another().communicate("\n", timeout=PATIENCE)
    assert len(told.split()) == 20
    assert str(port) not in told.split()


def test_a_wait_says_what_did_not_come() -> None:
    looks = iter([False, False, True])
    eventually(lambda: next(looks), what="the third")
    with pytest.raises(AssertionError, match="not within 0 s: a miracle"):
        eventually(lambda: False, what="a miracle", seconds=0)
