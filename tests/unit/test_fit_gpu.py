"""What nvidia-smi says of memory and processes, recorded; and what of it is not known."""

from pathlib import Path

import pytest

from orchestrator import host
from orchestrator.fit import gpu
from orchestrator.fit.gpu import MIB, Gpu, Process

TWO = """\
0, GPU-a1, NVIDIA GeForce RTX 4090, 24564, 812, 23271, 481
1, GPU-b2, NVIDIA GeForce RTX 4090, 24564, 4, 24078, 482
"""
HELD = """\
GPU-a1, 1234, /usr/lib/xorg/Xorg, 300
GPU-a1, 99, python3, [N/A]
GPU-zz, 7, other, 5
"""


def smi(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_memory_is_asked_of_the_driver_with_who_holds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gpus").write_text(TWO)
    (tmp_path / "processes").write_text(HELD)
    smi(tmp_path, monkeypatch, f"""
[ "$2" = --format=csv,noheader,nounits ] || exit 9
case "$1" in
--query-gpu=index,uuid,name,memory.total,memory.used,memory.free,memory.reserved) cat {tmp_path}/gpus;;
--query-compute-apps=gpu_uuid,pid,process_name,used_memory) cat {tmp_path}/processes;;
*) exit 2;;
esac""")  # fmt: skip
    processes = (Process(1234, "/usr/lib/xorg/Xorg", 300 * MIB), Process(99, "python3", None))
    assert host.gpu_memory() == [
        Gpu(0, "NVIDIA GeForce RTX 4090", 24083 * MIB, 23271 * MIB, 812 * MIB, processes),
        Gpu(1, "NVIDIA GeForce RTX 4090", 24082 * MIB, 24078 * MIB, 4 * MIB),
    ]


def test_a_driver_that_does_not_know_what_it_keeps_is_asked_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    smi(tmp_path, monkeypatch, """
case "$1" in
*reserved*) echo 'Field "memory.reserved" is not a valid field to query.'; exit 2;;
--query-gpu=*) echo "0, GPU-a, Tesla, 16000, 100, 15500";;
esac""")  # fmt: skip
    assert host.gpu_memory() == [Gpu(0, "Tesla", 15600 * MIB, 15500 * MIB, 100 * MIB)]


@pytest.mark.parametrize("script", ["exit 9", "echo 550.54.14", "echo No devices were found", "exit 0"])
def test_a_machine_without_gpus_tells_of_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    smi(tmp_path, monkeypatch, script)
    assert host.gpu_memory() == []


@pytest.mark.parametrize(
    "line", ["", "0, GPU-a, X, 100, 1", "x, GPU-a, X, 100, 1, 99", "0, GPU-a, X, [N/A], 1, 99", "1 2 3"]
)
def test_a_line_that_is_no_gpu_is_none(line: str) -> None:
    assert gpu.read(line, "") == []


@pytest.mark.parametrize(
    ("line", "process"),
    [
        ("GPU-a, 12, C:\\a,b.exe, 5", Process(12, "C:\\a,b.exe", 5 * MIB)),
        ("GPU-a, [N/A], [Insufficient Permissions], [N/A]", Process(None, "[Insufficient Permissions]", None)),
    ],
)
def test_who_holds_memory_as_far_as_it_is_told(line: str, process: Process) -> None:
    (found,) = gpu.read("0, GPU-a, X, 100, 1, 99", line)
    assert found.processes == (process,)


@pytest.mark.parametrize(
    ("pids", "held"),
    [({1}, 10), ({1, 2}, 30), ({3}, None), ({1, 3}, None), ({9}, None), (set(), None)],
)
def test_what_processes_hold_is_known_only_of_those_that_are_told_of(pids: set[int], held: int | None) -> None:
    listed = (Process(1, "a", 10), Process(2, "b", 20), Process(3, "c", None))
    assert gpu.attributed(Gpu(0, "X", 100, 70, 30, listed), pids) == held
