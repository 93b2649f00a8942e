"""Measures the image that it runs in and prints one JSON object: measure.py RUNS. `scripts/measure` starts it there.

Bytes are those of files, as Docker counts an image's, each file once. Progress goes to stderr.
"""

import json
import os
import runpy
import sys
import sysconfig
from collections import Counter
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
# With these Python finds nothing that was compiled before, and keeps nothing of what it compiles now.
NOT_COMPILED = {"PYTHONPYCACHEPREFIX": "/nonexistent", "PYTHONDONTWRITEBYTECODE": "1"}


def sizes(root: Path) -> tuple[int, int]:
    """The bytes of all files below a folder, and of them those that Python compiled."""
    seen: set[tuple[int, int]] = set()
    whole = compiled = 0
    for folder, _, names in os.walk(root):
        for name in names:
            about = os.lstat(os.path.join(folder, name))  # noqa: PTH118 - 100,000 files
            if (about.st_dev, about.st_ino) in seen:
                continue
            seen.add((about.st_dev, about.st_ino))
            whole += about.st_size
            compiled += about.st_size if name.endswith(".pyc") else 0
    return whole, compiled


def packages(site: Path) -> dict[str, int]:
    """The bytes of each package below site-packages, the largest first; NVIDIA's libraries count as one."""
    found: Counter[str] = Counter()
    for path in site.iterdir():
        found[path.name] += sizes(path)[0] if path.is_dir() else path.stat().st_size
    return dict(found.most_common())


def help_seconds(runs: int) -> dict[str, list[float]]:
    """How long `vllm serve --help` takes byte-compiled and not, in pairs after one of each that does not count."""
    helped = runpy.run_path(str(HERE / "inside.py"))["helped"]
    found: dict[str, list[float]] = {"compiled": [], "not compiled": []}
    for run in range(runs + 1):
        for name, environment in (("compiled", {}), ("not compiled", NOT_COMPILED)):
            answer: dict[str, Any] = helped(**environment)
            if not answer["answers"]:
                raise SystemExit(f"error: vllm serve --help: {answer['why']}")
            if run:
                found[name].append(answer["seconds"])
    return found


def main(argv: list[str]) -> None:
    """Measure everything."""
    whole, compiled = sizes(Path(sys.prefix))
    found = {
        "packages": whole,
        "compiled": compiled,
        "of": packages(Path(sysconfig.get_path("purelib"))),
        "help": help_seconds(int(argv[0])),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
