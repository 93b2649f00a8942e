"""A copy of the project for one test: its own folder, Compose project and port, and the real commands run in it."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# What a user's machine may have set, and a test must not inherit.
OURS = (
    "TANDEM_",
    "COMPOSE_",
    "DOCKER_HOST",
    "DOCKER_CONTEXT",
    "BUILDX_BUILDER",
    "BUILDKIT_PROGRESS",
    "NO_COLOR",
    "FORCE_COLOR",
    "MODELSCOPE_",
    "HF_",
    "DEMO_",
    "QWEN_",
    "QWQ_",
    "DEEPSEEK_",
)


def free_port() -> int:
    """Ask the kernel for a port of 127.0.0.1 that nobody holds now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def eventually(seen: Callable[[], object], *, seconds: float, what: str) -> None:
    """Poll until seen() is true; fail with what was waited for after so many seconds."""
    deadline = time.monotonic() + seconds
    while not seen():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.1)


@dataclass
class Checkout:
    """The project's files at folder; environment is added to every command that runs there."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    @classmethod
    def copy(cls, folder: Path, **environment: str) -> "Checkout":
        """Copy every file that git tracks or would track, as a fresh clone would have it."""
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            check=True,
        )
        for name in listed.stdout.decode().split("\0"):
            source, target = ROOT / name, folder / name
            if name and source.is_file():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, target)
                target.chmod(0o755 if os.access(source, os.X_OK) else 0o644)
        return cls(folder, environment)

    def env(self, **more: str) -> dict[str, str]:
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(OURS)}
        return {**inherited, **self.environment, **more}

    def run(self, argv: list[str], *, seconds: float = 300, **more: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the folder to its end; more are environment variables."""
        return subprocess.run(
            argv, cwd=self.folder, env=self.env(**more), capture_output=True, text=True, timeout=seconds, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def start(self, argv: list[str], **more: str) -> subprocess.Popen[str]:
        """Start a command in the folder, in a process group of its own, so that it can be interrupted as a whole."""
        return subprocess.Popen(
            argv, cwd=self.folder, env=self.env(**more), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip

    @staticmethod
    def argv(*arguments: str) -> list[str]:
        """The orchestrator's own command line."""
        return [sys.executable, "-m", "orchestrator", *arguments]

    def tandem(self, *arguments: str, seconds: float = 300, **more: str) -> subprocess.CompletedProcess[str]:
        """Run `python -m orchestrator` with these arguments."""
        return self.run(self.argv(*arguments), seconds=seconds, **more)

    def compose(self, *arguments: str, seconds: float = 300, **more: str) -> subprocess.CompletedProcess[str]:
        """Run `docker compose` with these arguments."""
        return self.run(["docker", "compose", *arguments], seconds=seconds, **more)

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text, encoding="utf-8")

    def extend_models(self, text: str) -> None:
        """Add tables to the project's own models.toml."""
        path = self.folder / "models.toml"
        path.write_text(path.read_text(encoding="utf-8") + text, encoding="utf-8")
