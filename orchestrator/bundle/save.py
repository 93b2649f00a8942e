"""Writes a bundle, a file at a time, and goes on where an earlier `save` stopped."""

import shutil
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from orchestrator.bundle import files, guide, manifest, sources, wanted
from orchestrator.bundle.files import Free, Need
from orchestrator.bundle.manifest import File, Image, Manifest, Model
from orchestrator.bundle.meter import Clock, Meter, Say, amount
from orchestrator.bundle.wanted import Pulled
from orchestrator.errors import TandemError
from orchestrator.profiles import Profile
from orchestrator.project import Project
from orchestrator.settings import Settings
from orchestrator.storage import Storage, Stored

# The project's files and the packages: less than 20 MB, and a little more for what they grow by.
SMALL = 100_000_000
Download = Callable[[Path, str, Path, Settings], str | None]


class Saved(NamedTuple):
    """What came of it, for a person and for scripts."""

    folder: str
    profiles: list[str]
    images: list[str]
    models: list[str]
    pythons: list[str]
    bytes: int
    written: list[str]
    kept: list[str]


class Saver:
    """Writes one bundle."""

    def __init__(
        self,
        project: Project,
        storage: Storage,
        folder: Path,
        *,
        say: Say,
        clock: Clock,
        now: str,
        free: Free = files.free,
        download: Download = sources.download,
    ) -> None:
        self._project = project
        self._storage = storage
        self._folder = folder
        self._say = say
        self._clock = clock
        self._now = now
        self._free = free
        self._download = download
        # What stands finished in the folder, by path; the partial manifest says the same.
        self._have: dict[str, File | Image] = {}
        self._pythons: list[str] = []
        self._written: list[str] = []
        self._kept: list[str] = []

    def run(self, profiles: Sequence[Profile], *, with_weights: bool) -> Saved:
        """Write everything that profiles need. Raises TandemError before the first byte when something is missing."""
        self._open()
        images = wanted.images(self._project, self._storage, profiles)
        pulled = wanted.pulled(self._project, self._storage, profiles) if with_weights else []
        self._check_kept(images, pulled)
        self._check_space(images, pulled)
        self._begin()
        self._save_project(profiles)
        self._save_wheels()
        text = guide.text([profile.name for profile in profiles], self._pythons).encode()
        self._put(manifest.README, [text], len(text))
        # The smallest first: an interruption then costs the least.
        for tag, stored in sorted(images.items(), key=lambda entry: entry[1].size):
            self._save_image(tag, stored)
        for one in pulled:
            self._save_weights(one)
        whole = self._end([profile.name for profile in profiles], [one.model for one in pulled])
        return Saved(
            str(self._folder), whole.profiles, [image.tag for image in whole.images],
            [model.name for model in whole.models], whole.pythons, whole.size, self._written, self._kept,
        )  # fmt: skip

    def _open(self) -> None:
        """Find what an earlier `save` left; refuse a folder that is anything else."""
        with files.told(self._folder, "read"):
            if not self._folder.exists() or (self._folder.is_dir() and not any(self._folder.iterdir())):
                return
            if not self._folder.is_dir():
                raise TandemError(f"{self._folder}: is no folder")
        paths = [self._folder / name for name in (manifest.PARTIAL, manifest.NAME)]
        path = next((path for path in paths if files.size(path) is not None), None)
        if path is None:
            raise TandemError(f"{self._folder}: is not empty and holds no bundle; name a new folder")
        try:
            before = manifest.parse(files.text(path), str(path))
        except manifest.DamagedError as error:
            # The folder of somebody else may have a manifest.json too.
            if files.size(self._folder / manifest.PROJECT) is None:
                raise
            self._say(f"{error}; everything is written anew")
            return
        except TandemError as error:
            # What it says of another format's remedy is for `load`.
            fault = str(error).splitlines()[0].partition("; use the Tandem of ")[0]
            raise TandemError(f"{fault}; name a new folder, or remove {self._folder}") from None
        self._have = {item.path: item for item in before.items}
        self._pythons = before.pythons
        for item in before.items:
            if files.size(self._folder / item.path) != item.size:
                self._drop(item)

    def _check_kept(self, images: dict[str, Stored], pulled: list[Pulled]) -> None:
        """Hash what would be kept; what a drive or a copy damaged is written anew."""
        sources_of = {wanted.image_path(tag): stored.id for tag, stored in images.items()}
        sources_of |= {one.path(name): one.source(name) for one in pulled for name in one.names}
        packages = sources.requirements_digest(self._project.folder)
        sources_of |= {path: packages for path in self._have if path.startswith(manifest.WHEELS)}
        kept = [self._have[path] for path, source in sources_of.items() if self._keeps(path, source)]
        meter = Meter("checking what is there", sum(item.size for item in kept), self._say, self._clock)
        for item in kept:
            if not self._is_same(item, meter):
                self._say(f"{item.path}: is damaged, and is written anew")
                self._drop(item)

    def _is_same(self, item: File | Image, meter: Meter) -> bool:
        try:
            return files.digest(self._folder / item.path, meter) == item.sha256
        except TandemError:
            return False  # what the drive does not give back is lost as well

    def _drop(self, item: File | Image) -> None:
        del self._have[item.path]
        if item.path.startswith(manifest.WHEELS):
            # Packages are fetched all together.
            self._pythons = []

    def _check_space(self, images: dict[str, Stored], pulled: list[Pulled]) -> None:
        missing = [stored.size for tag, stored in images.items() if not self._keeps(wanted.image_path(tag), stored.id)]
        weights = [
            one.held.files[name][0]
            for one in pulled
            for name in one.names
            if not self._keeps(one.path(name), one.source(name))
        ]
        needs = [Need(self._folder, SMALL + sum(missing) + sum(weights))]
        root, visible = self._storage.root()
        if visible:
            # Docker gathers an image in a folder of its own before it gives the first byte.
            needs.append(Need(root, max(missing, default=0)))
        files.check_space(needs, self._free)

    def _keeps(self, path: str, source: str) -> bool:
        """Say whether a file that stands finished was made from the same source."""
        item = self._have.get(path)
        return item is not None and (item.id if isinstance(item, Image) else item.source) == source

    def _begin(self) -> None:
        with files.told(self._folder, "written"):
            self._folder.mkdir(parents=True, exist_ok=True)
            # A `save` that was killed had no time to remove what it was writing.
            for path in self._folder.rglob(f"*{files.UNFINISHED}"):
                if path.is_file() and str(path.relative_to(self._folder)) not in self._have:
                    path.unlink()
        self._remember()
        with files.told(self._folder, "written"):
            (self._folder / manifest.NAME).unlink(missing_ok=True)

    def _manifest(self, profiles: list[str], models: list[Model], items: Iterable[File | Image]) -> Manifest:
        listed = list(items)
        return Manifest(
            format=manifest.FORMAT, created=self._now, revision=sources.revision(self._project.folder),
            profiles=profiles, pythons=self._pythons, models=models,
            images=[item for item in listed if isinstance(item, Image)],
            files=[item for item in listed if isinstance(item, File)],
        )  # fmt: skip

    def _remember(self) -> None:
        partial = self._manifest([], [], self._have.values())
        files.write_text(self._folder / manifest.PARTIAL, manifest.text(partial))

    def _add(self, item: File | Image) -> None:
        self._have[item.path] = item
        self._written.append(item.path)
        self._remember()

    def _keep(self, path: str, source: str) -> bool:
        kept = self._keeps(path, source)
        if kept:
            self._kept.append(path)
        return kept

    def _write(self, path: str, chunks: Iterable[bytes], what: str, size: int) -> tuple[int, str]:
        self._say(f"saving {what} ({amount(size)})")
        return files.write(self._folder / path, chunks, Meter(what, size, self._say, self._clock))

    def _save_project(self, profiles: Sequence[Profile]) -> None:
        """These are small and may have changed in any way: they are written each time."""
        names = sources.project_files(self._project.folder, [self._folder, *self._project.settings.env_files])
        for profile in profiles:
            folder = self._project.folder / profile.model
            if profile.local and f"{profile.model.removeprefix('./').rstrip('/')}/config.json" not in names:
                self._say(f"{profile.name}: its model is not in the bundle; copy {folder} to the same place there")
        packed = self._folder / f"project{files.UNFINISHED}"
        try:
            with files.told(packed, "written"):
                sources.pack(self._project.folder, names, packed)
            size = packed.stat().st_size
            self._put(manifest.PROJECT, files.read(packed), size)
        finally:
            packed.unlink(missing_ok=True)

    def _put(self, path: str, chunks: Iterable[bytes], size: int, source: str = "") -> None:
        written, digest = files.write(self._folder / path, chunks, Meter(path, size, self._say, self._clock))
        self._add(File(path=path, size=written, sha256=digest, source=source))

    def _save_wheels(self) -> None:
        source = sources.requirements_digest(self._project.folder)
        own = sources.own_python()
        pythons = list(dict.fromkeys((own, *sources.PYTHONS)))
        kept = [path for path in self._have if path.startswith(manifest.WHEELS) and self._keeps(path, source)]
        if kept and set(pythons) <= set(self._pythons):
            self._kept += kept
            return
        # Named again when all of them are there.
        self._pythons = []
        fetched = self._folder / f"wheels{files.UNFINISHED}"
        try:
            shutil.rmtree(fetched, ignore_errors=True)
            found = self._fetch(pythons, fetched)
            for path in sorted(fetched.iterdir()):
                self._put(manifest.WHEELS + path.name, files.read(path), path.stat().st_size, source)
            self._pythons = found
        finally:
            shutil.rmtree(fetched, ignore_errors=True)

    def _fetch(self, pythons: list[str], target: Path) -> list[str]:
        found = []
        for python in pythons:
            self._say(f"fetching the packages for Python {python}")
            fault = self._download(self._project.folder, python, target, self._project.settings)
            if fault is None:
                found.append(python)
            elif python == pythons[0]:
                raise TandemError(f"the packages for Python {python} cannot be fetched: {fault}")
            else:
                self._say(f"none for Python {python}: {fault}")
        return found

    def _save_image(self, tag: str, stored: Stored) -> None:
        path = wanted.image_path(tag)
        if self._keep(path, stored.id):
            return
        with closing(self._storage.save(tag)) as chunks:
            size, digest = self._write(path, chunks, tag, stored.size)
        self._add(Image(path=path, size=size, sha256=digest, tag=tag, id=stored.id))

    def _save_weights(self, one: Pulled) -> None:
        names = [name for name in one.names if not self._keep(one.path(name), one.source(name))]
        if not names:
            return
        with (
            self._storage.give(one.model.image, one.model.name, names) as stream,
            tarfile.open(fileobj=stream, mode="r|", bufsize=files.BLOCK) as packed,
        ):
            for member in packed:
                path = one.path(member.name)
                size, digest = self._write(path, _chunks(packed, member), member.name, member.size)
                self._add(File(path=path, size=size, sha256=digest, source=one.source(member.name)))

    def _end(self, profiles: list[str], models: list[Model]) -> Manifest:
        needed = {*self._written, *self._kept}
        for path in sorted(self._have.keys() - needed):
            self._say(f"removing {path}: nothing needs it now")
            with files.told(self._folder / path, "written"):
                (self._folder / path).unlink(missing_ok=True)
        whole = self._manifest(profiles, models, (self._have[path] for path in sorted(needed)))
        files.write_text(self._folder / manifest.NAME, manifest.text(whole))
        with files.told(self._folder, "written"):
            (self._folder / manifest.PARTIAL).unlink()
        return whole


def _chunks(packed: tarfile.TarFile, member: tarfile.TarInfo) -> Iterator[bytes]:
    content = packed.extractfile(member)
    while content is not None and (chunk := content.read(files.BLOCK)):
        yield chunk
