"""Works out what the profiles need of this machine: weights, images, memory."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from orchestrator.doctor import reading
from orchestrator.doctor.box import Need
from orchestrator.doctor.looking import size_below
from orchestrator.profiles import Profile
from orchestrator.project import Project

GIGABYTE = 10**9


def needs(
    whole: Project,
    images: Collection[str],
    listed: Mapping[str, Any] | None,
    asleep: Mapping[str, int],
    profiles: Iterable[Profile] | None = None,
    *,
    below: Callable[[Path], int] = size_below,
) -> tuple[Need, ...]:
    """Say what each profile needs.

    images are the tags that are here; listed is what is known of the weights (Weights.listing's models), None when
    nobody could look; asleep are the bytes of host memory that models were seen to take asleep.
    """
    return tuple(
        replace(
            _need(whole, profile, images, (listed or {}).get(profile.model) or {}, asleep.get(profile.name, 0), below),
            looked=listed is not None or not profile.pulled,
        )
        for profile in (whole.profiles.values() if profiles is None else profiles)
    )


def _need(
    whole: Project,
    profile: Profile,
    images: Collection[str],
    there: Mapping[str, Any],
    asleep: int,
    below: Callable[[Path], int],
) -> Need:
    build = whole.wanted(profile)
    weights, here, source = _weights(whole, profile, there, asleep, below)
    return Need(
        profile=profile.name,
        model=profile.model,
        gpus=len(profile.gpus),
        weights=weights,
        source=source,
        here=here,
        image=build.image,
        build=int(build.gigabytes * GIGABYTE),
        built=build.image in images,
        sleeps=profile.sleep == "auto",
        shm=reading.size(profile.shm_size) or 0,
        offload=_offload(profile),
    )


def _weights(
    whole: Project, profile: Profile, there: Mapping[str, Any], asleep: int, below: Callable[[Path], int]
) -> tuple[int | None, int, str]:
    """The bytes of a profile's weights, how many of them are here, and where the size is from."""
    if profile.local:
        size = below(whole.folder / profile.model)
        return size, size, "its folder"
    here = int(there.get("bytes") or 0)
    total = int(there.get("total") or 0) or (here if there.get("state") == "complete" else 0)
    if total:
        return total, here, "what was pulled"
    if asleep:
        return asleep, here, "what it took asleep"
    estimate = reading.by_name(profile.model)
    return estimate, here, "its name" if estimate else ""


def _offload(profile: Profile) -> int:
    """What vLLM pins for weights that do not stay on the GPU: --cpu-offload-gb is GiB for each GPU."""
    said = profile.args.get("cpu-offload-gb", 0)
    usable = isinstance(said, (int, float)) and not isinstance(said, bool)
    return int(said * (1 << 30)) * max(1, profile.tensor_parallel_size) if usable else 0
