"""Streams that hardly say anything, for a long time, and requests that are answered beside them as ever.

python -m tests.routing.idle [--streams 2000] [--seconds 600] [--every 20] [--image IMAGE] [--name NAME]
"""

import argparse
import asyncio
import sys
import time

from tests.checkout import eventually
from tests.routing import bed
from tests.routing.streams import Plain, Tally, model_of, raise_limits, stream

# How much longer a short request may take at the median while the streams are open; in ms.
TIMES, MORE = 2.0, 2.0


async def idle(made: bed.Bed, *, streams: int, seconds: float, every: float) -> tuple[bool, str]:
    """Hold the streams open; whether all was well, and what there is to say."""
    events = max(2, round(seconds / every) + 1)
    before, beside, tally = Plain(made.port), Plain(made.port), Tally()
    await before.ask(300, 0.001)
    memory = sum(made.workers().values())
    tasks, begun = [], [asyncio.Event() for _ in range(streams)]
    for number, event in enumerate(begun):
        tag = f"idle-{number}"
        patience = seconds * 2 + 60
        tasks.append(
            asyncio.create_task(stream(made.port, tag, events=events, every=every, patience=patience, begun=event))
        )
        if number % 50 == 49:
            # They come within seconds, and not all in the same instant.
            await asyncio.wait([asyncio.ensure_future(each.wait()) for each in begun[: number + 1]], timeout=20)
    open_at_once = sum(made.in_flight().values())
    until = time.monotonic() + seconds * 0.8
    while time.monotonic() < until:
        await beside.ask(20, 0.01)
    grown = sum(made.workers().values()) - memory
    for complaint in await asyncio.gather(*tasks):
        tally.count(complaint)
    eventually(lambda: not made.in_flight(), seconds=10, what="nothing in flight")
    # The activator's are its own, and not in the router's counts.
    direct = sum(bed.NAMES[model_of(f"idle-{number}")] in bed.READY for number in range(streams))
    well = (
        not tally.wrong
        and not beside.bad
        and open_at_once == direct
        and beside.at(0.5) <= TIMES * before.at(0.5) + MORE
    )
    said = [
        f"{streams} streams for {seconds:g} s, an event each {every:g} s; {open_at_once} of {direct} open at once",
        str(tally),
        f"before: {before}", f"beside: {beside}; {len(beside.bad)} wrong {beside.bad[:3]}",
        f"memory of the router's processes: {memory} KiB before, {grown / max(streams, 1):.1f} more for each stream",
    ]  # fmt: skip
    return well, "\n".join(said)


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
        well, said = asyncio.run(idle(made, streams=asked.streams, seconds=asked.seconds, every=asked.every))
    print(said)
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
