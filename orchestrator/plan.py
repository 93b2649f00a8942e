"""Decides what has to happen for a model to be up: profiles and what was seen in, operations with causes out. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from orchestrator.profiles import Profile, gpu_names
from orchestrator.states import Container, Observed

Kind = Literal["render", "build", "check", "pull", "stop", "start", "reload", "wait", "keep"]


@dataclass(frozen=True)
class Operation:
    """One step: what is done, to what, and why."""

    kind: Kind
    subject: str
    cause: str

    def __str__(self) -> str:
        return f"{self.kind:<7} {self.subject:<28} {self.cause}"


def overlaps(profile: Profile, gpus: tuple[int, ...]) -> list[int]:
    """Name the GPUs that a profile shares with a container's; who shares one cannot run beside it."""
    return sorted(set(profile.gpus) & set(gpus))


def plan(target: Profile, observed: Observed, images: Mapping[str, str], digest: str) -> list[Operation]:
    """Plan the way from what was seen to `target` being ready; empty when it is.

    images gives the image tag of each service that is started; digest is that of the rendered routes.
    """
    operations = [Operation("render", path, "models.toml says otherwise") for path in observed.stale]
    # The router first: what is wrong with the port or with Docker shows before any model is stopped.
    operations += _build(images["router"], observed)
    router = _start("router", observed)
    operations += router
    if not router and observed.routes not in (None, digest):
        operations.append(Operation("reload", "router", "it runs with older routes"))
    server = _start(target.name, observed)
    container = observed.containers.get(target.name)
    if not server and container is not None and container.state == "ready":
        if not container.restarts_itself:
            # An `up` was killed between the start and its end.
            operations.append(Operation("keep", target.name, "Docker would not start it again with the machine"))
        return operations
    if server:
        operations += _prepare(target, observed, images[target.name])
    operations += _evictions(target, observed)
    operations += server
    return [*operations, Operation("wait", target.name, "ready is when it lists its name and answers")]


def _build(tag: str, observed: Observed) -> list[Operation]:
    return [] if tag in observed.images else [Operation("build", tag, "no such image on this machine")]


def _prepare(target: Profile, observed: Observed, image: str) -> list[Operation]:
    """Everything that a start needs and that takes long or may fail comes before another model is stopped for it."""
    operations = []
    if target.gpus:
        operations.append(Operation("check", gpu_names(target.gpus), "Docker must be able to reserve them"))
    operations += _build(image, observed)
    if target.pulled:
        operations.append(Operation("pull", target.model, "a server starts with all of its weights in the volume"))
    return operations


def _evictions(target: Profile, observed: Observed) -> list[Operation]:
    """Stop whoever holds a GPU that the target needs."""
    found = []
    for service, container in observed.containers.items():
        shared = overlaps(target, container.gpus)
        if service != target.name and container.alive and shared:
            cause = f"holds {gpu_names(shared)}, which {target.name} needs"
            found.append(Operation("stop", service, cause))
    return found


def _start(service: str, observed: Observed) -> list[Operation]:
    """Start a service unless it runs as it should; first stop one that Compose would leave alone, unwell as it is."""
    container = observed.containers.get(service)
    if container is None:
        return [Operation("start", service, "not created yet")]
    if container.status == "paused" or container.state == "failed":
        stop = [Operation("stop", service, _fault(container))] if container.alive else []
        return [*stop, Operation("start", service, _fault(container))]
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
