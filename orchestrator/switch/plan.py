"""Decides what a switch has to do: models and what was seen of them in, steps with causes out. Pure."""

from collections.abc import Mapping, Sequence

from orchestrator.profiles import gpu_names
from orchestrator.switch.world import AWAKE, Model, Observed, Policy, Server, State, Step

# Running with its model in GPU memory: what can be drained, and sleep.
SERVING: frozenset[State] = frozenset({"ready", "draining"})
# A failed server may hang rather than be gone: stopping one that is gone costs nothing.
HOLDING: frozenset[State] = AWAKE | {"failed"}
# Up from these a server loads its model anew, which takes more memory for a while than it holds then.
COLD: frozenset[State] = frozenset({"stopped", "starting", "stopping", "failed"})
# What a server is thought to hold above its claim until it was measured: 2.1 to 2.8 GiB more than claimed, on 2x H100
# with vLLM 0.24.0, sleep mode and tensor parallel 2.
ABOVE_CLAIM = 2560 << 20


def plan(target: str, models: Mapping[str, Model], observed: Observed, policy: Policy) -> list[Step]:
    """Plan the way from what was seen to `target` being ready, its route open, no rival awake; empty when it is."""
    server = _seen(target, observed)
    steps = _evict(target, models, observed, policy)
    if server.open and server.state not in SERVING:
        steps.insert(0, Step("close", target, f"it is {server.state}"))
    return steps + _bring_up(models[target], server, _freed(steps))


def rest(
    target: str, models: Mapping[str, Model], observed: Observed, policy: Policy, cause: str, *, stop: bool = False
) -> list[Step]:
    """Plan how `target` leaves with nobody taking its place: to sleep where it can, unless it shall stop."""
    server = _seen(target, observed)
    if server.state == "stopped" or (server.state == "asleep" and not stop):
        return []
    steps = [Step("close", target, cause)] if server.open else []
    if server.state not in SERVING:
        return [*steps, Step("stop", target, cause)]
    steps.append(Step("drain", target, "what is in flight is finished first"))
    why = "it shall not sleep" if stop else _unable(models[target], server, observed)
    if not why and _host_after([target], [], observed) < policy.host_reserve:
        why = "asleep it would take host memory from the reserve"
    return [*steps, Step("stop", target, f"{cause}; {why}") if why else Step("sleep", target, cause)]


def text(steps: Sequence[Step]) -> str:
    """Print a plan, a step a line."""
    return "\n".join(map(str, steps))


def _seen(name: str, observed: Observed) -> Server:
    return observed.servers.get(name, Server())


def _evict(target: str, models: Mapping[str, Model], observed: Observed, policy: Policy) -> list[Step]:
    """Make the models on the target's GPUs give way; those asleep may stay so where memory allows.

    All routes close before the first drain, so that drains take no longer than the longest. Sleepers are stopped after
    the drains, which may be given up, and before others go to sleep, which need the host memory.
    """
    rivals = {
        name: _seen(name, observed)
        for name, model in models.items()
        if name != target and model.overlaps(models[target])
    }
    awake = [name for name, server in rivals.items() if server.state in HOLDING]
    asleep = sorted((name for name in rivals if rivals[name].state == "asleep"), key=lambda name: rivals[name].since)
    why = _obstacles(target, [*awake, *reversed(asleep)], models, observed, policy)
    cause = {name: _holds(models[name], models[target]) for name in rivals}
    return [
        *(Step("close", name, cause[name]) for name in rivals if rivals[name].open),
        *(
            Step("drain", name, "what is in flight is finished first")
            for name in awake
            if rivals[name].state in SERVING
        ),
        *(Step("stop", name, f"asleep; {why[name]}") for name in asleep if why[name]),
        *(
            Step("stop", name, f"{cause[name]}; {why[name]}") if why[name] else Step("sleep", name, cause[name])
            for name in awake
        ),
    ]


def _obstacles(
    target: str, names: Sequence[str], models: Mapping[str, Model], observed: Observed, policy: Policy
) -> dict[str, str]:
    """Say of each model why it cannot sleep beside the target, "" where it can.

    Each has room only beside those before it. So with the models that leave first and then the sleepers, the newest
    first, the oldest are stopped first, and none for a model that has no room even so.
    """
    sleepers = [name for name in names if _seen(name, observed).state == "asleep"]
    kept: list[str] = []
    why = {}
    for name in names:
        why[name] = _unable(models[name], _seen(name, observed), observed)
        if not why[name]:
            why[name] = _no_room(target, [*kept, name], sleepers, models, observed, policy)
        if not why[name]:
            kept.append(name)
    return why


