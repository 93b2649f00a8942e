"""Reads what the kernel, Docker's and Windows' files say: text in, values out. Pure."""

import json
import re
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address

from orchestrator.doctor.box import Forward

_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
# A driver's own packages; libnvidia-container is of the Container Toolkit, which belongs here.
_DRIVER = re.compile(
    r"nvidia-(?:driver|kernel|dkms|utils|headless|open)(?:-.*)?|nvidia-alternative|libcuda1"
    r"|libnvidia-(?!container)(?:compute|ml|gl|ptxjitcompiler|cfg|encode|decode)\S*|xserver-xorg-video-nvidia\S*"
)
# On a line of netstat the foreign address of what listens; the word for its state is Windows' language's.
_LISTENS = re.compile(r"^\s*TCP\s+(\S+):(\d+)\s+(?:0\.0\.0\.0|\[::\]):0\s+.*?(\d+)\s*$", re.MULTILINE)
_FORWARD = re.compile(r"^(\S+)\s+(\d+)\s+(\S+)\s+(\d+)\s*$", re.MULTILINE)
_RANGE = re.compile(r"^\s*(\d+)\s+(\d+)\s*\*?\s*$", re.MULTILINE)


def size(text: str) -> int | None:
    """Read a size such as 8gb, 64GB, 512m or 1024; None when it is none."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?\s*", text, re.IGNORECASE)
    return int(float(found[1]) * _UNITS[found[2].lower()]) if found else None


def wsl_version(kernel: str, *, interop_file: bool) -> int:
    """Tell from /proc/version which WSL this is, 0 for none.

    WSL1's made-up kernel is called 4.4.0-19041-Microsoft; WSL2's own 6.6.87.2-microsoft-standard-WSL2, and one that a
    user built may be called anything.
    """
    if re.search(r"\d-Microsoft\b", kernel):
        return 1
    return 2 if "microsoft" in kernel.lower() or interop_file else 0


def ini(text: str) -> dict[str, str]:
    """Read .wslconfig: its keys in small letters, whatever section they stand in; the last of a key counts."""
    found = {}
    for line in text.lstrip("\ufeff").splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.lstrip().startswith(("#", ";", "[")):
            found[key.strip().lower()] = re.split(r"\s[#;]", value, maxsplit=1)[0].strip().strip('"')
    return found


def meminfo(text: str, key: str) -> int | None:
    """Read one line of /proc/meminfo, in bytes."""
    found = re.search(rf"^{key}: *(\d+) kB$", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def swap(text: str) -> int:
    """Add up /proc/swaps, in bytes."""
    rows = [line.split() for line in text.splitlines()[1:] if line.strip()]
    return sum(int(row[2]) * 1024 for row in rows if len(row) > 2 and row[2].isdigit())


def mounts(text: str) -> list[tuple[str, str, str, str]]:
    """Read /proc/mounts: place, kind, source and options of each."""
    found = []
    for line in text.splitlines():
        words = [re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), word) for word in line.split()]
        if len(words) >= 4:
            found.append((words[1], words[2], words[0], words[3]))
    return found


def kind_at(listed: Iterable[tuple[str, str, str, str]], path: str) -> str:
    """Name the kind of file system that a path is on; of two mounts at one place the later one is seen."""
    kind, length = "", -1
    for place, found, _, _ in listed:
        inside = place in ("/", path) or path.startswith(f"{place}/")
        if inside and len(place) >= length:
            kind, length = found, len(place)
    return kind


def drives(listed: Iterable[tuple[str, str, str, str]]) -> dict[str, str]:
    """Name where Windows' drives are mounted, by their letters in small: c is at /mnt/c."""
    found = {}
    for place, kind, source, options in listed:
        letter = re.match(r"([A-Za-z]):", source) or re.search(r"(?:^|[;,])path=([A-Za-z]):", options)
        if kind in ("9p", "drvfs", "v9fs", "virtiofs") and letter:
            found[letter[1].lower()] = place
    return found


def drivers(status: str) -> tuple[str, ...]:
    """Name the installed packages of an NVIDIA driver in dpkg's list."""
    found = []
    for entry in status.split("\n\n"):
        name = re.search(r"^Package: (\S+)$", entry, re.MULTILINE)
        if name and "\nStatus: install ok installed" in f"\n{entry}" and _DRIVER.fullmatch(name[1]):
            found.append(name[1])
    return tuple(sorted(set(found)))


