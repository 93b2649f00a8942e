"""How a stand-in of a hub is to misbehave: switches, given on its command line or later as JSON to /control."""

import argparse
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any


@dataclass
class Switches:
    """What it does wrong; with none of them set it is a good hub. The help of each is what it says of itself."""

    rate: float = field(default=0, metadata={"help": "bytes a second of each connection's files; 0: no limit"})
    rate_total: float = field(default=0, metadata={"help": "bytes a second of all files together"})
    corrupt: list[str] = field(default_factory=list, metadata={"help": "flip a byte of this file whenever it is sent"})
    corrupt_once: list[str] = field(
        default_factory=list, metadata={"help": "flip a byte of this file the first time that this byte is sent"}
    )
    die_after: int | None = field(
        default=None, metadata={"help": "reset the connection after so many bytes of one file's answer"}
    )
    die_times: int | None = field(default=None, metadata={"help": "how often die_after does so; every time by default"})
    die_gently: bool = field(default=False, metadata={"help": "end such answers early instead of by a reset"})
    stall_after: int | None = field(
        default=None,
        metadata={"help": "send nothing more after so many bytes of one file's answer, until this is lifted"},
    )
    no_range: bool = field(default=False, metadata={"help": "send whole files, whatever Range says"})
    down: bool = field(
        default=False, metadata={"help": "accept connections and close them; files on their way are cut"}
    )
    unavailable: int = field(default=0, metadata={"help": "answer everything with this status; true is 503"})
    private: list[str] = field(default_factory=list, metadata={"help": "ORG/NAME that only the token opens"})
    private_status: int = field(
        default=0, metadata={"help": "what others get for it, where not what the real hub says"}
    )
    gated: list[str] = field(
        default_factory=list, metadata={"help": "ORG/NAME whose files only the token opens (Hugging Face)"}
    )
    token: str = field(default="", metadata={"help": "the only good token"})
    no_hashes: str = field(default="", metadata={"help": "list files without SHA-256: missing (or true), or empty"})
    wrong_size: dict[str, int] = field(default_factory=dict, metadata={"help": "FILE=BYTES: list it with this size"})
    rubbish: bool = field(default=False, metadata={"help": "answer everything with an HTML page to log in"})
    slow_listing: float = field(default=0, metadata={"help": "seconds that a listing takes"})
    hang: bool = field(default=False, metadata={"help": "accept requests and answer none until this is lifted"})

    def __post_init__(self) -> None:
        self._lock = threading.Lock()

    def change(self, wanted: Mapping[str, Any]) -> None:
        """Set some, all of them or none. Raises ValueError that names what is wrong."""
        known = {entry.name for entry in fields(self)}
        for name in wanted:
            if name not in known:
                raise ValueError(f"no switch {name}; there are {', '.join(sorted(known))}")
        read = {name: READ[name](name, value) for name, value in wanted.items()}
        with self._lock:
            vars(self).update(read)

    def state(self) -> dict[str, Any]:
        """All of them; of the token only whether there is one."""
        with self._lock:
            return {**asdict(self), "token": bool(self.token)}

    def dies(self) -> bool:
        """Whether an answer that came to die_after is to be cut; counts it."""
        with self._lock:
            if self.die_after is None:
                return False
            if self.die_times is not None:
                self.die_times -= 1
                if self.die_times <= 0:
                    self.die_after = self.die_times = None
            return True

    def corrupts(self, repository: str, path: str) -> bool:
        """Whether a file's byte that is about to be sent is to be flipped; counts it."""
        names = {path, f"{repository}/{path}"}
        with self._lock:
            if names & set(self.corrupt):
                return True
            once = names & set(self.corrupt_once)
            self.corrupt_once = [name for name in self.corrupt_once if name not in once]
            return bool(once)


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise ValueError(f"{name}: should be a number from 0 on, got {value!r}")
    return value


def _count(name: str, value: Any) -> int | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
        raise ValueError(f"{name}: should be a whole number from 0 on or null, got {value!r}")
    return value


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{name}: should be true or false, got {value!r}")
    return value


def _status(name: str, value: Any) -> int:
    status = 503 if value is True else value or 0
    if not isinstance(status, int) or (status and not 400 <= status < 600):
        raise ValueError(f"{name}: should be true, false or a status from 400 to 599, got {value!r}")
    return status


def _names(name: str, value: Any) -> list[str]:
    listed = [] if value in ("", None) else [value] if isinstance(value, str) else value
    if not isinstance(listed, list) or not all(isinstance(entry, str) for entry in listed):
        raise ValueError(f"{name}: should be a path or a list of paths, got {value!r}")
    return list(listed)


def _sizes(name: str, value: Any) -> dict[str, int]:
    if not isinstance(value, dict) or not all(type(size) is int and size >= 0 for size in value.values()):
        raise ValueError(f"{name}: should be an object of paths and sizes, got {value!r}")
    return dict(value)


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str | None):
        raise ValueError(f"{name}: should be text, got {value!r}")
    return value or ""


def _hashes(name: str, value: Any) -> str:
    kind = "missing" if value is True else value or ""
    if kind not in {"", "missing", "empty"}:
        raise ValueError(f"{name}: should be missing, empty, true or false, got {value!r}")
    return str(kind)


READ: dict[str, Callable[[str, Any], Any]] = {
    "rate": _number, "rate_total": _number, "corrupt": _names, "corrupt_once": _names,
    "die_after": _count, "die_times": _count, "die_gently": _flag, "stall_after": _count,
    "no_range": _flag, "down": _flag, "unavailable": _status, "rubbish": _flag, "hang": _flag, "slow_listing": _number,
    "private": _names, "gated": _names, "private_status": _status, "token": _text,
    "no_hashes": _hashes, "wrong_size": _sizes,
}  # fmt: skip
GOOD = asdict(Switches())


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give a command line an option for each switch."""
    for entry in fields(Switches):
        read, option, text = READ[entry.name], f"--{entry.name.replace('_', '-')}", entry.metadata["help"]
        if read is _flag:
            parser.add_argument(option, action="store_true", help=text)
        elif read is _names:
            parser.add_argument(option, action="append", default=[], metavar="NAME", help=text)
        elif read is _sizes:
            parser.add_argument(option, action="append", default=[], metavar="FILE=BYTES", help=text)
        elif read is _status or read is _hashes:
            # Without a value they are what true is.
            parser.add_argument(option, nargs="?", const=True, default=False, metavar="VALUE", help=text)
        else:
            kind = float if read is _number else int if read is _count else str
            parser.add_argument(option, type=kind, default=entry.default, help=text)


def from_options(given: argparse.Namespace) -> Switches:
    """Read the switches from a command line. Raises ValueError."""
    said = {entry.name: getattr(given, entry.name) for entry in fields(Switches)}
    sizes = dict(entry.rpartition("=")[::2] for entry in said["wrong_size"])
    said["wrong_size"] = {path: int(size) for path, size in sizes.items()}
    for name in ("unavailable", "private_status"):
        said[name] = int(said[name]) if isinstance(said[name], str) else said[name]
    switches = Switches()
    switches.change(said)
    return switches
