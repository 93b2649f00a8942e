"""docker/router/routes/routes.json: what the router knows of models. Pure."""

import hashlib
import json
from collections.abc import Iterable
from typing import Any

from orchestrator.profiles import Profile
from orchestrator.render.file import File

PATH = "docker/router/routes/routes.json"


def table(profiles: Iterable[Profile]) -> dict[str, Any]:
    """Build the route table: services {name clients send: service}, models [entries of GET /v1/models], digest."""
    listed = list(profiles)
    content: dict[str, Any] = {
        "services": {name: profile.name for profile in listed for name in profile.names},
        "models": [_model(profile) for profile in listed],
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


def routes(profiles: Iterable[Profile]) -> File:
    """Render the route table, which the router reads when it starts and when it is told to reload."""
    return File(PATH, json.dumps(table(profiles), indent=2, ensure_ascii=False) + "\n")
