"""Words for people and values for scripts about what is up. Pure."""

import json
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from orchestrator.profiles import Profile
from orchestrator.project import Project
from orchestrator.states import Container

WIDTH = 80
# What the activator says, as GET /-/status answers it; None when it does not answer.
Status = Mapping[str, Any] | None
# Of GET /-/status, what the status for scripts passes on as it is.
_PASSED = ("wanted", "switch", "queue", "last", "gpus")


def curl(address: str, model: str, *, key: bool = False) -> str:
    """Give the tutorial's curl line for a model, with the place for a key where one is needed."""
    body = json.dumps({"model": model, "prompt": "你是谁?"}, ensure_ascii=False).replace("'", "'\\''")
    # The router's own certificate need not name this machine's address for itself.
    options = (" -k" if address.startswith("https") else "") + (' -H "Authorization: Bearer KEY"' if key else "")
    return f"curl{options} {address}/v1/completions -H \"Content-Type: application/json\" -d '{body}'"


def ready(project: Project, profile: Profile) -> str:
    """Say where a model answers, and with which line to try it."""
    address = project.settings.address
    return (
        f"{profile.name} is ready\n"
        f"  address  {address}/v1\n"
        f"  model    {profile.served_model_name}\n"
        f"  try      {curl(address, profile.served_model_name, key=bool(project.client_keys))}"
    )


def ready_json(project: Project, profile: Profile) -> dict[str, Any]:
    """The same for scripts."""
    address = project.settings.address
    return {
        "profile": profile.name,
        "state": "ready",
        "model": profile.served_model_name,
        "address": f"{address}/v1",
        "curl": curl(address, profile.served_model_name, key=bool(project.client_keys)),
    }


def running(containers: Mapping[str, Container], status: Status = None) -> str:
    """Say which services run."""
    told = _told(status)
    names = [
        f"{container.service} ({told.get(container.service, {}).get('state', container.state)})"
        for container in containers.values()
        if container.alive
    ]
    return f"running now: {', '.join(names)}" if names else "nothing is running"


def _told(status: Status) -> dict[str, Any]:
    return {entry["name"]: entry for entry in (status or {}).get("models", [])}


def status_json(project: Project, containers: Mapping[str, Container], status: Status = None) -> dict[str, Any]:
    """Each profile's state, for scripts; since is RFC 3339 in UTC, null when it does not run.

    What only the activator knows is null when it does not answer; the states are Docker's then.
    """
    told = _told(status)
    rows = [_row(project, profile, containers, told.get(profile.name)) for profile in project.profiles.values()]
    router = containers.get("router")
    return {
        "address": f"{project.settings.address}/v1",
        "router": router.state if router else "stopped",
        "activator": status is not None,
        "unlisted": [found.service for found in unlisted(project, containers) if found.alive],
        "profiles": rows,
        **{key: None if status is None else status.get(key) for key in _PASSED},
    }


def unlisted(project: Project, containers: Mapping[str, Container]) -> list[Container]:
    """Name the servers whose profiles are in models.toml no more, as they were renamed or removed."""
    return [found for found in containers.values() if found.serves and found.service not in project.profiles]


def _row(
    project: Project, profile: Profile, containers: Mapping[str, Container], told: Mapping[str, Any] | None
) -> dict[str, Any]:
    container, pull = containers.get(profile.name), containers.get(f"pull-{profile.name}")
    runs = container is not None and container.alive
    pulling = pull is not None and pull.alive
    since = container.started_at[:19] + "Z" if container and runs and container.started_at else None
    said = told or {}
    state = said.get("state") or (container.state if container else "stopped")
    return {
        "profile": profile.name,
        "state": "starting" if pulling and state == "stopped" else state,
        "gpus": profile.gpus,
        "since": since if told is None else said.get("since") if state != "stopped" else None,
        "model": profile.served_model_name,
        "address": f"{project.settings.address}/v1",
        "reason": said.get("reason") or None,
        "in_flight": said.get("in_flight"),
        "waiting": said.get("waiting"),
        "sleep": said.get("sleep"),
    }


