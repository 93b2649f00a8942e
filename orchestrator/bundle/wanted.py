"""What a bundle of some profiles has to hold of Docker's: their images, and the weights that are whole here."""

from collections.abc import Iterable
from dataclasses import dataclass

from orchestrator.bundle import manifest, weights
from orchestrator.bundle.manifest import Model
from orchestrator.errors import TandemError
from orchestrator.profiles import Profile
from orchestrator.project import Project
from orchestrator.storage import Held, Storage, Stored


@dataclass(frozen=True)
class Pulled:
    """A model whose weights go into the bundle: what to write of it."""

    model: Model
    held: Held
    names: list[str]

    def source(self, name: str) -> str:
        """What a file was when it was saved: its revision, size and time."""
        return " ".join(map(str, (self.model.revision, *self.held.files[name])))

    def path(self, name: str) -> str:
        """Where a file of it is in the bundle."""
        return f"{manifest.WEIGHTS}{self.model.name}/{name}"


def image_path(tag: str) -> str:
    """Where an image is in the bundle; no drive refuses such a name."""
    return manifest.IMAGES + tag.replace("/", "-").replace(":", "-") + ".tar"


def images(project: Project, storage: Storage, profiles: Iterable[Profile]) -> dict[str, Stored]:
    """Find the images of profiles by tag. Raises TandemError for one that is not on this machine."""
    present = storage.images()
    found = {}
    for profile in profiles:
        for tag in project.images(profile).values():
            if tag not in present:
                raise TandemError(
                    f"{tag}: no such image on this machine. Build it: python -m orchestrator build {profile.name}"
                )
            found[tag] = present[tag]
    return found


def pulled(project: Project, storage: Storage, profiles: Iterable[Profile]) -> list[Pulled]:
    """Find the weights of profiles. Raises TandemError for a model that is not whole on this machine."""
    found: dict[str, Pulled] = {}
    for profile in profiles:
        if profile.local:
            continue
        other = found.get(profile.model)
        if other is None:
            found[profile.model] = _one(profile, project.images(profile)[profile.name], storage)
        elif other.model.revision != profile.branch:
            raise TandemError(f"{profile.model}: these profiles want two revisions of it; save a bundle for each")
    return list(found.values())


def _one(profile: Profile, image: str, storage: Storage) -> Pulled:
    if not profile.pull:
        raise TandemError(
            f"{profile.name}: with pull = false its server fetches the weights itself and needs a network; "
            "leave out --weights, or that key"
        )
    held = storage.look(image, profile.model) if storage.has_weights() else None
    whole = weights.whole(profile.model, held.manifest, held.files) if held else None
    if held is None or whole is None or not whole.is_what(profile.source, profile.branch):
        other = f" (revision {whole.revision} of {whole.source} is)" if whole else ""
        raise TandemError(
            f"{profile.model}: revision {profile.branch} is not whole in {storage.weights}{other}. "
            f"Pull it: python -m orchestrator pull {profile.name}"
        )
    return Pulled(Model(name=profile.model, revision=profile.branch, image=image), held, whole.files)