def listening(table: str, port: int) -> list[tuple[str, str]]:
    """Read /proc/net/tcp or tcp6: address and inode of each socket that listens on a port."""
    found = []
    for line in table.splitlines()[1:]:
        words = line.split()
        # 0A is TCP_LISTEN.
        if len(words) > 9 and words[3] == "0A":
            address, _, number = words[1].partition(":")
            if int(number, 16) == port:
                found.append((_address(address), words[9]))
    return found


def _address(digits: str) -> str:
    """The kernel writes words of 32 bits, each with its last byte first."""
    words = [bytes.fromhex(digits[at : at + 8])[::-1] for at in range(0, len(digits), 8)]
    return str(IPv4Address(words[0]) if len(words) == 1 else IPv6Address(b"".join(words)))


def clash(one: str, other: str) -> bool:
    """Whether two servers on one port meet: the same address, or one of them on all of that family."""
    left, right = ip_address(one.strip("[]")), ip_address(other.strip("[]"))
    if isinstance(left, IPv6Address) and left.ipv4_mapped:
        left = left.ipv4_mapped
    if isinstance(right, IPv6Address) and right.ipv4_mapped:
        right = right.ipv4_mapped
    if left.version != right.version:
        # A server on all of IPv6 is on all of IPv4 too, unless it says otherwise.
        return (left if left.version == 6 else right).is_unspecified
    return left == right or left.is_unspecified or right.is_unspecified


def netstat(text: str, port: int) -> list[int]:
    """Name the processes that `netstat.exe -ano` shows listening on a port."""
    return sorted({int(found[3]) for found in _LISTENS.finditer(text) if int(found[2]) == port})


def tasks(text: str) -> dict[int, str]:
    """Name programs by their process ids, from `tasklist.exe /FO CSV /NH`."""
    return {int(found[2]): found[1] for found in re.finditer(r'^"([^"]+)","(\d+)"', text, re.MULTILINE)}


def excluded(text: str) -> tuple[tuple[int, int], ...]:
    """Read the ranges of ports that Windows keeps for itself: `netsh.exe interface ipv4 show excludedportrange tcp`."""
    return tuple((int(found[1]), int(found[2])) for found in _RANGE.finditer(text))


def forwards(text: str) -> tuple[Forward, ...]:
    """Read `netsh.exe interface portproxy show v4tov4`."""
    return tuple(Forward(f[1], int(f[2]), f[3], int(f[4])) for f in _FORWARD.finditer(text.replace("\r", "")))


def registry(text: str, name: str) -> str | None:
    """Read one value of what `reg.exe query` prints; None where it has none of that name."""
    found = re.search(rf"^\s+{re.escape(name)}\s+REG_\w+\s+(.*?)\s*$", text, re.MULTILINE)
    return found[1] if found else None


def base_path(text: str, distribution: str) -> str:
    """Name the folder of a distribution's disk, from what `reg.exe query` says of Lxss; "" when it is not in there."""
    for entry in re.split(r"\r?\n(?=HKEY)", text):
        if registry(entry, "DistributionName") == distribution:
            return (registry(entry, "BasePath") or "").removeprefix("\\\\?\\")
    return ""


def limits(daemon: str) -> dict[str, int]:
    """Read the limits that daemon.json gives to containers; none where it is no JSON, or gives none."""
    try:
        given = json.loads(daemon).get("default-ulimits") or {}
        return {name: int(entry.get("Soft", entry.get("Hard"))) for name, entry in given.items()}
    except (ValueError, AttributeError, TypeError, RecursionError):
        return {}


def by_name(model: str) -> int | None:
    """Estimate the bytes of a model's weights from its name, such as Qwen2.5-32B-Instruct-AWQ; None without a size.

    Bytes a parameter that the name counts: Qwen2.5-14B-Instruct has 29.5 GB, Qwen2.5-32B-Instruct-AWQ 19.3 GB.
    """
    name = model.rpartition("/")[2].lower()
    found = re.search(r"(?:^|[-_])(\d+(?:\.\d+)?)b(?![a-z0-9])", name)
    if not found:
        return None
    small = re.search(r"awq|int4|4bit|w4a16|fp4|gptq(?!-int8)", name)
    half = re.search(r"int8|fp8|8bit|w8a", name)
    return int(float(found[1]) * 1e9 * (0.6 if small else 1.1 if half else 2.1))


def info(said: Mapping[str, object]) -> tuple[str, str, tuple[str, ...]]:
    """Read version, system and runtimes of what the Engine says of itself."""
    runtimes = said.get("Runtimes")
    named = tuple(sorted(map(str, runtimes))) if isinstance(runtimes, Mapping) else ()
    return str(said.get("ServerVersion") or ""), str(said.get("OperatingSystem") or ""), named
