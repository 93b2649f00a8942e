"""What would make a model fit: a shorter context, another share of the memory, a quantized model. Pure."""

from collections.abc import Mapping
from math import ceil

from orchestrator.fit.flags import CPU_SPACE, GIB
from orchestrator.fit.room import Memory, Room

# How the names of quantized models end, the best for small GPUs first. Qwen and others publish such beside the whole.
ENDINGS = ("-AWQ", "-GPTQ-Int4", "-FP8", "-GPTQ-Int8")


def ways(room: Room, memory: Memory | None, one: int | None, most: int | None) -> list[str]:
    """Name what would do, as models.toml says it; one is what a request of full length needs, in bytes.

    most is the longest context that there may be, in tokens: what is asked for now, and no more than the model has.
    """
    return [*_shorter(room, one, most), *_more(room, memory, one)]


def _shorter(room: Room, one: int | None, most: int | None) -> list[str]:
    size = room.estimated
    if room.kept is None or size is None or one is None or not most or one <= size:
        return []
    longest = room.kept.longest(size, most)
    # Down to a length that reads well, where that is not all of it.
    longest = longest // 256 * 256 if longest >= 256 else longest
    return [f"max_model_len = {longest}"] if longest else []


def _more(room: Room, memory: Memory | None, one: int | None) -> list[str]:
    if room.flags.cpu:
        return [] if one is None else [f'env = {{ {CPU_SPACE} = "{ceil(one / GIB)}" }}']
    share = memory.most_utilization() if memory else None
    if share is None or room.weights is None or room.total is None or room.given is not None:
        return []
    needed = ceil((room.weights.size + room.beside + (one or 0)) / room.total * 100) / 100
    # As little as holds one request; or, where less is free than asked for, as much as is.
    best = max(needed, min(share, room.flags.utilization))
    return [f"gpu_memory_utilization = {best:.2f}"] if needed <= share else []


def siblings(model: str, profiles: Mapping[str, str]) -> list[str]:
    """Name what quantized models of the same weights would be called: those of other profiles (by name) first."""
    if model.startswith(("/", "./")) or model.lower().endswith(tuple(ending.lower() for ending in ENDINGS)):
        return []
    return sorted((f"{model}{ending}" for ending in ENDINGS), key=lambda name: name not in profiles.values())
