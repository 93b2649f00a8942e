"""Waits until the GPU memory that a model claims is really back, and says who holds it when it does not come."""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.activator.effects import Effects
from orchestrator.activator.gpus import Card, Process, steady
from orchestrator.activator.run import Run, StepError
from orchestrator.switch.world import Model

# Seconds: for how long at most, between two looks, and after which what a stopped server left is ended.
LIMIT, BETWEEN, KILL_AFTER = 30.0, 0.05, 5.0
# Seconds between the looks that must agree.
APART = 0.02

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Owner:
    """Whose a container is."""

    model: str
    alive: bool


async def release(do: Effects, run: Run, model: Model) -> None:
    """Wait until what the model claims is free and steady. Raises StepError that names who holds it, AbandonedError.

    Where nobody can read the GPUs, that the containers have ended is all that can be seen.
    """
    began, looks, asked = do.clock(), list[tuple[int, ...]](), dict[int, str]()
    owners: Mapping[str, Owner] = {}
    while True:
        cards = await do.gpus.look()
        ours = {index: cards[index] for index in sorted(model.gpus) if index in cards} if cards else {}
        if not ours:
            run.say("release", "the GPUs cannot be read here")
            return
        short = _short(do, ours, model, owners)
        if short:
            # Whose processes they are matters only where something is in the way.
            owners = await _owners(do)
            short = _short(do, ours, model, owners)
        looks.append(tuple(card.free for card in ours.values()))
        if not short and (steady(looks) or do.clock() - began >= LIMIT):
            return
        if short:
            await _wait_for(do, run, model, short, owners, asked, do.clock() - began)
            looks.clear()
        await run.pause(BETWEEN if short else APART)


async def _wait_for(
    do: Effects,
    run: Run,
    model: Model,
    short: Mapping[int, Card],
    owners: Mapping[str, Owner],
    asked: dict[int, str],
    waited: float,
) -> None:
    """Say what is missing, end what is ours after a while, and give up in the end."""
    index, card = next(iter(short.items()))
    run.say("release", f"{_gib(_missing(do, card, model, owners))} to come back on GPU {index}")
    if waited >= KILL_AFTER:
        await _end_leftovers(do, run, short, owners, asked)
    if waited >= LIMIT:
        raise StepError(held(model, short, owners, asked))


def held(model: Model, short: Mapping[int, Card], owners: Mapping[str, Owner], asked: Mapping[int, str]) -> str:
    """Say who holds what the model needs; asked is why processes of ours could not be ended, by pid."""
    said = []
    for index, card in short.items():
        holders = [process for process in card.processes if _owner(process, owners) != model.name]
        holders.sort(key=lambda process: -process.used)
        who = ", ".join(_holder(process, owners, asked) for process in holders) or "a program that NVML does not name"
        need = f"{_gib(card.free)} free of the {_gib(int(model.claim * card.usable))} that {model.name} needs"
        said.append(f"GPU {index} has {need}: held by {who}")
    return "; ".join(said)


def _holder(process: Process, owners: Mapping[str, Owner], asked: Mapping[int, str]) -> str:
    size = f", {_gib(process.used)}" if process.used else ""
    owner = owners.get(process.container)
    if owner is None:
        return f"another program, {process.name or 'unnamed'} (pid {process.pid}{size})"
    if owner.alive:
        return f"{owner.model} (pid {process.pid}{size})"
    why = asked.get(process.pid) or "it was told to end and does not"
    return f"what {owner.model} left behind (pid {process.pid}{size}; {why})"


async def _owners(do: Effects) -> Mapping[str, Owner]:
    seen = await asyncio.gather(*map(do.containers.look, do.models))
    return {
        each.ident: Owner(name, each.container.alive)
        for name, each in zip(do.models, seen, strict=True)
        if each is not None
    }


async def _end_leftovers(
    do: Effects, run: Run, short: Mapping[int, Card], owners: Mapping[str, Owner], asked: dict[int, str]
) -> None:
    """Ask once for the end of each process of ours whose container is gone."""
    left = {process.pid: process for card in short.values() for process in card.processes}
    for pid, process in left.items():
        owner = owners.get(process.container)
        if owner is None or owner.alive or pid in asked:
            continue
        asked[pid] = await do.gpus.kill(pid, [process.container])
        word = f"could not be ended: {asked[pid]}" if asked[pid] else "was ended"
        _log.warning("process %d, which %s left on the GPUs, %s", pid, owner.model, word)
        run.say("release", f"process {pid}, which {owner.model} left on the GPUs, {word}")


def _short(do: Effects, cards: Mapping[int, Card], model: Model, owners: Mapping[str, Owner]) -> dict[int, Card]:
    return {index: card for index, card in cards.items() if _missing(do, card, model, owners) > 0}


def _missing(do: Effects, card: Card, model: Model, owners: Mapping[str, Owner]) -> int:
    """Tell the bytes that are not free yet; what the model itself holds, asleep, is its own, once owners are known."""
    own = sum(process.used for process in card.processes if _owner(process, owners) == model.name)
    if owners and not own and do.board[model.name].state == "asleep":
        # Under WSL2 NVML names no process.
        own = do.board[model.name].footprint.gpu
    return int(model.claim * card.usable) - card.free - own


def _owner(process: Process, owners: Mapping[str, Owner]) -> str:
    owner = owners.get(process.container)
    return owner.model if owner is not None and owner.alive else ""


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
