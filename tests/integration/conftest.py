"""The machine's own Docker with the images of this checkout, shared by all integration tests."""

import contextlib
import json
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.checkout import LONG_PATIENCE, PATIENCE, ROOT, Checkout, free_port

PROJECT = "tandem-test"
SERVER_IMAGE = "tandem/vllm:0.32.0-cpu"
# For a container of an image with weights/: has seal(), which makes a whole model of a folder.
SEAL = '''
import sys
sys.path.insert(0, "/opt/tandem")
from pathlib import Path
from weights import hashes, manifest
from weights.manifest import File, Model

def seal(folder, model):
    """Write the manifest of a folder as it is, as a pull leaves it."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    files = {str(path.relative_to(folder)): File(path.stat().st_size, sha256="") for path in paths}
    checked = {name: hashes.sha256(folder / name, file) for name, file in files.items()}
    manifest.write(folder / manifest.NAME, Model("modelscope", model, "master", "", files, checked))
'''
# Gigabytes over whatever line there is.
BUILD_SECONDS = 2400
# The router is on this machine, whatever proxy the machine uses.
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


# Commands that tests started and may have left when they failed.
STARTED: "list[subprocess.Popen[str]]" = []


@pytest.fixture(autouse=True)
def _nothing_left_running() -> Iterator[None]:
    yield
    while STARTED:
        left = STARTED.pop()
        left.terminate()
        left.communicate(timeout=PATIENCE)


class Stack(Checkout):
    """A checkout with a project name and port of its own, so that a user's stack on the same machine is left alone."""

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.environment['TANDEM_PORT']}"

    def ask(self, path: str, body: Any = None, *, seconds: float = LONG_PATIENCE) -> tuple[int, Any]:
        """Send a request to the router; the status and the parsed answer."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(self.address + path, data, {"Content-Type": "application/json"})
        try:
            with DIRECT.open(request, timeout=seconds) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def complete(self, model: str, prompt: str, **more: Any) -> str:
        """Ask for a completion; its text."""
        status, answer = self.ask("/v1/completions", {"model": model, "prompt": prompt, **more})
        assert status == 200, answer
        return str(answer["choices"][0]["text"])

    def inspect(self, service: str) -> dict[str, Any]:
        """What the Engine says of a service's container."""
        name = f"{self.environment['COMPOSE_PROJECT_NAME']}-{service}"
        return dict(json.loads(self.run(["docker", "inspect", name]).stdout)[0])

    @contextlib.contextmanager
    def beside(
        self,
        alias: str,
        script: str,
        *arguments: str,
        mounts: Mapping[Path, str],
        publish: int | None = None,
        shared: Mapping[str, str] | None = None,
    ) -> Iterator[str]:
        """Run a Python script in a container on the stack's network, where it is called alias; the container's name.

        A port that it publishes is some port of 127.0.0.1. shared are volumes of the stack that it may write to.
        """
        project = self.environment["COMPOSE_PROJECT_NAME"]
        name = f"{project}-{alias}"
        ports = [] if publish is None else ["--publish", f"127.0.0.1::{publish}"]
        volumes = [word for source, target in mounts.items() for word in ("--volume", f"{source}:{target}:ro")]
        for volume, target in (shared or {}).items():
            volumes += ["--volume", f"{project}_{volume}:{target}"]
        # One that an interrupted run left would be in the way.
        self.run(["docker", "rm", "--force", name])
        try:
            started = self.run(
                ["docker", "run", "--detach", "--name", name, "--network", f"{project}_models",
                 "--network-alias", alias, *ports, *volumes,
                 "--entrypoint", "python3", SERVER_IMAGE, script, *arguments]
            )  # fmt: skip
            assert started.returncode == 0, started.stderr
            yield name
        finally:
            self.run(["docker", "rm", "--force", name])

    def take_away(self) -> None:
        """Remove what the stack has in Docker: containers, volumes and networks."""
        done = self.compose("--profile", "*", "down", "--volumes", "--remove-orphans", "--timeout", "5")
        assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def images() -> Checkout:
    """Build the images of the demo as a user would; a few seconds where they are there already."""
    checkout = Checkout(ROOT)
    sweep(checkout)
    # Stacks borrow this checkout's virtual environment: it must not be theirs to bring up to date.
    assert checkout.run(["scripts/setup", "--dev", "--yes"]).returncode == 0
    built = checkout.tandem("build", "demo", seconds=BUILD_SECONDS)
    assert built.returncode == 0, built.stderr[-3000:]
    return checkout


def sweep(checkout: Checkout) -> None:
    """Remove what tests that were killed left in Docker; all of it is called tandem-test."""
    kinds = {"ps -a": ("rm -fv", "Names"), "network ls": ("network rm", "Name"), "volume ls": ("volume rm", "Name")}
    for listing, (removal, field) in kinds.items():
        listed = checkout.run(["docker", *listing.split(), "--format", f"{{{{.{field}}}}}"]).stdout.split()
        left = [name for name in listed if name.startswith("tandem-test")]
        if left:
            removed = checkout.run(["docker", *removal.split(), *left])
            assert removed.returncode == 0, removed.stderr


def stack(folder: Path, project: str) -> Iterator[Stack]:
    """A stack that is taken down again, volumes and networks too."""
    made = Stack.copy(folder, COMPOSE_PROJECT_NAME=project, TANDEM_PORT=str(free_port()))
    assert isinstance(made, Stack)
    (folder / ".venv").symlink_to(ROOT / ".venv")
    # What an interrupted run left would be taken for this one's.
    made.take_away()
    try:
        yield made
    finally:
        made.take_away()


@pytest.fixture(scope="module")
def demo(images: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack of the demo model, with nothing started yet."""
    yield from stack(tmp_path_factory.mktemp("demo"), PROJECT)
