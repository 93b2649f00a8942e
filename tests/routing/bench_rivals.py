"""Others' routers in the router's benchmark: LiteLLM's proxy and vllm-router, each in a venv of its own."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.checkout import eventually, free_port
from tests.routing.bench_ask import trouble

# Python processes that import much, on a machine that may be slow.
START_SECONDS = 120


class UnavailableError(Exception):
    """A rival cannot be installed or started here; the text says why."""


@dataclass(frozen=True)
class Rival:
    """What the Python index calls it, the program that the package brings, and its command line."""

    name: str
    package: str
    program: str
    # folder, its port, its server's port, the model
    arguments: Callable[[Path, int, int, str], list[str]]
    environment: dict[str, str]
    # As of a contender in bench_measure.
    patience: tuple[int, int]


def _litellm(folder: Path, port: int, to: int, model: str) -> list[str]:
    path = folder / "litellm.json"
    behind = {"model": f"hosted_vllm/{model}", "api_base": f"http://127.0.0.1:{to}/v1", "api_key": "none"}
    # YAML, as all JSON is.
    path.write_text(json.dumps({"model_list": [{"model_name": model, "litellm_params": behind}]}), encoding="utf-8")
    return ["--config", str(path), "--host", "127.0.0.1", "--port", str(port)]


def _vllm_router(folder: Path, port: int, to: int, model: str) -> list[str]:
    return [
        "--host", "127.0.0.1", "--port", str(port), "--worker-urls", f"http://127.0.0.1:{to}",
        "--prometheus-host", "127.0.0.1", "--prometheus-port", str(free_port()),
    ]  # fmt: skip


RIVALS = {
    "litellm": Rival(
        "LiteLLM", "litellm[proxy]", "litellm", _litellm,
        # No key, as the router has none here, and no look at GitHub for prices.
        {"LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true", "LITELLM_LOCAL_MODEL_COST_MAP": "True"},
        (2, 3),
    ),
    "vllm-router": Rival("vllm-router", "vllm-router", "vllm-router", _vllm_router, {}, (1, 2)),
}  # fmt: skip


def _run(argv: list[str]) -> None:
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=900)
    if done.returncode != 0:
        raise UnavailableError(f"{Path(argv[0]).name} {' '.join(argv[1:4])}: {_end(done.stdout)}")


def _end(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " / ".join(lines[-3:])[:500] or "no output"


def install(rival: Rival, folder: Path) -> Path:
    """Make its venv below folder, unless it is there already; give its programs' folder."""
    venv = folder / rival.program
    done = venv / "installed"
    if not done.exists():
        shutil.rmtree(venv, ignore_errors=True)
        if uv := shutil.which("uv"):
            _run([uv, "venv", "--python", sys.executable, str(venv)])
            _run([uv, "pip", "install", "--python", str(venv / "bin/python"), rival.package])
        else:
            _run([sys.executable, "-m", "venv", str(venv)])
            _run([str(venv / "bin/pip"), "install", "--quiet", rival.package])
        done.touch()
    return venv / "bin"


def version(rival: Rival, folder: Path) -> str:
    """Say which version is installed."""
    name = rival.package.partition("[")[0]
    code = f"import importlib.metadata; print(importlib.metadata.version({name!r}))"
    argv = [str(folder / rival.program / "bin/python"), "-c", code]
    return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60).stdout.strip()


@contextlib.contextmanager
def running(rival: Rival, folder: Path, to: int, model: str, body: bytes) -> Iterator[tuple[int, int]]:
    """Run it with its defaults in front of the server at `to` until the block ends; give its port and its process."""
    programs, port = install(rival, folder), free_port()
    log = folder / f"{rival.program}.log"
    argv = [str(programs / rival.program), *rival.arguments(folder, port, to, model)]
    direct = {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    with log.open("w", encoding="utf-8") as out:
        process = subprocess.Popen(
            argv, env={**os.environ, **direct, **rival.environment}, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            start_new_session=True, cwd=folder,
        )  # fmt: skip
    try:
        with contextlib.suppress(AssertionError):
            ready = lambda: process.poll() is not None or not trouble(port, body, counted=False)  # noqa: E731
            eventually(ready, seconds=START_SECONDS, what=f"an answer of {rival.name}")
        if process.poll() is not None or (wrong := trouble(port, body, counted=False)):
            ended = f"ended with {process.returncode}" if process.returncode is not None else wrong
            raise UnavailableError(
                f"it does not answer: {ended}; {_end(log.read_text(encoding='utf-8', errors='replace'))}"
            )
        yield port, process.pid
    finally:
        _stop(process)


def _stop(process: "subprocess.Popen[bytes]") -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=10)
            return
