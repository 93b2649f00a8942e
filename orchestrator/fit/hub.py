"""Asks a hub what a model is like that is not here yet: its config.json and the sizes of its files."""

import json
from dataclasses import dataclass
from typing import Any

from orchestrator.addresses import MIRRORS, here
from orchestrator.http import Way, get, query, quoted
from orchestrator.profiles import Profile
from orchestrator.settings import Settings

# Each hub's own address, where no mirror of it is set.
ENDPOINTS = {"modelscope": "https://www.modelscope.cn", "huggingface": "https://huggingface.co"}
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


def ask(settings: Settings, target: Profile) -> Listed | str:
    """Ask a profile's hub, or the mirror of it that is set; the reason when it does not say."""
    source, model, revision = target.source, target.model, target.branch
    listed = files(settings, source, model, revision)
    if isinstance(listed, str):
        return listed
    weights = sum(size for path, size in listed.items() if _is_weights(path, listed))
    if source == "huggingface":
        config = _asked(settings, source, f"{model}/resolve/{quoted(revision)}/config.json")
    else:
        config = _asked(settings, source, f"api/v1/models/{model}/repo", Revision=revision, FilePath="config.json")
    if isinstance(config, str):
        return f"config.json: {config}"
    return Listed(config, weights)


def files(settings: Settings, source: str, model: str, revision: str) -> dict[str, int] | str:
    """List a repository's files with their bytes; the reason when the hub does not."""
    if source == "huggingface":
        listed = _asked(settings, source, f"api/models/{model}/revision/{quoted(revision)}", blobs="true")
    else:
        path = f"api/v1/models/{model}/repo/files"
        listed = _asked(settings, source, path, Revision=revision, Recursive="true")
    return listed if isinstance(listed, str) else sizes(source, listed)


def sizes(source: str, listed: dict[str, Any]) -> dict[str, int] | str:
    """Read a hub's list of files; the reason when it is none."""
    try:
        if source == "huggingface":
            return {entry["rfilename"]: int(entry["size"]) for entry in listed["siblings"]}
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


def _asked(settings: Settings, source: str, path: str, **words: str) -> dict[str, Any] | str:
    endpoint = here((settings.get(MIRRORS[source]) or ENDPOINTS[source]).rstrip("/"))
    answer = get(f"{endpoint}/{path}{'?' if words else ''}{query(words)}", way(settings), seconds=SECONDS)
    found = answer.fault or table(answer.body)
    return f"{endpoint}: {found}" if isinstance(found, str) else found


def table(body: bytes) -> dict[str, Any] | str:
    """Read an answer that has to be a table of JSON."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = None
    return found if isinstance(found, dict) else "answers rubbish"
