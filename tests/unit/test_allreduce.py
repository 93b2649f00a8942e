"""The program that tries an all-reduce, as processes, with a stand-in for torch that a test tells what to do."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.checkout import PATIENCE
from tests.unit.values import ROOT, script

PROGRAM = ROOT / "docker/vllm/verify/allreduce.py"
# Ranks meet in the folder of their meeting, as they do with torch's own; what they sum is a number.
TORCH = """
import os, sys, time
from pathlib import Path

MODE = os.environ["STANDIN"]
if MODE == "slow import":
    time.sleep(600)
if MODE == "no torch":
    raise ImportError("libcuda.so.1: cannot open shared object file")
float32 = None


def hang(rank):
    (Path(os.environ["LOG"]).parent / f"hangs-{rank}").touch()
    time.sleep(600)


class Data(int):
    def __mod__(self, other): return self
    def __mul__(self, other): return Data(int(self) * other)


def arange(*_, **__): return Data(1)
def device(*words): return words
def equal(one, other): return distributed.sums.get(id(one), int(one)) == int(other) and MODE != "wrong"


class cuda:
    device_count = staticmethod(lambda: int(os.environ.get("SEEN", "2")))
    set_device = staticmethod(lambda device: Path(os.environ["LOG"]).open("a").write(f"{device[1]}\\n"))
    synchronize = staticmethod(lambda: None)


class distributed:
    sums = {}

    @staticmethod
    def init_process_group(backend, init_method, rank, world_size, timeout):
        distributed.rank, distributed.size = rank, world_size
        if MODE == "hang at the start":
            hang(rank)
        if MODE == "fails" and rank == 1:
            raise RuntimeError("NCCL error: unhandled cuda error")

    @staticmethod
    def all_reduce(data):
        if MODE == "hang" or (MODE == "fails" and distributed.rank == 0):
            hang(distributed.rank)
        if MODE == "killed" and distributed.rank == 1:
            os.kill(os.getpid(), 9)
        distributed.sums[id(data)] = sum(range(1, distributed.size + 1))
"""


def tried(folder: Path, mode: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    (folder / "torch.py").write_text(TORCH)
    return subprocess.run(
        [sys.executable, str(PROGRAM), *arguments], check=False, capture_output=True, text=True, timeout=2 * PATIENCE,
        env={"STANDIN": mode, "PYTHONPATH": str(folder), "PATH": "/usr/bin:/bin", "LOG": str(folder / "log"),
             "TMPDIR": str(folder), **environment},
    )  # fmt: skip


def said(folder: Path, mode: str, *arguments: str, **environment: str) -> dict[str, Any]:
    done = tried(folder, mode, *(arguments or ("nccl", "0,1", str(PATIENCE))), **environment)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    return dict(json.loads(line))


def test_an_all_reduce_that_works_has_its_numbers(tmp_path: Path) -> None:
    found = said(tmp_path, "works")
    assert (found["state"], found["backend"], found["phase"], found["why"]) == ("works", "nccl", "done", "")
    assert found["seconds"] >= 0
    assert found["gigabytes_per_second"] is None or found["gigabytes_per_second"] > 0


def test_gloo_is_named_as_what_it_is(tmp_path: Path) -> None:
    assert said(tmp_path, "works", "gloo", "0,1", str(PATIENCE))["backend"] == "gloo"


def test_sums_that_are_not_right_are_found(tmp_path: Path) -> None:
    found = said(tmp_path, "wrong")
    assert (found["state"], found["why"]) == ("wrong", "the sums are not right")


class Clock:
    """Time for who waits for the ranks: it stands still until both hang, and then goes by at each look."""

    sleep = staticmethod(time.sleep)

    def __init__(self, folder: Path) -> None:
        self._folder, self._now = folder, 0.0

    def monotonic(self) -> float:
        if len(list(self._folder.glob("hangs-*"))) == 2:
            self._now += 1
        return self._now


@pytest.mark.parametrize(("mode", "phase"), [("hang", "first"), ("hang at the start", "join")])
def test_what_hangs_is_given_up_in_its_time_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, phase: str
) -> None:
    (tmp_path / "torch.py").write_text(TORCH)
    for name, value in {"STANDIN": mode, "PYTHONPATH": str(tmp_path), "LOG": str(tmp_path / "log")}.items():
        monkeypatch.setenv(name, value)
    program = script("docker/vllm/verify/allreduce.py")
    monkeypatch.setattr(program, "time", Clock(tmp_path))
    monkeypatch.setattr(program.tempfile, "tempdir", str(tmp_path))
    found = program.supervise("nccl", [0, 1], 20)
    assert (found["state"], found["phase"], found["why"]) == ("hung", phase, "no end in 20 s")
    processes = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert str(tmp_path) not in processes
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("tmp")] == []


def test_the_error_of_a_rank_is_told_while_the_other_waits(tmp_path: Path) -> None:
    found = said(tmp_path, "fails")
    assert (found["state"], found["why"]) == ("failed", "RuntimeError: NCCL error: unhandled cuda error")


def test_a_rank_that_is_killed_is_told_of(tmp_path: Path) -> None:
    found = said(tmp_path, "killed")
    assert (found["state"], found["why"]) == ("failed", "rank 1 ended with -9")


def test_an_image_whose_torch_does_not_load_says_why(tmp_path: Path) -> None:
    found = said(tmp_path, "no torch")
    assert (found["state"], found["phase"]) == ("failed", "import")
    assert found["why"] == "ImportError: libcuda.so.1: cannot open shared object file"


def test_too_few_gpus_are_an_error(tmp_path: Path) -> None:
    assert said(tmp_path, "works", SEEN="1")["why"] == "2 GPUs are needed, and 1 can be seen"


@pytest.mark.parametrize(("seen", "used"), [("2", {"0", "1"}), ("4", {"1", "3"})])
def test_gpus_are_those_of_the_container_or_of_the_machine(tmp_path: Path, seen: str, used: set[str]) -> None:
    assert said(tmp_path, "works", "nccl", "1,3", str(PATIENCE), SEEN=seen)["state"] == "works"
    assert set((tmp_path / "log").read_text().split()) == used


def test_imports_have_a_time_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torch.py").write_text(TORCH)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("STANDIN", "slow import")
    found = script("docker/vllm/verify/allreduce.py").supervise("gloo", [0, 1], 20, imports=0.3)
    assert (found["state"], found["why"]) == ("failed", "torch was not imported in 0.3 s")


@pytest.mark.parametrize("arguments", [(), ("mpi", "0,1"), ("nccl",), ("nccl", "0,1", "2", "3")])
def test_wrong_arguments_are_refused(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = tried(tmp_path, "works", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "allreduce.py BACKEND GPUS" in done.stderr
