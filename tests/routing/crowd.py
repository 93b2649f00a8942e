"""Many clients that stream all at once, and then the same while the router reads its configuration again and again.

python -m tests.routing.crowd [--clients 500] [--seconds 30] [--image IMAGE] [--name NAME]
"""

import argparse
import asyncio
import sys
import time

from tests.checkout import eventually
from tests.routing import bed
from tests.routing.streams import Tally, raise_limits, stream

EVENTS, EVERY = 8, 0.25
# No client waits for so long but for what never comes.
PATIENCE = 600.0


async def crowd(
    made: bed.Bed, *, clients: int, seconds: float, reload_each: float = 0, least: int = 0
) -> tuple[Tally, int]:
    """Let every client ask again and again for so long; what came of it, and how often the router was reloaded.

    least: it goes on until the router was reloaded so often.
    """
    tally, reloads = Tally(), 0
    until = time.monotonic() + seconds

    def over() -> bool:
        return time.monotonic() >= until and reloads >= least

    async def client(number: int) -> None:
        turn = 0
        while not over():
            turn += 1
            tally.count(
                await stream(made.port, f"crowd-{number}-{turn}", events=EVENTS, every=EVERY, patience=PATIENCE)
            )

    async def reloading() -> None:
        nonlocal reloads
        while not over():
            await asyncio.sleep(reload_each)
            await asyncio.to_thread(made.reload)
            reloads += 1

    await asyncio.gather(*(client(number) for number in range(clients)), *([reloading()] if reload_each else []))
    eventually(lambda: not made.in_flight(), what="nothing in flight")
    return tally, reloads


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--image", default=bed.ROUTER_IMAGE)
    parser.add_argument("--name", default="tandem-crowd")
    asked = parser.parse_args()
    raise_limits()
    with bed.running(asked.name, image=asked.image) as made:
        calm, _ = asyncio.run(crowd(made, clients=asked.clients, seconds=asked.seconds))
        print(f"{asked.clients} clients for {asked.seconds:g} s: {calm}", flush=True)
        stirred, reloads = asyncio.run(crowd(made, clients=asked.clients, seconds=asked.seconds, reload_each=1))
        print(f"the same with {reloads} reloads: {stirred}")
    return 1 if calm.wrong or stirred.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
