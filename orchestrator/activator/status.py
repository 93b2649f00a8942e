"""Tells everything that is known, as GET /-/status answers it. Reads, and changes nothing."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from orchestrator.activator.effects import Effects
from orchestrator.activator.gpus import Cards
from orchestrator.activator.ports import Phase
from orchestrator.activator.run import Run
from orchestrator.activator.tickets import Tickets
from orchestrator.switch.world import Ended


@dataclass(frozen=True)
class Last:
    """How the last switch, or rest, ended; at is in Unix seconds."""

    ended: Ended
    kind: str
    seconds: Mapping[str, float]
    total: float
    at: float


def status(
    do: Effects,
    run: Run | None,
    phase: Callable[[str], Phase],
    wanted: Sequence[str],
    tickets: Tickets,
    routed: Mapping[str, int],
    last: Last | None,
    cards: Cards | None,
) -> dict[str, Any]:
    """Put everything into one table. Seconds are durations; since, when a state began, is in Unix seconds.

    digest is that of the models that it goes by.
    """
    waiting = tickets.waiting()
    return {
        "models": [
            {
                "name": name,
                "state": server.state,
                "reason": server.reason,
                "since": round(do.wall() - (do.clock() - server.since), 3),
                "open": server.open,
                "in_flight": routed.get(name, 0) + tickets.in_flight(name),
                "waiting": sum(held.model == name for held in waiting),
                "gpus": sorted(do.models[name].gpus),
                "sleep": do.memory.sleep_refused(name, do.board.image(name)) or do.models[name].sleep,
                "can_sleep": server.can_sleep,
                "sleep_passed": do.memory.sleep_passed(name, do.board.image(name)),
                "footprint": asdict(server.footprint),
                "claim": do.models[name].claim,
                "holds": server.holds,
                "starts_alone": server.starts_alone,
            }
            for name, server in do.board.servers.items()
        ],
        "digest": do.digest,
        "wanted": list(wanted),
        "switch": _switch(run, phase(run.target)) if run is not None else None,
        "queue": [
            {"model": held.model, "seconds": round(do.clock() - held.since, 3), "stream": held.stream}
            for held in waiting
        ],
        "last": _last(last) if last is not None else None,
        "gpus": [_card(cards, index) for index in sorted(cards)] if cards is not None else None,
    }


def _switch(run: Run, phase: Phase) -> dict[str, Any]:
    took: list[float | None] = [round(seconds, 3) for _, seconds in run.done]
    return {
        "target": run.target,
        "cause": run.cause,
        "phase": phase.phase,
        "text": phase.text,
        "seconds": round(phase.seconds, 3),
        "left": phase.left,
        "steps": [
            {"kind": step.kind, "model": step.model, "cause": step.cause, "seconds": seconds}
            for step, seconds in zip(run.steps, [*took, *[None] * (len(run.steps) - len(took))], strict=True)
        ],
    }


def _last(last: Last) -> dict[str, Any]:
    return {
        "target": last.ended.target,
        "outcome": last.ended.outcome,
        "reason": last.ended.reason,
        "kind": last.kind,
        "seconds": {kind: round(took, 3) for kind, took in last.seconds.items()},
        "total": round(last.total, 3),
        "at": last.at,
    }


def _card(cards: Cards, index: int) -> dict[str, Any]:
    card = cards[index]
    return {
        "index": index,
        "name": card.name,
        "total": card.total,
        "free": card.free,
        "processes": [asdict(process) for process in card.processes],
    }
