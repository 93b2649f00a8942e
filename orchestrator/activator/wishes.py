"""Decides what is wanted after the activator's start, from what it remembers and what runs. Pure but for its memory."""

from collections.abc import Collection, Mapping, Sequence

from orchestrator.activator.docker import Seen
from orchestrator.activator.store import Memory
from orchestrator.switch.world import Model, Wished

BY_HAND = "who started its container by hand"


def after_start(
    models: Mapping[str, Model], memory: Memory, seen: Mapping[str, Seen | None], *, start: str
) -> list[Wished]:
    """Tell what is wanted, the last word last: what was, then the switch under way, then what was started by hand.

    Of models that share a GPU the last word alone is told, as no switch should begin for another. Where nothing is
    wanted and the machine, or the stack, was started anew (start names it), the preloads are.
    """
    new, target = memory.new_start(start), memory.under_way()
    wished = [Wished(model, "the wish of before the restart") for model in memory.wanted() if model in models]
    if target is not None and target in _alive(seen):
        wished.append(Wished(target, "the switch of before the restart"))
    wished += by_hand(memory, seen, {target} if target is not None else ())
    if not wished and new:
        return [Wished(model.name, "preload in models.toml") for model in models.values() if model.preload]
    return _last_words(models, wished)


def by_hand(memory: Memory, seen: Mapping[str, Seen | None], ours: Collection[str]) -> list[Wished]:
    """Tell who was started by hand meanwhile, the last one last: whose run is known neither to us, nor one of ours."""
    wished = []
    for model, started_at in sorted(_alive(seen).items(), key=lambda item: item[1]):
        if model not in ours and memory.run_of(model) != started_at:
            memory.saw_run(model, started_at)
            wished.append(Wished(model, BY_HAND))
    return wished


def _alive(seen: Mapping[str, Seen | None]) -> dict[str, str]:
    return {
        model: each.container.started_at for model, each in seen.items() if each is not None and each.container.alive
    }


def _last_words(models: Mapping[str, Model], wished: Sequence[Wished]) -> list[Wished]:
    return [
        wish
        for place, wish in enumerate(wished)
        if not any(models[wish.model].overlaps(models[later.model]) for later in wished[place + 1 :])
    ]
