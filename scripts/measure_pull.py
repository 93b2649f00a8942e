"""Measures pulls: ours against ModelScope's bare client, in pairs, and how fast whole weights are verified.

Everything happens in one container of an image of vLLM, with a stand-in of the hub beside the client. Times are those
of whole processes, from nothing pulled to a model that is whole, fsync and all.
"""

import argparse
import json
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
IMAGE = "tandem/vllm:0.32.0-cpu"
MODEL = "Bench/model"
FILES = 4
BARE = f"""
import sys
from modelscope_hub import HubApi
HubApi().download_repo({MODEL!r}, "model", revision="master", local_dir=sys.argv[1])
"""


def options(argv: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="scripts/measure-pull", description=__doc__.partition("\n")[0])
    parser.add_argument("--image", default=IMAGE, help=f"an image of vLLM ({IMAGE})")
    parser.add_argument("--gigabytes", type=float, default=2.0, help="the model's size (2)")
    parser.add_argument("--rate", type=float, default=100.0, help="MB a second that the line has; 0: no limit (100)")
    parser.add_argument("--pairs", type=int, default=3, help="pulls of each kind; medians are shown (3)")
    parser.add_argument("--json", action="store_true", help="print JSON for scripts")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    found = parser.parse_args(argv)
    if found.pairs < 1 or found.gigabytes <= 0 or found.rate < 0:
        parser.error("--pairs and --gigabytes should be above 0, --rate 0 or more")
    return found


def timed(argv: list[str]) -> float:
    """Run a program; its seconds."""
    began = time.monotonic()
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - began


def cold(folder: Path) -> int:
    """Have the kernel forget a folder's files, as far as it may; their bytes."""
    size = 0
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
                os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                size += os.fstat(stream.fileno()).st_size
    return size


def read(folder: Path) -> float:
    """Read a folder's files, one after the other, and do nothing with them; the seconds."""
    began = time.monotonic()
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb", buffering=0) as stream:
                while stream.read(1 << 20):
                    pass
    return time.monotonic() - began


def inside(given: argparse.Namespace) -> dict[str, list[float]]:
    """Measure, in the container; the seconds of each kind."""
    hub, models = Path("/bench/hub"), Path("/models")
    block = random.Random(0).randbytes(1 << 20)  # noqa: S311 (bytes that do not compress, and no secret)
    (hub / MODEL).mkdir(parents=True)
    for number in range(FILES):
        with (hub / MODEL / f"model-{number}.safetensors").open("wb") as stream:
            for _ in range(int(given.gigabytes * 1e9 / FILES / len(block))):
                stream.write(block)
    argv = ["python3", "/standins/stub_hub.py", str(hub), "--port", "8080", "--rate-total", str(given.rate * 1e6)]
    times: dict[str, list[float]] = {"ours": [], "bare": [], "verify": [], "read": []}
    pull = ["python3", "/opt/tandem/pull.py"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            os.environ["MODELSCOPE_ENDPOINT"] = next(iter(process.stdout or ())).decode().strip()
            # The hub hashes its files once; no pull shall wait for that.
            timed([*pull, "pull", MODEL, "master"])
            for number in range(given.pairs):
                for kind in ("ours", "bare") if number % 2 else ("bare", "ours"):
                    for path in (models / "Bench", models / ".tandem", models / "bare"):
                        shutil.rmtree(path, ignore_errors=True)
                    ours = [*pull, "pull", MODEL, "master"]
                    bare = ["python3", "-c", BARE, str(models / "bare")]
                    times[kind].append(timed(ours if kind == "ours" else bare))
            if not (models / MODEL).is_dir():
                timed([*pull, "pull", MODEL, "master"])
        finally:
            process.kill()
    for _ in range(given.pairs):
        cold(models / MODEL)
        times["read"].append(read(models / MODEL))
        cold(models / MODEL)
        times["verify"].append(timed([*pull, "verify", MODEL]))
    return times


def outside(given: argparse.Namespace) -> dict[str, list[float]]:
    """Run the measurement in a container with nothing but itself."""
    mounts = {
        "tests/standins": "/standins",
        "docker/vllm": "/opt/tandem",
        "scripts/measure_pull.py": "/measure_pull.py",
    }
    volumes = [word for source, target in mounts.items() for word in ("--volume", f"{ROOT / source}:{target}:ro")]
    # On the disk and not in the container's own layer; both go with the container.
    volumes += ["--volume", "/bench", "--volume", "/models", "--user", "0"]
    argv = ["docker", "run", "--rm", "--network", "none", *volumes, "--entrypoint", "python3", given.image]
    argv += ["/measure_pull.py", "--inside", "--json", "--gigabytes", str(given.gigabytes)]
    argv += ["--rate", str(given.rate), "--pairs", str(given.pairs)]
    done = subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"the measurement failed in {given.image}; it says why above")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def table(given: argparse.Namespace, times: dict[str, list[float]]) -> str:
    """Say the medians, and the ratios that matter."""
    middle = {kind: statistics.median(found) for kind, found in times.items()}
    ratios = [bare / ours for bare, ours in zip(times["bare"], times["ours"], strict=True)]
    megabytes = given.gigabytes * 1e3
    line = f"{given.rate:g} MB/s" if given.rate else "no limit"
    rows = [
        ("the bare client", f"{middle['bare']:.1f} s", f"{megabytes / middle['bare']:.0f} MB/s"),
        ("tandem's pull", f"{middle['ours']:.1f} s", f"{megabytes / middle['ours']:.0f} MB/s"),
        ("  of the bare client's rate", f"{100 * statistics.median(ratios):.1f} %", ""),
        ("reading the files", f"{middle['read']:.1f} s", f"{megabytes / middle['read']:.0f} MB/s"),
        ("verify", f"{middle['verify']:.1f} s", f"{megabytes / middle['verify']:.0f} MB/s"),
    ]
    machine = f"{os.cpu_count()} cores, {platform.machine()}; {given.gigabytes:g} GB in {FILES} files, line {line}"
    return "\n".join([f"{machine}; medians of {given.pairs}", *(f"{a:28} {b:>9} {c:>10}".rstrip() for a, b, c in rows)])


def main(argv: list[str]) -> None:
    """Measure and print."""
    given = options(argv)
    times = inside(given) if given.inside else outside(given)
    print(json.dumps(times) if given.json or given.inside else table(given, times))


if __name__ == "__main__":
    main(sys.argv[1:])
