"""Pulls one model from ModelScope into the shared volume: pull.py ORG/NAME REVISION.

A model that was pulled whole has a manifest, so that a start needs no hub. What was fetched before an interruption
is kept: the client goes on from there.
"""

import json
import os
import sys
import time
from pathlib import Path

MODELS = Path("/models")
AUTHORITIES = Path("/run/secrets/ca")
MANIFEST = ".tandem-manifest.json"


def complete(folder: Path, revision: str) -> bool:
    """Say whether folder holds every file that its manifest names, at its size, for this revision."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        files = dict(manifest["files"])
        recorded = manifest["revision"]
    except (OSError, ValueError, TypeError, LookupError):
        return False
    sizes_agree = all(
        (folder / name).is_file() and (folder / name).stat().st_size == size for name, size in files.items()
    )
    return bool(files) and recorded == revision and sizes_agree


def write_manifest(folder: Path, revision: str) -> None:
    """Record the files of folder and their sizes (bytes), in one step."""
    files = {
        str(path.relative_to(folder)): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and not path.name.startswith(MANIFEST)
        and ".tmp" not in path.parts
        and "._____temp" not in path.parts
    }
    new = folder / (MANIFEST + ".new")
    new.write_text(json.dumps({"revision": revision, "files": files}, indent=1))
    new.replace(folder / MANIFEST)


def say(line: str) -> None:
    """Print a line in one write: the client's threads tell of their files at the same time."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def download(model: str, revision: str, folder: Path) -> None:
    """Fetch model at revision into folder with ModelScope's client; a line of progress at most every 5 s.

    Raises what the client raises.
    """
    if AUTHORITIES.is_file() and AUTHORITIES.stat().st_size:
        os.environ.setdefault("REQUESTS_CA_BUNDLE", str(AUTHORITIES))
        os.environ.setdefault("SSL_CERT_FILE", str(AUTHORITIES))
    from modelscope.hub.callback import ProgressCallback
    from modelscope.hub.snapshot_download import snapshot_download

    said = [time.monotonic()]

    class Line(ProgressCallback):
        fetched = 0

        def update(self, size: int) -> None:
            self.fetched += size
            now = time.monotonic()
            if now - said[0] > 5:
                said[0] = now
                percent = 100 * self.fetched / self.file_size if self.file_size else 0
                say(f"tandem: pulling {self.filename}: {percent:.0f}% of {self.file_size / 2**20:.0f} MiB")

        def end(self) -> None:
            say(f"tandem: pulled {self.filename}")

    snapshot_download(model, revision=revision, local_dir=str(folder), progress_callbacks=[Line])


def main(model: str, revision: str) -> int:
    """Return 0 when the whole model is in the volume, 1 after one line that says why not."""
    folder = MODELS / model
    if complete(folder, revision):
        say(f"tandem: {model} is complete")
        return 0
    say(f"tandem: pulling {model} ({revision})")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        download(model, revision, folder)
        write_manifest(folder, revision)
    except Exception as error:  # noqa: BLE001 (the client raises errors of many libraries; each ends as one line)
        reason = " ".join(str(error).split())[:400] or "no reason given"
        print(f"tandem: could not pull {model} ({revision}): {type(error).__name__}: {reason}", file=sys.stderr)
        return 1
    say(f"tandem: {model} is complete")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
