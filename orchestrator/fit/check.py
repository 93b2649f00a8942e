"""Brings together what decides whether a profile fits: the model, the GPUs, the plan."""

from collections.abc import Callable, Collection, Iterable
from dataclasses import replace

from orchestrator import host
from orchestrator.engine import Engine
from orchestrator.fit import flags, hub, look, shape, verdict, ways, weights
from orchestrator.fit.gpu import Gpu, attributed
from orchestrator.fit.room import Memory
from orchestrator.fit.verdict import Fit
from orchestrator.profiles import BRANCHES, Profile
from orchestrator.project import Project
from orchestrator.render.serve import OVERRIDABLE, variable
from orchestrator.states import Container


def check(
    whole: Project,
    engine: Engine,
    target: Profile,
    leaving: Collection[str],
    *,
    gpus: Callable[[], list[Gpu]] = host.gpu_memory,
) -> Fit:
    """Say whether a profile that is to start fits; leaving are the servers that give their memory back before."""
    told = flags.read(target, lambda key: _override(whole, target, key), whole.choice(target).build.version)
    found = look.look(whole, engine, target)
    dimensions = found if isinstance(found, str) else shape.read(found.config)
    if isinstance(found, str) or isinstance(dimensions, str):
        held: weights.Weights | str = "nothing is known of the model"
    elif found.fault:
        held = found.fault
    elif found.tensors:
        held = weights.of_tensors(found.tensors, dimensions, told, found.source)
    elif found.size is None:
        held = "the hub lists no safetensors files"
    else:
        held = weights.of_size(found.size, dimensions, told, found.source)
    memory = "it has none" if told.cpu else _memory(engine, target, leaving, gpus())
    fit = verdict.decide(target.name, dimensions, held, told, memory)
    if fit.state not in ("cannot", "tight") or (not isinstance(dimensions, str) and dimensions.quantization):
        return fit
    return replace(fit, advice=(*fit.advice, *_siblings(whole, target)))


def _override(whole: Project, target: Profile, key: str) -> str:
    return whole.settings.get(variable(target, key)) if key in OVERRIDABLE else ""


def _memory(engine: Engine, target: Profile, leaving: Collection[str], listed: list[Gpu]) -> Memory | str:
    """The memory of a profile's GPUs, and how much of it servers hold that go before this one starts."""
    mine = tuple(gpu for gpu in listed if gpu.index in target.gpus)
    if len(mine) < len(target.gpus):
        missing = sorted(set(target.gpus) - {gpu.index for gpu in mine})
        return f"nvidia-smi does not tell of GPU {', '.join(map(str, missing))}"
    containers = engine.containers()
    named = {*leaving, target.name}
    going = [containers[name] for name in sorted(named) if name in containers and containers[name].alive]
    pids = {container.service: engine.processes(container.name) for container in going}
    back = {gpu.index: _given_back(gpu, going, pids) for gpu in mine}
    return Memory(mine, back, tuple(container.service for container in going))


def _given_back(gpu: Gpu, going: Iterable[Container], pids: dict[str, frozenset[int]]) -> int | None:
    """Bytes that servers give back on a GPU; None when one holds some and the driver does not say how much."""
    total = 0
    for container in going:
        if gpu.index in container.gpus:
            held = attributed(gpu, pids[container.service])
            if held is None:
                return None
            total += held
    return total


def _siblings(whole: Project, target: Profile) -> list[str]:
    """Name a quantized model of the same weights: that of another profile, or the first that the hub has."""
    profiles = {profile.name: profile.model for profile in whole.profiles.values()}
    for model in ways.siblings(target.model, profiles):
        owner = next((name for name, other in profiles.items() if other == model), None)
        if owner:
            return [f"the profile {owner}, which is quantized"]
        listed = hub.files(whole.settings, target.source, model, BRANCHES[target.source])
        if not isinstance(listed, str):
            return [f"{model}, which is quantized"]
        if not hub.refused(listed):
            return [f"{model}, which is quantized, if there is one of that name"]
    return []
