"""Reads GPUs from NVIDIA's management library, by ctypes: memory, and the processes that hold it.

No package is needed, so that the servers' entrypoint and the reader of the GPUs share it. Errors are values: a Fault
says in one line what the driver said.
"""

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

# WSL2 keeps it where no loader looks by itself.
LIBRARIES = ("libnvidia-ml.so.1", "/usr/lib/wsl/lib/libnvidia-ml.so.1")
INSUFFICIENT_SIZE = 7
# What a driver answers that does not count processes, or not these: there is no list then, and nothing is wrong.
NO_LIST = (3, 13)
# The driver of Windows manages the memory itself and does not say what a process uses.
NOT_AVAILABLE = (1 << 64) - 1
# Processes come and go between the call that counts them and the one that lists them.
SPARE, TRIES = 8, 5
TEXT = 96


class _MemoryV1(ctypes.Structure):
    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


class _MemoryV2(ctypes.Structure):
    _fields_ = (
        ("version", ctypes.c_uint), ("total", ctypes.c_ulonglong), ("reserved", ctypes.c_ulonglong),
        ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong),
    )  # fmt: skip


class _Process(ctypes.Structure):
    _fields_ = (
        ("pid", ctypes.c_uint), ("used", ctypes.c_ulonglong),
        ("gpu_instance", ctypes.c_uint), ("compute_instance", ctypes.c_uint),
    )  # fmt: skip


@dataclass(frozen=True)
class Fault:
    """Why the library cannot be used, or what it answered instead of a value."""

    text: str
    code: int = 0

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Process:
    """A process on a GPU; used is in bytes, None where the driver does not say."""

    pid: int
    used: int | None


@dataclass(frozen=True)
class Gpu:
    """A GPU as it is now; sizes are bytes. reserved is what the driver keeps for itself, 0 where it does not say."""

    index: int
    uuid: str
    name: str
    total: int
    reserved: int
    used: int
    free: int
    processes: tuple[Process, ...] = ()


class Nvml:
    """The library, once it is initialised."""

    def __init__(self, library: Any) -> None:
        self._library = library

    def gpus(self) -> list[Gpu] | Fault:
        """Read all GPUs that this process may see, by their index, or say what went wrong."""
        count = ctypes.c_uint()
        fault = self._call("nvmlDeviceGetCount_v2", ctypes.byref(count))
        if fault:
            return fault
        found = []
        for index in range(count.value):
            gpu = self._gpu(index)
            if isinstance(gpu, Fault):
                return Fault(f"GPU {index}: {gpu}", gpu.code)
            found.append(gpu)
        return found

    def close(self) -> None:
        """Give the library back; the object is of no use afterwards."""
        self._call("nvmlShutdown")

    def _gpu(self, index: int) -> Gpu | Fault:
        device = ctypes.c_void_p()
        memory = self._call("nvmlDeviceGetHandleByIndex_v2", index, ctypes.byref(device)) or self._memory(device)
        if isinstance(memory, Fault):
            return memory
        processes: dict[int, Process] = {}
        for kind in ("Graphics", "Compute"):
            listed = self._processes(f"nvmlDeviceGet{kind}RunningProcesses_v3", device)
            if isinstance(listed, Fault):
                return listed
            processes |= {process.pid: process for process in listed}
        uuid, name = self._text("nvmlDeviceGetUUID", device), self._text("nvmlDeviceGetName", device)
        return Gpu(index, uuid, name, *memory, tuple(processes[pid] for pid in sorted(processes)))

    def _memory(self, device: ctypes.c_void_p) -> tuple[int, int, int, int] | Fault:
        """Read total, reserved, used and free; drivers before 510 do not know what is reserved."""
        new = _MemoryV2(version=ctypes.sizeof(_MemoryV2) | 2 << 24)
        fault = self._call("nvmlDeviceGetMemoryInfo_v2", device, ctypes.byref(new))
        if not fault:
            return new.total, new.reserved, new.used, new.free
        old = _MemoryV1()
        if self._call("nvmlDeviceGetMemoryInfo", device, ctypes.byref(old)):
            return fault
        return old.total, 0, old.used, old.free

    def _processes(self, function: str, device: ctypes.c_void_p) -> list[Process] | Fault:
        room = 0
        for _ in range(TRIES):
            count, held = ctypes.c_uint(room), (_Process * room)()
            fault = self._call(function, device, ctypes.byref(count), held if room else None)
            if not fault:
                return [
                    Process(one.pid, None if one.used == NOT_AVAILABLE else one.used) for one in held[: count.value]
                ]
            if fault.code != INSUFFICIENT_SIZE:
                return [] if fault.code in NO_LIST else fault
            room = count.value + SPARE
        return Fault(f"{function}: the list grew faster than it could be read", INSUFFICIENT_SIZE)

    def _text(self, function: str, device: ctypes.c_void_p) -> str:
        held = ctypes.create_string_buffer(TEXT)
        fault = self._call(function, device, held, ctypes.c_uint(TEXT))
        return "" if fault else held.value.decode(errors="replace")

    def _call(self, function: str, *arguments: Any) -> Fault | None:
        called: Callable[..., int] | None = getattr(self._library, function, None)
        if called is None:
            return Fault(f"{function}: this driver's library does not have it", 13)
        code = called(*arguments)
        return Fault(f"{function}: {self._why(code)}", code) if code else None

    def _why(self, code: int) -> str:
        words = self._library.nvmlErrorString
        words.restype = ctypes.c_char_p
        return (words(code) or b"").decode(errors="replace") or f"error {code}"


def load(libraries: Sequence[str] = LIBRARIES) -> Nvml | Fault:
    """Load and initialise the library; a Fault where there is none, or no driver that it fits."""
    for name in libraries:
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        found = Nvml(library)
        return found._call("nvmlInit_v2") or found
    return Fault(f"there is no {libraries[0]}")


def numbered(visible: Sequence[Gpu], reserved: Sequence[int]) -> list[Gpu] | Fault:
    """Give the GPUs that were reserved, with the machine's numbers.

    A container sees its own as 0, 1 and so on, whatever their numbers are outside; under WSL2 it sees them all.
    """
    wanted = sorted(reserved)
    if len(visible) == len(wanted):
        return [replace(gpu, index=number) for gpu, number in zip(visible, wanted, strict=True)]
    if len(visible) > len(wanted) and wanted and wanted[-1] < len(visible):
        return [visible[number] for number in wanted]
    return Fault(f"GPUs {', '.join(map(str, wanted))} are reserved, and {len(visible)} can be seen")


def numbers(text: str) -> tuple[int, ...]:
    """Read the value of TANDEM_GPUS, such as "0,1". Raises ValueError when it is none."""
    return tuple(sorted({int(word) for word in text.split(",") if word.strip()}))
