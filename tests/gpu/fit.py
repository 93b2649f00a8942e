"""Compares what `plan` says of memory with what vLLM reports, on a machine with two GPUs and vLLM; dummy weights.

In this project's folder, with the packages of vLLM's image in sight (a virtual environment, or PYTHONPATH):

  python3 tests/gpu/fit.py                       # both shapes, two to seven minutes each
  python3 tests/gpu/fit.py qwen-32b-awq --enforce-eager

What follows a shape's name goes to the server. The first start on a machine takes minutes more than the second. VLLM is
the command, by default "python3 -m vllm.entrypoints.cli.main".
Prints a table and the lines of vLLM's log it comes from; exits 1 when weights or KV tokens are more than 3 % off.
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
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from orchestrator import host  # noqa: E402 (the project is no installed package there)
from orchestrator.fit import flags, kv, shape, verdict, weights  # noqa: E402
from orchestrator.fit.room import Memory  # noqa: E402
from orchestrator.profiles import Profile  # noqa: E402
from tests.unit import checkpoints  # noqa: E402

GIB = 1 << 30
# Of models.toml: the tensors, and what the server is told beside its folder.
SHAPES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "qwen-14b": (checkpoints.QWEN_14B | {"architectures": ["Qwen2ForCausalLM"]}, []),
    "qwen-32b-awq": (checkpoints.QWEN_32B_AWQ | {"architectures": ["Qwen2ForCausalLM"]}, ["--dtype", "half"]),
}
LENGTH, SHARE = 16384, 0.9
LIMIT = 500
PORT = "8011"
REPORTED = {
    "weights": r"Model loading took ([\d.]+) GiB",
    "room": r"Available KV cache memory: ([\d.]+) GiB",
    "tokens": r"KV cache size: ([\d,]+) tokens",
    "requests": r"Maximum concurrency for [\d,]+ tokens per request: ([\d.]+)x",
    "graphs, estimated by vLLM": r"Estimated CUDA graph memory: ([\d.]+) GiB",
    "graphs, as captured": r"Graph capturing finished in \d+ secs, took ([\d.]+) GiB",
}
READY = "Application startup complete"
TELLING = re.compile(
    "|".join([*REPORTED.values(), "CUDA graph memory", "non-default args", "Using .* backend", "Error"])
)


def installed() -> str:
    """The version of vLLM; packages that were carried here may have lost what says it."""
    try:
        return version("vllm")
    except PackageNotFoundError:
        return os.environ.get("VLLM_VERSION", "0.32.0")


def alphabet() -> list[str]:
    """The characters that stand for the 256 bytes in a byte-level tokenizer, as GPT-2 began it."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [*map(chr, kept), *(chr(256 + number) for number in range(256 - len(kept)))]


def folder(place: Path, config: dict[str, Any]) -> None:
    """Write config.json and a tokenizer of as many words as the vocabulary has; text is one token a byte.

    Of the words two say where reasoning begins and ends: vLLM's parsers for it look for them when they are made.
    """
    place.mkdir()
    letters = alphabet()
    last = ["<think>", "</think>", "<pad>", "<end>"]
    names = [*letters, *(f"t{number}" for number in range(len(letters), config["vocab_size"] - len(last))), *last]
    bytewise = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": True}
    model = {"type": "BPE", "vocab": {name: number for number, name in enumerate(names)}, "merges": []}
    tokenizer = {"version": "1.0", "added_tokens": [], "pre_tokenizer": bytewise, "decoder": bytewise, "model": model}
    # Bytes, as those of Qwen are: transformers takes Qwen's class for its models, whatever is named here.
    words = {"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<end>", "pad_token": "<pad>"}
    more = {"eos_token_id": len(names) - 1, "bos_token_id": len(names) - 2, "hidden_act": "silu", "rms_norm_eps": 1e-6}
    written = {"config.json": config | more, "tokenizer.json": tokenizer, "tokenizer_config.json": words}
    for name, content in written.items():
        (place / name).write_text(json.dumps(content), encoding="utf-8")


