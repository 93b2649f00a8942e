"""Looks at this machine's GPUs: asks nvidia-smi, and /proc for the containers of the processes on them."""

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from orchestrator import host
from orchestrator.doctor import smi
from orchestrator.doctor.smi import Card, Seen

PROC = Path("/proc")
# Docker's ids, however a cgroup is spelt: /docker/ID, /system.slice/docker-ID.scope, /kubepods/…/ID.
_CONTAINER = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
# Runs nvidia-smi with arguments: its exit code, None where there is no such program, and what it printed.
Runner = Callable[[Sequence[str]], tuple[int | None, str]]


def look(run: Runner = host.nvidia_smi, proc: Path = PROC) -> Seen:
    """Look once, in about a second. What cannot be read is said in the answer, and nothing is raised."""
    linux = wsl(proc)
    code, said = run(smi.QUERY)
    if code is None:
        return Seen(linux, fault=said or "there is no nvidia-smi", absent=not said)
    if code:
        return Seen(linux, fault=_first(said) or f"nvidia-smi ended with {code}")
    try:
        driver, cards = smi.report(said)
    except ValueError as error:
        return Seen(linux, fault=str(error))
    if not cards:
        return Seen(linux, fault="the driver shows no GPU", driver=driver)
    found = smi.with_capabilities(cards, _asked(run, smi.CAPABILITIES))
    pairs = smi.links(_asked(run, smi.PEERS)) if len(cards) > 1 else []
    return Seen(linux, driver=driver, cards=tuple(found), links=tuple(pairs), containers=_containers(found, proc))


def _asked(run: Runner, question: Sequence[str]) -> str:
    """What an answer holds; "" where this driver does not know the question."""
    code, said = run(question)
    return said if code == 0 else ""


def _first(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def wsl(proc: Path = PROC) -> bool:
    """Whether this is WSL: its kernels have Microsoft's name, in the release or in the version."""
    names = (proc / "sys/kernel/osrelease", proc / "version")
    return any("microsoft" in _read(path).lower() for path in names)


def _containers(cards: Iterable[Card], proc: Path) -> dict[int, str]:
    pids = {holder.pid for card in cards for holder in card.holders}
    found = {pid: _CONTAINER.findall(_read(proc / str(pid) / "cgroup")) for pid in pids}
    # The innermost, where one is in another.
    return {pid: idents[-1] for pid, idents in found.items() if idents}


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
