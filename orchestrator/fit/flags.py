"""Which of a profile's flags decide how much memory vLLM takes, with vLLM's own defaults filled in. Pure."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.profiles import Profile

GIB = 1 << 30
# Of vLLM's config/cache.py; up to 0.19 it was 0.9.
UTILIZATION, OLDER_UTILIZATION, LARGER_SHARE = 0.92, 0.9, (0, 20)
# vLLM itself sets the memory of CUDA graphs aside from this version on (VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS).
COUNTS_GRAPHS = (0, 21)
# docker/vllm/Dockerfile sets it for the image for CPUs, in GiB.
CPU_SPACE = "VLLM_CPU_KVCACHE_SPACE"
CPU_SPACE_GIB = 1
# Tokens of a block of the cache: CacheConfig.DEFAULT_BLOCK_SIZE, and platforms/cpu.py.
BLOCK, CPU_BLOCK = 16, 128
# Bytes of a value in the cache, by --kv-cache-dtype; the others pack values together with scales.
CACHE_BYTES = {"fp8": 1, "fp8_e4m3": 1, "fp8_e5m2": 1, "float16": 2, "bfloat16": 2}
# Flags that are read here, and those that change no memory of GPUs; each other is said not to be counted.
NUMBERS = (
    "block-size",
    "max-num-seqs",
    "max-num-batched-tokens",
    "pipeline-parallel-size",
    "kv-cache-memory-bytes",
    "num-gpu-blocks-override",
    "max-cudagraph-capture-size",
)
READ = frozenset({
    *NUMBERS, "kv-cache-dtype", "cpu-offload-gb", "disable-hybrid-kv-cache-manager", "disable-sliding-window",
})  # fmt: skip
HARMLESS = frozenset({
    "allowed-origins", "async-scheduling", "attention-backend", "chat-template", "chat-template-content-format",
    "default-chat-template-kwargs", "disable-cascade-attn", "disable-custom-all-reduce", "disable-log-requests",
    "disable-log-stats", "disable-uvicorn-access-log", "distributed-executor-backend", "download-dir",
    "enable-chunked-prefill", "enable-expert-parallel", "enable-log-requests", "enable-prefix-caching",
    "enable-prompt-tokens-details", "enable-server-load-tracking", "enable-sleep-mode", "generation-config",
    "guided-decoding-backend", "load-format", "logits-processors", "long-prefill-token-threshold", "max-log-len",
    "max-logprobs", "max-long-partial-prefills", "max-num-partial-prefills", "middleware", "numa-bind",
    "optimization-level", "override-generation-config", "response-role", "return-tokens-as-token-ids",
    "safetensors-load-strategy", "scheduling-policy", "seed", "served-model-name", "structured-outputs-config",
    "swap-space", "tokenizer", "tokenizer-mode", "trust-remote-code", "uvicorn-log-level",
})  # fmt: skip


@dataclass(frozen=True)
class Flags:
    """What the server is told, in tokens, bytes and GPUs; None is vLLM's own choice, which the GPU decides.

    kv_bytes is the size of the cache a GPU where it is given and not what is left. notes say what is not counted.
    """

    cpu: bool
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    max_model_len: int | None = None
    utilization: float = UTILIZATION
    dtype: str = "auto"
    quantization: str = ""
    cache_dtype: str = "auto"
    block: int = BLOCK
    seqs: int | None = None
    batched: int | None = None
    offload: int = 0
    kv_bytes: int | None = None
    blocks: int | None = None
    eager: bool = False
    capture: int | None = None
    hybrid: bool = True
    slides: bool = True
    counts_graphs: bool = True
    notes: tuple[str, ...] = ()

    @property
    def gpus(self) -> int:
        """How many GPUs hold the model together."""
        return self.tensor_parallel * self.pipeline_parallel


def utilization(version: str) -> float:
    """Tell the share of a GPU that a version of vLLM takes when it is told none; "" is the default version."""
    return UTILIZATION if not version or _number(version) >= LARGER_SHARE else OLDER_UTILIZATION


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])


def read(profile: Profile, value: Callable[[str], str], version: str) -> Flags:
    """Read a profile; value gives what a setting overrides a key with, "" where none does; version is vLLM's."""
    args, cpu = profile.args, profile.image == "cpu"
    number = _number(version)
    notes = [f"--{flag} is not counted, whatever it changes" for flag in args if flag not in READ | HARMLESS]
    notes += [
        f"--{flag} {args[flag]} is not understood" for flag in NUMBERS if flag in args and _whole(args, flag) is None
    ]
    length = value("max_model_len") or profile.max_model_len
    share = value("gpu_memory_utilization") or profile.gpu_memory_utilization
    cache = str(args.get("kv-cache-dtype", "auto"))
    if number < (0, 32):
        notes.append(f"the formula is that of vLLM 0.32.0, and this profile runs {version}")
    return Flags(
        cpu=cpu,
        tensor_parallel=profile.tensor_parallel_size,
        pipeline_parallel=_whole(args, "pipeline-parallel-size") or 1,
        max_model_len=int(length) if length else None,
        utilization=float(share or utilization(version)),
        dtype=profile.dtype or "auto",
        quantization=profile.quantization or "",
        cache_dtype=cache,
        block=_whole(args, "block-size") or (CPU_BLOCK if cpu else BLOCK),
        seqs=_whole(args, "max-num-seqs"),
        batched=_whole(args, "max-num-batched-tokens"),
        offload=_gigabytes(args.get("cpu-offload-gb")),
        kv_bytes=_cpu_space(profile.env) if cpu else _whole(args, "kv-cache-memory-bytes"),
        blocks=_whole(args, "num-gpu-blocks-override"),
        eager=profile.enforce_eager,
        capture=_whole(args, "max-cudagraph-capture-size"),
        hybrid=args.get("disable-hybrid-kv-cache-manager") is not True,
        slides=args.get("disable-sliding-window") is not True,
        counts_graphs=number >= COUNTS_GRAPHS and profile.env.get("VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS") != "0",
        notes=tuple(notes),
    )


def _whole(args: Mapping[str, Any], flag: str) -> int | None:
    """Read a number as vLLM does: 2k is 2000, 2K is 2048 (utils/argparse_utils.py, human_readable_int)."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([kmgtKMGT]?)", str(args.get(flag, "")))
    if found is None:
        return None
    power = " kmgt".index(found[2].lower() or " ")
    return int(float(found[1]) * (1024 if found[2].isupper() else 1000) ** power)


def _gigabytes(given: Any) -> int:
    return int(float(given) * GIB) if re.fullmatch(r"[0-9]+(?:\.[0-9]+)?", str(given)) else 0


def _cpu_space(env: Mapping[str, str]) -> int | None:
    """The bytes that the cache of a server on CPUs has; None where vLLM takes a share of the machine's memory."""
    given = env.get(CPU_SPACE, str(CPU_SPACE_GIB))
    return int(given) * GIB if re.fullmatch(r"[0-9]+", given) and int(given) else None
