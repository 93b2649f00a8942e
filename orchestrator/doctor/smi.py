"""What nvidia-smi prints of GPUs, as values: `-q -x`, `--query-gpu=index,compute_cap` and `topo -p2p r`. Pure."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from xml.etree import ElementTree

from orchestrator.doctor.machine import Box, Link

MIB = 1 << 20
QUERY = ("-q", "-x")
CAPABILITIES = ("--query-gpu=index,compute_cap", "--format=csv,noheader")
PEERS = ("topo", "-p2p", "r")
# The driver underlines the heads of its tables, also where no terminal reads them.
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class Holder:
    """A process on a GPU. kind is C, G (it draws) or C+G; used is in bytes, None where the driver does not say."""

    pid: int
    kind: str
    name: str
    used: int | None

    @property
    def draws(self) -> bool:
        """Whether it is there for a display and does not compute: a desktop, a browser."""
        return self.kind == "G"

    @property
    def program(self) -> str:
        """Its program's name, without folder and arguments."""
        path = self.name if "\\" in self.name else self.name.split(" --", 1)[0].strip()
        return re.split(r"[\\/]", path)[-1] or "a process"


@dataclass(frozen=True)
class Card:
    """A GPU. Memory in bytes, reserved is the driver's own share of total; power in watts; None is what is not told.

    gen and width are those of its link to the machine: what was negotiated, what card and machine can together, and
    what the card alone could.
    """

    index: int
    name: str
    total: int
    reserved: int
    used: int
    free: int
    uuid: str = ""
    display: bool | None = None
    gen_most: int | None = None
    gen_card: int | None = None
    width: int | None = None
    width_most: int | None = None
    power: float | None = None
    power_usual: float | None = None
    capability: tuple[int, int] | None = None
    holders: tuple[Holder, ...] = ()

    @property
    def usable(self) -> int:
        """What programs can have of it; vLLM takes its share of this (torch.cuda.mem_get_info)."""
        return self.total - self.reserved


@dataclass(frozen=True)
class Seen:
    """One look at the GPUs. fault says why there was none, "" when there was; absent: there is no nvidia-smi at all.

    containers names, by process id, the container that a process on a GPU belongs to.
    """

    wsl: bool
    fault: str = ""
    absent: bool = False
    driver: str = ""
    cards: tuple[Card, ...] = ()
    links: tuple[Link, ...] = ()
    containers: Mapping[int, str] = field(default_factory=dict)

    @property
    def box(self) -> Box | None:
        """What lasts of it; None where nothing was seen."""
        if self.fault or not self.cards:
            return None
        return Box(self.wsl, self.driver, {card.index: card.name for card in self.cards}, self.links)

    def card(self, index: int) -> Card | None:
        """Find a GPU by its index."""
        return next((card for card in self.cards if card.index == index), None)


def report(text: str) -> tuple[str, list[Card]]:
    """Read the driver's version and the GPUs. Raises ValueError when that is no answer of `nvidia-smi -q -x`.

    Elements are those of nvsmi_device_v10 to v12: what an older or a newer driver does not have is not known.
    """
    try:
        # S314: what this machine's own driver prints, and its document type is not fetched.
        root = ElementTree.fromstring(text[max(text.find("<?xml"), 0) :])  # noqa: S314
    except ElementTree.ParseError as error:
        raise ValueError(f"nvidia-smi -q -x printed no XML ({error})") from None
    if root.tag != "nvidia_smi_log":
        raise ValueError(f"nvidia-smi -q -x printed {root.tag}, and no nvidia_smi_log")
    return _text(root, "driver_version"), [_card(index, gpu) for index, gpu in enumerate(root.findall("gpu"))]


def _card(index: int, gpu: Any) -> Card:
    total, used, free, reserved = (
        _bytes(_text(gpu, f"fb_memory_usage/{word}")) for word in ("total", "used", "free", "reserved")
    )
    if total is None or used is None or free is None:
        raise ValueError(f"nvidia-smi -q -x does not tell the memory of GPU {index}")
    link = "pci/pci_gpu_link_info"
    # Drivers before 530 call it power_readings, and the limit power_limit.
    power = "gpu_power_readings" if gpu.find("gpu_power_readings") is not None else "power_readings"
    limits = ("current_power_limit", "enforced_power_limit", "power_limit")
    gen = _number(_text(gpu, f"{link}/pcie_gen/max_link_gen"))
    return Card(
        index=index,
        name=_text(gpu, "product_name"),
        total=total,
        reserved=max(total - used - free, 0) if reserved is None else reserved,
        used=used,
        free=free,
        uuid=_text(gpu, "uuid"),
        display={"Enabled": True, "Disabled": False}.get(_text(gpu, "display_active")),
        gen_most=gen,
        gen_card=_number(_text(gpu, f"{link}/pcie_gen/max_device_link_gen")) or gen,
        width=_number(_text(gpu, f"{link}/link_widths/current_link_width")),
        width_most=_number(_text(gpu, f"{link}/link_widths/max_link_width")),
        power=next((watts for word in limits if (watts := _watts(_text(gpu, f"{power}/{word}"))) is not None), None),
        power_usual=_watts(_text(gpu, f"{power}/default_power_limit")),
        holders=tuple(_holders(gpu.findall("processes/process_info"))),
    )


def _holders(listed: Iterable[Any]) -> Iterable[Holder]:
    for entry in listed:
        pid = _number(_text(entry, "pid"))
        if pid is not None:
            kind, name = _text(entry, "type"), _text(entry, "process_name")
            yield Holder(pid, kind, name, _bytes(_text(entry, "used_memory")))


def _text(element: Any, path: str) -> str:
    return (element.findtext(path) or "").strip()


def _number(text: str) -> int | None:
    """Read 4, or 16x; None for N/A."""
    found = re.fullmatch(r"([0-9]+)x?", text)
    return int(found[1]) if found else None


def _bytes(text: str) -> int | None:
    found = re.fullmatch(r"([0-9]+) MiB", text)
    return int(found[1]) * MIB if found else None


def _watts(text: str) -> float | None:
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) W", text)
    return float(found[1]) if found else None


def with_capabilities(cards: Iterable[Card], text: str) -> list[Card]:
    """Give GPUs their compute capability, from lines such as `0, 8.9`."""
    lines = re.finditer(r"(?m)^ *(\d+), *(\d+)\.(\d+) *$", text)
    found = {int(line[1]): (int(line[2]), int(line[3])) for line in lines}
    return [replace(card, capability=found.get(card.index)) for card in cards]


def links(text: str) -> list[Link]:
    """Read what is said of each pair of GPUs, once each: OK, or why not. Nothing where the table is another."""
    found: list[Link] = []
    for line in _COLOURS.sub("", text).splitlines():
        row = re.match(r"\s*GPU(\d+)\s+((?:[A-Z]+\s+)*[A-Z]+)\s*$", line)
        if row:
            one = int(row[1])
            found += [(one, other, word) for other, word in enumerate(row[2].split()) if other > one]
    return found
