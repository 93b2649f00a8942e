"""Which findings have a remedy that is safe and can be undone, as data: what is done and how it is undone. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from orchestrator.doctor import checks_docker, checks_files, checks_network
from orchestrator.doctor.box import Box
from orchestrator.doctor.checks_memory import restart

# What a file is kept as before it is rewritten.
KEPT = ".before-doctor"
DAEMON = "/etc/docker/daemon.json"


@dataclass(frozen=True)
class Remedy:
    """One thing that --fix does. subject is a file or a folder, or a setting whose value is value.

    argv are the commands of one that changes the machine itself, which is asked for first: cause says what it costs.
    """

    kind: Literal["ends", "folder", "setting", "runtime"]
    subject: str
    value: str = ""
    cause: str = ""
    argv: tuple[tuple[str, ...], ...] = ()


def remedies(box: Box) -> list[Remedy]:
    """Name what can be done about a machine, in order."""
    found = [Remedy("ends", each.path) for each in box.files.ends if not each.script]
    if box.files.models and box.files.models_missing and checks_files.models(box).status == "bad":
        found.append(Remedy("folder", box.files.models.path))
    port = checks_network.port(box)
    if port.blocks and box.port.refused == "taken" and box.port.other:
        found.append(Remedy("setting", "TANDEM_PORT", str(box.port.other), port.found))
    if not box.docker.fault and checks_docker.socket(box).status == "bad":
        found.append(Remedy("setting", "TANDEM_DOCKER_SOCKET", box.docker.address.removeprefix("unix://")))
    if not box.docker.fault and not box.docker.rootless and checks_docker.toolkit(box).status == "warn":
        found.append(_runtime(box))
    return found


def _runtime(box: Box) -> Remedy:
    argv = (
        ("sudo", "sh", "-c", f"[ ! -e {DAEMON} ] || [ -e {DAEMON}{KEPT} ] || cp -a {DAEMON} {DAEMON}{KEPT}"),
        ("sudo", "nvidia-ctk", "runtime", "configure", "--runtime=docker"),
        ("sudo", *restart(box).split()[1:]),
    )
    return Remedy("runtime", DAEMON, cause="Docker restarts, and with it all containers", argv=argv)


def lines(argv: Sequence[Sequence[str]]) -> list[str]:
    """Write commands as they are typed."""
    return [" ".join(f"'{word}'" if " " in word else word for word in each) for each in argv]
