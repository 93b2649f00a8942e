"""Stand-ins of hubs beside a stack: what they hold, how they misbehave, what they were asked for."""

import contextlib
import json
import random
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.checkout import ROOT, eventually
from tests.integration.conftest import DIRECT, Stack

STANDINS = ROOT / "tests/standins"
PORT = 8080


@dataclass
class Hub:
    """A stand-in of a hub in a container; folder is what it holds: org/name/files."""

    stack: Stack
    folder: Path
    address: str

    def _ask(self, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        with DIRECT.open(urllib.request.Request(self.address + path, data), timeout=30) as answer:
            return json.load(answer)

    def control(self, **switches: Any) -> None:
        """Have it misbehave; forget what it was asked for so far."""
        self._ask("/control", {**switches, "reset_log": True})

    def requests(self) -> list[dict[str, Any]]:
        """What it was asked for since."""
        return list(self._ask("/log")["requests"])

    def sent(self) -> int:
        """The bytes of files that it sent since."""
        return int(self._ask("/log")["totals"]["sent"])

    def by_file(self) -> dict[str, int]:
        """The same by file; those that it sent nothing of are not there."""
        return {name: size for name, size in self._ask("/log")["totals"]["by_file"].items() if size}

    @contextlib.contextmanager
    def behaving(self, **switches: Any) -> Iterator[None]:
        """Have it misbehave for a while."""
        before = {name: value for name, value in self._ask("/control", {}).items() if name in switches}
        if "token" in before:
            before["token"] = ""  # it says only whether there is one
        self.control(**switches)
        try:
            yield
        finally:
            self._ask("/control", before)

    def make(self, model: str, /, **sizes: int) -> dict[str, bytes]:
        """Put a model there, of config.json and files of random bytes; its files."""
        folder = self.folder / model
        folder.mkdir(parents=True)
        files = {"config.json": b"{}\n"}
        for name, size in sizes.items():
            block = random.Random(f"{model} {name}").randbytes(min(size, 1 << 20))
            files[name.replace("__", "/") + ".safetensors"] = (block * (size // len(block) + 1))[:size]
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        return files


@contextlib.contextmanager
def hub(stack: Stack, alias: str = "hub", script: str = "stub_hub.py", *options: str) -> Iterator[Hub]:
    """Run a stand-in beside a stack, whose network must be there."""
    folder = stack.folder / alias
    folder.mkdir(exist_ok=True)
    given = (f"/standins/{script}", "/hub", "--host", "0.0.0.0", "--port", str(PORT), *options)
    mounts = {folder: "/hub", STANDINS: "/standins"}
    with stack.beside(alias, *given, mounts=mounts, publish=PORT) as name:
        published = stack.run(["docker", "port", name, str(PORT)])
        assert published.returncode == 0, published.stderr
        made = Hub(stack, folder, f"http://{published.stdout.split()[0]}")

        def answers() -> bool:
            with contextlib.suppress(OSError):
                made.requests()
                return True
            return False

        eventually(answers, seconds=30, what="a hub that answers")
        yield made
