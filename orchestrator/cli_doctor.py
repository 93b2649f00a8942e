"""The command `doctor`: its options, and `doctor network`, which says in a table which mirrors work."""

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator import session

if TYPE_CHECKING:
    from orchestrator.engine import Engine
    from orchestrator.network import Candidate, Row
    from orchestrator.probes import Probe
    from orchestrator.project import Project

app = typer.Typer(help="Look at what Tandem needs around it, and say what works.", rich_markup_mode=None)


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")] = False,
    fix: Annotated[bool, typer.Option("--fix", help="Mend what is safe to mend and can be undone.")] = False,
) -> None:
    """Look at this machine: what stands in the way of a model, and the line that mends it.

    Exit code 0 when nothing stands in the way, 1 when something does, 2 when the project cannot be read.
    """
    from orchestrator import cli_checks

    if context.invoked_subcommand:
        if as_json or fix:
            said = f"give it after {context.invoked_subcommand}, if it has it"
            raise typer.BadParameter(said, param_hint="--json, --fix")
        return
    cli_checks.doctor(context, lambda: _target(session.project(context), "--fix"), as_json=as_json, mend=fix)


@app.command()
def network(
    context: typer.Context,
    write: Annotated[bool, typer.Option("--write", help="Put the fastest that works into .env.")] = False,
    seconds: Annotated[float, typer.Option(min=0.1, max=60, help="How long one address may take.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")] = False,
) -> None:
    """Try the mirrors of .env, of this machine and of env/mirrors.toml; say which work, and how fast."""
    from orchestrator import network, probes
    from orchestrator.addresses import masked
    from orchestrator.errors import TandemError

    whole = session.project(context)
    target = _target(whole, "--write") if write else None
    engine = session.engine(whole)
    source = _source(whole)
    probe = _probe(whole, engine, seconds)
    try:
        rows = probes.run(_candidates(whole, source, session.say), probe, session.say)
    except KeyboardInterrupt:
        session.say("interrupted: nothing was written")
        # Python's own end may wait for a thread that waits for a silent mirror.
        os._exit(130)
    rows += _others(whole, engine, probe, source)
    problems = network.problems(rows, _needed(whole, engine))
    changes = network.changes(rows, _unset(engine, rows)) if target else {}
    if target:
        _write(target, changes)
    if as_json:
        shown = [asdict(row) | {"address": masked(row.address), "works": row.works} for row in rows]
        written = {name: masked(value) if value else value for name, value in changes.items()}
        print(json.dumps({"tried": shown, "written": written, "problems": problems}, ensure_ascii=False, indent=2))
        raise typer.Exit(1 if problems else 0)
    print(network.table(rows))
    lines = _written(target, changes) if target else network.advice(rows)
    print("".join(f"{line}\n" for line in lines), end="")
    if problems:
        raise TandemError("\n".join(problems))


def _source(whole: "Project") -> Callable[[str], str]:
    """Say where a setting in force comes from."""
    named = whole.settings.env_files
    file = named[0].name if len(named) == 1 else "env files" if named else ".env"

    def source(name: str) -> str:
        if name in os.environ:
            return "shell"
        return file if whole.settings.get(name) else "this machine"

    return source


def _pulled(whole: "Project") -> dict[str, str]:
    """Name the first model that is pulled from each hub; a hub that none is pulled from is not there."""
    return {p.source: p.model for p in reversed(whole.profiles.values()) if p.pulled}


def _pins(whole: "Project") -> set[tuple[str, str]]:
    from orchestrator import network
    from orchestrator.contents import requirements
    from orchestrator.project import text_of

    found: set[tuple[str, str]] = set()
    for path in sorted({requirements(whole.folder, whole.wanted(p)) for p in whole.profiles.values()}):
        found |= network.pins(text_of(path))
    return found


def _probe(whole: "Project", engine: "Engine", seconds: float) -> "Probe":
    from orchestrator import host
    from orchestrator.http import Way
    from orchestrator.probes import Probe

    settings = whole.settings
    bundle = settings.get("TANDEM_CA_BUNDLE") or host.certificates(settings.values)
    return Probe(
        refusal=lambda image, seconds: engine.another().registry_refusal(image, seconds),
        way=Way(settings.proxies, bundle),
        seconds=seconds,
        pins=_pins(whole),
        models=_pulled(whole),
        clock=time.monotonic,
    )


