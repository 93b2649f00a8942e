"""Asks Windows, through its own programs, what cannot be seen from inside WSL. Only looks."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from orchestrator.doctor import reading
from orchestrator.doctor.box import Windows, Wsl
from orchestrator.doctor.looking import Look
from orchestrator.host import Ran

Run = Callable[[Sequence[str], float], Ran]
# Seconds for one program of Windows; PowerShell alone takes more than one to begin.
SECONDS, SHELL_SECONDS = 4.0, 10.0
SYSTEM = "Windows/System32"
SHELL = f"{SYSTEM}/WindowsPowerShell/v1.0/powershell.exe"
TDR = r"HKLM\SYSTEM\CurrentControlSet\Control\GraphicsDrivers"
DISKS = r"HKCU\Software\Microsoft\Windows\CurrentVersion\Lxss"
MEMORY = "(Get-CimInstance Win32_ComputerSystem).TotalPhysicalMemory"
PROFILE = re.compile(r"^USERPROFILE=(.+?)\s*$", re.MULTILINE)
NOT_WSL = "this is not WSL"
NO_INTEROP = "programs of Windows cannot be started from here (interop is off in /etc/wsl.conf)"
NO_DRIVE = "drive C: of Windows is not mounted here"


def home(look: Look, run: Run) -> Path | None:
    """Name the folder of Windows' user as it is mounted here; None when Windows does not say, or none is there."""
    drive = look.drives().get("c")
    if drive is None:
        return None
    # With /u what cmd itself says is UTF-16: a user may be called 张三, which the code page of another language, and a
    # reader of UTF-8, does not know. echo would take a & in a name for the end of its own command.
    said = run([str(drive / SYSTEM / "cmd.exe"), "/d", "/u", "/c", "set USERPROFILE"], SECONDS).text
    found = PROFILE.search(said)
    folder = mounted(look, found[1]) if found else None
    return folder if folder is not None and look.is_folder(folder) else None


def mounted(look: Look, path: str) -> Path | None:
    r"""Name where a path such as C:\Users\me is seen from here; None where its drive is not mounted."""
    drive = look.drives().get(path[:1].lower()) if path[1:2] == ":" else None
    return None if drive is None else drive.joinpath(*[part for part in path[2:].split("\\") if part])


def ask(look: Look, run: Run, wsl: Wsl, port: int) -> Windows:
    """Ask all that there is to ask, one after the other."""
    fault = _fault(look, wsl)
    if fault:
        return Windows(fault)
    drive = look.drives()["c"]

    def told(program: str, *words: str) -> Ran:
        return run([str(drive / SYSTEM / program), *words], SECONDS)

    tdr = told("reg.exe", "query", TDR)
    disks = told("reg.exe", "query", DISKS, "/s").text
    # BasePath begins with the letter of its drive.
    folder = reading.base_path(disks, wsl.distribution)
    below = look.drives().get(folder[:1].lower())
    memory = run([str(drive / SHELL), "-NoProfile", "-NonInteractive", "-Command", MEMORY], SHELL_SECONDS).text.strip()
    return Windows(
        memory=int(memory) if memory.isdigit() else None,
        tdr_known=tdr.code == 0,
        tdr_delay=_number(reading.registry(tdr.text, "TdrDelay")),
        tdr_level=_number(reading.registry(tdr.text, "TdrLevel")),
        holders=_holders(told, port),
        excluded=reading.excluded(told("netsh.exe", "interface", "ipv4", "show", "excludedportrange", "tcp").text),
        forwards=reading.forwards(told("netsh.exe", "interface", "portproxy", "show", "v4tov4").text),
        drive=look.place(below) if below else None,
        # Of a path that is not all ASCII the code page is not known.
        folder=folder if folder.isascii() else "",
    )


def _fault(look: Look, wsl: Wsl) -> str:
    if not wsl.version:
        return NOT_WSL
    if not wsl.interop:
        return NO_INTEROP
    return "" if "c" in look.drives() else NO_DRIVE


def _holders(told: Callable[..., Ran], port: int) -> tuple[str, ...]:
    pids = reading.netstat(told("netstat.exe", "-ano").text, port)
    names = reading.tasks(told("tasklist.exe", "/FO", "CSV", "/NH").text) if pids else {}
    return tuple(f"{names.get(pid, 'a program')} (pid {pid})" for pid in pids)


def _number(text: str | None) -> int | None:
    """The registry's numbers are written as 0x3c."""
    try:
        return None if text is None else int(text, 0)
    except ValueError:
        return None
