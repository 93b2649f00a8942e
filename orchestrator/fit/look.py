"""Finds out what a profile's model is like: from its folder, from the volume of weights, or from its hub."""

from dataclasses import dataclass
from typing import Any

from orchestrator.engine import Engine
from orchestrator.errors import TandemError
from orchestrator.fit import hub, inside
from orchestrator.fit.weights import Tensor
from orchestrator.profiles import Profile
from orchestrator.project import Project
from orchestrator.storage import Storage


@dataclass(frozen=True)
class Found:
    """A model's config.json, its tensors or else the bytes of all its weights, and where that comes from.

    fault is what is wrong with the weights, "" when nothing is.
    """

    config: dict[str, Any]
    source: str
    tensors: tuple[Tensor, ...] = ()
    size: int | None = None
    fault: str = ""


def look(whole: Project, engine: Engine, target: Profile) -> Found | str:
    """Look at a model without changing anything; the reason in a few words when nothing is known of it."""
    if target.local:
        return _read(inside.summary, whole.folder / target.model, "the headers of its folder")
    here = _pulled(whole, engine, target) if target.pull else "the server fetches it itself"
    if isinstance(here, Found) and not here.fault:
        return here
    listed = hub.ask(whole.settings, target)
    if isinstance(listed, str):
        return here if isinstance(here, Found) else f"it is not pulled, and the hub does not say ({listed})"
    return Found(listed.config, "the hub's list of files", size=listed.size or None)


def _pulled(whole: Project, engine: Engine, target: Profile) -> Found | str:
    """Look at what was pulled: in the folder of TANDEM_MODELS from here, in a volume from a container."""
    storage = Storage(engine, whole.settings.get("TANDEM_MODELS"))
    try:
        if not storage.has_weights():
            return "nothing was pulled yet"
        if storage.in_folder:
            return _read(storage.summary_here, target.model, "the headers of its folder")
        image = _image(whole, engine, target)
        if image is None:
            return "no image is here that could look into the volume"
        return _found(storage.summary(image, target.model), "the headers of what was pulled")
    except TandemError as error:
        return str(error)


def _image(whole: Project, engine: Engine, target: Profile) -> str | None:
    """An image that has Python: the profile's own, or else any of vLLM."""
    present = engine.images()
    builds = [build.image for found in whole.versions.builds.values() for build in found.values()]
    return next((image for image in (whole.choice(target).build.image, *builds) if image in present), None)


def _read(summary: Any, place: Any, source: str) -> Found | str:
    try:
        return _found(summary(place), source)
    except OSError as error:
        return f"it cannot be read: {error.strerror or error}"


def _found(said: dict[str, Any], source: str) -> Found | str:
    if said["config"] is None:
        return str(said["fault"])
    try:
        tensors = tuple(Tensor(name, dtype, tuple(map(int, shape))) for name, dtype, shape in said["tensors"])
    except (ValueError, TypeError):
        return Found(said["config"], source, fault="its headers are not those of safetensors")
    return Found(said["config"], source, tensors, fault=said["fault"])
