"""Gathers what a report tells: reads files, asks Docker, the activator and programs, all at once, with time limits."""

import json
import platform
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from orchestrator import __version__, ask, host, imagestore, project, settings
from orchestrator.doctor import docking, nvidia
from orchestrator.doctor.finding import Finding
from orchestrator.doctor.looking import Look
from orchestrator.doctor.smi import Seen
from orchestrator.engine import Engine
from orchestrator.errors import TandemError
from orchestrator.inventory import size
from orchestrator.load import run as loading
from orchestrator.project import Project
from orchestrator.proof import result as proofs
from orchestrator.states import Container
from orchestrator.telling import words
from orchestrator.telling.redaction import Redaction

# Seconds for everything, and the part of them that the first looks have, which others build on.
SECONDS, FIRST = 13.0, 5 / 13
# Seconds for a program, and for an answer of Docker.
PROGRAM, DOCKER = 2.0, 4.0
# Of each log so many lines are looked through.
LOG_LINES = 1000
SERVICES = ("activator", "router")
# Writes what was found, once it is known what must not be in it.
Make = Callable[[Redaction], str]
Findings = Callable[[Project, Engine, Seen], Sequence[Finding]]


@dataclass
class First:
    """What the first looks found; each is there once its look is over, and else says that it is late."""

    seen: Seen
    docker: str
    away: str
    containers: dict[str, Container] = field(default_factory=dict)
    told: dict[str, Any] | None = None


@dataclass(frozen=True)
class Here:
    """What every section is gathered from. problems say why the project could not be read whole."""

    whole: Project
    problems: Sequence[str]
    engine: Engine
    first: First
    shell: Mapping[str, str]
    findings: Findings
    bench: str


def gather(
    whole: Project, problems: Sequence[str], engine: Engine, shell: Mapping[str, str], findings: Findings,
    bench: str, tell: Callable[[str], None], seconds: float = SECONDS,
) -> list[tuple[str, Make]]:  # fmt: skip
    """Gather all sections, for so many seconds. One that cannot be had, or is late, says so in its place."""
    late = f"gave no answer in {seconds * FIRST:.3g} s"
    first = First(Seen(wsl=False, fault=f"nvidia-smi {late}"), docker=f"Docker {late}", away=f"it {late}")
    tell("asking Docker, the activator and nvidia-smi")
    _together([partial(_gpus, first), partial(_docker, first, engine), partial(_status, first, whole)], seconds * FIRST)
    seen = first.seen
    there = replace(whole, driver=lambda: seen.driver)
    asked = engine.another()
    asked.gone = first.docker
    here = Here(there, problems, asked, replace(first), shell, findings, bench)
    looks: list[tuple[str, Callable[[Here], Make]]] = [
        ("Versions", _versions), ("Machine", _machine), ("Settings", _settings), ("models.toml", _models),
        ("Doctor", _doctor), ("Last verify", _proofs), ("Last bench", _loads), ("States", _states), ("Logs", _logs),
    ]  # fmt: skip
    tell("looking at this machine, the settings, results and logs")
    found: dict[str, Make] = {}

    def one(title: str, look: Callable[[Here], Make]) -> None:
        found[title] = _safe(partial(look, here))

    _together([partial(one, *each) for each in looks], seconds * (1 - FIRST))
    slow = f"not known: it took more than {seconds * (1 - FIRST):.3g} s; --seconds gives it more"
    return [(title, found.get(title, lambda _: slow)) for title, _ in looks]


def _together(looks: Iterable[Callable[[], None]], seconds: float) -> None:
    """Do all at once, for so many seconds at the most. What is late goes on until the command ends."""
    workers = [threading.Thread(target=look, daemon=True) for look in looks]
    for worker in workers:
        worker.start()
    end = time.monotonic() + seconds
    for worker in workers:
        worker.join(max(0.0, end - time.monotonic()))


def _safe(look: Callable[[], Make]) -> Make:
    """A section that cannot be had says why; a bug, too, is what a report is for."""
    try:
        return look()
    except TandemError as error:
        said = f"not known: {error}"
    except Exception as error:  # noqa: BLE001 (the other sections are of use all the same)
        said = f"not known, by a fault of Tandem: {type(error).__name__}: {error}"
    return lambda _: said


def told(make: Make, redact: Redaction) -> str:
    """Write a section, with what is secret taken out."""

    def written() -> Make:
        text = make(redact)
        return lambda _: text

    return redact(_safe(written)(redact))


def _gpus(first: First) -> None:
    first.seen = nvidia.look(lambda words: host.nvidia_smi(words, PROGRAM))


def _docker(first: First, engine: Engine) -> None:
    try:
        first.containers = engine.containers()
        first.docker = ""
    except TandemError as error:
        first.docker = str(error)


def _status(first: First, whole: Project) -> None:
    try:
        activator = ask.activator(whole)
        first.told, first.away = activator.status(), activator.away
    except (TandemError, ValueError) as error:
        # A port of a setting that is wrong makes no address.
        first.away = str(error)


