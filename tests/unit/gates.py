"""Runs the servers' entrypoint on this machine, around a stand-in for vLLM and one for NVIDIA's library."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.checkout import PATIENCE, free_port
from tests.standins.nvml import Gpus
from tests.unit.values import ROOT

# With no site: the standard library has to do.
PROGRAM = """
import sys, gate
from pathlib import Path
shared = Path(sys.argv[1])
sys.exit(gate.main(sys.argv[3:], shared, float(sys.argv[2]), shared.parent / "box"))
"""
STANDIN = ROOT / "tests/standins/gated.py"


class Gate:
    """An entrypoint that runs; its stand-in server is told and looked at through files."""

    def __init__(self, yard: "Yard", name: str, process: "subprocess.Popen[str]", log: Path) -> None:
        self._yard, self.name, self.process, self._log = yard, name, process, log

    @property
    def said(self) -> list[str]:
        """What it wrote, our own lines alone."""
        lines = self._log.read_text().splitlines()
        return [line.removeprefix("tandem: ") for line in lines if line.startswith("tandem: ")]

    def tell(self, kind: str, text: str = "") -> None:
        """Tell the server to go on ("go") or to end ("end", with the code)."""
        new = self._yard.folder / f"{self.name}.{kind}.told"
        new.write_text(text)
        new.rename(self._yard.folder / f"{self.name}.{kind}")

    def has(self, kind: str) -> Path:
        """Wait for what the server writes, and give the file."""
        path = self._yard.folder / f"{self.name}.{kind}"
        until(path.exists, lambda: f"{path.name}; it said {self._log.read_text()}")
        return path

    def pid(self, kind: str = "pid") -> int:
        return int(self.has(kind).read_text())

    def environment(self) -> dict[str, str]:
        return dict(json.loads(self.has("environment").read_text()))

    def says(self, text: str) -> str:
        """Wait for a line with this text in it, and give the line."""
        until(lambda: any(text in line for line in self.said), lambda: f"{text!r}; it said {self._log.read_text()}")
        return next(line for line in self.said if text in line)

    def ends(self) -> int:
        """Wait for its end; the code."""
        return self.process.wait(timeout=PATIENCE)


class Yard:
    """A folder for a test's gates, two GPUs that nobody uses, and the file of what the servers did."""

    def __init__(self, folder: Path, library: Path) -> None:
        self.folder = folder
        self.shared = folder / "gpus"
        self.shared.mkdir()
        self.gpus = Gpus(folder / "nvml")
        self.library = library
        self.gates: list[Gate] = []
        (folder / "bin").mkdir()
        (folder / "bin/vllm").write_text(f'#!/bin/sh\nexec {sys.executable} -S {STANDIN} "$@"\n')
        (folder / "bin/vllm").chmod(0o755)
        (folder / "log").touch()

    @property
    def log(self) -> list[str]:
        """What happened to the servers, in its order."""
        return (self.folder / "log").read_text().splitlines()

    def logs(self, text: str) -> None:
        """Wait until this happened to a server."""
        until(lambda: text in self.log, lambda: f"{text!r} among {self.log}")

    def start(
        self, name: str, *flags: str, gpus: str = "", shared: Path | None = None, grace: float = 20, **more: str
    ) -> Gate:
        """Start a gate for a server of this name."""
        environment = {
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            "PYTHONPATH": f"{self.folder}:{ROOT / 'docker/vllm'}",
            "LD_LIBRARY_PATH": str(self.library.parent),
            "TANDEM_STANDIN_NVML": str(self.gpus.path),
            "STANDIN_FOLDER": str(self.folder),
            "TANDEM_GPUS": gpus,
        }
        log = self.folder / f"{name}.log"
        argv = [sys.executable, "-S", "-c", PROGRAM, str(shared or self.shared), str(grace), "vllm", "serve",
                "some/model", "--served-model-name", name, "--port", str(free_port()), *flags]  # fmt: skip
        with log.open("w") as out:
            process = subprocess.Popen(argv, env=environment | more, stdout=out, stderr=out, text=True)
        gate = Gate(self, name, process, log)
        self.gates.append(gate)
        return gate

    def close(self) -> None:
        """End what is left, also of gates that were killed."""
        for gate in self.gates:
            # It ends what it started, also a server that has not said its process id yet.
            gate.process.terminate()
            gate.process.wait(timeout=PATIENCE)
            for kind in ("pid", "worker"):
                left = self.folder / f"{gate.name}.{kind}"
                if left.exists() and alive(int(left.read_text()), gate.name if kind == "pid" else "time.sleep(600)"):
                    os.kill(int(left.read_text()), signal.SIGKILL)


def until(seen: Callable[[], object], what: Callable[[], str]) -> None:
    """Poll until seen() is true; fail with what was waited for when it does not come."""
    deadline = time.monotonic() + PATIENCE
    while not seen():
        assert time.monotonic() < deadline, f"not within {PATIENCE:g} s: {what()}"
        time.sleep(0.01)


def alive(pid: int, words: str = "") -> bool:
    """Whether a process runs, and has these words on its command line."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state not in "ZX" and words in Path(f"/proc/{pid}/cmdline").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
