"""What the manifest of pulled weights says: which files make a model whole. Pure."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.bundle.manifest import PULLED, unsafe
from orchestrator.errors import TandemError


@dataclass(frozen=True)
class Whole:
    """A model that is there whole: where it is from, what was asked for and what that was, its files, manifest last."""

    source: str
    revision: str
    resolved: str
    files: list[str]

    def is_what(self, source: str, revision: str) -> bool:
        """Whether it is what a profile asks for."""
        return self.source == source and revision in (self.revision, self.resolved)


def whole(model: str, manifest: str | None, files: Mapping[str, tuple[int, int]]) -> Whole | None:
    """Read what a model's manifest says, if the model is there whole; None when it is not.

    Raises TandemError for a file name that reaches out of the model's folder.
    """
    try:
        said = json.loads(manifest or "")
        source, revision, resolved = (str(said[key]) for key in ("source", "revision", "resolved"))
        sizes = {str(name): file["size"] for name, file in said["files"].items()}
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return None
    for name in sizes:
        fault = unsafe(name)
        if fault:
            raise TandemError(f"{model}: {PULLED} names {json.dumps(name)}, which {fault}")
    if not sizes or any(files.get(name, (None,))[0] != size for name, size in sizes.items()):
        return None
    return Whole(source, revision, resolved, [*sorted(sizes), PULLED])
