"""Starts vLLM twice on GPUs: all that it compiles is kept in the cache, and the second start compiles nothing.

In an image, with the model's folder mounted and no volume at /cache, so that the first start finds nothing:

  docker run --rm --gpus all --shm-size 8g -v FOLDER:/m:ro -v "$PWD/tests/gpu:/gpu:ro" --entrypoint python3 \
      tandem/vllm:0.32.0-cu130 /gpu/second_start.py /m --tensor-parallel-size 2

What follows the folder goes to `vllm serve`. Prints one JSON object; exits 1 when a server does not answer, when files
were compiled outside the cache, or when the second start compiled again.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

# Where docker/vllm/Dockerfile has vLLM and all below it keep what they compile.
CACHES = (
    "VLLM_CACHE_ROOT",
    "TORCHINDUCTOR_CACHE_DIR",
    "TRITON_CACHE_DIR",
    "FLASHINFER_WORKSPACE_BASE",
    "CUDA_CACHE_PATH",
    "CUTE_DSL_CACHE_DIR",
    "HUMMING_CACHE_DIR",
    "QUACK_CACHE_DIR",
    "TILELANG_CACHE_DIR",
)
# A kernel or a graph, wherever it is found; logs, locks and sockets are none.
COMPILED = {".cubin", ".so", ".ptx", ".cu", ".ttir", ".ttgir", ".llir", ".py", ".o", ".pt", ".best_config"}
# What vLLM says of its times, after what it puts before each message.
TIMES = re.compile(r"\] (.*(?:took|finished in|loaded in) [\d.]+ ?s.*)")
LIMIT = 1800
ADDRESS = "http://127.0.0.1:8011"


def files(*roots: Path) -> dict[str, int]:
    """Every file below some folders, with its bytes."""
    found = {}
    for root in roots:
        for folder, _, names in os.walk(root):
            for name in names:
                with contextlib.suppress(OSError):
                    path = Path(folder, name)
                    found[str(path)] = path.lstat().st_size
    return found


def ask(path: str, body: object = None) -> bytes | None:
    """What the server answers; None where it does not."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(ADDRESS + path, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return bytes(answer.read())
    except (urllib.error.URLError, OSError):
        return None


@contextlib.contextmanager
def server(words: list[str], log: Path) -> Iterator[float]:
    """Run `vllm serve` while it is needed; the seconds until it had answered one token. Ends where it does not."""
    began = time.monotonic()
    with log.open("wb") as said:
        process = subprocess.Popen(
            [*os.environ.get("VLLM", "vllm").split(), "serve", *words, "--served-model-name", "m", "--port", "8011"],
            stdout=said, stderr=said, start_new_session=True,
        )  # fmt: skip
    try:
        while ask("/health") is None:
            if process.poll() is not None or time.monotonic() - began > LIMIT:
                raise SystemExit(f"error: no answer from vLLM; its log ends\n{log.read_text(errors='replace')[-3000:]}")
            time.sleep(0.25)
        token = {"model": "m", "prompt": [5, 6, 7], "max_tokens": 1}
        if ask("/v1/completions", token) is None:
            raise SystemExit(f"error: no token from vLLM; its log ends\n{log.read_text(errors='replace')[-3000:]}")
        yield round(time.monotonic() - began, 1)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(60)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def start(words: list[str], cache: Path, elsewhere: list[Path]) -> dict[str, object]:
    """Start a server, ask it for a token, stop it: seconds, what it says of its times, what it wrote and where."""
    before, outside = files(cache), files(*elsewhere)
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log")
        with server(words, log) as seconds:
            after, beyond = files(cache), files(*elsewhere)
        text = log.read_text(errors="replace")
    new = {path: size for path, size in after.items() if path not in before}
    strays = [path for path in beyond if path not in outside and Path(path).suffix in COMPILED]
    return {
        "seconds": seconds,
        "said": list(dict.fromkeys(line[:110] for line in TIMES.findall(text))),
        "new files in the cache": len(new),
        "new bytes in the cache": sum(new.values()),
        "new by folder": sorted({str(Path(path).relative_to(cache).parts[0]) for path in new}),
        "compiled outside": sorted(strays),
    }


def main(words: list[str]) -> int:
    """Start twice; 1 when the second start had to compile, or something was compiled outside the cache."""
    named = {name: os.environ.get(name, "") for name in CACHES}
    if not words or not all(named.values()):
        print(f"error: {__doc__ if not words else 'run it in an image: ' + str(named)}", file=sys.stderr)
        return 2
    cache = Path(os.path.commonpath(list(named.values())))
    elsewhere = [path for path in (Path.home(), Path(tempfile.gettempdir())) if not cache.is_relative_to(path)]
    elsewhere += [path for path in (Path.home() / ".cache", Path.home() / ".triton") if path not in elsewhere]
    if files(cache):
        print(f"error: {cache} is not empty, so the first start would not be a first one", file=sys.stderr)
        return 2
    first = start(words, cache, elsewhere)
    second = start(words, cache, elsewhere)
    print(json.dumps({"first": first, "second": second}, indent=1))
    strays = [*first["compiled outside"], *second["compiled outside"]]  # type: ignore[misc]
    return int(bool(strays or not first["new files in the cache"]) or second["new bytes in the cache"] > 1e6)  # type: ignore[operator]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
