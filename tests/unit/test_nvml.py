"""The reader of NVIDIA's library, with a stand-in for it that keeps the library's protocol."""

import ctypes
from collections.abc import Iterator
from pathlib import Path

import nvml
import pytest
from nvml import Fault, Gpu, Process

from tests.standins.nvml import RESERVED, TOTAL, GiB, Gpus


@pytest.fixture
def gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Gpus:
    monkeypatch.setenv("TANDEM_STANDIN_NVML", str(tmp_path / "nvml"))
    return Gpus(tmp_path / "nvml")


@pytest.fixture
def library(gpus: Gpus, nvml_library: Path) -> Iterator[nvml.Nvml]:
    found = nvml.load((str(nvml_library),))
    assert isinstance(found, nvml.Nvml)
    yield found
    found.close()


def seen(library: nvml.Nvml) -> list[Gpu]:
    found = library.gpus()
    assert isinstance(found, list), found
    return found


def test_where_there_is_no_library_that_is_said() -> None:
    assert str(nvml.load(("libno-such-library.so.1", "/nor/this"))) == "there is no libno-such-library.so.1"


def test_the_second_place_is_tried_too(gpus: Gpus, nvml_library: Path) -> None:
    found = nvml.load(("libno-such-library.so.1", str(nvml_library)))
    assert isinstance(found, nvml.Nvml)
    found.close()


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (None, "nvmlInit_v2: Driver Not Loaded"),
        ("fail nvmlInit_v2 18", "nvmlInit_v2: Driver/library version mismatch"),
        ("fail nvmlInit_v2 77", "nvmlInit_v2: Unknown Error"),
    ],
)
def test_a_driver_that_does_not_answer_is_a_fault_with_its_words(
    gpus: Gpus, nvml_library: Path, line: str | None, fault: str
) -> None:
    gpus.path.unlink() if line is None else gpus.say(line)
    assert str(nvml.load((str(nvml_library),))) == fault


def test_all_that_is_known_of_a_gpu(gpus: Gpus, library: nvml.Nvml) -> None:
    gpus.use(1, 4711, 20 * GiB)
    # As under WSL2, where the driver does not say.
    gpus.use(1, 12, None)
    gpus.say("graphics 1 99 1024", f"graphics 1 4711 {20 * GiB}")
    name = "NVIDIA GeForce RTX 4090"
    processes = (Process(12, None), Process(99, 1024), Process(4711, 20 * GiB))
    assert seen(library) == [
        Gpu(0, "GPU-00000000", name, TOTAL, RESERVED, 0, TOTAL - RESERVED),
        Gpu(1, "GPU-10000000", name, TOTAL, RESERVED, 20 * GiB, TOTAL - RESERVED - 20 * GiB, processes),
    ]


def test_a_list_of_processes_is_read_whole_however_long(gpus: Gpus, library: nvml.Nvml) -> None:
    gpus.say(*(f"process 0 {pid} 1" for pid in range(1, 51)))
    assert [process.pid for process in seen(library)[0].processes] == list(range(1, 51))


def test_a_driver_before_510_does_not_say_what_is_reserved(gpus: Gpus, library: nvml.Nvml) -> None:
    gpus.say("fail nvmlDeviceGetMemoryInfo_v2 25")
    found = seen(library)[0]
    assert (found.total, found.reserved, found.free) == (TOTAL, 0, TOTAL - RESERVED)


def test_a_driver_that_lists_no_processes_is_no_fault(gpus: Gpus, library: nvml.Nvml) -> None:
    gpus.use(0, 4711, GiB)
    gpus.say("fail nvmlDeviceGetComputeRunningProcesses_v3 3", "fail nvmlDeviceGetGraphicsRunningProcesses_v3 13")
    assert seen(library)[0].processes == ()


@pytest.mark.parametrize(
    ("function", "text"),
    [
        ("nvmlDeviceGetCount_v2", "nvmlDeviceGetCount_v2: GPU is lost"),
        ("nvmlDeviceGetHandleByIndex_v2", "GPU 0: nvmlDeviceGetHandleByIndex_v2: GPU is lost"),
        ("nvmlDeviceGetComputeRunningProcesses_v3", "GPU 0: nvmlDeviceGetComputeRunningProcesses_v3: GPU is lost"),
    ],
)
def test_what_fails_later_is_a_fault_too(gpus: Gpus, library: nvml.Nvml, function: str, text: str) -> None:
    gpus.say(f"fail {function} 15")
    assert library.gpus() == Fault(text, 15)


def test_a_library_that_lacks_a_function_is_a_fault() -> None:
    assert str(nvml.Nvml(ctypes.CDLL(None)).gpus()) == ("nvmlDeviceGetCount_v2: this driver's library does not have it")


def gpu(index: int) -> Gpu:
    return Gpu(index, f"GPU-{index}", "", 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("visible", "reserved", "found"),
    [
        # A container counts its own from 0.
        (1, (1,), [("GPU-0", 1)]),
        (2, (0, 1), [("GPU-0", 0), ("GPU-1", 1)]),
        (2, (3, 1), [("GPU-0", 1), ("GPU-1", 3)]),
        # Under WSL2 it sees all.
        (2, (1,), [("GPU-1", 1)]),
        (1, (0, 1), "GPUs 0, 1 are reserved, and 1 can be seen"),
        (2, (5,), "GPUs 5 are reserved, and 2 can be seen"),
    ],
)
def test_gpus_get_the_numbers_that_the_machine_has_for_them(
    visible: int, reserved: tuple[int, ...], found: list[tuple[str, int]] | str
) -> None:
    given = nvml.numbered([gpu(index) for index in range(visible)], reserved)
    assert (str(given) if isinstance(given, Fault) else [(one.uuid, one.index) for one in given]) == found


@pytest.mark.parametrize(("text", "numbers"), [("", ()), ("1", (1,)), ("1,0", (0, 1)), (" 0, 1,", (0, 1))])
def test_the_variable_that_names_gpus(text: str, numbers: tuple[int, ...]) -> None:
    assert nvml.numbers(text) == numbers
