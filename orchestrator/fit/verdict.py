"""Whether a model fits, with the numbers. Pure."""

from dataclasses import dataclass
from typing import Literal

from orchestrator.fit import overhead
from orchestrator.fit.flags import CPU_SPACE, Flags
from orchestrator.fit.kv import Cache, cache
from orchestrator.fit.room import Memory, Room
from orchestrator.fit.shape import Shape
from orchestrator.fit.ways import ways
from orchestrator.fit.weights import Weights

# fits: by the estimate too; tight: only with less beside it than is estimated; cannot: not even then.
State = Literal["fits", "tight", "cannot", "unknown"]


@dataclass(frozen=True)
class Fit:
    """The answer. Sizes are bytes of one GPU (of a rank, for CPUs), lengths tokens; None is what is not known.

    room is what is left for the KV cache, needed what one request of full length takes of it, tokens what vLLM would
    report as the size of the cache; requests is how many of full length run at once.
    """

    profile: str
    state: State
    flags: Flags
    weights: Weights | None = None
    memory: Memory | None = None
    total: int | None = None
    budget: int | None = None
    work: int | None = None
    graphs: int | None = None
    room: int | None = None
    length: int | None = None
    needed: int | None = None
    tokens: int | None = None
    requests: float | None = None
    token_bytes: float | None = None
    reasons: tuple[str, ...] = ()
    advice: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def decide(profile: str, shape: Shape | str, weights: Weights | str, flags: Flags, memory: Memory | str) -> Fit:
    """Decide for one profile. A text in place of a value is why that is not known; it blocks nothing."""
    held = memory if isinstance(memory, Memory) else None
    known = weights if isinstance(weights, Weights) else None
    notes = [*flags.notes, *(known.notes if known else ())]
    unknown = [f"the GPUs' memory: {memory}"] if isinstance(memory, str) and not flags.cpu else []
    if isinstance(shape, str):
        unknown.insert(0, f"the model: {shape}")
        return Fit(profile, "unknown", flags, known, held, unknown=tuple(unknown), notes=tuple(notes))
    if isinstance(weights, str):
        unknown.insert(0, f"weights: {weights}")
    length = flags.max_model_len or shape.positions or None
    total = held.smallest if held else None
    steps = overhead.steps(flags, total or 0, held.gpus[0].name if held else "", length or 1)
    kept = cache(shape, flags, steps.in_flight)
    unknown += _gaps(kept, flags, length)
    room = Room(flags, known, overhead.overhead(shape, flags, steps), total, kept if isinstance(kept, Cache) else None)
    one = room.kept.needed(length) if room.kept and length else None
    sure, perhaps = held.too_little(flags.utilization) if held else ([], [])
    sure += room.refusals(one, length)
    perhaps += room.doubts(one)
    tokens, requests = _held(room, length)
    return Fit(
        profile,
        "cannot" if sure else "unknown" if unknown else "tight" if perhaps else "fits",
        flags,
        known,
        held,
        total,
        budget=room.budget,
        work=None if flags.cpu else room.extra.work,
        graphs=None if flags.cpu else room.extra.graphs,
        room=room.estimated,
        length=length,
        needed=one,
        tokens=tokens,
        requests=requests,
        token_bytes=room.kept.token_bytes if room.kept else None,
        reasons=tuple(sure or perhaps),
        advice=tuple(ways(room, held, one, _longest(shape, length))) if sure or perhaps else (),
        unknown=tuple(unknown),
        notes=(*notes, *_mismatches(shape, flags, length)),
    )


def _longest(shape: Shape, length: int | None) -> int | None:
    """The longest context to advise: no longer than what is asked for, or than the model has."""
    return min(length, shape.positions or length) if length else None


def _gaps(kept: Cache | str, flags: Flags, length: int | None) -> list[str]:
    """Say what about the cache is not known."""
    found = [f"the KV cache: {kept}"] if isinstance(kept, str) else []
    if length is None:
        found.append("the longest request: neither max_model_len nor config.json says it")
    if flags.cpu and flags.kv_bytes is None:
        found.append(f"the KV cache's room: {CPU_SPACE} is no number of GiB, so vLLM takes a share of the machine")
    return found


def _mismatches(shape: Shape, flags: Flags, length: int | None) -> list[str]:
    """Say what vLLM will not take, whatever the memory."""
    found = []
    if shape.heads % flags.tensor_parallel:
        found.append(f"its {shape.heads} heads cannot be split over {flags.tensor_parallel} GPUs")
    if length and shape.positions and length > shape.positions:
        found.append(f"max_model_len is above the {shape.positions} tokens that config.json allows")
    return found


def _held(room: Room, length: int | None) -> tuple[int | None, float | None]:
    """The tokens that the cache holds, and how many requests of full length; None where that is not known."""
    size = room.estimated
    if room.kept is None or size is None or size <= 0 or not length:
        return None, None
    return room.kept.tokens(size, length), room.kept.concurrency(size, length)
