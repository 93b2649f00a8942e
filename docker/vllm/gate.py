"""The server's entrypoint: sees that the weights are there, then becomes `vllm serve`."""

import contextlib
import os
import sys
from importlib import metadata
from pathlib import Path

from weights import manifest
from weights.authorities import AUTHORITIES, trust

MODELS = Path("/models")
ROOTS = (MODELS, Path("/local"))
# From this version on a reasoning parser is enough; --enable-reasoning, which those before ask for, is gone.
ENABLED_BY_PARSER = (0, 10)


def missing_weights(argv: list[str]) -> str | None:
    """Say what is missing when argv serves a folder that holds no model; None when it may start."""
    if argv[:2] != ["vllm", "serve"] or len(argv) < 3:
        return None
    folder = Path(argv[2])
    if not any(folder.is_relative_to(root) for root in ROOTS):
        return None  # by its id: vLLM fetches the model itself
    # Whoever starts a server by hand starts no pull: half a model, or a damaged one, is served to nobody.
    if folder.is_relative_to(MODELS) and manifest.whole(folder) is None:
        return f"weights missing: {folder} is not there, not whole, or was found damaged"
    if not (folder / "config.json").is_file():
        return f"weights missing: {folder} holds no config.json"
    closed = [str(path) for path in sorted(folder.rglob("*")) if not os.access(path, os.R_OK)]
    if closed:
        return f"Permission denied: '{closed[0]}' (files that cannot be read: {len(closed)})"
    return None


def fitting(argv: list[str], version: str) -> list[str]:
    """Spell a command line as this version of vLLM reads it: which one it is, an env file may say."""
    old = tuple(map(int, version.split(".")[:2])) < ENABLED_BY_PARSER
    return [*argv, "--enable-reasoning"] if old and "--reasoning-parser" in argv else argv


def main(argv: list[str]) -> int:
    """Become argv; return 1 instead when it cannot work."""
    fault = missing_weights(argv)
    if fault:
        print(f"tandem: {fault}", file=sys.stderr, flush=True)
        return 1
    # Only a server that fetches its model itself has them.
    trust(AUTHORITIES)
    with contextlib.suppress(metadata.PackageNotFoundError):
        argv = fitting(argv, metadata.version("vllm"))
    print("tandem: starting " + " ".join(argv), flush=True)
    return os.execvp(argv[0], argv)  # noqa: S606 (the container's own command)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
