"""Words for people and values for scripts about what is up. Pure."""

import json
from collections.abc import Mapping
from typing import Any

from orchestrator.profiles import Profile
from orchestrator.project import Project
from orchestrator.states import Container


def curl(address: str, model: str) -> str:
    """Give the tutorial's curl line for a model."""
    body = json.dumps({"model": model, "prompt": "你是谁?"}, ensure_ascii=False).replace("'", "'\\''")
    return f"curl {address}/v1/completions -H \"Content-Type: application/json\" -d '{body}'"


def ready(project: Project, profile: Profile) -> str:
    """Say where a model answers, and with which line to try it."""
    address = project.settings.address
    return (
        f"{profile.name} is ready\n"
        f"  address  {address}/v1\n"
        f"  model    {profile.served_model_name}\n"
        f"  try      {curl(address, profile.served_model_name)}"
    )


def ready_json(project: Project, profile: Profile) -> dict[str, Any]:
    """The same for scripts."""
    address = project.settings.address
    return {
        "profile": profile.name,
        "state": "ready",
        "model": profile.served_model_name,
        "address": f"{address}/v1",
        "curl": curl(address, profile.served_model_name),
    }


def running(containers: Mapping[str, Container]) -> str:
    """Say which services run."""
    names = [f"{container.service} ({container.state})" for container in containers.values() if container.alive]
    return f"running now: {', '.join(names)}" if names else "nothing is running"


def status_json(project: Project, containers: Mapping[str, Container]) -> dict[str, Any]:
    """Each profile's state, for scripts; since is RFC 3339 in UTC, null when it does not run."""
    rows = [_row(project, profile, containers) for profile in project.profiles.values()]
    router = containers.get("router")
    return {
        "address": f"{project.settings.address}/v1",
        "router": router.state if router else "stopped",
        "profiles": rows,
    }


def _row(project: Project, profile: Profile, containers: Mapping[str, Container]) -> dict[str, Any]:
    container, pull = containers.get(profile.name), containers.get(f"pull-{profile.name}")
    runs = container is not None and container.alive
    pulling = pull is not None and pull.alive
    return {
        "profile": profile.name,
        "state": "starting" if pulling else container.state if container else "stopped",
        "gpus": profile.gpus,
        "since": container.started_at[:19] + "Z" if container and runs and container.started_at else None,
        "model": profile.served_model_name,
        "address": f"{project.settings.address}/v1",
    }


def status(project: Project, containers: Mapping[str, Container]) -> str:
    """Each profile's state as a table of at most 80 columns, for four profiles' names of usual length."""
    found = status_json(project, containers)
    header = ("PROFILE", "STATE", "GPUS", "SINCE", "MODEL")
    rows = [
        (r["profile"], r["state"], ",".join(map(str, r["gpus"])) or "none", r["since"] or "-", r["model"])
        for r in found["profiles"]
    ]
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in [header, *rows]
    ]
    return "\n".join([*lines, "", f"address {found['address']} (router {found['router']})"])
