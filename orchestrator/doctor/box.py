"""What was found on this machine, as values: what None is, nobody could tell. Sizes in bytes. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field

# What stands for the version of a program that is not there.
NONE = "none"


@dataclass(frozen=True)
class Wsl:
    """The Windows Subsystem for Linux that this runs in. version is 0 where it is none, else 1 or 2."""

    version: int = 0
    # Whether programs of Windows can be started from here.
    interop: bool = False
    distribution: str = ""
    # What Windows' .wslconfig says, by its keys in small letters; None where it could not be found out.
    config: Mapping[str, str] | None = None
    # Packages, or else files, of an NVIDIA driver for Linux.
    drivers: tuple[str, ...] = ()

    @property
    def mode(self) -> str:
        """How it is on the network: nat unless .wslconfig says otherwise."""
        return (self.config or {}).get("networkingmode", "nat").lower()


@dataclass(frozen=True)
class Memory:
    """The machine's memory, or what WSL gets of it, and its swap."""

    total: int | None = None
    swap: int | None = None


@dataclass(frozen=True)
class Place:
    """A folder that matters: the kind of its file system, and how much is free there for others."""

    path: str
    kind: str = ""
    free: int | None = None


@dataclass(frozen=True)
class Ends:
    """A file with lines that end as on Windows: their numbers, from 1. script: a kernel reads its first line."""

    path: str
    lines: tuple[int, ...]
    script: bool = False


@dataclass(frozen=True)
class Files:
    """Where project and weights are, what is wrong with files, and what lies about."""

    project: Place
    # Of the folder of TANDEM_MODELS; None for a volume.
    models: Place | None = None
    models_missing: bool = False
    ends: tuple[Ends, ...] = ()
    # What ModelScope's own client left of downloads in the folder of weights, with its size.
    left: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class Docker:
    """The Engine that is in use, and who else is there. fault says why none answers; then nothing else is known."""

    fault: str = ""
    version: str = ""
    # NONE where there is none, "" where it does not say.
    compose: str = ""
    buildx: bool | None = None
    # Its own name for what it runs on, such as Docker Desktop.
    system: str = ""
    address: str = ""
    # Whether it runs on this machine and not in a virtual one, or elsewhere.
    local: bool = False
    root: Place | None = None
    runtimes: tuple[str, ...] = ()
    # Whether it runs as a user and not as root, with settings of that user's own.
    rootless: bool = False
    # Whether the program by which it passes NVIDIA GPUs is on this machine.
    hook: bool = False
    # Whether a dockerd runs here, and whether Docker Desktop reaches into here.
    daemon: bool = False
    desktop: bool = False
    contexts: tuple[str, ...] = ()
    # A free name for a copy of daemon.json; "" where there is no daemon.json that can be seen.
    copy: str = ""
    # What daemon.json says of containers' limits, as NAME: soft limit; -1 is none.
    limits: Mapping[str, int] = field(default_factory=dict)

    @property
    def is_desktop(self) -> bool:
        """Whether the one in use is Docker Desktop's."""
        return "docker desktop" in self.system.lower()


@dataclass(frozen=True)
class Loop:
    """A container of the project that Docker starts again and again."""

    name: str
    restarts: int
    exit_code: int


@dataclass(frozen=True)
class Port:
    """The router's port: whether it is ours already, and who has it else."""

    bind: str
    number: int
    # The router is up and has it.
    ours: bool = False
    # taken, no such address, not allowed, or "" when a server could listen there; None where nobody tried.
    refused: str | None = None
    # Why nobody tried, where Docker would not say who has it.
    fault: str = ""
    # Containers, or programs with their process ids, as they are to be named.
    holders: tuple[str, ...] = ()
    # A port nearby that is free, 0 when none was looked for.
    other: int = 0


@dataclass(frozen=True)
class Forward:
    """A line of Windows' portproxy: who connects to this address and port is passed on to that."""

    listen: str
    port: int
    to: str
    to_port: int


@dataclass(frozen=True)
class Windows:
    """What Windows' own programs tell. fault says why they were not asked; "" with nothing in it: not under WSL."""

    fault: str = ""
    memory: int | None = None
    # Seconds, and the level (0 is off) of the time-out of GPUs, as the registry has them; None where it has none.
    tdr_known: bool = False
    tdr_delay: int | None = None
    tdr_level: int | None = None
    # Who listens on the router's port there.
    holders: tuple[str, ...] = ()
    excluded: tuple[tuple[int, int], ...] = ()
    forwards: tuple[Forward, ...] = ()
    # The drive that holds this distribution's disk, and its free bytes; the folder of the disk as Windows writes it,
    # "" where it is not known to the letter.
    drive: Place | None = None
    folder: str = ""


@dataclass(frozen=True)
class Need:
    """What one profile needs of this machine. source says where the size of its weights is from."""

    profile: str
    model: str
    gpus: int = 0
    weights: int | None = None
    source: str = ""
    # Bytes of them that are here, and whether anybody could look; if not, none are counted as missing.
    here: int = 0
    looked: bool = True
    # The image, the bytes that its build takes, and whether it is here.
    image: str = ""
    build: int = 0
    built: bool = False
    sleeps: bool = False
    shm: int = 0
    # Bytes of pinned memory that its flags ask for.
    offload: int = 0

    @property
    def missing(self) -> int:
        """Bytes that have to come before it can start, as far as that is known."""
        return self.to_pull + (0 if self.built else self.build)

    @property
    def to_pull(self) -> int:
        """Bytes of weights that have to come."""
        return max(0, (self.weights or 0) - self.here) if self.looked else 0


@dataclass(frozen=True)
class Clock:
    """How many seconds this machine's clock is ahead of a server's; fault says why that is not known."""

    ahead: float | None = None
    server: str = ""
    fault: str = ""


@dataclass(frozen=True)
class Certificate:
    """The router's, as its file has it and as the router shows it; without a path it speaks plain HTTP."""

    path: str = ""
    # Whether something outside may replace the file and the router sees it: it is in a folder that is mounted.
    folder: bool = False
    # Whether the router shows the one in the file, and for how many days it is valid; None where fault says why not.
    same: bool | None = None
    days: float | None = None
    expired: bool = False
    fault: str = ""
    # Why the router would not start with what is in the folder now.
    unfit: str = ""


@dataclass(frozen=True)
class Box:
    """Everything that the checks of the machine go by."""

    wsl: Wsl
    memory: Memory
    files: Files
    docker: Docker
    port: Port
    windows: Windows = Windows()
    needs: tuple[Need, ...] = ()
    # Bytes that sleeping models leave to everything else: TANDEM_HOST_RESERVE.
    reserve: int = 8 << 30
    loops: tuple[Loop, ...] = ()
    # What Docker would not list though it answers, with its words: "containers", "images".
    unlisted: Mapping[str, str] = field(default_factory=dict)
    clock: Clock = Clock(fault="it was not asked")
    certificate: Certificate = Certificate()
    # The address that Windows and others reach WSL at, "" where it is not known.
    address: str = ""
    # Whether this machine shows an NVIDIA GPU.
    nvidia: bool = False
    # Whether services are started by systemd.
    systemd: bool = True
    # Docker's socket, as the settings name it.
    socket: str = "/var/run/docker.sock"

    @property
    def usable(self) -> tuple[Need, ...]:
        """The profiles that can run here: with no GPU those that need none."""
        return tuple(need for need in self.needs if self.nvidia or not need.gpus)

    @property
    def gpus(self) -> bool:
        """Whether any profile uses GPUs, and any is here."""
        return self.nvidia and any(need.gpus for need in self.needs)
