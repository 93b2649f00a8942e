"""A bundle's surroundings for the tests: a Docker that keeps images and weights in memory, a project, a bundle."""

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import IO, Any

from orchestrator.bundle import manifest
from orchestrator.bundle.load import Loaded, Loader
from orchestrator.bundle.save import Saved, Saver
from orchestrator.errors import TandemError
from orchestrator.profiles import Profile
from orchestrator.project import Project
from orchestrator.settings import Settings
from orchestrator.storage import Held, Stored
from tests.unit.values import profile
from tests.unit.values import project as whole

ROUTER = "tandem/router:0.1.0"
ACTIVATOR = "tandem/activator:0.1.0"
SERVER = "tandem/vllm:0.32.0-cu130"
ROUTER_TAR = "images/tandem-router-0.1.0.tar"
ACTIVATOR_TAR = "images/tandem-activator-0.1.0.tar"
SERVER_TAR = "images/tandem-vllm-0.32.0-cu130.tar"
MODEL = "Qwen/Qwen2.5-14B-Instruct"
WEIGHTS = {"config.json": b"{}", "model.safetensors": b"w" * 5000}
MANIFEST = ".tandem-manifest.json"
PLENTY = 10**15


def packed(members: Iterable[tuple[tarfile.TarInfo | str, bytes]]) -> bytes:
    """A tar of these members."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as tar:
        for member, content in members:
            info = tarfile.TarInfo(member) if isinstance(member, str) else member
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return target.getvalue()


def image(tag: str, layer: bytes = b"layer", more: Iterable[tuple[tarfile.TarInfo | str, bytes]] = ()) -> bytes:
    """What `docker save` makes of an image."""
    config = hashlib.sha256(tag.encode() + layer).hexdigest()
    described = json.dumps([{"Config": f"blobs/sha256/{config}", "RepoTags": [tag], "Layers": []}]).encode()
    index = json.dumps({"manifests": [{"digest": "sha256:" + "f" * 64}]}).encode()
    return packed([("blobs/sha256/layer", layer), ("index.json", index), *more, ("manifest.json", described)])


def image_id(content: bytes) -> str:
    """The id that an Engine gives what is in a tar."""
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        described = tar.extractfile("manifest.json")
        assert described is not None
        return "sha256:" + str(json.load(described)[0]["Config"]).removeprefix("blobs/sha256/")


def pulled(files: dict[str, bytes], revision: str = "master") -> dict[str, bytes]:
    """A model's files as pull.py leaves them."""
    hashes = {name: sha256(content).hexdigest() for name, content in files.items()}
    listed = {name: {"size": len(content), "sha256": hashes[name]} for name, content in files.items()}
    said = {"format": 2, "source": "modelscope", "model": MODEL, "revision": revision, "resolved": ""}
    return {**files, MANIFEST: json.dumps({**said, "files": listed, "checked": hashes, "pulled": ""}).encode()}


@dataclass
class Docker:
    """Storage as the test tells it: the tars of images by tag, the files of models. What it does is in did."""

    tars: dict[str, bytes] = field(default_factory=dict)
    models: dict[str, dict[str, bytes]] = field(default_factory=dict)
    did: list[str] = field(default_factory=list)
    folder: tuple[Path, bool] = (Path("/var/lib/docker"), False)
    in_folder: bool = False
    weights: str = "tandem_models"
    there: bool = True
    free: int = PLENTY
    # Called with what is about to be done; a test raises in it.
    before: Callable[[str], None] = lambda _: None

    def _do(self, what: str) -> None:
        self.before(what)
        self.did.append(what)

    def images(self) -> dict[str, Stored]:
        return {tag: Stored(image_id(tar), len(tar)) for tag, tar in self.tars.items()}

    def root(self) -> tuple[Path, bool]:
        return self.folder

    def has_weights(self) -> bool:
        return self.there

    def make_weights(self) -> None:
        self._do("make the volume")
        self.there = True

    def save(self, tag: str) -> Generator[bytes, None, None]:
        self._do(f"save {tag}")
        yield b""
        for start in range(0, len(self.tars[tag]), 1000):
            self.before(f"chunk of {tag}")
            yield self.tars[tag][start : start + 1000]

    def load(self, chunks: Iterable[bytes], waiting: Callable[[], None]) -> None:
        content = b""
        for chunk in chunks:
            self.before("chunk to load")
            content += chunk
        with tarfile.open(fileobj=io.BytesIO(content)) as tar:
            described = tar.extractfile("manifest.json")
            assert described is not None
            tag = json.load(described)[0]["RepoTags"][0]
        waiting()
        self._do(f"load {tag}")
        self.tars[tag] = content

    def look(self, image: str, model: str) -> Held:
        if image not in self.tars:
            raise TandemError(f"{image}: no such image")
        self.before(f"look with {image}")
        return self._held(model)

    def see(self, model: str) -> Held | None:
        assert self.in_folder
        return self._held(model)

    def _held(self, model: str) -> Held:
        files = self.models.get(model, {})
        manifest = files.get(MANIFEST)
        return Held(
            {name: (len(content), 1) for name, content in files.items()}, manifest and manifest.decode(), self.free
        )

    def hashes(self, image: str, model: str, names: Sequence[str]) -> Generator[tuple[str, str], None, None]:
        for name in names:
            yield name, hashlib.sha256(self.models[model][name]).hexdigest()

    @contextmanager
    def give(self, image: str, model: str, names: Sequence[str]) -> Iterator[IO[bytes]]:
        self._do(f"give {' '.join(names)}")
        yield io.BytesIO(packed((name, self.models[model][name]) for name in names))

    @contextmanager
    def take(self, image: str, model: str) -> Iterator[IO[bytes]]:
        target = io.BytesIO()
        yield target
        with tarfile.open(fileobj=io.BytesIO(target.getvalue())) as tar:
            for member in tar:
                content = tar.extractfile(member)
                assert content is not None
                self._do(f"take {member.name}")
                self.models.setdefault(model, {})[member.name] = content.read()


