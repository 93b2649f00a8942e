"""How large the KV cache is and how many requests it holds. Pure.

The formula is that of vLLM 0.32.0, v1/core/kv_cache_utils.py and v1/kv_cache_interface.py: layers of one kind form
groups of equal size, all groups take their blocks from one pool, and a request of full length takes so many of each.
"""

from collections import Counter
from dataclasses import dataclass
from math import ceil

from orchestrator.fit.flags import BLOCK, CACHE_BYTES, Flags
from orchestrator.fit.shape import BYTES, Shape
from orchestrator.fit.weights import stage_of


@dataclass(frozen=True)
class Group:
    """Layers whose blocks go together: how many such groups, and the window in tokens (None: all tokens)."""

    count: int
    window: int | None


@dataclass(frozen=True)
class Cache:
    """The cache of one GPU: bytes of a block (of all layers of a group), its tokens, groups, tokens in flight."""

    block_bytes: int
    block: int
    groups: tuple[Group, ...]
    in_flight: int

    @property
    def token_bytes(self) -> float:
        """Bytes that a token takes in a request that no window cuts short."""
        return self.block_bytes * sum(group.count for group in self.groups) / self.block

    def blocks(self, length: int) -> int:
        """Blocks that one request of so many tokens takes at the most."""
        return sum(group.count * self._of(group.window, length) for group in self.groups)

    def _of(self, window: int | None, length: int) -> int:
        if window is None:
            return ceil(length / self.block)
        return ceil(min(window - 1 + self.in_flight, length) / self.block) + 1

    def needed(self, length: int) -> int:
        """Bytes that one request of so many tokens needs, with the one block that vLLM keeps for itself."""
        return (self.blocks(length) + 1) * self.block_bytes

    def longest(self, room: int, most: int) -> int:
        """The longest request, of up to `most` tokens, that so many bytes hold; 0 when not even one token."""
        low, high = 0, most
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.needed(middle) <= room else (low, middle - 1)
        return low

    def concurrency(self, room: int, length: int) -> float:
        """How many requests of so many tokens run at once: vLLM's `Maximum concurrency`."""
        return room // self.block_bytes / self.blocks(length)

    def tokens(self, room: int, length: int) -> int:
        """What vLLM reports as `GPU KV cache size`, which depends on max_model_len."""
        return int(self.concurrency(room, length) * length)


def cache(shape: Shape, flags: Flags, in_flight: int) -> Cache | str:
    """Size the cache of one GPU; the reason where the formula does not hold. in_flight: tokens of unfinished steps."""
    if shape.kv_fault:
        return shape.kv_fault
    size = _value(shape, flags)
    if size is None:
        return f"how --kv-cache-dtype {flags.cache_dtype} packs its values"
    # MLA keeps one vector of a token, whole on each GPU; else keys and values of the heads that are a GPU's.
    heads = max(1, shape.kv_heads // flags.tensor_parallel)
    values = shape.latent or 2 * heads * shape.head_size
    # platforms/cpu.py: MLA without AMX takes blocks of 16, whatever it is told.
    block = BLOCK if flags.cpu and shape.latent else flags.block
    page = block * values * size
    windows = _windows(shape, flags)
    kinds = Counter(windows)
    most, fewest = max(kinds.values()), min(kinds.values())
    # _get_kv_cache_groups_uniform_page_size
    each = most if most < fewest * 1.5 else fewest
    groups = tuple(Group(ceil(count / each), window) for window, count in kinds.items())
    return Cache(_on_a_stage(each, flags) * page, block, groups, in_flight)


def _value(shape: Shape, flags: Flags) -> int | None:
    """Bytes of a value in the cache."""
    if flags.cache_dtype != "auto":
        return CACHE_BYTES.get(flags.cache_dtype)
    return 1 if shape.fp8_cache else BYTES[shape.dtype if flags.dtype == "auto" else flags.dtype]


def _windows(shape: Shape, flags: Flags) -> tuple[int | None, ...]:
    """The window of each layer's cache: without the hybrid manager a mixed model keeps all tokens in every layer."""
    mixed = len(set(shape.windows)) > 1 and None in shape.windows
    if not flags.slides or (mixed and not flags.hybrid):
        return (None,) * shape.layers
    return shape.windows


def _on_a_stage(layers: int, flags: Flags) -> int:
    """The most of so many layers that one stage of a pipeline has."""
    stages = flags.pipeline_parallel
    return max(Counter(stage_of(layer, layers, stages) for layer in range(layers)).values())
