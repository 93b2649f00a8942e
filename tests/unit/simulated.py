"""A machine of folders and recorded outputs, for the doctor: in order until a test says otherwise."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from orchestrator.doctor import every, examining
from orchestrator.doctor.box import Box
from orchestrator.doctor.examining import Means
from orchestrator.doctor.finding import Finding
from orchestrator.engine import Engine, Published
from orchestrator.errors import TandemError
from orchestrator.host import Ran
from orchestrator.profiles import Profile
from orchestrator.project import Project
from orchestrator.settings import Settings
from orchestrator.states import Container
from orchestrator.trust import Shown
from tests.unit.pasting import pasted
from tests.unit.values import VERSIONS, profile

GIB = 1 << 30
NOW = 1_800_000_000.0
LINUX = "Linux version 6.12.57-amd64 (debian-kernel@lists.debian.org) #1 SMP"
WSL2 = "Linux version 6.6.87.2-microsoft-standard-WSL2 (root@439a258ad544) #1 SMP"
WSL1 = "Linux version 4.4.0-19041-Microsoft (Microsoft@Microsoft.com) #1237-Microsoft"
TCP = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
MOUNTS = "/dev/sdc / ext4 rw,relatime 0 0\nproc /proc proc rw 0 0\n"
DRIVE = "C:\\134 /mnt/c 9p rw,noatime,aname=drvfs;path=C:\\;uid=1000 0 0\n"
INFO: dict[str, Any] = {
    "ServerVersion": "28.5.2",
    "OperatingSystem": "Debian GNU/Linux 12 (bookworm)",
    "DockerRootDir": "/var/lib/docker",
    "Runtimes": {"runc": {}, "nvidia": {}},
}
REGISTRY = r"""
HKEY_CURRENT_USER\Software\Microsoft\Windows\CurrentVersion\Lxss
    DefaultDistribution    REG_SZ    {aaaa}

HKEY_CURRENT_USER\Software\Microsoft\Windows\CurrentVersion\Lxss\{aaaa}
    DistributionName    REG_SZ    Debian
    BasePath    REG_SZ    C:\Users\me\AppData\Local\wsl\debian
    Version    REG_DWORD    0x2
"""
TDR = r"""
HKEY_LOCAL_MACHINE\SYSTEM\CurrentControlSet\Control\GraphicsDrivers
    DxgKrnlVersion    REG_DWORD    0x12001
    TdrDelay    REG_DWORD    0x3c
"""
EXCLUDED = """
Protocol tcp Port Exclusion Ranges

Start Port    End Port
----------    --------
      5357        5357
     50000       50059     *

