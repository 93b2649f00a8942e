"""What switching is about, as values: models, servers as they were seen, steps, events and decisions. Pure.

Times are seconds of a clock that only goes forward (time.monotonic); sizes are bytes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

State = Literal["stopped", "starting", "ready", "draining", "asleep", "stopping", "failed"]
# What may hold GPU memory; a sleeper holds a little.
AWAKE: frozenset[State] = frozenset({"starting", "ready", "draining", "stopping"})


@dataclass(frozen=True)
class Model:
    """What switching knows of a model profile.

    served are the names that clients send, the first being its own; claim is the share of each GPU that its server
    takes; ttl is after how many seconds with no request it rests, None for never; ready_timeout is how long a start may
    take in seconds.
    """

    name: str
    served: tuple[str, ...]
    gpus: frozenset[int]
    claim: float = 0.9
    sleep: Literal["auto", "off"] = "off"
    ttl: float | None = None
    preload: bool = False
    ready_timeout: float = 900

    def overlaps(self, other: "Model") -> frozenset[int]:
        """Name the GPUs that both need; who shares one cannot be awake beside the other."""
        return self.gpus & other.gpus


@dataclass(frozen=True)
class Policy:
    """The settings of switching. Times are in seconds, queue_bytes in bytes."""

    queue_requests: int = 256
    queue_bytes: int = 256 << 20
    hold_timeout: float = 300
    drain_timeout: float = 300
    # A model that became ready serves at least so long before another may take its GPUs.
    min_awake: float = 5
    # A start without a line of progress for so long has hung.
    stall_timeout: float = 300
    # Whether a model that nobody waits for any more is given up while it loads, when more of its start lies ahead than
    # behind.
    abandon: bool = True
    # Host memory that sleepers leave to the rest of the machine.
    host_reserve: int = 8 << 30
    # The first wait after a failed start; it doubles up to the longest.
    backoff: float = 5
    longest_backoff: float = 300


@dataclass(frozen=True)
class Footprint:
    """What a server keeps while it sleeps: bytes on each of its GPUs, and pinned bytes of the host."""

    gpu: int
    host: int


@dataclass(frozen=True)
class Server:
    """One model's server as it was seen last.

    open is whether its route is open; since is when it got into its state; footprint is what it keeps asleep, measured
    or estimated; can_sleep is whether its version and history allow sleep; reason says why it failed. holds is what it
    was measured to hold of each of its GPUs while awake, in bytes, 0 where it was not; starts_alone is whether a start
    of it ran out of GPU memory beside sleepers and needed them gone.
    """

    state: State = "stopped"
    open: bool = False
    since: float = 0
    reason: str = ""
    footprint: Footprint = field(default_factory=lambda: Footprint(3584 << 20, 0))
    can_sleep: bool = False
    holds: int = 0
    starts_alone: bool = False


@dataclass(frozen=True)
class Gpu:
    """The memory of a GPU that servers can use at all, and what of it is free now, in bytes."""

    total: int
    free: int


@dataclass(frozen=True)
class Observed:
    """Everything that a plan depends on. gpus is empty, and host_free None, where nobody can tell."""

    servers: Mapping[str, Server]
    gpus: Mapping[int, Gpu] = field(default_factory=dict)
    host_free: int | None = None


Kind = Literal["close", "drain", "sleep", "stop", "release", "start", "wake", "prove", "open"]


@dataclass(frozen=True)
class Step:
    """One operation of a switch: what is done, to which model (for release: the one that needs the memory), and why."""

    kind: Kind
    model: str
    cause: str

    def __str__(self) -> str:
        return f"{self.kind:<8}{self.model:<20}{self.cause}"


# --- what happens -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Asked:
    """A request for a model that the router did not pass on itself; size is that of its body in bytes."""

    ident: int
    model: str
    size: int = 0


@dataclass(frozen=True)
class Left:
    """A waiting request went away: its client gave up, or its hold ended."""

    ident: int


@dataclass(frozen=True)
class Wished:
    """Somebody wants a model up: `up`, a container started by hand, the wish of before a restart, a preload."""

    model: str
    by: str


@dataclass(frozen=True)
class Unwished:
    """Somebody does not want a model any more; comes before the Changed that tells of its end.

    then is what shall become of it: "" nothing (it was stopped by hand already, or `up` took its wish back), "sleep"
    (or stop, where it cannot), "stop".
    """

    model: str
    by: str
    then: Literal["", "sleep", "stop"] = ""


@dataclass(frozen=True)
class Changed:
    """A server got into another state by itself or by somebody's hand: it died, was found ready, asleep or stopped."""

    model: str
    state: State
    reason: str = ""


@dataclass(frozen=True)
class Used:
    """A ready model has requests in flight now, or had since the last look; keeps it from its ttl."""

    model: str


@dataclass(frozen=True)
class Ended:
    """A switch, or a rest, came to its end.

    "ready" says that the target is so at this moment, route open; "abandoned" that it was stopped, if it had begun to
    start. rested is the state of a model that was put to rest, or given up. evicted names the models that were ready
    and gave way.
    """

    target: str
    outcome: Literal["ready", "failed", "abandoned", "rested"]
    reason: str = ""
    rested: State = "stopped"
    evicted: tuple[str, ...] = ()


@dataclass(frozen=True)
class Progress:
    """How far the switch under way is: seconds that it took, and that it will take, None where nobody can tell."""

    target: str
    behind: float
    left: float | None


@dataclass(frozen=True)
class Tick:
    """Time passed."""


Event = Asked | Left | Wished | Unwished | Changed | Used | Ended | Progress | Tick


# --- what is decided --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Switch:
    """Bring a model up; only one such is under way at a time, and it ends with an Ended."""

    target: str
    cause: str


@dataclass(frozen=True)
class Rest:
    """Put a model to sleep where it can, else stop it; with stop, stop it in any case. Ends with an Ended."""

    target: str
    cause: str
    stop: bool = False


@dataclass(frozen=True)
class Abandon:
    """Give up the switch that is under way; it ends with an Ended all the same."""

    target: str
    cause: str


@dataclass(frozen=True)
class Forward:
    """Pass waiting requests on to their model's server, which is ready."""

    idents: tuple[int, ...]
    model: str


@dataclass(frozen=True)
class Refuse:
    """Answer waiting requests with an error in OpenAI's shape; retry_after is in seconds."""

    idents: tuple[int, ...]
    code: str
    message: str
    retry_after: float
    status: int = 503


Decision = Switch | Rest | Abandon | Forward | Refuse