def status(project: Project, containers: Mapping[str, Container], told: Status = None, away: str = "") -> str:
    """Each profile's state as a table, and what is under way, in at most 80 columns for names of usual length.

    away is why the activator does not answer, where somebody asked it.
    """
    found = status_json(project, containers, told)
    rows = [
        (r["profile"], r["state"], ",".join(map(str, r["gpus"])) or "none", r["since"] or "-", r["model"])
        for r in found["profiles"]
    ]
    lines = [*table(("PROFILE", "STATE", "GPUS", "SINCE", "MODEL"), rows), ""]
    for row in found["profiles"]:
        if row["state"] == "failed" and row["reason"]:
            lines += wrapped(f"{row['profile']} failed: {row['reason']}")
        if row["sleep"] not in (None, "auto", "off"):
            again = f"'python -m orchestrator sleep-test {row['profile']}' tries it again"
            lines += wrapped(f"{row['profile']} does not sleep any more: {row['sleep']}; {again}")
    for name in found["unlisted"]:
        ends = f"'python -m orchestrator down {name}' ends it"
        lines += wrapped(f"{name} runs, and models.toml does not list it any more: {ends}")
    lines += [line for text in _under_way(found) for line in wrapped(text)]
    lines.append(f"address {found['address']} (router {found['router']})")
    if told is None:
        lines += _without(containers.get("activator"), away)
    return "\n".join(lines)


def _without(activator: Container | None, away: str) -> list[str]:
    """Say that the states are Docker's, and what keeps the activator from telling more."""
    if activator is None or not activator.alive:
        return ["the activator is not up: these states are what Docker says"]
    return wrapped(f"the activator does not answer: these states are what Docker says\n{away}")


def _under_way(found: Mapping[str, Any]) -> Iterable[str]:
    """Say what switches, who waits, and how the last switch went."""
    requests = [f"{r['in_flight']} at {r['profile']}" for r in found["profiles"] if r["in_flight"]]
    if requests:
        yield f"in flight: {', '.join(requests)}"
    waiting = [f"{r['waiting']} for {r['profile']}" for r in found["profiles"] if r["waiting"]]
    if waiting:
        longest = max((float(entry["seconds"]) for entry in found["queue"] or []), default=0)
        yield f"waiting: {', '.join(waiting)}" + (f", the longest since {longest:.0f} s" if longest else "")
    switch, last = found["switch"], found["last"]
    if switch:
        left = f", about {switch['left']:.0f} s left" if switch.get("left") else ""
        yield (
            f"switching to {switch['target']} ({switch['cause']}), since {switch['seconds']:.0f} s{left}: "
            f"{switch['phase']}, {switch['text']}"
        )
    if last:
        yield _last(last)


def _last(last: Mapping[str, Any]) -> str:
    parts = [f"{phase} {seconds:.1f}" for phase, seconds in (last.get("seconds") or {}).items() if seconds]
    phases = f" ({', '.join(parts)})" if parts else ""
    how = f" by {last['kind']}" if last.get("kind") else ""
    why = f": {last['reason']}" if last.get("reason") else ""
    return f"last switch: {last['target']} {last['outcome']}{how} in {last.get('total') or 0:.1f} s{phases}{why}"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lay out rows below a header, each column as wide as it must be."""
    listed = [header, *rows]
    widths = [max(len(row[column]) for row in listed) for column in range(len(header))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in listed]


def wrapped(text: str) -> list[str]:
    """Break a text of any lines into lines of at most 80 columns, those after the first set in."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return [
        piece
        for place, line in enumerate(lines)
        for piece in textwrap.wrap(
            line, WIDTH, initial_indent="  " if place else "", subsequent_indent="  ", break_on_hyphens=False
        )
    ]
