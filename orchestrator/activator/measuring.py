"""Measures what servers hold, asleep and awake: of GPUs by NVML, of the host by their own log. Nobody waits for it."""

import re
from contextlib import suppress

from orchestrator.activator.docker import DockerError, Seen
from orchestrator.activator.effects import Effects
from orchestrator.activator.gpus import steady
from orchestrator.activator.starting import note_awake
from orchestrator.switch.world import Footprint, State

# Seconds between two looks, and how many there are at most.
APART, AT_MOST = 0.25, 20
# A sleeper that still holds more than this share of its claim has most likely not given it back yet.
LIKELY = 0.5

_PINNED = re.compile(r"([\d.]+) GiB (?:is|was) backed up in CPU")


async def measure(do: Effects, model: str, asked_at: float) -> None:
    """Note what a model keeps that was put to sleep at asked_at (Unix seconds), if it sleeps until that is steady."""
    seen = await do.containers.look(model)
    if seen is None:
        return
    gpu = await _steady(do, model, seen, "asleep", most=LIKELY * do.models[model].claim)
    if gpu is None:
        return
    lines: list[str] = []
    with suppress(DockerError):
        lines = await do.docker.tail(model, 200, asked_at)
    pinned = sum(float(found[1]) for line in lines if (found := _PINNED.search(line)))
    before = do.board[model].footprint
    kept = Footprint(gpu, int(pinned * 2**30) or before.host)
    do.board.sleeps(model, do.board[model].can_sleep, kept)
    do.memory.measured(model, seen.image, kept)


async def measure_awake(do: Effects, model: str) -> None:
    """Note what a model holds that has become ready, if it stays so until that is steady."""
    seen = await do.containers.look(model)
    holds = await _steady(do, model, seen, "ready") if seen is not None else None
    if seen is None or holds is None:
        return
    do.memory.held(model, seen.image, do.models[model].claim, holds)
    note_awake(do, model, seen.image)


async def _steady(do: Effects, model: str, seen: Seen, state: State, most: float = 1) -> int | None:
    """Read the bytes that it holds on the GPU where it holds most; None where nobody can tell, or its state changed.

    More than the share `most` of a GPU is believed only at the last look.
    """
    looks: list[tuple[int]] = []
    for number in range(AT_MOST):
        cards = await do.gpus.look()
        if cards is None or do.board[model].state != state:
            return None
        used = [
            sum(process.used for process in card.processes if process.container == seen.ident)
            for card in cards.values()
        ]
        held = max(used, default=0)
        looks.append((held,))
        likely = held <= most * max((card.usable for card in cards.values()), default=0)
        if steady(looks) and (likely or number == AT_MOST - 1):
            return held or None
        await do.pause(APART)
    return None
