"""What models.toml becomes. Pure: profiles in, files out; project.py puts them on the disk."""

from collections.abc import Iterable

from orchestrator.profiles import Profile
from orchestrator.render.activator import activator
from orchestrator.render.box import FOLDER as BOX
from orchestrator.render.box import box
from orchestrator.render.compose import compose
from orchestrator.render.env import env
from orchestrator.render.file import NOTICE, File
from orchestrator.render.routes import routes
from orchestrator.render.schema import schema
from orchestrator.versions import Versions

__all__ = ["BOX", "NOTICE", "File", "box", "files"]


def files(profiles: Iterable[Profile], versions: Versions) -> list[File]:
    """Render every file that follows from models.toml, each with its path below the project's folder."""
    all_profiles = list(profiles)
    return [
        compose(all_profiles, versions),
        *(env(profile) for profile in all_profiles),
        routes(all_profiles),
        activator(all_profiles, versions),
        schema(),
    ]
