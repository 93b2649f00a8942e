"""Asks a hub what a model is like that is not here yet: its config.json and the sizes of its files."""

import json
from dataclasses import dataclass
from typing import Any

from orchestrator.addresses import here
from orchestrator.http import Way, get, query
from orchestrator.settings import Settings

MODELSCOPE = "https://www.modelscope.cn"
# For each of the two answers; a hub that is slower than this is one that does not answer.
SECONDS = 5.0


@dataclass(frozen=True)
class Listed:
    """What a hub says of a model: its config.json, and the bytes of its files of weights."""

    config: dict[str, Any]
    size: int


def way(settings: Settings) -> Way:
    """How this machine reaches a hub: the proxies and the authorities of the settings."""
    return Way(settings.proxies, settings.get("TANDEM_CA_BUNDLE"))


def modelscope(settings: Settings, model: str, revision: str) -> Listed | str:
    """Ask ModelScope, or what MODELSCOPE_ENDPOINT names; the reason when it does not say.

    A hub with other answers, such as Hugging Face, is another function like this one: look.py chooses.
    """
    listed = files(settings, model, revision)
    if isinstance(listed, str):
        return listed
    weights = sum(size for path, size in listed.items() if _is_weights(path, listed))
    config = _asked(settings, f"models/{model}/repo", Revision=revision, FilePath="config.json")
    if isinstance(config, str):
        return f"config.json: {config}"
    return Listed(config, weights)


def files(settings: Settings, model: str, revision: str) -> dict[str, int] | str:
    """List a repository's files with their bytes; the reason when the hub does not."""
    listed = _asked(settings, f"models/{model}/repo/files", Revision=revision, Recursive="true")
    return listed if isinstance(listed, str) else sizes(listed)


def sizes(listed: dict[str, Any]) -> dict[str, int] | str:
    """Read ModelScope's list of files; the reason when it is none."""
    try:
        return {entry["Path"]: int(entry["Size"]) for entry in listed["Data"]["Files"] if entry["Type"] != "tree"}
    except (LookupError, TypeError, ValueError):
        return "its list of files is none"


def refused(reason: str) -> bool:
    """Whether a hub answered that there is nothing of that name, and was not just silent."""
    return any(f": {code} " in reason for code in (403, 404))


def _is_weights(path: str, listed: dict[str, int]) -> bool:
    """Whether vLLM loads a file: safetensors where there are any, not those of Mistral's own format beside others."""
    usual = [name for name in listed if name.endswith(".safetensors") and "/" not in name]
    plain = [name for name in usual if not name.startswith("consolidated")]
    return path in (plain or usual)


def _asked(settings: Settings, path: str, **words: str) -> dict[str, Any] | str:
    endpoint = here((settings.get("MODELSCOPE_ENDPOINT") or MODELSCOPE).rstrip("/"))
    answer = get(f"{endpoint}/api/v1/{path}?{query(words)}", way(settings), seconds=SECONDS)
    found = answer.fault or table(answer.body)
    return f"{endpoint}: {found}" if isinstance(found, str) else found


def table(body: bytes) -> dict[str, Any] | str:
    """Read an answer that has to be a table of JSON."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = None
    return found if isinstance(found, dict) else "answers rubbish"