def _candidates(whole: "Project", source: Callable[[str], str], say: Callable[[str], None]) -> "list[Candidate]":
    from orchestrator import host, mirrors, network
    from orchestrator.addresses import HUBS, MIRRORS
    from orchestrator.project import text_of

    listed = mirrors.load(text_of(whole.folder / mirrors.PATH))
    settings = whole.settings
    in_force = {kind: (settings.get(name), source(name)) for kind, name in MIRRORS.items() if settings.get(name)}
    machine = {
        "registry": "",
        "debian": host.debian_mirror() or host.debootstrap_mirror(),
        "pypi": host.package_index() or host.default_index(),
    }
    known = {kind: address for kind, address in machine.items() if address or kind == "registry"}
    found = network.candidates(in_force, known, listed)
    pulled = _pulled(whole)
    if not pulled:
        say("modelscope is not tried: no profile pulls weights")
    found = [candidate for candidate in found if candidate.kind not in HUBS or candidate.kind in pulled]
    return [candidate for candidate in found if candidate.kind != "torch" or _for_cpus(whole)]


def _for_cpus(whole: "Project") -> bool:
    """Say whether any profile needs torch's build for CPUs."""
    return any(profile.image == "cpu" for profile in whole.profiles.values())


def _others(whole: "Project", engine: "Engine", probe: "Probe", source: Callable[[str], str]) -> "list[Row]":
    """Try what is no mirror: a base image that is named, the proxies, the bundle of authorities."""
    from orchestrator import probes
    from orchestrator.base import OWN_IMAGE
    from orchestrator.network import Row

    rows = []
    name = whole.settings.get("TANDEM_BASE_IMAGE")
    if name and name != OWN_IMAGE:
        row = Row("base image", name, source("TANDEM_BASE_IMAGE"), "ok, on this machine")
        here = {name, f"{name}:latest"} & _images(engine)
        rows.append(row if here else probe.image(name, row))
    return rows + probes.surroundings(whole.settings, probe.way.authorities, source, probe.seconds)


def _images(engine: "Engine") -> frozenset[str]:
    from orchestrator.errors import TandemError

    try:
        return engine.images()
    except TandemError:
        return frozenset()  # the registry's rows say that Docker does not answer


def _needed(whole: "Project", engine: "Engine") -> list[str]:
    """Name the kinds of mirror that a build or a pull cannot do without."""
    from orchestrator import host, network
    from orchestrator.base import OWN_IMAGE, REGISTRY_IMAGE

    registry = whole.settings.get("TANDEM_REGISTRY")
    bases = {OWN_IMAGE, REGISTRY_IMAGE, network.image(registry, REGISTRY_IMAGE)}
    has_base = whole.settings.get("TANDEM_BASE_IMAGE") or host.debootstrap() or bases & _images(engine)
    needed = {
        "registry": not has_base,
        "debian": True,
        "pypi": True,
        # Where it is not set, there is a folder of wheels or PyTorch's own index.
        "torch": whole.settings.get("TANDEM_TORCH_INDEX") and _for_cpus(whole),
        **dict.fromkeys(_pulled(whole), True),
    }
    return [kind for kind, really in needed.items() if really]


def _unset(engine: "Engine", rows: "list[Row]") -> list[str]:
    """Name the kinds for which this machine's own needs no setting.

    apt's mirror on this machine is one only for a base image made here: one from a registry knows a mirror of its own.
    """
    from orchestrator import network
    from orchestrator.base import REGISTRY_IMAGE

    from_registry = REGISTRY_IMAGE in _images(engine) or network.fastest(rows, "registry")
    return ["registry", "pypi"] if from_registry else ["registry", "pypi", "debian"]


def _target(whole: "Project", option: str) -> Path:
    """Find the one env file that an option writes into. Raises TandemError when there is not one."""
    from orchestrator.errors import TandemError
    from orchestrator.project import text_of
    from orchestrator.render import NOTICE

    listed = os.environ.get("COMPOSE_ENV_FILES", "")
    files = list(whole.settings.env_files) or [whole.folder / name for name in listed.split(",") if name]
    if len(files) > 1:
        raise TandemError(f"{option} needs one file, and there are {len(files)}; name one: --env-file .env")
    if not files and os.environ.get("COMPOSE_DISABLE_ENV_FILE", "").lower() in ("1", "true"):
        raise TandemError("COMPOSE_DISABLE_ENV_FILE is set, so nobody would read .env; name a file: --env-file FILE")
    path = files[0] if files else whole.folder / ".env"
    if path.is_file() and text_of(path).startswith(f"# {NOTICE}"):
        raise TandemError(f"{path} is rendered, and a change would be lost; run this without --env-file, for .env")
    return path


def _write(target: Path, changes: "dict[str, str | None]") -> None:
    from orchestrator import envfile

    if changes:
        envfile.write(target, changes)


def _written(target: Path, changes: "dict[str, str | None]") -> list[str]:
    from orchestrator.addresses import masked

    lines = []
    for name, value in changes.items():
        if value is None:
            lines.append(f"{name}: not set in {target.name}: this machine's own is the fastest")
        else:
            lines.append(f"{name}={masked(value)}: written to {target.name}")
        if name in os.environ and os.environ[name] != (value or ""):
            lines.append(f"  but the shell's {name} beats {target.name}: unset {name}")
    return lines or [f"nothing works, so nothing was written to {target.name}"]
