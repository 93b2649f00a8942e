"""Reads what the activator goes by: the rendered models.json and its environment. Names each wrong value."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from orchestrator.errors import ConfigError
from orchestrator.switch import tunables
from orchestrator.switch.world import Model, Policy

MODELS = Path("/etc/tandem/models.json")


class _Entry(BaseModel):
    """A model in models.json, as render writes it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: Annotated[str, Field(min_length=1)]
    served: Annotated[list[str], Field(min_length=1)]
    gpus: list[Annotated[int, Field(ge=0)]]
    claim: Annotated[float, Field(gt=0, le=1)] = 0.9
    sleep: Literal["auto", "off"] = "off"
    ttl: Annotated[float, Field(gt=0)] | None = None
    preload: bool = False
    ready_timeout: Annotated[float, Field(gt=0)] = 900
    # How many requests its server takes at a time, and its folder; told, and of no account to switching.
    sequence: int = 0
    folder: str = ""


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    digest: str = ""
    models: list[_Entry]


@dataclass(frozen=True)
class Settings:
    """What the activator goes by. hold_timeout and the like are in policy; admin keys are the router's."""

    models: Mapping[str, Model] = field(default_factory=dict)
    digest: str = ""
    policy: Policy = field(default_factory=Policy)
    project: str = "tandem"
    wait_as: Literal["comment", "reasoning"] = "comment"


def load(path: Path, environment: Mapping[str, str]) -> Settings:
    """Read both. Raises ConfigError, which names each wrong value."""
    problems: list[str] = []
    digest, models = _models(path, problems)
    policy, faults = tunables.policy(environment)
    problems += faults
    wait_as = environment.get("TANDEM_WAIT_AS") or "comment"
    if wait_as not in tunables.WAIT_AS:
        problems.append(f'TANDEM_WAIT_AS: should be {" or ".join(tunables.WAIT_AS)}, got "{wait_as}"')
    if problems:
        raise ConfigError(problems)
    project = environment.get("TANDEM_PROJECT") or "tandem"
    return Settings(models, digest, policy, project, "reasoning" if wait_as == "reasoning" else "comment")


def _models(path: Path, problems: list[str]) -> tuple[str, dict[str, Model]]:
    try:
        read = _File.model_validate(json.loads(path.read_bytes()))
    except (OSError, ValueError) as error:
        problems += _told(path, error)
        return "", {}
    names = [entry.name for entry in read.models]
    problems += [
        f"{path}: models: {name!r} stands there twice" for name in sorted({n for n in names if names.count(n) > 1})
    ]
    return read.digest, {entry.name: _model(entry) for entry in read.models}


def _told(path: Path, error: Exception) -> list[str]:
    if isinstance(error, ValidationError):
        return [
            f"{path}: {'.'.join(map(str, fault['loc']))}: {fault['msg']}, got {fault['input']!r}"
            for fault in error.errors(include_url=False)
        ]
    if isinstance(error, OSError):
        return [f"{path}: cannot be read: {error.strerror}: python -m orchestrator render writes it"]
    return [f"{path}: is no JSON: {error}"]


def _model(entry: _Entry) -> Model:
    return Model(
        name=entry.name,
        served=tuple(entry.served),
        gpus=frozenset(entry.gpus),
        claim=entry.claim,
        sleep=entry.sleep,
        ttl=entry.ttl,
        preload=entry.preload,
        ready_timeout=entry.ready_timeout,
    )
