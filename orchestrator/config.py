"""Reads models.toml into model profiles. Pure: text in, profiles or every fault at once out."""

import tomllib
from typing import Any

from orchestrator.complaints import shape_problems
from orchestrator.errors import ConfigError
from orchestrator.profiles import Profile
from orchestrator.rules import clashes, rule_problems
from orchestrator.versions import Versions


def load(text: str, versions: Versions, *, where: str = "models.toml") -> dict[str, Profile]:
    """Read models.toml's text into model profiles by name, in their order.

    Raises ConfigError with every fault: a path, a fact, the valid values.
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([f"{where}: not TOML: {error}"]) from None
    problems = shape_problems(data)
    tables = data.get("models")
    profiles: dict[str, Profile] = {}
    for name, table in tables.items() if isinstance(tables, dict) else ():
        if not _faulty(f"models.{name}", problems):
            profile = _profile(name, _sound(data.get("defaults"), problems), table, versions)
            found = rule_problems(profile, versions)
            problems += found
            profiles[name] = profile
    problems += clashes(list(profiles.values()))
    if problems:
        raise ConfigError([f"{where}: {problem}" for problem in problems])
    return profiles


def _faulty(path: str, problems: list[str]) -> bool:
    return any(problem.startswith((f"{path}.", f"{path}:")) for problem in problems)


def _sound(defaults: Any, problems: list[str]) -> dict[str, Any]:
    """Leave out what is wrong in [defaults], so that the profiles' own faults are still found."""
    if not isinstance(defaults, dict):
        return {}
    return {key: value for key, value in defaults.items() if not _faulty(f"defaults.{key}", problems)}


def _profile(name: str, defaults: dict[str, Any], table: dict[str, Any], versions: Versions) -> Profile:
    merged = {"served_model_name": name, "vllm": versions.default, **defaults, **table}
    for key in ("args", "env"):
        merged[key] = {**defaults.get(key, {}), **table.get(key, {})}
    return Profile(name=name, **merged)
