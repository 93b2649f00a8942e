"""Reads models.toml into model profiles. Pure: text in, profiles or every fault at once out."""

import tomllib
from typing import Any

from orchestrator.complaints import shape_problems
from orchestrator.errors import ConfigError
from orchestrator.problems import Path, Problem
from orchestrator.profiles import Profile
from orchestrator.rules import Fault, clashes, faults, preloads
from orchestrator.versions import Versions

Table = dict[str, Any]


def load(text: str, versions: Versions, *, where: str = "models.toml") -> dict[str, Profile]:
    """Read models.toml's text into model profiles by name, in their order.

    Raises ConfigError with every fault: a path, a fact, the valid values.
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([f"{where}: not TOML: {error}"]) from None
    problems = shape_problems(data)
    wrong = {problem.path for problem in problems}
    defaults = data["defaults"] if isinstance(data.get("defaults"), dict) else {}
    tables = data["models"] if isinstance(data.get("models"), dict) else {}
    profiles = {}
    sure_of_gpus = []
    for name, table in tables.items():
        if isinstance(table, dict):
            profile, doubtful = _profile(name, defaults, table, wrong)
            found = [fault for fault in faults(profile, versions) if not fault.keys & doubtful]
            problems += [Problem(_origin(fault, name, table), fault.fact) for fault in found]
            if not {"served_model_name", "aliases"} & doubtful:
                profiles[name] = profile
            if not {"gpus", "preload"} & doubtful:
                sure_of_gpus.append(profile)
    problems += clashes(list(profiles.values())) + preloads(sure_of_gpus)
    if problems:
        raise ConfigError([f"{where}: {problem}" for problem in dict.fromkeys(problems)])
    return profiles


def _profile(name: str, defaults: Table, table: Table, wrong: set[Path]) -> tuple[Profile, frozenset[str]]:
    """Fill in the defaults, leaving out what is known to be wrong; name the keys that are in doubt because of it."""
    of_defaults = {str(path[1]) for path in wrong if path[0] == "defaults" and len(path) > 1}
    of_table = {str(path[2]) for path in wrong if path[:2] == ("models", name) and len(path) > 2}
    below = {key: value for key, value in defaults.items() if key not in of_defaults}
    above = {key: value for key, value in table.items() if key not in of_table}
    # "org/name" stands for a model that is missing or wrong; no rule about it is heard then.
    merged = {"model": "org/name", "served_model_name": name, **below, **above}
    for key in ("args", "env"):
        merged[key] = {**below.get(key, {}), **above.get(key, {})}
    return Profile(name=name, **merged), frozenset((of_defaults - set(table)) | of_table)


def _origin(fault: Fault, name: str, table: Table) -> Path:
    """A fault of one key that only [defaults] gives belongs there, once, and not to every profile."""
    given = {**table, **{key: table.get(key, {}) for key in ("args", "env")}}
    level: Any = given
    for part in fault.path[: 2 if fault.path[:1] in (("args",), ("env",)) else 1]:
        if part not in level:
            return ("models", name, *fault.path) if len(fault.keys) > 1 else ("defaults", *fault.path)
        level = level[part]
    return ("models", name, *fault.path)
