"""A copy of the project for one test: its own folder, Compose project and port, and the real commands run in it."""

import contextlib
import fcntl
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Seconds after which what is waited for will not come any more. No test tells quick from slow by it: it has only to be
# far beyond what anything takes on the slowest machine, so that what hangs ends some time.
PATIENCE = 180.0
# The same for what is long by itself, such as a start of vLLM.
LONG_PATIENCE = 1500.0
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


# The locks of the ports that this process has taken, for as long as it lives.
_TAKEN: list[int] = []


def free_port() -> int:
    """Give a port of 127.0.0.1 that nobody holds, and that no other test is given while this process lives.

    It is below those that the kernel gives to whoever asks for any, connections included: between here and its use
    nobody gets it by chance.
    """
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    locks = Path(tempfile.gettempdir()) / f"tandem-test-ports-{os.getuid()}"
    locks.mkdir(exist_ok=True)
    for port in range(lowest - 1, 1024, -1):
        lock = os.open(locks / str(port), os.O_RDWR | os.O_CREAT, 0o600)
        with contextlib.suppress(OSError), socket.socket() as listener:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # As servers do: what is left of a connection is in nobody's way.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", port))
            _TAKEN.append(lock)
            return port
        os.close(lock)
    raise AssertionError(f"no port between 1024 and {lowest} is free")


def eventually(seen: Callable[[], object], *, what: str, seconds: float = PATIENCE) -> None:
    """Poll until seen() is true; fail with what was waited for after so many seconds."""
    deadline = time.monotonic() + seconds
    while not seen():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
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

    def run(self, argv: list[str], *, seconds: float = LONG_PATIENCE, **more: str) -> subprocess.CompletedProcess[str]:
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

    def tandem(self, *arguments: str, seconds: float = LONG_PATIENCE, **more: str) -> subprocess.CompletedProcess[str]:
        """Run `python -m orchestrator` with these arguments."""
        return self.run(self.argv(*arguments), seconds=seconds, **more)

    def compose(self, *arguments: str, seconds: float = LONG_PATIENCE, **more: str) -> subprocess.CompletedProcess[str]:
        """Run `docker compose` with these arguments."""
        return self.run(["docker", "compose", *arguments], seconds=seconds, **more)

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text, encoding="utf-8")

    def extend_models(self, text: str) -> None:
        """Add tables to the project's own models.toml."""
        path = self.folder / "models.toml"
        path.write_text(path.read_text(encoding="utf-8") + text, encoding="utf-8")
