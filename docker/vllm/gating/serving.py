"""Runs a server to its end: passes signals on, notices when it serves, ends what it leaves behind."""

import json
import os
import signal
import time
from collections.abc import Callable

from gating import family, signals

INTERVAL = 0.5
# vLLM ends within seconds. Below the stop_grace_period of service.yaml by what the rest takes.
GRACE = 20.0


def serve(
    argv: list[str], environment: dict[str, str], *, serves: Callable[[], bool], started: Callable[[], None],
    say: Callable[[str], None], grace: float,
) -> int:  # fmt: skip
    """Run a server; its exit code, 128 and the signal's number when a signal ended it.

    serves is asked until it says True, and then started is called, once. Raises OSError when there is no such program.
    """
    family.adopt()
    server = signals.spawn(argv, environment)
    code = _follow(server, serves=serves, started=started, say=say, grace=grace)
    family.clear(say, asked=min(grace, family.ASKED))
    return code


def _follow(
    server: int, *, serves: Callable[[], bool], started: Callable[[], None], say: Callable[[str], None], grace: float
) -> int:
    starting = True
    killing: float | None = None
    while True:
        got = signals.wait(INTERVAL)
        code = family.reap().get(server)
        if code is not None:
            return code
        if got in signals.ENDING:
            # To vLLM alone: it ends its own workers, in the order that they need.
            os.kill(server, got)
            killing = killing or time.monotonic() + grace
        if killing and time.monotonic() >= killing:
            say(f"the server did not end in {grace:g} s: killing it")
            killing = time.monotonic() + grace
            family.send(signal.SIGKILL)
        if starting and serves():
            starting = False
            started()


def lists(port: int, name: str) -> bool:
    """Whether the server on this container's port answers with its list of models, and the name is on it."""
    # Needed once the server runs; before that it would hold up the start.
    import http.client

    line = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
    try:
        line.request("GET", "/v1/models")
        answer = line.getresponse()
        # It may want a key before it lists anything; then it serves all the same.
        if answer.status in {401, 403}:
            return True
        return name in [model["id"] for model in json.loads(answer.read())["data"]]
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        return False
    finally:
        line.close()
