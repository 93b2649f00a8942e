"""How long a server goes on with what nobody waits for any more: clients that go away, and the server's own metrics.

    python -m tests.routing.leaving [--times 20]

Needs Docker and the images of the demo: python -m orchestrator build demo. Prints seconds from a client's leaving until
the server has no request any more, as its own /metrics say. Exit 1 when the bar of a second is not met.
"""

import argparse
import contextlib
import json
import re
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from tests.checkout import PATIENCE, eventually
from tests.routing import served
from tests.routing.compare import ask
from tests.routing.served import MODEL, Served

BAR = 1.0
# So much to write that it goes on for longer than anything here waits: the server tells late of what it does when other
# programs want the processor, and with 16 answers it was done before it was seen to have begun. More answers than the
# server writes at once, so that what is asked after them waits.
LONG = {"model": MODEL, "prompt": "Tell me", "max_tokens": 1000, "ignore_eos": True, "n": 1024}
# When the client leaves: whether it asked for a stream, and reads some of it.
WHEN = {
    "in the middle of a stream": (True, True),
    "before a stream begins": (True, False),
    "before a whole answer": (False, False),
}


def counted(up: Served, name: str) -> float:
    """What the server itself counts."""
    text = ask(up.server, "GET", "/metrics").body.decode()
    return sum(float(value) for value in re.findall(rf"^{re.escape(name)}\{{[^}}]*\}} (\S+)$", text, re.MULTILINE))


def running(up: Served) -> float:
    """How many requests the server has."""
    return counted(up, "vllm:num_requests_running") + counted(up, "vllm:num_requests_waiting")


@contextlib.contextmanager
def asking(up: Served, *, stream: bool) -> Iterator[socket.socket]:
    """The connection of a client that has asked for LONG, and goes away with the block."""
    body = json.dumps({**LONG, "stream": stream}).encode()
    host, port = up.router.removeprefix("http://").split(":")
    with contextlib.closing(socket.create_connection((host, int(port)), timeout=PATIENCE)) as client:
        head = f"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n"
        client.sendall(f"{head}Content-Type: application/json\r\n\r\n".encode() + body)
        yield client


def leave(up: Served, *, stream: bool, read: bool) -> float:
    """Have a client go away, after some of its answer or before any; give the seconds that its generation went on."""
    eventually(lambda: running(up) == 0, what="a server with nothing to do")
    with asking(up, stream=stream) as client:
        if read:
            while b"data: " not in client.recv(65536):
                pass
        eventually(lambda: running(up) > 0, what="a generation under way")
    left = time.monotonic()
    eventually(lambda: running(up) == 0, what="a server that gave up what nobody waits for")
    return time.monotonic() - left


def main() -> int:
    """Measure and print; exit 1 when the bar is not met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=20, help="how often each way is tried (20)")
    parser.add_argument("--name", default="tandem-leaving", help="what the containers' names begin with")
    asked = parser.parse_args()
    longest = 0.0
    with tempfile.TemporaryDirectory() as folder, served.running(Path(folder) / "stack", asked.name) as up:
        for name, (stream, read) in WHEN.items():
            took = [leave(up, stream=stream, read=read) for _ in range(asked.times)]
            longest = max(longest, *took)
            print(f"{name}: median {median(took):.3f} s, longest {max(took):.3f} s, of {len(took)}", flush=True)
    return 0 if longest <= BAR else 1


if __name__ == "__main__":
    sys.exit(main())
