"""Models for the tests of weights: folders as a pull leaves them, and a hub that lists and delivers as it is told."""

from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from weights import manifest
from weights.manifest import File, Model
from weights.store import partial

NAME = "org/name"
# A file in a folder, an empty one, one with an odd name, and one that takes several steps.
CONTENT = {
    "config.json": b"{}",
    "figures/a.png": b"",
    "千问 [1] it's.txt": b"odd",
    "model.safetensors": bytes(range(256)) * 8,
}
COMMIT, NEXT = "c" * 40, "d" * 40


def digest(content: bytes) -> str:
    return sha256(content).hexdigest()


def listing(content: dict[str, bytes] | None = None, **said: Any) -> Model:
    """What a hub lists of these files."""
    usual = {"source": "modelscope", "model": NAME, "revision": "master", "resolved": COMMIT}
    content = CONTENT if content is None else content
    files = {name: File(len(data), sha256=digest(data)) for name, data in content.items()}
    return Model(**(usual | {"files": files} | said))


def write(folder: Path, content: dict[str, bytes] | None = None) -> Path:
    """Put files into a folder."""
    for name, data in (CONTENT if content is None else content).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def whole(folder: Path, content: dict[str, bytes] | None = None, **said: Any) -> Model:
    """Put a model into a folder as a pull that ended leaves it."""
    content = CONTENT if content is None else content
    model = listing(content, checked={name: digest(data) for name, data in content.items()}, **said)
    model.pulled = model.pulled or "2026-11-23T00:00:00+00:00"
    write(folder, content)
    manifest.write(folder / manifest.NAME, model)
    return model


def read(folder: Path) -> dict[str, bytes]:
    """The files of a folder, without what a pull keeps for itself."""
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if not path.name.startswith(".tandem-")}


@dataclass
class Hub:
    """A hub with these files; what it was asked is in did.

    before is called with the hub before each piece of a file: to raise there is a line that breaks.
    """

    content: dict[str, bytes] = field(default_factory=lambda: dict(CONTENT))
    resolved: str = COMMIT
    step: int = 512
    did: list[str] = field(default_factory=list)
    before: Callable[["Hub", str, int], None] = lambda hub, name, at: None
    listed: Callable[[Model], Model] = lambda found: found

    def listing(self, model: str, revision: str) -> Model:
        self.did.append(f"list {model} {revision}")
        return self.listed(listing(self.content, model=model, revision=revision, resolved=self.resolved))

    def fetch(self, listed: Model, names: list[str], folder: Path, meter: Any) -> None:
        for name in names:
            part = partial(folder / name)
            part.parent.mkdir(parents=True, exist_ok=True)
            with part.open("ab") as stream:
                at = stream.tell()
                self.did.append(f"fetch {name} from {at}")
                while at < len(self.content[name]):
                    self.before(self, name, at)
                    piece = self.content[name][at : at + self.step]
                    stream.write(piece)
                    stream.flush()
                    at += len(piece)
                    meter.at(name, at)
            part.replace(folder / name)
            meter.done(name)
