"""Which findings have a remedy that is safe and can be undone, as data: what is done and how it is undone. Pure."""

import shlex
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

    Of the runtime value is the copy that is made of Docker's configuration, "" where there is none to copy.

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
    copy = box.docker.copy
    argv = (
        # One that this user may not see is not to be lost.
        ("sudo", "cp", "-a", DAEMON, copy) if copy else ("sudo", "test", "!", "-e", DAEMON),
        ("sudo", "nvidia-ctk", "runtime", "configure", "--runtime=docker"),
        tuple(restart(box).split()),
    )
    return Remedy("runtime", DAEMON, copy, "Docker restarts, and with it all containers", argv)


def lines(argv: Sequence[Sequence[str]]) -> list[str]:
    """Write commands as they are typed."""
    return [shlex.join(each) for each in argv]
