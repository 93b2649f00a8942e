"""Says what a loaded bundle needs before `up`: where this machine would take another image than the bundle brings."""

from collections.abc import Collection, Sequence
from typing import NamedTuple

from orchestrator.errors import TandemError
from orchestrator.profiles import Profile
from orchestrator.project import OWN_IMAGES, Project
from orchestrator.versions import Build, number


class Advice(NamedTuple):
    """What is wrong, and what to do next; a line each."""

    warnings: list[str]
    next: list[str]


class _Trouble(NamedTuple):
    what: str
    mend: str = ""
    # Whether `up` works then.
    runs: bool = False


def advise(project: Project, profiles: Sequence[str], brought: Collection[str]) -> Advice:
    """Say what to do with a bundle of these profiles that brings these images. A driver too old is no error here."""
    troubles = {name: _trouble(project, name, brought) for name in profiles}
    found = [trouble for trouble in troubles.values() if trouble is not None]
    ready = [name for name, trouble in troubles.items() if trouble is None or trouble.runs]
    steps = [*dict.fromkeys(trouble.mend for trouble in found if trouble.mend)]
    return Advice(
        [*dict.fromkeys(trouble.what for trouble in found)],
        [*steps, *(f"python -m orchestrator up {name}" for name in ready[:1])],
    )


def _trouble(project: Project, name: str, brought: Collection[str]) -> _Trouble | None:
    profile = project.profiles.get(name)
    if profile is None:
        return _Trouble(f"the bundle is for {name}, which this models.toml does not have")
    missing = next((image for image in OWN_IMAGES if image not in brought), None)
    if missing is not None:
        return _Trouble(
            f"this Tandem wants the image {missing}, which the bundle does not bring",
            "use the Tandem of the bundle's own tandem.tar",
        )
    try:
        wanted = project.choice(profile).build.image
        what = f"{name} wants the image {wanted} here, which the bundle does not bring"
    except TandemError as error:
        wanted, what = "", f"{name}: {str(error).splitlines()[0]}"
    if wanted in brought:
        return None
    there = [build for build in project.versions.by_tag(profile.image).values() if build.image in brought]
    driver = project.driver() if profile.image == "cuda" else ""
    running = [build for build in there if build.runs_on(driver)]
    if running:
        return _Trouble(what, f"put {_setting(profile, _newest(running))}", runs=True)
    return _too_new(project, profile, _newest(there), driver) if there else _Trouble(what)


def _too_new(project: Project, profile: Profile, build: Build, driver: str) -> _Trouble:
    older = project.versions.newest_for(driver)
    other = f"; or on the machine with a network put {_setting(profile, older)}, build and save again" if older else ""
    return _Trouble(
        f"{profile.name}: the bundle brings vLLM {build.version}, which needs NVIDIA driver {build.driver} or newer; "
        f"this machine has {driver}",
        f"update the driver to {build.driver} or newer (under WSL2: the one of Windows){other}",
    )


def _newest(builds: Collection[Build]) -> Build:
    return max(builds, key=lambda build: number(build.version))


def _setting(profile: Profile, build: Build) -> str:
    # What models.toml says of a profile beats TANDEM_VLLM, which is for GPUs alone.
    if profile.vllm or build.variant == "cpu":
        return f'vllm = "{build.version}" for {profile.name} into models.toml'
    return f"TANDEM_VLLM={build.tag} into .env"
