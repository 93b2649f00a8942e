"""Runs an all-reduce in a model's own image, and keeps what came of it."""

from collections.abc import Callable, Mapping
from pathlib import Path

from orchestrator import imagestore
from orchestrator.doctor import derived, kept, nccl
from orchestrator.doctor.nccl import Result, Tried
from orchestrator.engine import Engine
from orchestrator.errors import TandemError
from orchestrator.imagestore import Ran
from orchestrator.profiles import Profile
from orchestrator.project import Project

PROGRAM = "docker/vllm/verify/allreduce.py"
INSIDE = "/tmp/tandem/allreduce.py"  # noqa: S108 (in a container of its own)
# How the program is run: argv and variables in, what came of it out.
Run = Callable[[list[str], Mapping[str, str]], Ran]


def environment(whole: Project, profile: Profile) -> dict[str, str]:
    """Give the variables that decide how NCCL goes about it, as the profile's server will have them."""
    found = derived.variables(whole.derived(profile)) | profile.env
    return {name: value for name, value in found.items() if name.startswith("NCCL_")}


def tried(whole: Project, idents: Mapping[str, str], profile: Profile) -> Tried:
    """Say for what a result counts; idents are the ids of the images here. The image is "" where it is not built."""
    build = whole.wanted(profile)
    driver = whole.box.driver if whole.box and whole.box.has(profile.gpus) else ""
    return Tried(idents.get(build.image, ""), build.tag, driver, tuple(profile.gpus))


def argv(profile: Profile) -> list[str]:
    """Build the command line inside the image; gloo stands in for NCCL where an image has no CUDA."""
    backend = "nccl" if profile.image == "cuda" else "gloo"
    return ["python", INSIDE, backend, ",".join(map(str, profile.gpus or (0, 1))), str(nccl.SECONDS)]


def once(run: Run, profile: Profile, variables: Mapping[str, str]) -> Result:
    """Try it once. Raises TandemError when the program itself did not work."""
    backend = argv(profile)[2]
    ran = run(argv(profile), variables)
    if ran.code is None:
        why = f"the container did not end in {nccl.LIMIT} s"
        return Result("hung", backend, "", why, environment=dict(variables))
    try:
        return nccl.said(ran.out, variables)
    except ValueError as error:
        last = next((line for line in reversed(ran.errors.splitlines()) if line.strip()), "it said nothing")
        raise TandemError(f"{error}; it ended with {ran.code}: {last}") from None


def runner(engine: Engine, folder: Path, image: str, profile: Profile) -> Run:
    """Give what runs it in a container of an image, with the GPUs and the shared memory of a profile."""
    try:
        files = {INSIDE: (folder / PROGRAM).read_bytes()}
    except OSError as error:
        raise TandemError(f"{folder / PROGRAM}: {error.strerror or error}; it is part of the project") from None

    def run(words: list[str], variables: Mapping[str, str]) -> Ran:
        return imagestore.run_for(
            engine, image, words, files, seconds=nccl.LIMIT, gpus=profile.gpus, environment=variables,
            shm=profile.shm_size,
        )  # fmt: skip

    return run


def prove(
    whole: Project, engine: Engine, profile: Profile, say: Callable[[str], None], run: Run | None = None
) -> tuple[Result, dict[str, str]]:
    """Try it as the profile's server would be run, keep what came of it, and give it with the variables it ran with.

    Raises TandemError when it could not be tried.
    """
    key, image = _key(whole, engine, profile)
    variables = environment(whole, profile)
    say(f"an all-reduce between its GPUs, once for this image and driver ({nccl.LIMIT} s at the most)")
    result = once(run or runner(engine, whole.folder, image, profile), profile, variables)
    say(str(result))
    if result.counts:
        kept.keep_results(whole.folder, nccl.with_result(kept.results(whole.folder), key, result))
    return result, variables


def mend(
    whole: Project, engine: Engine, profile: Profile, say: Callable[[str], None], run: Run | None = None
) -> Result:
    """Try what is left to switch off, in order, until an all-reduce ends; keep that, and give the last result.

    What was needed is among the profile's derived settings from then on. Raises TandemError when it cannot be tried.
    """
    key, image = _key(whole, engine, profile)
    run = run or runner(engine, whole.folder, image, profile)
    result = nccl.walk(environment(whole, profile), lambda variables: once(run, profile, variables), say)
    if result.state == "works":
        kept.keep_results(whole.folder, nccl.with_result(kept.results(whole.folder), key, result))
    return result


def _key(whole: Project, engine: Engine, profile: Profile) -> tuple[Tried, str]:
    key, image = tried(whole, engine.image_ids(), profile), whole.wanted(profile).image
    if not key.image:
        raise TandemError(f"{image} is not on this machine; build it: python -m orchestrator build {profile.name}")
    return key, image
