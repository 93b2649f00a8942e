"""docker/activator/models/models.json: what the activator knows of models. Pure."""

import hashlib
import json
from collections.abc import Iterable
from typing import Any

from orchestrator.fit.flags import utilization
from orchestrator.profiles import Profile
from orchestrator.render.file import File
from orchestrator.render.serve import folder
from orchestrator.versions import Versions

PATH = "docker/activator/models/models.json"


def models(profiles: Iterable[Profile], versions: Versions) -> dict[str, Any]:
    """Build the activator's table: digest, and models, an entry for each profile in the order of models.toml."""
    listed = [_model(profile, versions) for profile in profiles]
    return {"digest": hashlib.sha256(json.dumps(listed, sort_keys=True).encode()).hexdigest()[:16], "models": listed}


def _model(profile: Profile, versions: Versions) -> dict[str, Any]:
    """One entry: claim is the share of each GPU, sequence the requests at a time that args name, 0 for vLLM's own."""
    version = profile.vllm or versions.usual(profile.image).version
    sequence = profile.args.get("max-num-seqs")
    return {
        "name": profile.name,
        "served": profile.names,
        "gpus": profile.gpus,
        "claim": profile.gpu_memory_utilization or utilization(version),
        "sleep": profile.sleep,
        "ttl": profile.ttl,
        "preload": profile.preload,
        "ready_timeout": profile.ready_timeout,
        "sequence": sequence if isinstance(sequence, int) and not isinstance(sequence, bool) else 0,
        "folder": folder(profile),
    }


def activator(profiles: Iterable[Profile], versions: Versions) -> File:
    """Render the table; JSON has no place for a line that says where it is from."""
    return File(PATH, json.dumps(models(profiles, versions), indent=2, ensure_ascii=False) + "\n")
