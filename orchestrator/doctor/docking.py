"""Looks at Docker: the Engine in use, others beside it, Compose, the project's containers, the router's port."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from itertools import count

from orchestrator.doctor import reading
from orchestrator.doctor.box import NONE, Docker, Loop, Place, Port
from orchestrator.doctor.looking import Look
from orchestrator.doctor.remedies import DAEMON, KEPT
from orchestrator.doctor.windows import Run
from orchestrator.engine import Engine
from orchestrator.errors import TandemError
from orchestrator.settings import Settings

# Seconds for a look with Docker's CLI.
SECONDS = 5.0
HOOK = ("usr/bin/nvidia-container-runtime-hook", "usr/local/bin/nvidia-container-runtime-hook")
# dockerd is Docker's own in a distribution; docker-desktop is where Docker Desktop shows itself to all of them.
DESKTOP = "mnt/wsl/docker-desktop"
# As many starts by Docker itself, the last of them a moment ago, are no accident any more.
RESTARTS = 3
# Ports that are looked at for one that is free.
NEARBY = 20


def docker(look: Look, engine: Engine, run: Run, *, quick: bool = False) -> Docker:
    """Look at the Engine that the project uses; quick: only at what a start cannot do without."""
    try:
        info, address = engine.info(), engine.address()
    except TandemError as error:
        return Docker(str(error), daemon=look.runs("dockerd"), desktop=look.has(DESKTOP))
    version, system, runtimes = reading.info(info)
    asked = run(["docker", "compose", "version", "--short"], SECONDS)
    compose = asked.text.strip() if asked.code in (0, None) else NONE
    known = Docker(version=version, compose=compose, system=system, address=address, runtimes=runtimes)
    root = str(info.get("DockerRootDir") or "/var/lib/docker").lstrip("/")
    # The socket of a virtual machine lies on this one too, but its folders do not.
    known = replace(known, local=known.address.startswith("unix://") and not known.is_desktop and look.has(root))
    if quick:
        return known
    return replace(
        known,
        buildx=run(["docker", "buildx", "version"], SECONDS).code == 0,
        root=look.place(look.root / root) if known.local else Place(f"/{root}"),
        rootless="name=rootless" in (info.get("SecurityOptions") or ()),
        hook=any(look.has(path) for path in HOOK),
        daemon=look.runs("dockerd"),
        desktop=look.has(DESKTOP),
        contexts=tuple(run(["docker", "context", "ls", "--format", "{{.Name}}"], SECONDS).text.split()),
        limits=reading.limits(look.text(DAEMON.lstrip("/"))),
        copy=_copy(look),
    )


def _copy(look: Look) -> str:
    """Name what daemon.json can be kept as: an older copy is never written over."""
    if not look.has(DAEMON.lstrip("/")):
        return ""
    names = (f"{DAEMON}{KEPT}{f'-{number}' if number > 1 else ''}" for number in count(1))
    return next(name for name in names if not look.has(name.lstrip("/")))


def loops(engine: Engine, now: float) -> tuple[Loop, ...]:
    """Name the project's containers that Docker starts again and again; now is Unix seconds."""
    found = engine.containers().values()
    return tuple(
        Loop(container.name, container.restarts, container.exit_code)
        for container in found
        if container.status == "restarting" or (container.restarts >= RESTARTS and _young(container.started_at, now))
    )


def _young(started_at: str, now: float) -> bool:
    """Docker waits for a minute at the most before it starts a container again."""
    return bool(started_at) and now - datetime.fromisoformat(started_at).timestamp() < 60


def port(look: Look, engine: Engine, settings: Settings, refused: Callable[[str, int], str], *, local: bool) -> Port:
    """Find out whether the router can have its port, and who has it else."""
    bind, number = settings.get("TANDEM_BIND"), int(settings.get("TANDEM_PORT"))
    try:
        published = engine.publishing(number)
    except TandemError as error:
        return Port(bind, number, fault=str(error))  # the router may have it, and nobody can tell
    if any(each.service == "router" for each in published):
        return Port(bind, number, ours=True)
    names = dict.fromkeys(each.name for each in published if reading.clash(bind, each.address))
    if names:
        holders = tuple(f"container {name}" for name in names)
        return Port(bind, number, refused="taken", holders=holders, other=_other(bind, number, refused))
    if not local:
        return Port(bind, number)
    why = refused(bind, number)
    if why != "taken":
        return Port(bind, number, refused=why)
    holders = tuple(look.holders(bind, number))
    return Port(bind, number, refused=why, holders=holders, other=_other(bind, number, refused))


def _other(bind: str, number: int, refused: Callable[[str, int], str]) -> int:
    nearby = range(number + 1, min(number + NEARBY, 65536))
    return next((candidate for candidate in nearby if not refused(bind, candidate)), 0)
