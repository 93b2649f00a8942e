"""Patches vLLM where it is installed, with all that the series has for a version or none: apply-patches.py VERSION."""

import argparse
import compileall
import hashlib
import json
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from packaging.specifiers import SpecifierSet


class PatchError(Exception):
    """A patch that does not fit the files of this version."""


def main(argv: list[str]) -> int:
    """Apply what the series has for a version, and write down what was applied."""
    options = _options(argv)
    names = applicable((options.patches / "series").read_text(encoding="utf-8"), options.version)
    try:
        changed = apply([options.patches / name for name in names], options.site)
    except PatchError as error:
        print(f"error: {error} (vLLM {options.version}); see docs/patches.md", file=sys.stderr)
        return 1
    for path in changed:
        # What pip and uv compiled from the file before would else be taken for it.
        compileall.compile_file(path, force=True, quiet=1)
    record = [{"name": name, "sha256": _digest(options.patches / name)} for name in names]
    options.record.parent.mkdir(parents=True, exist_ok=True)
    options.record.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    for name in names:
        print(f"applied {name}")
    return 0


def _options(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("version")
    parser.add_argument("patches", type=Path, nargs="?", default=Path("/tmp/patches"))  # noqa: S108 - where it is mounted
    parser.add_argument("--site", type=Path, default=Path(sysconfig.get_path("purelib")))
    parser.add_argument("--record", type=Path, default=Path("/opt/tandem/patches.json"))
    return parser.parse_args(argv)


def applicable(series: str, version: str) -> list[str]:
    """Name the patches for a version, in the order of the series."""
    lines = [line.split(maxsplit=1) for line in series.splitlines() if line.strip() and not line.startswith("#")]
    return [name for name, versions in lines if SpecifierSet(versions).contains(version)]


def apply(patches: list[Path], site: Path) -> list[Path]:
    """Apply patches to copies of the files that they name, then put the copies in place; raises PatchError before."""
    with tempfile.TemporaryDirectory() as made:
        scratch = Path(made)
        names: list[str] = []
        for patch in patches:
            wanted = files(patch)
            for name in wanted:
                if name not in names:
                    _copy(patch, site / name, scratch / name)
                    names.append(name)
            _patch(patch, scratch)
        for name in names:
            shutil.copy(scratch / name, site / name)
    return [site / name for name in names]


def files(patch: Path) -> list[str]:
    """Name the files that a patch changes, relative to site-packages."""
    return re.findall(r"^\+\+\+ b/(\S+)", patch.read_text(encoding="utf-8"), re.MULTILINE)


def _copy(patch: Path, source: Path, target: Path) -> None:
    if not source.is_file():
        raise PatchError(f"{patch.name} changes {source}, which is not there")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)


def _patch(patch: Path, folder: Path) -> None:
    argv = ["patch", "--fuzz=0", "-p1", "--forward", "--batch", "--no-backup-if-mismatch", "--reject-file=-"]
    done = subprocess.run(
        [*argv, "--directory", str(folder), "--input", str(patch.resolve())],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise PatchError(f"{patch.name} does not apply to {', '.join(files(patch))}: {_why(done.stdout)}")


def _why(said: str) -> str:
    """Pick the lines of `patch` that tell: a hunk that failed, a change that is there already, or a broken patch."""
    telling = [line for line in said.splitlines() if re.search(r"FAILED at|previously applied|\*\*\*\*", line)]
    return "; ".join(telling or said.splitlines()[-1:])


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
