"""Streams that hardly say anything, for a long time, and requests that are answered beside them as ever.

python -m tests.routing.idle [--streams 2000] [--seconds 600] [--every 20] [--image IMAGE] [--name NAME]
"""

import argparse
import asyncio
import sys
import time
from dataclasses import dataclass

from tests.checkout import LONG_PATIENCE, PATIENCE, eventually
from tests.routing import bed
from tests.routing.streams import Plain, Tally, model_of, raise_limits, stream

# How much longer a short request may take at the median while the streams are open; in ms.
TIMES, MORE = 2.0, 2.0


@dataclass
class Held:
    """What was seen while the streams were open."""

    streams: int
    seconds: float
    every: float
    # How many the router had open at once, and how many go through it: the activator's are its own.
    at_once: int
    direct: int
    tally: Tally
    before: Plain
    beside: Plain
    # KiB of the router's processes before, and how much more they were.
    memory: int
    grown: int

    @property
    def whole(self) -> bool:
        """Whether every stream was whole, all were open at once, and what was asked beside them was answered."""
        return not self.tally.wrong and not self.beside.bad and self.at_once == self.direct

    @property
    def quick(self) -> bool:
        """Whether what was asked beside them was answered as soon as ever."""
        return self.beside.at(0.5) <= TIMES * self.before.at(0.5) + MORE

    def __str__(self) -> str:
        return "\n".join([
            f"{self.streams} streams for {self.seconds:g} s, an event each {self.every:g} s; "
            f"{self.at_once} of {self.direct} open at once",
            str(self.tally),
            f"before: {self.before}",
            f"beside: {self.beside}; {len(self.beside.bad)} wrong {self.beside.bad[:3]}",
            f"memory of the router's processes: {self.memory} KiB before, "
            f"{self.grown / max(self.streams, 1):.1f} more for each stream",
        ])  # fmt: skip


async def idle(made: bed.Bed, *, streams: int, seconds: float, every: float) -> Held:
    """Hold the streams open; what was seen. None ends before all have begun."""
    events = max(2, round(seconds / every) + 1)
    before, beside, tally = Plain(made.port), Plain(made.port), Tally()
    await before.ask(300, 0.001)
    memory = sum(made.workers().values())
    tasks, begun = [], [asyncio.Event() for _ in range(streams)]
    made.hold(True)
    for number, event in enumerate(begun):
        tag = f"idle-{number}"
        patience = seconds * 2 + LONG_PATIENCE
        tasks.append(
            asyncio.create_task(stream(made.port, tag, events=events, every=every, patience=patience, begun=event))
        )
        if number % 50 == 49:
            # They come within seconds, and not all in the same instant.
            await asyncio.wait([asyncio.ensure_future(each.wait()) for each in begun[: number + 1]], timeout=PATIENCE)
    at_once = sum(made.in_flight().values())
    made.hold(False)
    until = time.monotonic() + seconds * 0.8
    while time.monotonic() < until:
        await beside.ask(20, 0.01)
    grown = sum(made.workers().values()) - memory
    for complaint in await asyncio.gather(*tasks):
        tally.count(complaint)
    eventually(lambda: not made.in_flight(), what="nothing in flight")
    direct = sum(bed.NAMES[model_of(f"idle-{number}")] in bed.READY for number in range(streams))
    return Held(streams, seconds, every, at_once, direct, tally, before, beside, memory, grown)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--every", type=float, default=20)
    parser.add_argument("--image", default=bed.ROUTER_IMAGE)
    parser.add_argument("--name", default="tandem-idle")
    asked = parser.parse_args()
    raise_limits()
    with bed.running(asked.name, image=asked.image) as made:
        held = asyncio.run(idle(made, streams=asked.streams, seconds=asked.seconds, every=asked.every))
    print(held)
    return 0 if held.whole and held.quick else 1


if __name__ == "__main__":
    sys.exit(main())
