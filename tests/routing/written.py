"""Run inside an image: prints every path that vLLM's own servers can have, by its source, of whatever model or flag."""

import ast
import json
import sys
from collections import defaultdict
from importlib.util import find_spec
from pathlib import Path

# What a router or an application is told a path with, and the methods which that means.
CALLS = {
    **{verb: {verb.upper()} for verb in ("get", "post", "put", "patch", "delete", "head", "options")},
    "websocket": {"GET"},
    "mount": {"GET"},
    # Its methods stand elsewhere, if at all.
    **{call: set[str]() for call in ("add_api_route", "api_route", "add_route", "route")},
}


def paths(folder: Path) -> dict[str, set[str]]:
    """Read every module below a folder; the paths that it names, with their methods."""
    found: dict[str, set[str]] = defaultdict(set)
    for module in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            match node:
                case ast.Call(func=ast.Attribute(attr=verb), args=[ast.Constant(value=str(path)), *_]):
                    if verb in CALLS and path.startswith("/"):
                        found[path] |= CALLS[verb]
    return found


def main() -> int:
    """Print them as JSON."""
    spec = find_spec("vllm")
    assert spec is not None
    assert spec.submodule_search_locations
    found = paths(Path(spec.submodule_search_locations[0]) / "entrypoints")
    print(json.dumps({path: sorted(methods) for path, methods in found.items()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
