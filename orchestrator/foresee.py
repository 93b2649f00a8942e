"""Foresees what the activator will do for an `up`, as the switch's own plan, from what was seen. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, get_args

from orchestrator.fit.flags import utilization
from orchestrator.profiles import Profile
from orchestrator.states import Container, Observed
from orchestrator.switch.plan import plan
from orchestrator.switch.world import Footprint, Gpu, Model, Policy, Server, State, Step
from orchestrator.switch.world import Observed as Seen


def steps(
    target: Profile,
    profiles: Iterable[Profile],
    observed: Observed,
    policy: Policy,
    *,
    stopped: bool,
    host_free: int | None = None,
) -> list[Step]:
    """Say which steps the switch to `target` will have; stopped: it is stopped before, as its settings changed.

    host_free is the memory of the machine that is free, in bytes. Without an activator it is Docker's view: a model
    that is healthy counts as ready.
    """
    models = {profile.name: model(profile) for profile in profiles}
    servers = {name: _server(models[name], observed) for name in models}
    if stopped:
        servers[target.name] = replace(servers[target.name], state="stopped", open=False, reason="")
    return plan(target.name, models, Seen(servers, _gpus(observed), host_free), policy)


def model(profile: Profile) -> Model:
    """Give what switching knows of a profile."""
    return Model(
        name=profile.name,
        served=tuple(profile.names),
        gpus=frozenset(profile.gpus),
        claim=profile.gpu_memory_utilization or utilization(profile.vllm or ""),
        sleep=profile.sleep,
        ttl=profile.ttl,
        preload=profile.preload,
        ready_timeout=profile.ready_timeout,
    )


def policy(settings: Mapping[str, str]) -> Policy:
    """Give the settings that a plan depends on."""
    return Policy(host_reserve=int(settings["TANDEM_HOST_RESERVE"]))


def leaving(found: Iterable[Step]) -> tuple[str, ...]:
    """Name the models that give back memory before the target starts or wakes."""
    return tuple(dict.fromkeys(step.model for step in found if step.kind in ("stop", "sleep")))


def _server(known: Model, observed: Observed) -> Server:
    told = observed.told(known.name)
    container = observed.containers.get(known.name)
    if told is None or told.get("state") not in get_args(State):
        return _of_docker(container)
    server = Server(
        state=told["state"],
        open=bool(told.get("open")),
        reason=str(told.get("reason") or ""),
        can_sleep=bool(told.get("can_sleep")),
    )
    footprint = told.get("footprint")
    if footprint:
        server = replace(server, footprint=Footprint(int(footprint["gpu"]), int(footprint["host"])))
    if told.get("claim") == known.claim:
        # With another claim, which the activator does not know yet, it will hold something else.
        server = replace(server, holds=int(told.get("holds") or 0), starts_alone=bool(told.get("starts_alone")))
    return server


def _of_docker(container: Container | None) -> Server:
    if container is None:
        return Server()
    return Server(container.state, open=container.state == "ready")


def _gpus(observed: Observed) -> dict[int, Gpu]:
    listed: list[dict[str, Any]] = (observed.status or {}).get("gpus") or []
    return {int(gpu["index"]): Gpu(int(gpu["total"]), int(gpu["free"])) for gpu in listed}
