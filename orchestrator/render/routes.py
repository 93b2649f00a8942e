"""docker/router/routes/routes.json: what the router knows of models. Pure."""

import hashlib
import json
from collections.abc import Iterable
from typing import Any

from orchestrator.adapters import Adapter
from orchestrator.profiles import Profile
from orchestrator.render.file import File

PATH = "docker/router/routes/routes.json"


def table(profiles: Iterable[Profile]) -> dict[str, Any]:
    """Build the route table.

    services {name clients send: service}, models and adapters [entries of GET /v1/models], digest.
    """
    listed = list(profiles)
    content: dict[str, Any] = {
        "services": {name: profile.name for profile in listed for name in profile.reached_by},
        "models": [_model(profile) for profile in listed],
        "adapters": [_adapter(profile, adapter) for profile in listed for adapter in profile.adapters],
    }
    return content | {"digest": hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]}


def _model(profile: Profile) -> dict[str, Any]:
    """One entry of GET /v1/models, in OpenAI's shape with vLLM's max_model_len and root."""
    return {
        "id": profile.served_model_name,
        "object": "model",
        "created": 0,
        "owned_by": "tandem",
        "root": profile.model,
        "max_model_len": profile.max_model_len,
        "aliases": profile.aliases,
    }


def _adapter(profile: Profile, adapter: Adapter) -> dict[str, Any]:
    """The entry of a LoRA adapter, as vLLM has them: root is where it lies, parent the model that it belongs to."""
    of = {"id": adapter.name, "root": adapter.path, "parent": profile.served_model_name, "aliases": []}
    return _model(profile) | of


def routes(profiles: Iterable[Profile]) -> File:
    """Render the route table, which the router reads when it starts and when it is told to reload."""
    return File(PATH, json.dumps(table(profiles), indent=2, ensure_ascii=False) + "\n")
