"""What PyTorch's allocator counts for tensors that are made one after the other. Pure.

vLLM's `Model loading took` is its count of allocated bytes, which is of whole blocks (CUDACachingAllocator.cpp).
"""

from collections.abc import Iterable

MIB = 1 << 20
# Rounded up to this many bytes; up to SMALL in a pool of their own, whose blocks are split to the byte.
STEP = 512
SMALL = MIB
# Of what is asked below 10 MiB a segment of 20 MiB is taken; of more, the next 2 MiB.
LARGE, SEGMENT, ROUND = 10 * MIB, 20 * MIB, 2 * MIB


def granted(sizes: Iterable[int]) -> int:
    """Add up the blocks that tensors of these bytes get, none of which is given back."""
    total = 0
    rests: list[int] = []
    for size in sizes:
        asked = -(-size // STEP) * STEP
        if asked <= SMALL:
            total += asked
            continue
        place = min((rest for rest in rests if rest >= asked), default=0)
        if place:
            rests.remove(place)
        else:
            place = SEGMENT if asked < LARGE else -(-asked // ROUND) * ROUND
        rest = place - asked
        # A rest of at most 1 MiB stays with its block; while it loads, vLLM has no block above 20 MiB split at all.
        if rest > SMALL and asked < SEGMENT:
            rests.append(rest)
            total += asked
        else:
            total += place
    return total