* - Administered port exclusions.
"""


class FakeEngine:
    """What the doctor asks of Docker."""

    def __init__(self) -> None:
        self.said: dict[str, Any] | str = dict(INFO)
        self.listens = "unix:///var/run/docker.sock"
        self.listed: list[Container] = []
        self.has: list[Published] = []
        # What it refuses to list, though it answers.
        self.refuses: set[str] = set()
        self.tags = frozenset({"tandem/vllm:0.32.0-cu130", "tandem/vllm:0.32.0-cpu"})

    def info(self) -> dict[str, Any]:
        if isinstance(self.said, str):
            raise TandemError(self.said)
        return self.said

    def address(self) -> str:
        return self.listens

    def containers(self) -> dict[str, Container]:
        self._allowed("containers")
        return {container.service: container for container in self.listed}

    def publishing(self, port: int) -> list[Published]:
        self.info()
        self._allowed("ports")
        return self.has

    def images(self) -> frozenset[str]:
        self._allowed("images")
        return self.tags

    def _allowed(self, what: str) -> None:
        if what in self.refuses:
            raise TandemError("Docker refused: not now")


class Simulated:
    """A native Linux machine with two GPUs and enough of everything; wsl() makes it WSL2 on Windows 11."""

    def __init__(self, folder: Path) -> None:
        self.root, self.project = folder / "root", folder / "project"
        self.project.mkdir(parents=True)
        self.engine = FakeEngine()
        self.programs: dict[str, Ran] = {}
        self.settings: dict[str, str] = {}
        self.profiles: list[Profile] = [profile()]
        self.refused: dict[int, str] = {}
        self.frees: dict[str, int] = {}
        self.free, self.date = 400 * 10**9, NOW
        self.dates: dict[str, float | str] = {}
        self.shown = Shown()
        self.pulled: dict[str, Any] | None = {"Qwen/Qwen2.5-14B-Instruct": {"state": "complete", "bytes": 30 * 10**9}}
        self.asked: list[Sequence[str]] = []
        self.write("proc/version", LINUX)
        self.memory(128)
        self.write("proc/swaps", "Filename Type Size Used Priority\n/dev/sdb partition 16777216 0 -2\n")
        self.write("proc/mounts", MOUNTS)
        self.write("proc/net/tcp", TCP)
        self.write("proc/driver/nvidia/version", "NVRM version")
        (self.root / "run/systemd/system").mkdir(parents=True)
        (self.root / "var/lib/docker").mkdir(parents=True)
        self.says("docker compose version --short", "2.40.3")
        self.says("docker buildx version", "github.com/docker/buildx 0.29.1")
        self.says("docker context ls", "default\n")

    def write(self, path: str, text: str) -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        return file

    def says(self, command: str, text: str, code: int = 0) -> None:
        """Have a program that is called like this say something."""
        self.programs[command] = Ran(code, text)

    def memory(self, gib: float) -> None:
        self.write("proc/meminfo", f"MemTotal:       {int(gib * (1 << 20))} kB\nMemFree: 1 kB\n")

    def process(self, pid: int, name: str, inode: int = 0) -> None:
        self.write(f"proc/{pid}/comm", f"{name}\n")
        (self.root / f"proc/{pid}/fd").mkdir()
        (self.root / f"proc/{pid}/fd/3").symlink_to(f"socket:[{inode}]")

    def listens(self, port: int, inode: int, address: str = "0100007F") -> None:
        line = f"   0: {address}:{port:04X} 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000 0 {inode} 1\n"
        self.write("proc/net/tcp", TCP + line)
        self.refused[port] = "taken"

    def wsl(self, *config: str, interop: bool = True) -> None:
        """Make it WSL2 with these lines below [wsl2] in .wslconfig."""
        self.write("proc/version", WSL2)
        self.write("proc/mounts", MOUNTS + DRIVE)
        self.write("proc/sys/fs/binfmt_misc/WSLInterop", "enabled\n" if interop else "disabled\n")
        self.write("proc/self/environ", "PATH=/bin\0WSL_DISTRO_NAME=Debian\0")
        self.write("usr/lib/wsl/lib/libcuda.so.1", "")
        self.write("mnt/c/Users/me/.wslconfig", "\r\n".join(["[wsl2]", *config, ""]))
        (self.root / "mnt/c/Users/Public").mkdir(exist_ok=True)
        self.says("cmd.exe /d /u /c set USERPROFILE", "USERPROFILE=C:\\Users\\me\r\n")
        self.says("reg.exe query HKLM", TDR)
        self.says("reg.exe query HKCU", REGISTRY)
        self.says("netstat.exe", "\r\n  TCP    0.0.0.0:135    0.0.0.0:0    LISTENING    1204\r\n")
        self.says("netsh.exe interface ipv4", EXCLUDED)
        self.says("netsh.exe interface portproxy", "")
        self.says("powershell.exe", f"{128 * GIB}\r\n")
        self.says("hostname", "172.20.5.3 172.17.0.1\n")

    def _run(self, argv: Sequence[str], seconds: float) -> Ran:
        self.asked.append(argv)
        line = " ".join([Path(argv[0]).name, *argv[1:]])
        return next((ran for command, ran in self.programs.items() if line.startswith(command)), Ran(None))

    def _free(self, folder: Path) -> int:
        return next((free for part, free in self.frees.items() if part in str(folder)), self.free)

    def _date(self, address: str, seconds: float) -> float | str:
        return next((said for part, said in self.dates.items() if part in address), self.date)

    @property
    def whole(self) -> Project:
        read = tuple(path for path in [self.project / ".env"] if path.is_file())
        listed = {found.name: found for found in self.profiles}
        return Project(self.project, listed, VERSIONS, Settings(self.settings, (), read))

    @property
    def means(self) -> Means:
        return Means(
            root=self.root,
            run=self._run,
            refused=lambda _, port: self.refused.get(port, ""),
            free=self._free,
            date=self._date,
            now=lambda: NOW,
            listing=lambda: self.pulled,
            mirror="http://mirror.example.org/debian",
            shown=lambda: self.shown,
        )

    def box(self) -> Box:
        return examining.examine(self.whole, cast("Engine", self.engine), self.means, lambda _: None)

    def findings(self) -> dict[str, Finding]:
        """Everything that is found, by check; of several of one check the worst. What is to be pasted can be."""
        found: dict[str, Finding] = {}
        order = ("ok", "unknown", "warn", "bad")
        listed = every.findings(self.box())
        pasted(listed)
        for each in listed:
            if each.check not in found or order.index(each.status) > order.index(found[each.check].status):
                found[each.check] = each
        return found

    def blocking(self) -> list[Finding]:
        return every.blocking(examining.glance(self.whole, cast("Engine", self.engine), self.means))
