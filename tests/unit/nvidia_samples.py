"""Recorded answers of nvidia-smi for two RTX 4090s, and what is changed in them for a test."""

from collections.abc import Callable, Sequence
from pathlib import Path

from orchestrator.doctor import nvidia, smi
from orchestrator.doctor.smi import Seen
from tests.unit.values import ROOT

FOLDER = ROOT / "tests/standins/nvidia_smi"
LINUX, WSL2, NONE_P2P = ((FOLDER / name).read_text() for name in ("linux.xml", "wsl2.xml", "p2p.txt"))
DEAD, ALIVE = "d" * 64, "a" * 64


def proc(folder: Path, *, wsl: bool = False, **cgroups: str) -> Path:
    """A folder that stands for /proc: of WSL or of Debian, with the cgroups of processes, by p1234."""
    kernel = "6.6.87.2-microsoft-standard-WSL2" if wsl else "6.1.0-40-amd64"
    found = folder / "proc"
    (found / "sys/kernel").mkdir(parents=True, exist_ok=True)
    (found / "sys/kernel/osrelease").write_text(f"{kernel}\n")
    for pid, line in cgroups.items():
        (found / pid[1:]).mkdir(exist_ok=True)
        (found / pid[1:] / "cgroup").write_text(f"0::{line}\n")
    return found


def process(pid: int, kind: str, name: str, used: str) -> str:
    """One entry of the list of processes."""
    return (
        "<process_info><gpu_instance_id>N/A</gpu_instance_id><compute_instance_id>N/A</compute_instance_id>"
        f"<pid>{pid}</pid><type>{kind}</type><process_name>{name}</process_name><used_memory>{used}</used_memory>"
        "</process_info>"
    )


def on_first(text: str, *processes: str) -> str:
    """The same with processes on GPU 0."""
    return text.replace("<processes>", "<processes>" + "".join(processes), 1)


def runner(
    text: str, *, capabilities: str = "0, 8.9\n1, 8.9\n", peers: str = NONE_P2P, code: int | None = 0
) -> Callable[[Sequence[str]], tuple[int | None, str]]:
    """An nvidia-smi that prints this; code is that of its main answer, None where there is none."""
    answers = {smi.CAPABILITIES: capabilities, smi.PEERS: peers}

    def run(arguments: Sequence[str]) -> tuple[int | None, str]:
        if tuple(arguments) == smi.QUERY:
            return code, text
        said = answers[tuple(arguments)]
        return (0, said) if said else (255, "Option is not recognized")

    return run


def seen(folder: Path, text: str = LINUX, *, capabilities: str = "0, 8.9\n1, 8.9\n", peers: str = NONE_P2P,
         code: int | None = 0, **cgroups: str) -> Seen:  # fmt: skip
    """Look at a machine; whether it is WSL follows from the answer."""
    under = proc(folder, wsl="<current_dm>WDDM" in text, **cgroups)
    return nvidia.look(runner(text, capabilities=capabilities, peers=peers, code=code), under)
