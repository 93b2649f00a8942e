"""What this machine says of itself: its GPUs, and the mirrors, wheels and certificates that it is set up with."""

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from errno import EADDRINUSE
from pathlib import Path
from typing import NamedTuple

from orchestrator.fit.gpu import FIELDS, PROCESS_FIELDS, Gpu, read

CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
# Where WSL2 puts it, which is not on every PATH.
NVIDIA_SMI = ("nvidia-smi", "/usr/lib/wsl/lib/nvidia-smi")
SMI_SECONDS = 20
STANDARD_ERROR = 2

# A line of apt's sources in either of its forms, or of a list of mirrors.
_MIRROR = re.compile(r"^(?:URIs: *|deb +(?:\[[^\]]*\] +)?)?(https?://\S*/debian)/?(?:\s|$)", re.MULTILINE)
_DEFAULT = re.compile(r'^DEF_MIRROR="(https?://[^"]+)"', re.MULTILINE)


class Ran(NamedTuple):
    """How a program ended: its exit code, None where there is no such program or it took too long; and what it said."""

    code: int | None
    text: str = ""


def ran(argv: Sequence[str], seconds: float, folder: Path | None = None) -> Ran:
    """Run a program that only looks, for so many seconds at the most."""
    try:
        done = subprocess.run(
            argv, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return Ran(None)
    return Ran(done.returncode, _decoded(done.stdout))


def _decoded(said: bytes) -> str:
    """Windows' programs write in a code page of their own, of which we read ASCII alone; or, if told so, in UTF-16.

    No text in a code page or in UTF-8 has 0 as its second byte, and one in UTF-16 that begins with a letter has.
    """
    return said.decode("utf-16-le" if said[1:2] == b"\0" else "utf-8", errors="replace")


def shown(argv: Sequence[str]) -> int:
    """Run a program that a person watches and may have to answer, such as sudo; its exit code.

    What it prints goes to standard error: standard output is our own, and may be JSON.
    """
    try:
        return subprocess.run(argv, check=False, stdout=STANDARD_ERROR).returncode
    except OSError:
        return 127


def refused(address: str, port: int) -> str:
    """Say why no server could listen there: taken, no such address, not allowed; "" when one could."""
    family, host = (socket.AF_INET6 if ":" in address else socket.AF_INET), address.strip("[]")
    try:
        with socket.socket(family, socket.SOCK_STREAM) as server:
            # As Docker's own proxy does: what is left of closed connections is no server.
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind((host, port))
    except PermissionError:
        return "not allowed"
    except OSError as error:
        return "taken" if error.errno == EADDRINUSE else "no such address"
    return ""


def rfc3339(moment: datetime) -> str:
    """Write a time of UTC, to the second, as RFC 3339 has it: 2026-01-02T03:04:05Z."""
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")


def user() -> int:
    """Name this process's user by its number."""
    return os.getuid()


def terminal() -> bool:
    """Whether somebody can be asked: standard input and standard error are terminals."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def names() -> list[str]:
    """Name this machine as it calls itself on the network, whole and without its domain."""
    name = socket.gethostname()
    return [name, name.partition(".")[0]]


def commit(folder: Path, seconds: float = 20) -> str:
    """Name the commit that a folder is at, with -dirty when it holds changes; "" where there is no repository."""
    argv = ["git", "-C", str(folder), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
    try:
        return subprocess.run(argv, capture_output=True, text=True, timeout=seconds, check=False).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""


def free_bytes(folder: Path) -> int | None:
    """Say how many bytes a folder's file system has for others; None when the folder is not on this machine."""
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return None


def free_memory(path: Path = Path("/proc/meminfo")) -> int | None:
    """Say how many bytes of the machine's memory programs may still take; None where the kernel does not tell."""
    try:
        found = re.search(r"^MemAvailable: *(\d+) kB$", path.read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None


def cpu(path: Path = Path("/proc/cpuinfo")) -> tuple[str, int]:
    """Name the processor, and count the cores that programs see; "unknown" where the kernel does not tell."""
    try:
        found = re.search(r"^model name\s*: *(.+)$", path.read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1].strip() if found else "unknown", os.cpu_count() or 1


def nvidia_smi(arguments: Sequence[str], seconds: float = SMI_SECONDS) -> tuple[int | None, str]:
    """Run nvidia-smi: its exit code and what it printed, where it failed the errors too.

    None with no words where there is no such program; with words where it could not be run to its end.
    """
    program = next((found for name in NVIDIA_SMI if (found := shutil.which(name))), None)
    if program is None:
        return None, ""
    try:
        done = subprocess.run(
            [program, *arguments], capture_output=True, text=True, errors="replace", timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired:
        return None, f"nvidia-smi gave no answer in {seconds:g} s"
    except OSError as error:
        return None, f"{program}: {error.strerror or error}"
    return done.returncode, done.stdout if done.returncode == 0 else done.stdout + done.stderr


def _smi(*arguments: str) -> str:
    code, said = nvidia_smi(arguments)
    return said if code == 0 else ""


def gpus() -> int:
    """Count the NVIDIA GPUs that the driver shows; 0 when there is none."""
    return len(re.findall(r"^GPU \d+:", _smi("-L"), re.MULTILINE))


def driver() -> str:
    """Ask for the NVIDIA driver's version, such as 580.95.05 (under WSL2 that of Windows); "" where there is none."""
    said = re.match(r"\s*(\d+(?:\.\d+)*)", _smi("--query-gpu=driver_version", "--format=csv,noheader"))
    return said[1] if said else ""


def gpu_memory() -> list[Gpu]:
    """Ask for each GPU's memory and who holds it; none where no GPU is. Under WSL2 nobody holds it by name."""
    # A driver that does not know a field refuses the whole question.
    listed = _csv("gpu", FIELDS) or _csv("gpu", FIELDS[:-1])
    return read(listed, _csv("compute-apps", PROCESS_FIELDS)) if listed else []


def _csv(what: str, fields: Sequence[str]) -> str:
    return _smi(f"--query-{what}={','.join(fields)}", "--format=csv,noheader,nounits")


def compute_capabilities() -> list[str]:
    """Ask for the GPUs' compute capabilities, each once: 8.9 for RTX 4090s; none where no GPU is, or an old driver."""
    said = _smi("--query-gpu=compute_cap", "--format=csv,noheader")
    return sorted(set(re.findall(r"^ *(\d+\.\d+) *$", said, re.MULTILINE)), key=float)


def debian_mirror(root: Path = Path("/etc/apt")) -> str:
    """Name the Debian mirror that apt uses here; "" on another distribution, or where its settings may not be read."""
    for path in [root / "sources.list", *sorted(root.glob("sources.list.d/*")), *sorted(root.glob("mirrors/*.list"))]:
        if path.suffix not in (".list", ".sources") or not path.is_file() or not os.access(path, os.R_OK):
            continue
        found = _MIRROR.search(path.read_text(errors="replace"))
        if found:
            return found[1]
    return ""


def debootstrap_mirror(program: Path = Path("/usr/sbin/debootstrap")) -> str:
    """Name the Debian mirror that debootstrap takes when it is told none; "" when that cannot be read."""
    found = _DEFAULT.search(program.read_text(errors="replace")) if os.access(program, os.R_OK) else None
    return found[1].rstrip("/") if found else ""


def _pip_config(name: str) -> str:
    shown = subprocess.run(
        [sys.executable, "-m", "pip", "config", "get", f"global.{name}"], capture_output=True, text=True, check=False
    )
    return shown.stdout.strip()


def package_index() -> str:
    """Name the Python package index that pip is set up with; "" when it uses its own default."""
    return os.environ.get("PIP_INDEX_URL") or _pip_config("index-url")


def default_index() -> str:
    """Ask pip for the index that it takes when it is told none; "" when it does not say."""
    asked = "from pip._internal.models.index import PyPI; print(PyPI.simple_url)"
    shown = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=False)
    return shown.stdout.strip()


def debootstrap() -> bool:
    """Say whether this machine can make a base image by itself."""
    return shutil.which("debootstrap") is not None or Path("/usr/sbin/debootstrap").exists()


def wheels() -> str:
    """Name a folder that pip is told to look into and that holds a CPU build of torch; "" when there is none."""
    told = os.environ.get("PIP_FIND_LINKS") or _pip_config("find-links")
    return next((folder for folder in told.split() if holds_torch(folder)), "")


def holds_torch(folder: str) -> bool:
    """Say whether a folder of wheels has a CPU build of torch."""
    return any(Path(folder).glob("torch-*+cpu-*.whl"))


def certificates(environment: Mapping[str, str]) -> str:
    """Name the machine's bundle of certificate authorities; "" when it has none."""
    path = Path(environment.get("SSL_CERT_FILE") or CERTIFICATES)
    return str(path) if path.is_file() else ""