def serve(place: Path, words: list[str], log: Path) -> str:
    """Run a server until it is up, died, or takes too long; everything it said."""
    command = os.environ.get("VLLM", f"{sys.executable} -m vllm.entrypoints.cli.main").split()
    argv = [*command, "serve", str(place), "--load-format", "dummy", "--port", PORT, "--tensor-parallel-size", "2",
            "--max-model-len", str(LENGTH), "--gpu-memory-utilization", str(SHARE), *words]  # fmt: skip
    settings = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "PYTHONUNBUFFERED": "1"}
    began = time.monotonic()
    with log.open("wb") as said:
        process = subprocess.Popen(argv, stdout=said, stderr=said, start_new_session=True, env=os.environ | settings)
    try:
        while (
            process.poll() is None and time.monotonic() - began < LIMIT and READY not in log.read_text(errors="replace")
        ):
            time.sleep(0.5)
    finally:
        for sent, wait in ((signal.SIGINT, 20), (signal.SIGKILL, 20)):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, sent)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(wait)
    print(f"  ({time.monotonic() - began:.0f} s)")
    return log.read_text(errors="replace")


def predicted(name: str, config: dict[str, Any], words: list[str]) -> tuple[verdict.Fit, kv.Cache]:
    """What `plan` would say of this machine as it is now."""
    gpus = tuple(host.gpu_memory())[:2]
    if len(gpus) < 2:
        raise SystemExit("error: nvidia-smi tells of no two GPUs")
    profile = Profile(
        name=name, served_model_name=name, model=f"/{name}", gpus=[gpu.index for gpu in gpus], tensor_parallel_size=2,
        max_model_len=LENGTH, gpu_memory_utilization=SHARE, dtype="half" if "half" in words else None,
        enforce_eager="--enforce-eager" in words,
    )  # fmt: skip
    told = flags.read(profile, lambda _: "", installed())
    read = shape.read(config)
    assert isinstance(read, shape.Shape), read
    found = weights.of_tensors(checkpoints.tensors(config), read, told, "the shape")
    cache = kv.cache(read, told, 0)
    assert isinstance(cache, kv.Cache), cache
    return verdict.decide(name, read, found, told, Memory(gpus, {})), cache


def compare(name: str, words: list[str]) -> bool:
    """Print one shape's table; whether weights and tokens are within 3 %."""
    config, more = SHAPES[name]
    fit, cache = predicted(name, config, [*more, *words])
    print(f"{name}: {' '.join([*more, *words])} on {fit.memory.gpus[0].name if fit.memory else ''}, {fit.state}")
    with tempfile.TemporaryDirectory() as parent:
        place = Path(parent, name)
        folder(place, config)
        text = serve(place, [*more, *words], Path(parent, "log"))
    said = {}
    for key, pattern in REPORTED.items():
        found = re.findall(pattern, text)
        if found:
            said[key] = float(found[-1].replace(",", ""))
    if "tokens" not in said:
        print(text[-3000:])
        return False
    assert fit.weights is not None
    assert fit.room is not None
    rows = {
        "weights": (fit.weights.size / GIB, said.get("weights")),
        "room": (fit.room / GIB, said.get("room")),
        "tokens": (fit.tokens or 0, said["tokens"]),
        "requests": (fit.requests or 0, said.get("requests")),
        "tokens of the room reported": (cache.tokens(int(said.get("room", 0) * GIB), LENGTH), said["tokens"]),
        "budget": ((fit.budget or 0) / GIB, None),
        "beside weights and cache": (
            ((fit.work or 0) + (fit.graphs or 0)) / GIB,
            (fit.budget or 0) / GIB - said.get("weights", 0) - said.get("room", 0),
        ),
        "graphs, estimated by vLLM": ((fit.graphs or 0) / GIB, said.get("graphs, estimated by vLLM")),
        "graphs, as captured": ((fit.graphs or 0) / GIB, said.get("graphs, as captured")),
    }
    errors = {}
    for key, (ours, theirs) in rows.items():
        errors[key] = (ours - theirs) / theirs * 100 if theirs else None
        off = "" if errors[key] is None else f"{errors[key]:+7.2f} %"
        print(f"  {key:<30} {ours:>12,.2f} {'-' if theirs is None else format(theirs, ',.2f'):>12} {off}")
    for line in dict.fromkeys(re.sub(r"^.*?\] ", "", line)[:170] for line in text.splitlines() if TELLING.search(line)):
        print(f"    | {line}")
    return all(abs(errors[key] or 0) <= 3 for key in ("weights", "tokens"))


def main(words: list[str]) -> int:
    """Compare the shapes that are named, or all; 1 when one is off."""
    # One that is told to end takes its server along; it would hold the GPUs.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    named = [word for word in words if word in SHAPES] or list(SHAPES)
    rest = [word for word in words if word not in SHAPES]
    print(f"vLLM {installed()}; predicted, reported (GiB a GPU, or tokens), error")
    return int(sum(not compare(name, rest) for name in named) > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