def _versions(here: Here) -> Make:
    whole, engine = here.whole, here.engine.another()
    found = [
        ("tandem", f"{__version__}, {host.commit(whole.folder, PROGRAM) or 'no commit known'}"),
        ("python", f"{platform.python_version()} ({platform.machine()})"),
        ("driver", here.first.seen.driver or here.first.seen.fault or "none"),
    ]
    if engine.gone:
        found.append(("docker", engine.gone.splitlines()[0]))
    else:
        look = docking.docker(Look(Path("/"), host.free_bytes), engine, _ran)
        found += [
            ("docker engine", look.fault or f"{look.version} on {look.system}; runtimes {', '.join(look.runtimes)}"),
            ("docker compose", look.compose or "does not say"),
            *words.images(imagestore.images(engine)),
        ]
    for profile in whole.profiles.values():
        try:
            choice = whole.wanted(profile)
            found.append((f"vllm of {profile.name}", choice.tag))
        except (TandemError, LookupError) as error:
            found.append((f"vllm of {profile.name}", f"not known: {error}"))
    return lambda _: words.rows(found)


def _ran(argv: Sequence[str], seconds: float) -> host.Ran:
    return host.ran(argv, min(seconds, PROGRAM))


def _machine(here: Here) -> Make:
    look = Look(Path("/"), host.free_bytes)
    memory, wsl = look.memory(), look.wsl()
    place = look.place(here.whole.folder)
    name = next(
        (line[12:].strip('"') for line in look.text("etc/os-release").splitlines() if line[:12] == "PRETTY_NAME="), ""
    )
    cpu, cores = host.cpu()
    free = host.free_memory()
    found = [
        ("system", f"{name or platform.system()}; kernel {platform.release()}"),
        ("wsl", f"WSL {wsl.version}, {wsl.distribution or 'no name'}, {wsl.mode} network" if wsl.version else "no"),
        ("cpu", f"{cpu}, {cores} cores"),
        ("memory", ", ".join(f"{what} {'not known' if count is None else size(count)}" for what, count in
                             (("total", memory.total), ("available", free), ("swap", memory.swap)))),
        ("project's disk", f"{place.kind or 'kind not known'}, {'?' if place.free is None else size(place.free)} free"),
        *words.gpus(here.first.seen),
    ]  # fmt: skip
    return lambda _: words.rows(found)


def _settings(here: Here) -> Make:
    given = here.whole.settings
    files = given.env_files or given.read
    file = " or ".join(path.name for path in files) or "the env file"
    ours = {name: value for name, value in given.values.items() if value and settings.OURS.search(name)}
    source = {name: "the shell" if name in here.shell else file for name in ours}
    said = "".join(f"{problem}\n" for problem in here.problems)
    head = f"The project cannot be read whole:\n{said}\n" if said else ""
    return lambda redact: head + words.settings(ours, settings.KNOWN, source, redact)


def _models(here: Here) -> Make:
    text = project.text_of(here.whole.folder / "models.toml")
    return lambda _: words.models(text)


def _doctor(here: Here) -> Make:
    if here.problems:
        raise TandemError("the project cannot be read; see Settings")
    return partial(words.doctor, here.findings(here.whole, here.engine.another(), here.first.seen))


def _proofs(here: Here) -> Make:
    folder = here.whole.folder
    files = {name: folder / proofs.path(name) for name in here.whole.profiles}

    def read(path: Path, redact: Redaction) -> str:
        try:
            return words.proof(json.loads(project.text_of(path)), path.name, redact)
        except ValueError as error:
            raise TandemError(f"{path.name}: is no JSON: {error}") from None

    return partial(_each, {name: partial(read, path) for name, path in files.items() if path.is_file()}, "verified")


def _loads(here: Here) -> Make:
    place = here.whole.folder / here.bench
    files = {name: path for name in here.whole.profiles if (path := loading.last(place, name))}

    def read(path: Path, redact: Redaction) -> str:
        return words.load(project.text_of(path), path.name, redact)

    return partial(_each, {name: partial(read, path) for name, path in files.items()}, "measured")


def _each(makes: Mapping[str, Make], what: str, redact: Redaction) -> str:
    """Write what there is of each profile; a file that is broken says so in its place."""
    parts = [f"--- {name}\n{told(make, redact)}" for name, make in makes.items()]
    return "\n\n".join(parts) or f"no model was {what} here"


def _states(here: Here) -> Make:
    first = here.first
    if first.docker and first.told is None:
        raise TandemError(f"{first.docker}\nThe activator does not answer: {first.away}")
    head = f"{first.docker}\n\n" if first.docker else ""
    return lambda redact: head + words.states(here.whole, first.containers, first.told, first.away, redact)


def _logs(here: Here) -> Make:
    first = here.first
    if first.docker:
        raise TandemError(first.docker)
    server = words.last_server(first.told, first.containers, here.whole.profiles)
    engine, texts = here.engine.another(), {}
    for name in (*SERVICES, *([server] if server else [])):
        container = first.containers.get(name)
        try:
            texts[name] = imagestore.log(engine, container.name, LOG_LINES) if container else "it has no container"
        except TandemError as error:
            texts[name] = f"not known: {error}"
    return partial(words.logs, texts)
