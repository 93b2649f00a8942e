"""Examines this machine: calls all that looks, in order, and gives what was found as one value."""

import re
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from orchestrator.doctor import docking, needing, windows
from orchestrator.doctor.box import Box, Certificate, Clock, Docker, Files, Memory, Need, Place
from orchestrator.doctor.checks_network import CLOCK_SECONDS
from orchestrator.doctor.looking import Look
from orchestrator.doctor.windows import Run
from orchestrator.engine import Engine
from orchestrator.errors import TandemError
from orchestrator.fit.hub import ENDPOINTS
from orchestrator.profiles import Profile
from orchestrator.project import Project
from orchestrator.trust import Shown

Answer = TypeVar("Answer")
# Seconds for one server to say what time it is, and how many are asked.
CLOCK_WAIT, CLOCK_SERVERS = 3.0, 3


@dataclass(frozen=True)
class Means:
    """What an examination looks with.

    root stands for /; run runs a program for so many seconds; refused says why nothing could listen on a port; free
    tells the bytes that a folder's file system has; date asks an address what time it is, in Unix seconds, or why
    nobody knows; now is this machine's own; status asks the activator; listing looks into the weights; shown compares
    the certificate that the router shows with the one in its file.
    """

    root: Path
    run: Run
    refused: Callable[[str, int], str]
    free: Callable[[Path], int | None]
    date: Callable[[str, float], float | str]
    now: Callable[[], float]
    status: Callable[[], Mapping[str, Any] | None] = lambda: None
    listing: Callable[[], Mapping[str, Any] | None] = dict
    # apt's mirror on this machine, "" where there is none.
    mirror: str = ""
    shown: Callable[[], Shown] = Shown


def glance(whole: Project, engine: Engine, means: Means) -> Box:
    """Look at what no start can do without, in a fraction of a second."""
    look = Look(means.root, means.free)
    docker = docking.docker(look, engine, means.run, quick=True)
    return Box(
        wsl=look.wsl(),
        memory=Memory(),
        files=Files(Place(str(whole.folder))),
        docker=docker,
        port=docking.port(look, engine, whole.settings, means.refused, local=docker.local),
    )


def examine(whole: Project, engine: Engine, means: Means, tell: Callable[[str], None]) -> Box:
    """Look at everything; tell hears what is being looked at."""
    look, settings = Look(means.root, means.free), whole.settings
    tell("looking at this machine")
    wsl = look.wsl()
    if wsl.version and wsl.interop:
        tell("asking Windows")
        home = windows.home(look, means.run)
        wsl = look.wsl(home) if home else wsl
    told = windows.ask(look, means.run, wsl, int(settings.get("TANDEM_PORT")))
    models = settings.get("TANDEM_MODELS")
    files = look.files(whole.folder, settings.read, Path(models) if models.startswith("/") else None)
    tell("asking Docker")
    docker = docking.docker(look, engine, means.run)
    loops, no_containers = _asked(docker, lambda: docking.loops(engine, means.now()))
    images, no_images = _asked(docker, engine.images)
    box = Box(
        wsl=wsl,
        memory=look.memory(),
        files=files,
        docker=docker,
        port=docking.port(look, engine, settings, means.refused, local=docker.local),
        windows=told,
        reserve=int(settings.get("TANDEM_HOST_RESERVE")),
        loops=loops or (),
        unlisted={what: why for what, why in (("containers", no_containers), ("images", no_images)) if why},
        address=_address(means.run) if wsl.version else "",
        nvidia=look.nvidia(),
        systemd=look.has("run/systemd/system"),
        socket=settings.get("TANDEM_DOCKER_SOCKET"),
    )
    tell("looking at the weights")
    box = replace(box, needs=_needs(whole, images or (), docker, means))
    box = replace(box, certificate=_certificate(whole, means, ours=box.port.ours))
    tell("comparing the clock")
    return replace(box, clock=_clock(whole, means))


def _certificate(whole: Project, means: Means, *, ours: bool) -> Certificate:
    path, folder = whole.settings.certificate, bool(whole.settings.get("TANDEM_TLS_FOLDER"))
    if not path:
        return Certificate()
    shown = means.shown() if ours else Shown(fault="the router is not up")
    days = None if shown.ends is None else (shown.ends - means.now()) / 86400
    return Certificate(path, folder, shown.same, days, shown.expired, shown.fault, whole.uncertified)


def _asked(docker: Docker, ask: Callable[[], Answer]) -> tuple[Answer | None, str]:
    """Ask Docker for a list; None, and its words, where it refuses: that it answered before proves little."""
    if docker.fault:
        return None, ""
    try:
        return ask(), ""
    except TandemError as error:
        return None, str(error)


def _address(run: Run) -> str:
    return next(iter(run(["hostname", "-I"], 2.0).text.split()), "")


def _needs(whole: Project, images: Collection[str], docker: Docker, means: Means) -> tuple[Need, ...]:
    if docker.fault:
        return needing.needs(whole, (), None, {})
    listed: Mapping[str, Any] | None = None
    with suppress(TandemError):  # what their names say of their sizes counts then
        listed = means.listing()
    models: list[dict[str, Any]] = (means.status() or {}).get("models", [])
    asleep = {str(each.get("name")): int((each.get("footprint") or {}).get("host") or 0) for each in models}
    return needing.needs(whole, images, listed, asleep)


def servers(whole: Project, mirror: str) -> list[str]:
    """Name the addresses to ask for the time; http first, as by a clock that is off no certificate is valid."""
    settings = whole.settings
    hubs: dict[str, Profile] = {profile.source: profile for profile in whole.profiles.values() if profile.pulled}
    named = [
        settings.get("TANDEM_DEBIAN_MIRROR") or mirror,
        settings.get("TANDEM_PYPI_INDEX"),
        *(settings.get(name) or ENDPOINTS[hub] for hub, name in _ENDPOINTS.items() if hub in hubs),
    ]
    # Without a password, which nobody needs to be told the time.
    parts = [re.match(r"(https?://)(?:[^/\s]*@)?([^/\s]+)", address) for address in named]
    roots = [found[1] + found[2] for found in parts if found]
    return sorted(dict.fromkeys(roots), key=lambda root: not root.startswith("http://"))[:CLOCK_SERVERS]


_ENDPOINTS = {"modelscope": "MODELSCOPE_ENDPOINT", "huggingface": "HF_ENDPOINT"}


def _clock(whole: Project, means: Means) -> Clock:
    """Ask until one agrees with this machine; one server alone may be wrong itself."""
    off: Clock | None = None
    fault = "no mirror or hub is set that could be asked"
    for server in servers(whole, means.mirror):
        name = server.rpartition("/")[2]
        date = means.date(f"{server}/robots.txt", CLOCK_WAIT)
        if isinstance(date, str):
            fault = f"{name}: {date}"
            continue
        found = Clock(means.now() - date, name)
        if abs(found.ahead or 0) <= CLOCK_SECONDS:
            return found
        off = off or found
    return off or Clock(fault=fault)
