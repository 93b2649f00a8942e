"""Decides what has to happen for a model to be up: profiles and what was seen in, operations with causes out. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from orchestrator.profiles import Profile, gpu_names
from orchestrator.render.box import FOLDER as BOX
from orchestrator.states import Container, Observed
from orchestrator.versions import ACTIVATOR

Kind = Literal["render", "build", "check", "try", "pull", "stop", "start", "restart", "create", "reload", "switch"]
# What stands between clients, the activator and Docker, in front of every server.
FRONT = ("router", "activator", "engine-proxy")
# Reads the memory of the GPUs, where a profile has any.
READER = "gpus"


@dataclass(frozen=True)
class Operation:
    """One step: what is done, to what, and why."""

    kind: Kind
    subject: str
    cause: str

    def __str__(self) -> str:
        return f"{self.kind:<7} {self.subject:<28} {self.cause}"


def plan(
    target: Profile,
    observed: Observed,
    images: Mapping[str, str],
    digest: str,
    others: Iterable[str] = (),
    untried: str = "",
) -> list[Operation]:
    """Plan what has to be there before the activator can bring `target` up, and then to ask it; empty when it is up.

    images gives the image tags of the router and of the target; digest is that of the rendered routes;
    others are the profiles that a request is to find with a container; untried says why the target's GPUs have to be
    tried together first, "" when they have not.
    """
    operations = [Operation("render", path, stale_cause(path)) for path in observed.stale]
    operations += [*_build(images["router"], observed), *_build(ACTIVATOR, observed)]
    # What is wrong with the port or with Docker shows before anything that takes long.
    front = [operation for service in FRONT for operation in _start(service, observed)]
    operations += front
    restarted = any(operation.subject == "router" for operation in front)
    if not restarted and observed.routes not in (None, digest):
        operations.append(Operation("reload", "router", "it runs with older routes"))
    create = _create(target.name, observed, "not created yet")
    container = observed.containers.get(target.name)
    alive = container is not None and container.alive
    if create or not alive:
        operations += _prepare(target, observed, images[target.name], untried)
    if target.gpus:
        operations += _start(READER, observed)
    stop = []
    if container is not None and alive and (create or container.status == "paused"):
        # Compose would stop it in the middle of its requests.
        stop.append(Operation("stop", target.name, create[0].cause if create else "is paused"))
    operations += [*stop, *create]
    for name in others:
        other = observed.containers.get(name)
        if other is None or not other.alive:
            operations += _create(name, observed, "so that a request can start it")
    if stop or create or not _is_up(target.name, observed):
        operations.append(Operation("switch", target.name, "ready is when it lists its name and answers"))
    return operations


def _is_up(name: str, observed: Observed) -> bool:
    """Whether a model is ready, and wanted so; what a request alone brought up, the next may send away."""
    told = observed.told(name) or {}
    return told.get("state") == "ready" and bool(told.get("open")) and name in (observed.status or {}).get("wanted", [])


def _build(tag: str, observed: Observed) -> list[Operation]:
    return [] if tag in observed.images else [Operation("build", tag, "no such image on this machine")]


def stale_cause(path: str) -> str:
    """Say why a rendered file is to be written anew."""
    return f"{'this machine' if path.startswith(f'{BOX}/') else 'models.toml'} says otherwise"


def _prepare(target: Profile, observed: Observed, image: str, untried: str) -> list[Operation]:
    """Everything that a start needs and that takes long or may fail comes before another model is stopped for it."""
    operations = []
    if target.gpus:
        operations.append(Operation("check", gpu_names(target.gpus), "Docker must be able to reserve them"))
    operations += _build(image, observed)
    if untried:
        operations.append(Operation("try", f"NCCL on {gpu_names(target.gpus)}", untried))
    if target.pulled:
        operations.append(Operation("pull", target.model, "a server starts with all of its weights in the volume"))
    return operations


def _create(service: str, observed: Observed, missing: str) -> list[Operation]:
    """Make a server's container, unless it is there as it should be; the activator alone starts it."""
    if service not in observed.containers:
        return [Operation("create", service, missing)]
    if not observed.current(service):
        return [Operation("create", service, "its settings changed since it was created")]
    if not observed.containers[service].alive and not observed.newest(service):
        return [Operation("create", service, "its image was built anew since it was created")]
    return []


def _start(service: str, observed: Observed) -> list[Operation]:
    """Start a service that no model depends on, unless it runs as it should."""
    container = observed.containers.get(service)
    if container is None:
        return [Operation("start", service, "not created yet")]
    if container.status == "paused" or container.state == "failed":
        # Compose leaves alone what runs, however unwell it is.
        return [Operation("restart" if container.alive else "start", service, _fault(container))]
    if not container.alive:
        return [Operation("start", service, f"is {container.status}")]
    if not observed.current(service):
        return [Operation("start", service, "its settings changed since it was created")]
    return []


def _fault(container: Container) -> str:
    if container.status == "paused":
        return "is paused"
    if container.status == "running":
        return "runs but no longer answers its health check"
    return f"{container.status} with exit code {container.exit_code}"


def default_profile(profiles: Mapping[str, Profile], named: list[str], gpus: int) -> str | None:
    """Choose the profile for an `up` that names none; None when the choice is not clear.

    named are those of COMPOSE_PROFILES; gpus is how many GPUs this machine shows. With none named it is the first
    profile, in the order of models.toml, that has all its GPUs here; one that needs none comes last.
    """
    if named:
        return named[0] if len(named) == 1 else None
    fitting = [p for p in profiles.values() if all(gpu < gpus for gpu in p.gpus)]
    fitting.sort(key=lambda profile: not profile.gpus)
    return fitting[0].name if fitting else None