def _unable(model: Model, server: Server, observed: Observed) -> str:
    """Say why a server cannot go to sleep at all; "" when it can or does."""
    if server.state == "asleep":
        return ""
    if server.state not in SERVING:
        return f"it is {server.state}"
    if model.sleep == "off":
        return "its sleep is off"
    if not server.can_sleep:
        return "its server cannot sleep"
    return "host memory is not known" if observed.host_free is None else ""


def _no_room(
    target: str,
    kept: Sequence[str],
    sleepers: Sequence[str],
    models: Mapping[str, Model],
    observed: Observed,
    policy: Policy,
) -> str:
    """Say why `kept`, of which the last is in question, cannot all sleep while the target runs; "" when they can."""
    if observed.host_free is not None and _host_after(kept, sleepers, observed) < policy.host_reserve:
        return "asleep it would take host memory from the reserve"
    server = _seen(target, observed)
    for index in sorted(models[kept[-1]].overlaps(models[target])):
        if server.starts_alone and server.state in COLD:
            return f"GPU {index} has no room for it beside {target}, which needs all of it to start"
        if index not in observed.gpus:
            return f"the memory of GPU {index} is not known"
        total = observed.gpus[index].total
        needs = _needs(models[target], server, total)
        asleep = sum(_seen(name, observed).footprint.gpu for name in kept if index in models[name].gpus)
        if needs + asleep > total:
            sizes = f"{_gib(needs)} and {_gib(asleep)} asleep, of {_gib(total)} GiB"
            return f"GPU {index} has no room for it beside {target}: {sizes}"
    return ""


def _needs(model: Model, server: Server, total: int) -> float:
    """Tell the bytes that a server holds of a GPU while awake, as measured or else estimated: at most all of it."""
    claim = model.claim * total
    return max(claim, server.holds) if server.holds else min(total, claim + ABOVE_CLAIM)


def _gib(size: float) -> str:
    return f"{size / 2**30:.1f}"


def _host_after(kept: Sequence[str], sleepers: Sequence[str], observed: Observed) -> int:
    """Tell the free bytes of the host once all `sleepers` are stopped and `kept` sleep; 0 where nobody can tell."""
    given = sum(_seen(name, observed).footprint.host for name in sleepers)
    return (observed.host_free or 0) + given - sum(_seen(name, observed).footprint.host for name in kept)


def _freed(steps: Sequence[Step]) -> list[str]:
    return [step.model for step in steps if step.kind in ("sleep", "stop")]


def _bring_up(model: Model, server: Server, freed: list[str]) -> list[Step]:
    """Bring the target from the state that it is in to an open route."""
    prove = Step("prove", model.name, "ready is when it lists its name and answers")
    arrive = [prove, Step("open", model.name, "it is ready")]
    match server.state:
        case "ready":
            return [] if server.open else arrive
        case "draining":
            return [Step("open", model.name, "it was to leave, and is still ready")]
        case "starting":
            # No release: it may hold the memory itself by now, and its own gate waits for what others still hold.
            return [Step("start", model.name, "its container runs already"), *arrive]
        case "asleep":
            return [*_release(model, freed), Step("wake", model.name, "it is asleep"), *arrive]
        case "stopped":
            return [*_release(model, freed), Step("start", model.name, "it is stopped"), *arrive]
    cause = f"it failed: {server.reason or 'no reason known'}" if server.state == "failed" else "it is being stopped"
    again = [Step("stop", model.name, cause), *_release(model, [*freed, model.name])]
    return [*again, Step("start", model.name, "it was stopped"), *arrive]


def _release(model: Model, freed: Sequence[str]) -> list[Step]:
    """See that there is room, also where nobody gave way: another program may have taken it."""
    if not model.gpus:
        return []
    gpus = gpu_names(sorted(model.gpus))
    cause = f"{gpus} must have back what {', '.join(freed)} held" if freed else f"{gpus} must have room for it"
    return [Step("release", model.name, cause)]


def _holds(rival: Model, target: Model) -> str:
    return f"holds {gpu_names(sorted(rival.overlaps(target)))}, which {target.name} needs"
