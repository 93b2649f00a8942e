"""box/<profile>.env: the settings of a server that follow from this machine. Pure.

A server's entrypoint reads it at each start (docker/vllm/gating/machine.py); git ignores it. It is no env_file of
Compose's: `docker compose config --hash` leaves those out and `up` does not, so every container would look changed.
"""

from collections.abc import Iterable

from orchestrator.doctor.derived import Setting, variables
from orchestrator.profiles import Profile
from orchestrator.render.file import NOTICE, File

FOLDER = "box"


def path(profile: Profile) -> str:
    """Name the file of a profile."""
    return f"{FOLDER}/{profile.name}.env"


def box(profile: Profile, settings: Iterable[Setting]) -> list[File]:
    """Render the file of one profile; none where nothing follows."""
    listed = [setting for setting in settings if not setting.off]
    if not listed:
        return []
    reasons = [f"# {setting}: {setting.reason}" for setting in listed]
    values = [f"{name}={value}" for name, value in variables(listed).items()]
    head = [f"# {NOTICE}", f"# and from {FOLDER}/machine.json. docs/doctor-gpus.md says how to turn one off."]
    return [File(path(profile), "\n".join([*head, *reasons, *values, ""]))]
