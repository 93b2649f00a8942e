"""What the manifest of pulled weights says: which files make a model whole. Pure."""

import json
from collections.abc import Mapping

from orchestrator.bundle.manifest import PULLED, unsafe
from orchestrator.errors import TandemError


def whole(model: str, manifest: str | None, files: Mapping[str, tuple[int, int]]) -> tuple[str, list[str]] | None:
    """Give the revision and the files of a model that is there whole, its manifest last; None when it is not.

    Raises TandemError for a file name that reaches out of the model's folder.
    """
    try:
        said = json.loads(manifest or "")
        revision, sizes = str(said["revision"]), {str(name): file["size"] for name, file in said["files"].items()}
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return None
    for name in sizes:
        fault = unsafe(name)
        if fault:
            raise TandemError(f"{model}: {PULLED} names {json.dumps(name)}, which {fault}")
    if not sizes or any(files.get(name, (None,))[0] != size for name, size in sizes.items()):
        return None
    return revision, [*sorted(sizes), PULLED]
