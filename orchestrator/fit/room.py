"""What is left of a GPU for the KV cache, and why that is too little. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, floor

from orchestrator.fit.flags import GIB, Flags
from orchestrator.fit.gpu import MIB, Gpu
from orchestrator.fit.kv import Cache
from orchestrator.fit.overhead import CONTEXT, Overhead
from orchestrator.fit.weights import Weights

# No more than this share is advised: graphs, other programs and a desktop take the rest.
MOST = 0.97


@dataclass(frozen=True)
class Memory:
    """The GPUs of a profile, and what on each the plan gives back: bytes by index, None where that is not known."""

    gpus: tuple[Gpu, ...]
    back: Mapping[int, int | None]
    # The servers that the plan stops, which hold it.
    stopped: tuple[str, ...] = ()

    @property
    def smallest(self) -> int:
        """Bytes of the smallest GPU, which decides for all: each rank has a cache of the same size."""
        return min(gpu.total for gpu in self.gpus)

    def free(self, gpu: Gpu) -> int | None:
        """Bytes that are free once those servers are stopped; None where that is not known."""
        back = self.back.get(gpu.index, 0)
        return None if back is None else min(gpu.free + back, gpu.total)

    def too_little(self, utilization: float) -> tuple[list[str], list[str]]:
        """Name the GPUs that have less free than vLLM asks for when it starts (worker/utils.py: request_memory).

        Surely; and perhaps, for what it takes before it looks.
        """
        sure: list[str] = []
        perhaps: list[str] = []
        for gpu in self.gpus:
            free, wanted = self.free(gpu), ceil(gpu.total * utilization)
            if free is not None and free - CONTEXT < wanted:
                words = f"GPU {gpu.index} has {gib(free)} free, and vLLM asks for {gib(wanted)} when it starts"
                (sure if free < wanted else perhaps).append(words)
        return sure, perhaps

    def most_utilization(self) -> float | None:
        """The largest gpu_memory_utilization that what is free allows; None where that is not known."""
        shares = []
        for gpu in self.gpus:
            free = self.free(gpu)
            if free is None:
                return None
            shares.append((free - CONTEXT) / gpu.total)
        return min(floor(min(shares) * 100) / 100, MOST)


@dataclass(frozen=True)
class Room:
    """What is left for the cache of one GPU; total is its bytes, None where that or the weights are not known."""

    flags: Flags
    weights: Weights | None
    extra: Overhead
    total: int | None
    kept: Cache | None

    @property
    def budget(self) -> int | None:
        """What vLLM may take of a GPU (worker/utils.py: request_memory)."""
        return None if self.total is None else ceil(self.total * self.flags.utilization)

    @property
    def given(self) -> int | None:
        """The size of the cache where a flag gives it."""
        if self.flags.blocks is not None and self.kept is not None:
            return self.flags.blocks * self.kept.block_bytes
        return self.flags.kv_bytes

    @property
    def beside(self) -> int:
        """What is estimated to lie beside weights and cache; older versions do not set graphs aside."""
        return self.extra.work + (self.extra.graphs if self.flags.counts_graphs else 0)

    @property
    def estimated(self) -> int | None:
        """The room with all that is estimated to lie beside it."""
        return self._left(self.beside)

    @property
    def most(self) -> int | None:
        """The room with no more beside it than there is for sure."""
        return self._left(self.extra.least)

    def _left(self, beside: int) -> int | None:
        if self.given is not None:
            return self.given
        return None if self.budget is None or self.weights is None else self.budget - self.weights.size - beside

    def refusals(self, one: int | None, length: int | None) -> list[str]:
        """Say why it cannot fit; one is what a request of full length needs, in bytes."""
        if self.most is None:
            return []
        if self.most <= 0 and self.weights and self.budget is not None:
            may = f"and vLLM may take {gib(self.budget)} with all that it needs beside them"
            return [f"the weights take {gib(self.weights.size)} a GPU, {may}"]
        if one is not None and one > self.most:
            left = f"and {gib(self.most)} are left" + ("" if self.given is not None else " at the most")
            return [f"one request of {length:,} tokens needs {gib(one)} of KV cache, {left}"]
        return []

    def doubts(self, one: int | None) -> list[str]:
        """Say why it may not fit."""
        if one is None or self.estimated is None or one <= self.estimated:
            return []
        left = gib(max(self.estimated, 0))
        return [f"one request needs {gib(one)} of KV cache, and {left} are estimated to be left"]


def gib(size: float) -> str:
    """Write bytes in GiB, as vLLM does with two decimals; in MiB where those would be none."""
    return f"{size / GIB:.2f} GiB" if size >= 0.01 * GIB or not size else f"{size / MIB:.2g} MiB"
