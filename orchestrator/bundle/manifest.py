"""manifest.json of a bundle: its shape, and what in it is refused. Pure: text in, values or one error out."""

import json
import re
from collections.abc import Iterable
from hashlib import sha256
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from orchestrator.errors import TandemError
from orchestrator.problems import suggest

# 1 had no sha256 of the manifest itself; the weights of 2 came without the hashes of a pull.
FORMAT = 3
NAME = "manifest.json"
# Kept while a bundle is being written; a folder that has only this is half a bundle.
PARTIAL = "manifest.partial.json"
PROJECT = "tandem.tar"
README = "README.txt"
IMAGES = "images/"
WEIGHTS = "weights/"
WHEELS = "wheels/"
# What pull.py leaves beside weights that are whole.
PULLED = ".tandem-manifest.json"

_SEAL = "sha256"
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class DamagedError(TandemError):
    """A manifest that is not what was saved, or none at all."""


class _Shape(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class File(_Shape):
    """One file of the bundle; source is what it was made from, so that another `save` knows whether it still holds."""

    path: str
    size: Annotated[int, Field(ge=0)]
    sha256: Sha256
    source: str = ""


class Image(_Shape):
    """One image as `docker save` wrote it; id is what the Engine that saved it called it."""

    path: str
    size: Annotated[int, Field(ge=0)]
    sha256: Sha256
    tag: Annotated[str, Field(min_length=1)]
    id: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]


class Model(_Shape):
    """A model whose weights the bundle holds; image is one that can unpack them."""

    name: str
    revision: Annotated[str, Field(min_length=1)]
    image: str


class Manifest(_Shape):
    """Everything that a bundle holds."""

    format: int
    created: str
    revision: str
    profiles: list[str]
    pythons: list[str]
    images: list[Image]
    files: list[File]
    models: list[Model]

    @property
    def items(self) -> list[File | Image]:
        """Every file of the bundle but the manifest."""
        return [*self.files, *self.images]

    @property
    def size(self) -> int:
        """The bytes of all files together."""
        return sum(item.size for item in self.items)

    def weights(self, model: str) -> list[File]:
        """The files of one model's weights."""
        return [file for file in self.files if file.path.startswith(f"{WEIGHTS}{model}/")]


def parse(text: str, where: str) -> Manifest:
    """Read a manifest. Raises TandemError with one line for each fault: another format, unknown keys, paths.

    It is a DamagedError, and one line, when the text is not as it was written.
    """
    try:
        return _parse(text, where)
    except RecursionError:
        raise DamagedError(f"{where}: is no manifest of a bundle: nested too deeply") from None


def _parse(text: str, where: str) -> Manifest:
    try:
        data = json.loads(text)
    except ValueError as error:
        raise DamagedError(f"{where}: is no manifest of a bundle: not JSON: {error}") from None
    number = data.get("format") if isinstance(data, dict) else None
    if not isinstance(number, int) or isinstance(number, bool):
        raise DamagedError(f"{where}: is no manifest of a bundle: format should be {FORMAT}")
    # Before all else, or a changed letter would be taken for a wish. Only the first format has none.
    if (number == FORMAT or _SEAL in data) and data.pop(_SEAL, None) != _seal(data):
        raise DamagedError(f"{where}: is damaged: its sha256 is not what was saved")
    if number != FORMAT:
        raise TandemError(
            f"{where}: format {number}, and this Tandem reads format {FORMAT}; "
            "use the Tandem of the bundle's own tandem.tar"
        )
    try:
        found = Manifest.model_validate(data)
    except ValidationError as error:
        faults = [_fault(detail) for detail in error.errors(include_url=False)]
    else:
        faults = [*_path_faults(found), *_model_faults(found)]
    if faults:
        raise TandemError("\n".join(f"{where}: {fault}" for fault in faults))
    return found


def text(manifest: Manifest) -> str:
    """Write a manifest the way parse() reads it."""
    return sealed(manifest.model_dump())


def sealed(data: dict[str, Any]) -> str:
    """Write what a manifest says, with the sha256 of it."""
    return json.dumps(data | {_SEAL: _seal(data)}, indent=1, ensure_ascii=False) + "\n"


def _seal(data: dict[str, Any]) -> str:
    rest = {key: value for key, value in data.items() if key != _SEAL}
    return sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def unsafe(path: str) -> str | None:
    """Say why a path may not be used inside a folder; None when it stays inside and is spelt the one plain way."""
    if path.startswith("/") or re.match(r"[A-Za-z]:", path):
        return "is an absolute path"
    parts = path.split("/")
    if ".." in parts:
        return "climbs out of the folder"
    if "" in parts or "." in parts or "\\" in path or any(map(_unprintable, path)):
        return "is not a plain relative path"
    return None


def _unprintable(letter: str) -> bool:
    # Half of a surrogate pair is JSON, and no file's name.
    return letter < " " or "\ud800" <= letter <= "\udfff"


def _path_faults(manifest: Manifest) -> Iterable[str]:
    seen: set[str] = set()
    for item in manifest.items:
        fault = unsafe(item.path)
        if fault is None and item.path in seen:
            fault = "is there twice"
        if fault is None and item.path in (NAME, PARTIAL):
            fault = "is the manifest itself"
        if fault:
            yield f"path {json.dumps(item.path)} {fault}"
        seen.add(item.path)
    for image in manifest.images:
        if not image.path.startswith(IMAGES):
            yield f"path {json.dumps(image.path)} of an image should begin with {IMAGES}"


def _model_faults(manifest: Manifest) -> Iterable[str]:
    tags = [image.tag for image in manifest.images]
    yield from (f"image {tag} is there twice" for tag in sorted({tag for tag in tags if tags.count(tag) > 1}))
    for model in manifest.models:
        if model.image not in tags:
            yield f"model {model.name}: image {model.image} is not one of the bundle's: {', '.join(tags)}"
        paths = {file.path for file in manifest.weights(model.name)}
        pulled = f"{WEIGHTS}{model.name}/{PULLED}"
        fault = unsafe(model.name)
        if fault:
            yield f"model {json.dumps(model.name)} {fault}"
        elif pulled not in paths:
            yield f"model {model.name}: {pulled} is not one of the files"
        elif len(paths) == 1:
            yield f"model {model.name}: has no files but {PULLED}"


def _fault(detail: Any) -> str:
    path = ".".join(map(str, detail["loc"]))
    if detail["type"] == "extra_forbidden":
        valid = sorted(_fields(detail["loc"]))
        word = str(detail["loc"][-1])
        return f"{path}: unknown key" + suggest(word, valid, f"; valid keys: {', '.join(valid)}")
    if detail["type"] == "missing":
        return f"{path}: is missing"
    return f"{path}: {detail['msg'][0].lower()}{detail['msg'][1:]}, got {json.dumps(detail['input'])[:60]}"


def _fields(path: tuple[str | int, ...]) -> Iterable[str]:
    below: dict[str, type[_Shape]] = {"images": Image, "files": File, "models": Model}
    return list((below[str(path[0])] if len(path) > 1 else Manifest).model_fields)
