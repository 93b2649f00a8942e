"""A stack with the demo model behind the router, and the same server's own port beside it, to compare the two."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.checkout import LONG_PATIENCE, eventually, free_port
from tests.integration.conftest import Stack, stack

MODEL = "demo"
PROJECT = "tandem-test-clients"
# Every path that the server can have, responses that can be asked for again, and no compiling for 10 s before the first
# logprobs.
ENVIRONMENT = {"VLLM_SERVER_DEV_MODE": "1", "VLLM_ENABLE_RESPONSES_API_STORE": "1", "TORCH_COMPILE_DISABLE": "1"}


@dataclass(frozen=True)
class Served:
    """Where the router is, and where its server is without it."""

    stack: Stack
    router: str
    server: str


def _ready(made: Stack) -> bool:
    with contextlib.suppress(OSError, ValueError):
        status, answer = made.ask("/-/status")
        return status == 200 and {row["name"]: row["state"] for row in answer["models"]}.get(MODEL) == "ready"
    return False


@contextlib.contextmanager
def running(folder: Path, project: str) -> Iterator[Served]:
    """Start such a stack, all of it at once, and take it away afterwards."""
    port = free_port()
    beside = {"ports": [f"127.0.0.1:{port}:8000"], "environment": ENVIRONMENT}
    with contextlib.contextmanager(stack)(folder, project) as made:
        made.write("compose.override.yaml", yaml.safe_dump({"services": {MODEL: beside}}))
        started = made.compose("--env-file", f"env/{MODEL}.env", "up", "-d", "--no-build")
        assert started.returncode == 0, started.stderr[-3000:]
        try:
            eventually(lambda: _ready(made), seconds=LONG_PATIENCE, what=f"{MODEL} that is ready")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{_logs(made)}") from None
        yield Served(made, made.address, f"http://127.0.0.1:{port}")


def _logs(made: Stack) -> str:
    done = made.compose("--profile", "*", "logs", "--no-color", "--tail", "40")
    return done.stdout + done.stderr
