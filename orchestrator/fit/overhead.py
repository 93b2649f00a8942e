"""What a server takes beside weights and KV cache: work space, CUDA graphs, and how many tokens it works on. Pure.

These are estimates and said to be: vLLM measures them when it starts. docs/fit.md has what was measured.
"""

from dataclasses import dataclass

from orchestrator.fit.flags import Flags
from orchestrator.fit.shape import BYTES, Shape

GIB, MIB = 1 << 30, 1 << 20
# Libraries' own memory beside PyTorch's: cuBLAS, NCCL and kernels that are loaded, in bytes.
LIBRARIES = 640 * MIB
# CUDA's context and NCCL's buffers, which a server has before it looks at what is free.
CONTEXT = 512 * MIB
# What vLLM 0.32.0 sets aside for graphs before it captures any, twice what they take in the end: a pool that all share,
# and a part for each layer of each size that is captured.
GRAPH_POOL, GRAPH_LAYER = 480 * MIB, 0.2 * MIB
# The least that vLLM counts for a graph (gpu/cudagraph_utils.py: _MIN_PER_GRAPH_BYTES).
GRAPH_LEAST = MIB


@dataclass(frozen=True)
class Steps:
    """How much the server works on at once: requests, tokens of a step, and tokens of all steps under way."""

    seqs: int
    batched: int
    in_flight: int


@dataclass(frozen=True)
class Overhead:
    """Bytes a GPU of work space and graphs; `least` is what there is of both without doubt."""

    work: int
    graphs: int
    least: int


def steps(flags: Flags, total: int, name: str, length: int) -> Steps:
    """Fill in vLLM's defaults for a server, by the memory of a GPU (engine/arg_utils.py: get_batch_defaults).

    total is the GPU's memory in bytes, name its name, length the longest request in tokens.
    """
    if flags.cpu:
        seqs, batched = 128 * flags.gpus, 2048 * flags.gpus
    elif total >= 160 * GIB:
        seqs, batched = 1024, 16384
    elif total >= 70 * GIB and "a100" not in name.lower():
        seqs, batched = 1024, 8192
    else:
        seqs, batched = 256, 2048
    chosen = flags.seqs or seqs
    tokens = flags.batched or min(chosen * length, batched)
    # config/vllm.py: max_concurrent_batches. On GPUs steps are scheduled while another runs; not on CPUs.
    under_way = flags.pipeline_parallel if flags.cpu else flags.pipeline_parallel + 1
    return Steps(flags.seqs or min(chosen, tokens), tokens, under_way * tokens)


def overhead(shape: Shape, flags: Flags, work: Steps) -> Overhead:
    """Estimate what a GPU needs beside weights and cache; nothing for CPUs, where vLLM counts only the cache."""
    if flags.cpu:
        return Overhead(0, 0, 0)
    size = BYTES[shape.dtype if flags.dtype == "auto" else flags.dtype]
    # A layer's MLP: what goes in, twice; gate and up beside one another, and their product.
    wide = 3 * shape.intermediate * max(1, shape.experts_per_token) // flags.tensor_parallel
    layer = work.batched * (4 * shape.hidden + wide) * size
    # The sampler's dry run: a row of logits of each request, as they are and in 32 bits, and their copy that is sorted.
    sampler = work.seqs * shape.vocab * (size + 8)
    graphs = 0 if flags.eager else _graphs(shape, flags, work)
    peak = max(layer, sampler)
    least = peak // 2 + (0 if flags.eager else GRAPH_LEAST * len(captured(flags, work)))
    return Overhead(peak + LIBRARIES, graphs, least)


def captured(flags: Flags, work: Steps) -> list[int]:
    """The sizes of batches that graphs are captured for (config/vllm.py: _set_cudagraph_sizes)."""
    most = min(flags.capture or min(2 * work.seqs, 512), work.batched)
    return [size for size in (1, 2, 4, *range(8, 256, 8), *range(256, most + 1, 16)) if size <= most]


def _graphs(shape: Shape, flags: Flags, work: Steps) -> int:
    return round(GRAPH_POOL + GRAPH_LAYER * len(captured(flags, work)) * shape.layers // flags.pipeline_parallel)
