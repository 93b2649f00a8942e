"""Has a model sleep and wake once, as `sleep-test` does, and leaves it up as it was."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from orchestrator import states
from orchestrator.ask import Activator
from orchestrator.errors import TandemError
from orchestrator.measure import Measure
from orchestrator.profiles import Profile
from orchestrator.proof.checks import Check

# The router counts a request off when it is over, a moment after its answer: seconds until one in flight is another's.
OURS_SECONDS, LOOK_SECONDS = 2.0, 0.1


def sleep(
    activator: Activator,
    profile: Profile,
    measure: Measure,
    say: Callable[[str], None],
    *,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> Check:
    """Compare the same greedy tokens before and after a sleep and a wake; tells the activator, as a sleep test does."""
    why = _against(_quiet(activator, profile.name, clock, pause), profile)
    if why is not None:
        return why
    try:
        found = measure.cycles(profile.name, profile.gpus, 1)
    except TandemError as error:
        # Something came between: no room in the machine's memory, or somebody who wants another model.
        back = _back(activator, profile, say)
        return Check("sleep", "warn", f"not tried to the end: {str(error).splitlines()[0]}; {back}")
    except KeyboardInterrupt:
        say(f"interrupted: bringing {profile.name} back, which was put to sleep (Ctrl-C again leaves it as it is)")
        say(_back(activator, profile, say))
        raise
    if found.fault:
        return Check("sleep", "miss", f"{found.fault}; it sleeps no more until 'sleep-test' passes")
    cycle = found.cycles[0]
    took = f"asleep in {cycle.sleep.seconds:.1f} s, awake in {cycle.wake.seconds:.1f} s"
    return Check("sleep", "ok", f"the same tokens before and after: {took}")


def _quiet(
    activator: Activator, model: str, clock: Callable[[], float], pause: Callable[[float], None]
) -> Mapping[str, Any]:
    """Give what is said of the model, once nothing is in flight or when what is cannot be ours any more."""
    end = clock() + OURS_SECONDS
    while True:
        entry = states.entry(activator.require(), model)
        if not entry.get("in_flight") or clock() >= end:
            return entry
        pause(LOOK_SECONDS)


def _against(entry: Mapping[str, Any], profile: Profile) -> Check | None:
    """Say why its sleep is not tried; None when it is."""
    refused = str(entry.get("sleep") or profile.sleep)
    if refused == "off":
        return Check("sleep", "skipped", "not tried: sleep is off")
    if refused != "auto":
        return Check("sleep", "warn", f"not tried, as it went wrong before: {refused}; 'sleep-test' tries it again")
    if not entry.get("can_sleep", True):
        return Check("sleep", "skipped", "not tried: its server has no sleep mode")
    if entry.get("in_flight") or entry.get("waiting"):
        return Check("sleep", "skipped", "not tried: requests of others are in flight")
    return None


def _back(activator: Activator, profile: Profile, say: Callable[[str], None]) -> str:
    """Bring the model up again, which was up, unless somebody else has its GPUs now; how that went."""
    status = activator.status() or {}
    if states.entry(status, profile.name).get("state") == "ready":
        return f"{profile.name} is up"
    others = states.rivals(status, profile.name, profile.gpus)
    if others:
        return f"{', '.join(others)} is wanted now, so {profile.name} is left as it is"
    say(f"bringing {profile.name} up again")
    try:
        activator.do("up", profile.name)
    except TandemError as error:
        return f"it did not come up again: {error}"
    return f"{profile.name} is up again"
