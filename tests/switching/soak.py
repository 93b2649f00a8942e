"""Many clients, many switches, and processes killed in the middle: python -m tests.switching.soak --standin

Exits 1 unless nothing was lost, cut off or wrong, apart from what a killed process held, and no server saw what none
may see. Ends by itself after so many switches, or so much time. Only 127.0.0.1 is asked; it runs as root, as it kills
processes of containers, and with --kill dockerd it starts a Docker Engine of its own, which alone it kills.
"""

import argparse
import asyncio
import contextlib
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from tests.checkout import PATIENCE
from tests.switching import events, stack
from tests.switching.kills import What, excuse
from tests.switching.load import Load, Record, Tally

PROJECT = "tandem-test-soak"
# Between two kills, so that what one broke is whole before the next.
BETWEEN = (1.0, 4.0)
PAUSE_OF_SLEEP = 0.05


@dataclass(frozen=True)
class Wish:
    """What a run is to do; after so many seconds no client asks anew, whatever is missing yet."""

    switches: int
    clients: int
    seconds: float
    kill: What | None = None
    times: int = 0
    seed: int = 0


@dataclass(frozen=True)
class Report:
    """What came of a run: every number that is told, and what is against the bar."""

    rows: list[tuple[str, str]]
    faults: list[str]

    def __str__(self) -> str:
        width = max(len(name) for name, _ in self.rows)
        table = "\n".join(f"{name:<{width}}  {value}" for name, value in self.rows)
        return "\n".join([table, *(f"FAULT {fault}" for fault in self.faults)])


class Killer(threading.Thread):
    """Kills so many times, at moments that chance picks, and waits each time until the system is whole again."""

    def __init__(self, bench: stack.Bench, wish: Wish) -> None:
        super().__init__(daemon=True)
        self.failed: BaseException | None = None
        self._bench, self._wish = bench, wish
        self._rng = random.Random(wish.seed)
        self._ended = threading.Event()

    def run(self) -> None:
        try:
            for _ in range(self._wish.times):
                if self._ended.wait(self._rng.uniform(*BETWEEN)):
                    return
                self._once()
        except BaseException as error:  # noqa: BLE001 (told by the main thread)
            self.failed = error

    def _once(self) -> None:
        assert self._wish.kill is not None
        if self._wish.kill != "server":
            self._bench.kill(self._wish.kill)
            return
        # Whichever serves, sleeps or loads now.
        while not self._ended.is_set():
            running = [name for name in self._bench.names if self._bench.stack.inspect(name)["State"]["Running"]]
            if running:
                self._bench.kill("server", self._rng.choice(running))
                return
            self._ended.wait(PAUSE_OF_SLEEP)

    def stop(self) -> None:
        self._ended.set()


def run(bench: stack.Bench, wish: Wish, say: Callable[[str], None] = print) -> Report:
    """Ask until there were so many switches and kills, or the time is over; then hold everything against the bar."""
    began = time.monotonic()
    first = len(bench.events())
    before = bench.switches()
    counter = Counter(bench, began + wish.seconds, say)
    killer = Killer(bench, wish)

    def enough() -> bool:
        over = time.monotonic() > began + wish.seconds
        return over or (counter.switches - before >= wish.switches and not killer.is_alive())

    counter.start()
    killer.start()
    load = Load(bench.stack.address, bench.asker, clients=wish.clients, enough=enough, seed=wish.seed)
    try:
        tally = asyncio.run(load.run())
    finally:
        killer.stop()
        counter.stop()
    killer.join(PATIENCE)
    seconds = time.monotonic() - began
    return report(bench, wish, tally, bench.events()[first:], bench.switches() - before, seconds, killer.failed)


class Counter(threading.Thread):
    """Looks twice a second how many switches there were: each request asks, and must not read a file for it."""

    def __init__(self, bench: stack.Bench, deadline: float, say: Callable[[str], None]) -> None:
        super().__init__(daemon=True)
        self.switches = 0
        self._bench, self._deadline, self._say = bench, deadline, say
        self._ended = threading.Event()

    def run(self) -> None:
        told = 0
        while not self._ended.wait(0.5):
            # The activator may be down at the moment, and its counters begin anew.
            self.switches = max(self.switches, self._bench.switches())
            if self.switches >= told + 100:
                told = self.switches
                self._say(f"{told} switches, {self._deadline - time.monotonic():.0f} s left")

    def stop(self) -> None:
        self._ended.set()
        self.join(PATIENCE)


