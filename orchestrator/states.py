"""What is running, as values: containers as Docker reports them, and the state that each one's profile is in. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

State = Literal["stopped", "starting", "ready", "stopping", "failed"]

# Label of a container that a command runs beside whatever is up: it is no part of that.
ALONE = "tandem.alone"
# How a server that was told to stop ends: by itself, or by SIGINT, SIGKILL or SIGTERM.
STOPPED_CODES = frozenset({0, 130, 137, 143})


@dataclass(frozen=True)
class Container:
    """One container of the project.

    status and health are Docker's own words; gpus are the ids that it reserves; started_at is RFC 3339, "" if never.
    """

    service: str
    name: str
    status: str
    health: str = ""
    exit_code: int = 0
    started_at: str = ""
    gpus: tuple[int, ...] = ()
    config_hash: str = ""
    oom_killed: bool = False
    # What its `vllm serve` was given: a folder in the container, or an id; "" where it runs something else.
    serves: str = ""
    # The tag that it was made from, and the id of the image that had it then.
    image: str = ""
    ident: str = ""
    # Its command line, whole.
    command: tuple[str, ...] = field(default=(), compare=False, repr=False)
    # How often Docker has started it again by itself.
    restarts: int = 0

    @property
    def state(self) -> State:
        """Name the state of the server in it."""
        if self.status == "running":
            # One without a health check does its work from its start on.
            return {"healthy": "ready", "": "ready", "unhealthy": "failed"}.get(self.health, "starting")  # type: ignore[return-value]
        if self.status in ("restarting", "dead"):
            return "failed"
        if self.status == "removing":
            return "stopping"
        if self.status == "exited" and (self.oom_killed or self.exit_code not in STOPPED_CODES):
            return "failed"
        return "stopped"

    @property
    def alive(self) -> bool:
        """Whether a process of it may hold its GPUs."""
        return self.status in ("running", "restarting", "paused", "removing")


def inspected(details: dict[str, Any]) -> Container:
    """Read what the Engine says of a container that Compose made."""
    state, labels = details["State"], details["Config"]["Labels"]
    gpus = labels.get("tandem.gpus", "")
    argv = details["Config"].get("Cmd") or []
    return Container(
        service=labels["com.docker.compose.service"],
        name=details["Name"].lstrip("/"),
        status=state["Status"],
        health=(state.get("Health") or {}).get("Status", ""),
        exit_code=state["ExitCode"],
        started_at="" if state["StartedAt"].startswith("0001-") else state["StartedAt"],
        gpus=tuple(int(gpu) for gpu in gpus.split(",") if gpu),
        config_hash=labels.get("com.docker.compose.config-hash", ""),
        oom_killed=state["OOMKilled"],
        serves=str(argv[2]) if argv[:2] == ["vllm", "serve"] and len(argv) > 2 else "",
        image=details["Config"].get("Image", ""),
        ident=details.get("Image", ""),
        command=tuple(map(str, argv)),
        restarts=details.get("RestartCount", 0),
    )


def entry(status: Mapping[str, Any] | None, model: str) -> Mapping[str, Any]:
    """Give what the activator's status says of one model; nothing when there is no status, or it has none of it."""
    found: list[Mapping[str, Any]] = (status or {}).get("models", [])
    return next((each for each in found if each.get("name") == model), {})


def rivals(status: Mapping[str, Any] | None, model: str, gpus: Iterable[int]) -> list[str]:
    """Name the other models that have one of these GPUs by the activator's status, or that somebody wants there.

    They are up or on their way up, wanted, or requests wait for them: to bring `model` up takes the GPUs from them.
    """
    told = status or {}
    asked = {*told.get("wanted", ()), (told.get("switch") or {}).get("target")}
    mine = set(gpus)
    return [
        str(each["name"])
        for each in told.get("models", ())
        if each["name"] != model
        and mine & set(each.get("gpus") or ())
        and (each["name"] in asked or each.get("waiting") or each.get("state") in ("starting", "ready"))
    ]


@dataclass(frozen=True)
class Observed:
    """What was seen in one look: containers by service, image tags present, rendered files that are stale.

    wanted_hashes are Compose's config hashes of what the services should be; routes is the digest that the router runs
    with; status is what the activator says of the models, None when it does not answer.
    """

    containers: dict[str, Container]
    images: frozenset[str]
    stale: tuple[str, ...] = ()
    wanted_hashes: dict[str, str] | None = None
    routes: str | None = None
    # The ids of those images, as far as they are known.
    idents: Mapping[str, str] = field(default_factory=dict)
    status: Mapping[str, Any] | None = None

    def newest(self, service: str) -> bool:
        """Whether the service's container was made from what now has its image's tag."""
        container = self.containers[service]
        return self.idents.get(container.image, container.ident) == container.ident

    def told(self, model: str) -> Mapping[str, Any] | None:
        """What the activator says of one model; None when it says nothing."""
        return entry(self.status, model) or None

    def current(self, service: str) -> bool:
        """Whether the service's container is as Compose would make it now."""
        container = self.containers.get(service)
        wanted = (self.wanted_hashes or {}).get(service)
        return container is not None and (wanted is None or container.config_hash == wanted)


@dataclass(frozen=True)
class Image:
    """One image of ours on this machine, by one name; "" for a name that a newer image took over.

    size is in bytes, created in Unix seconds; used_by are the names of the containers made from it.
    """

    ident: str
    name: str
    size: int
    created: int
    labels: dict[str, str]
    used_by: tuple[str, ...] = ()

    @property
    def inputs(self) -> str:
        """The digest of what it was made from; "" when Compose alone built it."""
        return self.labels.get("tandem.inputs", "")

    @property
    def below(self) -> str:
        """The digest of what the layers of its packages were made from; "" as above, and for the router's."""
        return self.labels.get("tandem.below", "")
