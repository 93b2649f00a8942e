"""Looks at this machine's own files: the kernel's, WSL's, the project's. Reads, and runs nothing."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from orchestrator.doctor import reading
from orchestrator.doctor.box import Ends, Files, Memory, Place, Wsl

INTEROP = ("proc/sys/fs/binfmt_misc/WSLInterop", "proc/sys/fs/binfmt_misc/WSLInterop-late")
LIBRARIES = ("usr/lib/x86_64-linux-gnu", "usr/lib64", "usr/local/lib")
# Folders of Windows that are no person's.
NOBODY = frozenset({"all users", "default", "default user", "public"})
# The folders of the project whose programs Linux starts by their first line.
SCRIPTS = ("scripts", "docker")
# What ModelScope's own client keeps a download in until it is whole.
TEMPORARY = "._____temp"
# How deep below a folder of weights that can be: ORGANISATION/MODEL/._____temp, and that of its cache.
DEEP = 4


class Look:
    """The machine as its files show it; root stands for /, and is another folder in tests."""

    def __init__(self, root: Path, free: Callable[[Path], int | None]) -> None:
        """Look below root; free tells how many bytes a folder's file system has for others."""
        self.root = root
        self._free = free
        self._mounts = reading.mounts(self.text("proc/mounts"))

    def text(self, path: str) -> str:
        """Read a file of the machine; "" where there is none, or this user may not."""
        return _text(self.root / path)

    def has(self, path: str) -> bool:
        """Whether a file or folder of the machine is there, as far as this user may see."""
        return _is_there(self.root / path)

    def is_folder(self, path: Path) -> bool:
        """Whether a folder is there, as far as this user may see."""
        with suppress(OSError):
            return path.is_dir()
        return False

    def drives(self) -> dict[str, Path]:
        """Name where Windows' drives are mounted, by their letters in small."""
        return {letter: self.root / at.lstrip("/") for letter, at in reading.drives(self._mounts).items()}

    def place(self, path: Path) -> Place:
        """Look at a folder, or at the nearest one above it that is there."""
        there = next(folder for folder in (path, *path.parents) if _is_there(folder))
        return Place(str(path), reading.kind_at(self._mounts, str(path.resolve())), self._free(there))

    def wsl(self, home: Path | None = None) -> Wsl:
        """Look at WSL; home is the folder of Windows' user, where it is known."""
        interop = [path for path in INTEROP if self.has(path)]
        version = reading.wsl_version(self.text("proc/version"), interop_file=bool(interop))
        if not version:
            return Wsl()
        enabled = any(self.text(path).startswith("enabled") for path in interop)
        return Wsl(version, enabled, self._distribution(), self._wslconfig(home), self._drivers())

    def _distribution(self) -> str:
        """WSL gives its name to every process that it starts; PID 1 does not have it with systemd."""
        for path in ("proc/self/environ", "proc/1/environ"):
            for pair in self.text(path).split("\0"):
                name, _, value = pair.partition("=")
                if name == "WSL_DISTRO_NAME":
                    return value
        return ""

    def _wslconfig(self, home: Path | None) -> dict[str, str] | None:
        if home is not None:
            return _config(home / ".wslconfig")
        drive = self.drives().get("c")
        if drive is None:
            return None
        with suppress(OSError):
            users = [path for path in (drive / "Users").iterdir() if path.name.lower() not in NOBODY]
            files = [path / ".wslconfig" for path in users if _is_there(path / ".wslconfig")]
            if len(files) == 1:
                return _config(files[0])
            # Of several nobody says here which one counts.
            return None if files else {}
        return None

    def _drivers(self) -> tuple[str, ...]:
        packages = reading.drivers(self.text("var/lib/dpkg/status"))
        if packages:
            return packages
        # WSL's own stands elsewhere, and some put a link to it here.
        return tuple(
            f"/{folder}/{path.name}"
            for folder in LIBRARIES
            for path in sorted((self.root / folder).glob("libcuda.so*"))
            if "wsl" not in str(path.resolve())
        )

    def memory(self) -> Memory:
        """Look at the memory."""
        text, swaps = self.text("proc/meminfo"), self.text("proc/swaps")
        return Memory(reading.meminfo(text, "MemTotal"), reading.swap(swaps) if swaps else None)

    def nvidia(self) -> bool:
        """Whether a driver shows an NVIDIA GPU: NVIDIA's own for Linux, or under WSL that of Windows."""
        return any(
            self.has(path) for path in ("proc/driver/nvidia/version", "dev/nvidiactl", "usr/lib/wsl/lib/libcuda.so.1")
        )

    def files(self, folder: Path, read: Iterable[Path], models: Path | None) -> Files:
        """Look at the project's folder, at env files that are read, and at the folder of weights, if it is one."""
        missing = models is not None and not _is_there(models)
        return Files(
            project=self.place(folder),
            models=self.place(models) if models else None,
            models_missing=missing,
            ends=tuple(_ends(folder, read)),
            left=tuple(_left(models)) if models and not missing else (),
        )

    def holders(self, bind: str, port: int) -> list[str]:
        """Name the programs that listen where a server on this address and port would."""
        sockets = [
            inode
            for table in ("proc/net/tcp", "proc/net/tcp6")
            for address, inode in reading.listening(self.text(table), port)
            if reading.clash(bind, address)
        ]
        return sorted(set(self._owners(frozenset(sockets)))) if sockets else []

    def _owners(self, inodes: frozenset[str]) -> Iterator[str]:
        wanted = {f"socket:[{inode}]" for inode in inodes}
        for process in self._processes():
            with suppress(OSError):
                if any(_link(entry) in wanted for entry in (process / "fd").iterdir()):
                    yield f"{_text(process / 'comm').strip() or 'a process'} (pid {process.name})"

    def runs(self, name: str) -> bool:
        """Whether a program of this name runs here."""
        return any(_text(process / "comm").strip() == name for process in self._processes())

    def _processes(self) -> list[Path]:
        with suppress(OSError):
            return [path for path in (self.root / "proc").iterdir() if path.name.isdigit()]
        return []