def report(
    bench: stack.Bench,
    wish: Wish,
    tally: Tally,
    seen: Sequence[events.Event],
    switches: int,
    seconds: float,
    failed: BaseException | None = None,
) -> Report:
    """Hold what happened against the bar."""
    direct = events.direct(seen, bench.routers)
    excused = [record for record in tally.bad if excuse(record, bench.kills, direct)]
    held = {record.ident for record in excused}
    left = [record for record in tally.bad if record.ident not in held]
    kinds = events.switches(seen)
    asked = len(tally.records)
    rows = [
        ("switches", f"{switches} ({kinds['start']} by start, {kinds['wake']} by wake)" if kinds else str(switches)),
        ("seconds", f"{seconds:.0f}"),
        ("requests", str(asked)),
        ("ok", str(tally.count("ok"))),
        *((verdict, str(sum(record.verdict == verdict for record in left))) for verdict in BAD),
        ("held by what was killed", str(len(excused))),
        ("turned away, came again", f"{tally.refused} {dict(tally.reasons) or ''}".strip()),
        ("unreachable, came again", str(tally.unreachable)),
        ("comments while held", str(tally.comments)),
        ("kills", f"{len(bench.kills)} of {wish.kill}" if wish.kill else "0"),
    ]
    killed = {kill.model for kill in bench.kills}
    # With the Engine every container ends, whatever it is doing.
    killed |= set(bench.names) if wish.kill == "dockerd" else set()
    faults = [told(record) for record in left] + events.faults(seen, killed)
    if switches < wish.switches:
        faults.append(f"{switches} switches of {wish.switches} in {seconds:.0f} s")
    if wish.kill and len(bench.kills) < wish.times:
        faults.append(f"{len(bench.kills)} kills of {wish.times} in {seconds:.0f} s")
    if failed is not None:
        faults.append(f"the kills ended with {failed!r}")
    if not asked:
        faults.append("no request was made")
    return Report(rows, faults)


BAD = ("lost", "truncated", "wrong")


def told(record: Record) -> str:
    kind = "stream" if record.stream else "plain"
    when = f"{record.began:.2f} to {record.ended:.2f}"
    return f"{record.verdict}: {record.model} {kind} {record.ident}, {when}: {record.note[:300]}"


@contextlib.contextmanager
def made(args: argparse.Namespace, folder: Path) -> Iterator[stack.Bench]:
    """Start the stack that a command line asks for."""
    servers: stack.Servers = "vllm" if args.vllm else "standin"
    models = stack.FOUR[: 2 if args.vllm else 4]
    sleep = args.by == "sleep"
    if args.kill == "dockerd":
        from tests.switching import engine

        with engine.private(folder) as machine, engine.running(machine, folder, models, servers, sleep=sleep) as bench:
            yield bench
        return
    with stack.running(
        stack.fill(stack.copy(folder / "stack", PROJECT), models, servers=servers, sleep=sleep)
    ) as bench:
        yield bench


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--standin", action="store_true", help="servers that load in half a second and have no model")
    which.add_argument("--vllm", action="store_true", help="vLLM on the CPU with two tiny models")
    parser.add_argument("--switches", type=int, default=200)
    parser.add_argument(
        "--by", choices=["sleep", "stop"], default="sleep", help="what becomes of the model that leaves"
    )
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--kill", choices=get_args(What))
    parser.add_argument("--times", type=int, default=1, help="how often to kill")
    parser.add_argument(
        "--seconds",
        type=float,
        default=3600,
        help="how long to go on asking; what is under way then may take five minutes more",
    )
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(argv)


def main() -> int:
    """Run it, print the table; 1 when something is against the bar."""
    args = arguments()
    times = args.times if args.kill else 0
    wish = Wish(args.switches, args.clients, args.seconds, args.kill, times, args.seed)
    with tempfile.TemporaryDirectory() as folder, made(args, Path(folder)) as bench:
        found = run(bench, wish)
        print(found)
        if found.faults:
            print(bench.logs(), file=sys.stderr)
    return 1 if found.faults else 0


if __name__ == "__main__":
    sys.exit(main())
