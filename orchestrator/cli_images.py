"""The commands about images: build, images."""

import json
import time
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator import session

if TYPE_CHECKING:
    from orchestrator.project import Project
    from orchestrator.versions import Choice

Name = Annotated[
    str | None,
    typer.Argument(metavar="NAME", help="A profile; by default the one that `up` brings up.", show_default=False),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]


def build(
    context: typer.Context,
    name: Name = None,
    vllm: Annotated[
        str | None, typer.Option(help="A version of docker/vllm/versions.toml, whatever the profile says.")
    ] = None,
    target: Annotated[str | None, typer.Option(help="cuda or cpu, whatever the profile says.")] = None,
    as_json: Json = False,
) -> None:
    """Build the images that a profile needs: the newest vLLM that the driver runs, unless told otherwise."""
    from orchestrator import builder, project

    whole = session.project(context)
    choice = _choice(whole, name, vllm, target)
    session.say(f"vLLM {choice.build.version} ({choice.build.name}): {choice.why}")
    project.write(whole.folder, project.stale(whole.folder, whole.rendered()))
    images = [*project.OWN_IMAGES, choice.build.image]
    builder.build(whole, session.engine(whole), images, session.say)
    print(json.dumps({"images": images, "why": choice.why}) if as_json else "\n".join(images))


def _choice(whole: "Project", name: str | None, vllm: str | None, target: str | None) -> "Choice":
    """Choose what to build: what the options say, for the rest what the profile says."""
    from orchestrator.errors import TandemError
    from orchestrator.versions import VARIANTS

    if target is not None and target not in VARIANTS:
        raise TandemError(f"--target: should be one of {', '.join(VARIANTS)}, got {target}")
    profile = session.target(whole, name)
    if vllm is None and target is None:
        return whole.choice(profile)
    pinned = profile.vllm if vllm is None else vllm
    offered = whole.versions.variants(whole.versions.default if pinned is None else pinned)
    wanted = profile.image if target is None else next(found for found in VARIANTS if found == target)
    # With --vllm alone, a version that lacks the profile's variant is built in the one that it has.
    variant = offered[0] if target is None and wanted not in offered else wanted
    return whole.versions.choose(
        variant,
        pinned=pinned,
        tag=whole.settings.get("TANDEM_VLLM"),
        driver=whole.driver() if variant == "cuda" else "",
        by="models.toml" if vllm is None else "--vllm",
    )


def images(
    context: typer.Context,
    prune: Annotated[
        bool, typer.Option("--prune", help="Remove those that no profile uses, and the kernels compiled for them.")
    ] = False,
    as_json: Json = False,
) -> None:
    """List Tandem's images with size and age: which profiles use them, and which are older than docker/ says."""
    from orchestrator import imagestore, inventory

    whole = session.project(context)
    engine = session.engine(whole)
    used, digests = _in_use(whole)
    rows = inventory.rows(imagestore.images(engine), used, digests)
    if not prune:
        print(json.dumps([row.json() for row in rows]) if as_json else inventory.table(rows, time.time()))
        return
    # The kernels of a version in use stay, also while its image is not there.
    kept = {name.rpartition(":")[2] for name in [*used, *(row.name for row in rows if not row.removable)]}
    removed = [row for row in rows if row.removable]
    for row in removed:
        session.say(f"removing {row.name}")
        imagestore.remove_image(engine, row.image)
    volumes = [name for name in imagestore.cache_volumes(engine) if name.partition("_cache-")[2] not in kept]
    for name in volumes:
        session.say(f"removing {name}, kernels that were compiled for it")
        imagestore.remove_volume(engine, name)
    freed = sum(row.image.size for row in removed)
    if as_json:
        print(json.dumps({"removed": [row.json() for row in removed], "volumes": volumes}))
    else:
        print(f"removed {len(removed)} images, {freed / 1e9:.1f} GB, and {len(volumes)} volumes of compiled kernels")


def _in_use(whole: "Project") -> tuple[dict[str, list[str]], dict[str, str]]:
    """Say which profiles use an image, by its name, and the digest of what each image would be built from now."""
    from orchestrator import base, contents, project

    used: dict[str, list[str]] = {image: [service] for image, service in project.OWN_IMAGES.items()}
    used[base.OWN_IMAGE] = ["builds"]
    for profile in whole.profiles.values():
        used.setdefault(whole.wanted(profile).image, []).append(profile.name)
    made = [image for image in used if image != base.OWN_IMAGE]
    return used, {image: contents.digest(whole.folder, whole.made(image)) for image in made}
