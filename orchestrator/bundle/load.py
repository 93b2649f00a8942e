"""Reads a bundle: checks all of it first, then gives Docker what is not there yet."""

import tarfile
from collections.abc import Collection, Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple, Self

from orchestrator.bundle import advice, check, files, manifest, weights
from orchestrator.bundle.archive import Archive
from orchestrator.bundle.files import Free, Need
from orchestrator.bundle.manifest import File, Image, Manifest, Model
from orchestrator.bundle.meter import Clock, Meter, Say, amount
from orchestrator.errors import TandemError
from orchestrator.project import Project
from orchestrator.storage import Held, Storage
from orchestrator.versions import REPOSITORY


class Loaded(NamedTuple):
    """What came of it, for a person and for scripts."""

    folder: str
    profiles: list[str]
    loaded: list[str]
    present: list[str]
    warnings: list[str]
    next: list[str]


class Loader:
    """Loads one bundle."""

    def __init__(
        self,
        project: Project,
        storage: Storage,
        folder: Path,
        *,
        say: Say,
        clock: Clock,
        free: Free = files.free,
    ) -> None:
        self._project = project
        self._storage = storage
        self._folder = folder
        self._say = say
        self._clock = clock
        self._free = free

    def run(self) -> Loaded:
        """Check, then load. Raises TandemError at the first thing that is wrong; nothing was loaded by then.

        Two things cannot be known so early, and end a load whose images are there by then: what weights a volume
        holds, when no image of vLLM is here to look into it, and, where Docker's folder cannot be seen either, the
        space for a volume that such an image cannot look into.
        """
        whole = check.structure(self._folder)
        check.sizes(self._folder, whole)
        if whole.models and self._storage.in_folder and not self._storage.has_weights():
            place = self._storage.weights
            raise TandemError(
                f"TANDEM_MODELS: there is no folder {place}; make it: sudo install -d -o 1000 -g 1000 {place}"
            )
        self._space(whole)
        advised = advice.advise(self._project, whole.profiles, {image.tag for image in whole.images})
        for line in advised.warnings:
            self._say(f"warning: {line}")
        check.digests(self._folder, whole, Meter("checking", whole.size, self._say, self._clock))
        archives = {image.tag: check.image(self._folder, image) for image in whole.images}
        result = Loaded(str(self._folder), whole.profiles, [], [], *advised)
        for image in whole.images:
            self._load_image(image, archives[image.tag], result)
        for model in whole.models:
            self._load_weights(model, whole.weights(model.name), result)
        return result

    def _space(self, whole: Manifest) -> None:
        present = self._storage.images()
        missing = [
            image.size for image in whole.images if image.tag not in present or present[image.tag].id != image.id
        ]
        of_weights = self._needed(whole, present)
        root, visible = self._storage.root()
        # Docker unpacks an image's tar in a folder of its own before it makes the image of it.
        needed = sum(missing) + max(missing, default=0) + (0 if self._storage.in_folder else of_weights)
        needs = [Need(root, needed)] if visible else []
        if needed and not visible:
            self._say(f"Docker will need {amount(needed)} in {root}; how much is free there cannot be seen from here")
        if self._storage.in_folder:
            needs.append(Need(Path(self._storage.weights), of_weights))
        files.check_space(needs, self._free)

    def _needed(self, whole: Manifest, present: Collection[str]) -> int:
        """The bytes of the weights that are missing, by their sizes."""
        needed = 0
        for model in whole.models:
            listed = whole.weights(model.name)
            held = self._held(model, present)
            if held is None:
                needed += sum(file.size for file in listed)
            elif not self._is_whole(model, held):
                needed += sum(file.size for file in listed if not _same_size(model, file, held))
                self._check_free(needed, held)
        return needed

    def _held(self, model: Model, present: Collection[str]) -> Held | None:
        """What is there of a model before an image is loaded; None when that cannot be seen."""
        if self._storage.in_folder:
            return self._storage.see(model.name)
        # The same tag may be another image; any of them can look.
        tags = [tag for tag in present if tag.startswith(f"{REPOSITORY}:")]
        if not tags or not self._storage.has_weights():
            return None
        try:
            return self._storage.look(model.image if model.image in tags else tags[0], model.name)
        except TandemError:
            return None  # but one that is broken, which the bundle may be here to mend

    def _is_whole(self, model: Model, held: Held) -> bool:
        """Say whether a model is there whole. Raises TandemError when it is in another revision."""
        there = weights.whole(model.name, held.manifest, held.files)
        if there is not None and model.revision not in (there.revision, there.resolved):
            raise TandemError(
                f"{model.name}: revision {there.revision} is whole in {self._storage.weights}, and the bundle brings "
                f"{model.revision}. To take the bundle's: python -m orchestrator models remove {model.name}"
            )
        return there is not None

    def _check_free(self, needed: int, held: Held) -> None:
        if held.free < needed:
            raise TandemError(
                f"no space: {self._storage.weights} needs {amount(needed)}, and {amount(held.free)} is free there"
            )

    def _load_image(self, image: Image, packed: Archive, result: Loaded) -> None:
        before = self._storage.images().get(image.tag)
        if before is not None and before.id in packed.ids:
            result.present.append(image.tag)
            return
        self._say(f"loading {image.tag} ({amount(image.size)})")
        if before is not None:
            self._say(f"  the image that had this tag stays, without it: {before.id}")
        meter = Meter(image.tag, image.size, self._say, self._clock)
        self._storage.load(self._metered(image.path, meter), lambda: meter.add(0))
        after = self._storage.images().get(image.tag)
        if after is None or after.id not in packed.ids:
            raise TandemError(f"{image.tag}: Docker took {self._folder / image.path}, and does not have the image")
        result.loaded.append(image.tag)

    def _metered(self, path: str, meter: Meter) -> Iterator[bytes]:
        for chunk in files.read(self._folder / path):
            yield chunk
            meter.add(len(chunk))

    def _load_weights(self, model: Model, listed: list[File], result: Loaded) -> None:
        if not self._storage.has_weights():
            self._storage.make_weights()
        held = self._storage.look(model.image, model.name)
        if self._is_whole(model, held):
            result.present.append(model.name)
            return
        wanted = self._differing(model, listed, held)
        needed = sum(file.size for file in wanted)
        self._check_free(needed, held)
        self._say(f"loading the weights of {model.name} ({amount(needed)})")
        self._send(model, wanted, Meter(model.name, needed, self._say, self._clock))
        result.loaded.append(model.name)

    def _differing(self, model: Model, listed: list[File], held: Held) -> list[File]:
        """What an earlier load left unwritten; a file of the right size counts when its hash is right too."""
        same = [file for file in listed if _same_size(model, file, held)]
        digests: dict[str, str] = {}
        if same:
            meter = Meter(f"checking {model.name}", sum(file.size for file in same), self._say, self._clock)
            sizes = {_name(model, file): file.size for file in same}
            with closing(self._storage.hashes(model.image, model.name, list(sizes))) as known:
                for name, digest in known:
                    digests[name] = digest
                    meter.add(sizes[name])
        wanted = [file for file in listed if digests.get(_name(model, file)) != file.sha256]
        # With the manifest there, the model counts as whole.
        return sorted(wanted, key=lambda file: file.path.endswith(f"/{manifest.PULLED}"))

    def _send(self, model: Model, wanted: list[File], meter: Meter) -> None:
        with (
            self._storage.take(model.image, model.name) as stream,
            tarfile.open(fileobj=stream, mode="w|", bufsize=files.BLOCK) as packed,
        ):
            for file in wanted:
                member = tarfile.TarInfo(_name(model, file))
                member.size = file.size
                with _Counted(self._folder / file.path, meter) as content:
                    packed.addfile(member, content)


class _Counted:
    """A file to be read, with its bytes counted; what the drive does to it meanwhile is one line."""

    def __init__(self, path: Path, meter: Meter) -> None:
        self._path = path
        self._meter = meter
        with files.told(path, "read"):
            self._stream = path.open("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def read(self, size: int = -1) -> bytes:
        """Read like a file that has as many bytes left."""
        with files.told(self._path, "read"):
            data = self._stream.read(size)
        if len(data) < size:
            raise TandemError(f"{self._path}: ended early: the drive lost some of it")
        self._meter.add(len(data))
        return data


def _name(model: Model, file: File) -> str:
    return file.path.removeprefix(f"{manifest.WEIGHTS}{model.name}/")


def _same_size(model: Model, file: File, held: Held) -> bool:
    return held.files.get(_name(model, file), (None,))[0] == file.size
