"""Stand-ins of hubs beside a stack: what they hold, how they misbehave, what they were asked for."""

import contextlib
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.checkout import ROOT, eventually
from tests.integration.conftest import Stack
from tests.standins import hub_client

STANDINS = ROOT / "tests/standins"
PORT = 8080


class Hub(hub_client.Hub):
    """A stand-in of a hub in a container; folder is what it holds: org/name/files."""

    def __init__(self, folder: Path, address: str) -> None:
        super().__init__(address)
        self.folder = folder

    def total(self) -> int:
        """The bytes of files that it sent since its log was emptied."""
        return sum(self.sent().values())

    def by_file(self) -> dict[str, int]:
        """The same by file; those that it sent nothing of are not there."""
        return {name: size for name, size in self.sent().items() if size}

    @contextlib.contextmanager
    def behaving(self, **switches: Any) -> Iterator[None]:
        """Have it misbehave for a while, with an empty log."""
        self.start_over(**switches)
        try:
            yield
        finally:
            self.control(reset=True)

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


def prepare(made: Stack, models: str, **endpoint: str) -> Path:
    """Give a stack these models, a hub's address and an empty folder of weights, and its network; the folder."""
    made.write("models.toml", models)
    weights = made.folder / "weights"
    weights.mkdir(exist_ok=True)
    os.chown(weights, 1000, 1000)
    made.environment |= {"TANDEM_MODELS": str(weights), **endpoint}
    assert made.tandem("render").returncode == 0
    assert made.compose("up", "-d", "router").returncode == 0
    return weights


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
        made = Hub(folder, f"http://{published.stdout.split()[0]}")

        def answers() -> bool:
            with contextlib.suppress(OSError):
                made.requests()
                return True
            return False

        eventually(answers, what="a hub that answers")
        yield made
