"""Sums up a model's folder: config.json, and name, type and shape of every tensor, from the files' headers alone.

Runs here for a folder, and in a container that mounts the weights at /models for a volume: it is sent there as text,
so it uses the standard library alone.
"""

import json
import sys
from pathlib import Path
from typing import Any

MODELS = Path("/models")
INDEX = "model.safetensors.index.json"
# Of a header, in bytes; safetensors itself reads none that is longer.
LONGEST = 100_000_000


def summary(folder: Path) -> dict[str, Any]:
    """Give `config` (None where there is none), `tensors` as [name, type, shape], and `fault`, "" when all is whole.

    Raises OSError when a file cannot be read.
    """
    path = folder / "config.json"
    if not path.is_file():
        return {"config": None, "tensors": [], "fault": "no config.json"}
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return {"config": None, "tensors": [], "fault": "config.json is no JSON"}
    if not isinstance(config, dict):
        return {"config": None, "tensors": [], "fault": "config.json is no table"}
    files, fault = _files(folder)
    tensors: list[list[Any]] = []
    for file in files:
        found = header(file)
        if found is None:
            fault = fault or f"{file.name} is no safetensors file"
        else:
            tensors += found
    return {"config": config, "tensors": tensors, "fault": fault or ("" if files else "no safetensors files")}


def _files(folder: Path) -> tuple[list[Path], str]:
    """Name the files that vLLM would load, and what is missing of them: those of the index, else all in the folder."""
    present = sorted(folder.glob("*.safetensors"))
    if not (folder / INDEX).is_file():
        # Mistral's own format lies beside the other in some repositories; vLLM loads one of them.
        usual = [path for path in present if not path.name.startswith("consolidated")]
        return usual or present, ""
    try:
        named = set(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return present, f"{INDEX} cannot be read"
    missing = sorted(named - {path.name for path in present})
    return [path for path in present if path.name in named], f"{missing[0]} is missing" if missing else ""


def header(path: Path) -> list[list[Any]] | None:
    """Read the header of a safetensors file: eight bytes of length, then JSON. None when it is no such file."""
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        text = stream.read(length) if 2 <= length <= LONGEST else b""
    try:
        entries = json.loads(text)
        return [[name, said["dtype"], said["shape"]] for name, said in entries.items() if name != "__metadata__"]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None


def main(model: str, models: Path = MODELS) -> int:
    """Print the summary of one model below /models; return 0, or 1 after one line that says why not."""
    try:
        print(json.dumps(summary(models / model)))
    except OSError as error:
        print(f"{model}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