def size_below(folder: Path) -> int:
    """Add up the bytes of the files below a folder; what this user may not read counts as nothing."""
    total = 0
    with suppress(OSError):
        for path in folder.rglob("*"):
            with suppress(OSError):
                total += path.stat().st_size if path.is_file() else 0
    return total


def _ends(folder: Path, read: Iterable[Path]) -> Iterator[Ends]:
    rendered = sorted((folder / "env").glob("*.env"))
    for path in dict.fromkeys([*read, *rendered, folder / "models.toml"]):
        lines = _returns(path)
        if lines:
            yield Ends(str(path), lines)
    for name in SCRIPTS:
        for path in sorted((folder / name).rglob("*")):
            if _begins(path) and _returns(path):
                yield Ends(str(path), (1,), script=True)


def _begins(path: Path) -> bool:
    """Whether a file says in its first line what runs it, and ends that line as on Windows."""
    try:
        with path.open("rb") as stream:
            first = stream.readline(200)
    except OSError:
        return False
    return first.startswith(b"#!") and first.endswith(b"\r\n")


def _returns(path: Path) -> tuple[int, ...]:
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError:
        return ()
    return tuple(number for number, line in enumerate(lines[:-1], 1) if line.endswith(b"\r"))


def _left(models: Path) -> Iterator[tuple[str, int]]:
    for depth in range(DEEP):
        with suppress(OSError):
            for path in sorted(models.glob("*/" * depth + TEMPORARY)):
                yield str(path), size_below(path)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _config(path: Path) -> dict[str, str] | None:
    """Read .wslconfig: all of it is WSL's own choice where there is none; None where there is, and nobody may look."""
    try:
        return reading.ini(path.read_text(encoding="utf-8", errors="replace"))
    except FileNotFoundError:
        return {}
    except OSError:
        return None


def _link(path: Path) -> str:
    try:
        return str(path.readlink())
    except OSError:
        return ""


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return False