def docker() -> Docker:
    """A machine with the images of qwen-14b and its weights."""
    tars = {ROUTER: image(ROUTER), ACTIVATOR: image(ACTIVATOR, b"a" * 20_000), SERVER: image(SERVER, b"s" * 50_000)}
    return Docker(tars, {MODEL: pulled(WEIGHTS)})


def download(folder: Path, python: str, target: Path, settings: Settings) -> str | None:
    """Packages without an index: one wheel for all, and one for each Python but 3.13."""
    target.mkdir(exist_ok=True)
    if python == "3.13":
        return "no matching distribution"
    (target / "rich-15-none-any.whl").write_bytes(b"rich")
    (target / f"pydantic_core-cp{python}.whl").write_bytes(python.encode())
    return None


class Carrier:
    """A project, a machine, a place for a bundle; what was said is in said."""

    def __init__(self, folder: Path) -> None:
        self.docker = docker()
        self.bundle = folder / "bundle"
        self.said: list[str] = []
        self.downloads: list[str] = []
        self.free = PLENTY
        self.project = project(folder / "project", profile())

    def save(self, *profiles: Profile, weights: bool = False) -> Saved:
        def counted(folder: Path, python: str, target: Path, settings: Settings) -> str | None:
            self.downloads.append(python)
            return download(folder, python, target, settings)

        saver = Saver(
            self.project, self.docker, self.bundle, say=self.said.append, clock=lambda: 0.0, now="2026-11-23T00:00:00",
            free=lambda _: self.free, download=counted,
        )  # type: ignore[arg-type]  # fmt: skip
        return saver.run(profiles or list(self.project.profiles.values()), with_weights=weights)

    def load(self, into: Docker | None = None) -> Loaded:
        loader = Loader(
            self.project, into or self.docker, self.bundle, say=self.said.append, clock=lambda: 0.0,
            free=lambda _: self.free,
        )  # type: ignore[arg-type]  # fmt: skip
        return loader.run()

    def manifest(self) -> dict[str, Any]:
        return dict(json.loads((self.bundle / "manifest.json").read_text(encoding="utf-8")))

    def edit(self, change: Callable[[dict[str, Any]], object]) -> None:
        """Change the manifest, and its sha256 with it."""
        data = self.manifest()
        change(data)
        (self.bundle / "manifest.json").write_text(manifest.sealed(data), encoding="utf-8")

    def replace(self, path: str, content: bytes) -> None:
        """Put another file into the bundle, and say so in its manifest."""
        (self.bundle / path).write_bytes(content)
        for item in (data := self.manifest())["images"] + data["files"]:
            if item["path"] == path:
                item |= {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        (self.bundle / "manifest.json").write_text(manifest.sealed(data), encoding="utf-8")

    def names(self) -> list[str]:
        """Every file in the bundle."""
        return sorted(str(path.relative_to(self.bundle)) for path in self.bundle.rglob("*") if path.is_file())


def project(folder: Path, *listed: Profile) -> Project:
    """A project with the files that a bundle takes of it."""
    for name in ("requirements/run.txt", "requirements/build.txt", "models.toml", "compose.yaml", ".env"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# {name}\n", encoding="utf-8")
    return whole(*listed, folder=folder)
