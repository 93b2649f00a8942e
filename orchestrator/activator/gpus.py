"""Asks the GPU reader what the GPUs hold, and to end what a stopped server of ours left on them."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from orchestrator.switch.world import Gpu

SOCKET = Path("/run/gpus/gpus.sock")
# A driver frees in several goes: so many looks must agree within so many bytes.
LOOKS, STEADY = 3, 64 << 20

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Process:
    """A process on a GPU. used is in bytes, 0 where NVML does not tell; container is the id of its container, or ""."""

    pid: int
    name: str
    used: int
    container: str


@dataclass(frozen=True)
class Card:
    """A GPU as it was read. Sizes in bytes; reserved is the driver's own share of total."""

    index: int
    name: str
    total: int
    reserved: int
    free: int
    processes: tuple[Process, ...] = ()

    @property
    def usable(self) -> int:
        """What servers can use of it at all."""
        return self.total - self.reserved

    @property
    def told(self) -> Gpu:
        """The same in the words of switching."""
        return Gpu(self.usable, self.free)


Cards = Mapping[int, Card]


def steady(looks: Sequence[Sequence[int]]) -> bool:
    """Whether the last looks at some sizes in bytes agree; each look has the same sizes in the same order."""
    last = looks[-LOOKS:]
    return len(last) == LOOKS and all(max(each) - min(each) <= STEADY for each in zip(*last, strict=True))


class Gpus:
    """The reader on its socket. Where none answers, nothing is known, and that is an answer."""

    def __init__(self, socket: Path = SOCKET, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._client = httpx.AsyncClient(
            transport=transport or httpx.AsyncHTTPTransport(uds=str(socket)), base_url="http://gpus", timeout=5
        )

    async def look(self) -> Cards | None:
        """Read all GPUs, by index; None where nobody can tell."""
        try:
            answer = await self._client.get("/gpus")
            return {card.index: card for card in map(_card, answer.raise_for_status().json()["gpus"])}
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            # With no GPU, and before the first server, there is no reader.
            _log.debug("the GPU reader does not answer: %s", error)
            return None

    async def kill(self, pid: int, containers: Iterable[str]) -> str:
        """End a process that a stopped container of ours left behind; "" when it was done, else why not."""
        try:
            answer = await self._client.post(f"/kill/{pid}", json={"containers": sorted(containers)})
        except httpx.HTTPError as error:
            return f"the GPU reader does not answer: {error}"
        return "" if answer.is_success else answer.text.strip()[:200] or f"status {answer.status_code}"

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()


def _card(entry: dict[str, Any]) -> Card:
    processes = [
        Process(int(found["pid"]), str(found["name"] or ""), int(found["used"] or 0), str(found["container"] or ""))
        for found in entry["processes"]
    ]
    return Card(
        int(entry["index"]),
        str(entry["name"]),
        int(entry["total"]),
        int(entry.get("reserved") or 0),
        int(entry["free"]),
        tuple(processes),
    )
