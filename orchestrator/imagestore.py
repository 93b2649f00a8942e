"""The images and volumes of ours that Docker keeps: lists and removes them. Engine's part for what does not run."""

from orchestrator.engine import Engine, expected
from orchestrator.states import Image

# Our images are called tandem/...; one that lost its name still has a label of ours.
PREFIX = "tandem/"
LABEL = "tandem.inputs"


@expected
def images(engine: Engine) -> list[Image]:
    """List our images, newest first; an image with two names is listed twice."""
    used: dict[str, list[str]] = {}
    for container in engine.client.api.containers(all=True):
        used.setdefault(container["ImageID"], []).append(container["Names"][0].lstrip("/"))
    found = []
    for entry in engine.client.api.images():
        labels = entry.get("Labels") or {}
        names = [name for name in entry.get("RepoTags") or () if name.startswith(PREFIX)]
        if not names and LABEL in labels and not entry.get("RepoTags"):
            names = [""]
        users = tuple(sorted(used.get(entry["Id"], ())))
        found += [Image(entry["Id"], name, entry["Size"], entry["Created"], labels, users) for name in names]
    return sorted(found, key=lambda image: (-image.created, image.name))


@expected
def remove_image(engine: Engine, image: Image) -> None:
    """Take away an image's name, and with its last name the image."""
    engine.client.api.remove_image(image.name or image.ident)


@expected
def remove_volume(engine: Engine, name: str) -> None:
    """Remove a volume."""
    engine.client.api.remove_volume(name)


@expected
def cache_volumes(engine: Engine) -> list[str]:
    """Name the project's volumes of compiled kernels that no container has."""
    filters = {"label": f"com.docker.compose.project={engine.project}", "dangling": "true"}
    found = engine.client.api.volumes(filters=filters)["Volumes"] or []
    return sorted(volume["Name"] for volume in found if volume["Name"].startswith(f"{engine.project}_cache-"))
