"""The stand-in of NVIDIA's library, compiled, and the file that it reads."""

import os
import subprocess
from pathlib import Path

NAME = "libnvidia-ml.so.1"
GiB = 1 << 30
# An RTX 4090 as NVML tells of it.
TOTAL, RESERVED = 24564 << 20, 480 << 20


def library(folder: Path) -> Path:
    """Compile the stand-in into folder, unless it is there; the folder is then one for LD_LIBRARY_PATH."""
    made = folder / NAME
    if not made.exists():
        source = Path(__file__).with_name("nvml.c")
        argv = ["gcc", "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-o", f"{made}.new", str(source)]
        subprocess.run(argv, check=True, timeout=60)
        Path(f"{made}.new").rename(made)
    return made


class Gpus:
    """What the stand-in tells of: GPUs with what each process uses of them. Every change is written at once."""

    def __init__(self, path: Path, count: int = 2) -> None:
        self.path = path
        self.count = count
        self.used: dict[int, dict[int, int | None]] = {index: {} for index in range(count)}
        self.more: list[str] = []
        self.write()

    def use(self, index: int, pid: int, used: int | None) -> None:
        """Have a process use so many bytes; 0 takes it away, None leaves unsaid how many."""
        if used == 0:
            self.used[index].pop(pid, None)
        else:
            self.used[index][pid] = used
        self.write()

    def say(self, *lines: str) -> None:
        """Add lines as they are, in place of those added before."""
        self.more = list(lines)
        self.write()

    def write(self) -> None:
        """Put it all in the file, in one step."""
        lines = []
        for index, processes in self.used.items():
            used = sum(size or 0 for size in processes.values())
            lines.append(f'gpu {index} GPU-{index}0000000 "NVIDIA GeForce RTX 4090" {TOTAL} {RESERVED} {used}')
            lines += [f"process {index} {pid} {'-' if size is None else size}" for pid, size in processes.items()]
        new = self.path.with_name(f"{self.path.name}.{os.getpid()}")
        new.write_text("\n".join([*lines, *self.more]) + "\n", encoding="utf-8")
        new.replace(self.path)
