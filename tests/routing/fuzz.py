"""The differential fuzz of the router: what it makes of bodies and of request lines, against what a server reads.

    python -m tests.routing.fuzz [--bodies 100000] [--lines 20000] [--seed N] [--image IMAGE] [--name NAME]

Ends with 1 and the smallest example that hypothesis finds when the router and the server do not see the same, when the
router answers 5xx by itself or refuses what is plain (reference.is_plain says what may be refused), when one of its
processes is replaced or grows, or when anything but the paths on the list reaches a server.
"""

import argparse
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings
from hypothesis import strategies as st

from tests.routing import bed, bodies, corpus, forms, lines, queries
from tests.routing.client import Client, Mismatch
from tests.routing.linecheck import Lines
from tests.routing.watch import Watch

# hypothesis keeps what it has tried; a round forgets it.
ROUND = 2_000
# One in so many is multipart, or a query in place of a body.
FORMS, QUERIES = 4, 40
# After so many of the lines that were written by hand, the servers say what they saw.
LOOK = 50
T = TypeVar("T")


def search(draw: Callable[[bytes], T], check: Callable[[T], None], examples: int, start: int) -> None:
    """Check so many drawn examples; on a failure raise the Mismatch of the smallest."""

    @seed(start)
    @settings(
        max_examples=examples, database=None, deadline=None, verbosity=Verbosity.quiet, report_multiple_bugs=False,
        phases=(Phase.generate, Phase.shrink), suppress_health_check=list(HealthCheck), print_blob=False,
    )  # fmt: skip
    @given(st.binary(min_size=40, max_size=200))
    def run(entropy: bytes) -> None:
        check(draw(entropy))

    run()


def rounds(total: int, what: str) -> Iterator[tuple[int, int]]:
    """Number the rounds, each with how many it has to draw; on a terminal, tell how far it is."""
    for number, at in enumerate(range(0, total, ROUND)):
        if sys.stderr.isatty():
            print(f"\r{at} of {total} {what} drawn ", end="", file=sys.stderr, flush=True)
        yield number, min(ROUND, total - at)


def all_bodies(client: Client, total: int, start: int, watch: Watch) -> int:
    """The whole corpus, and drawn bodies up to so many in all; in every second round one model alone is ready."""
    before = client.sent
    for case in (*corpus.cases(), *forms.cases(), *queries.cases()):
        client.check(case)
    watch.settled()
    for number, count in rounds(total - (client.sent - before), "bodies"):
        client.ready = bed.READY[: 2 - number % 2]
        watch.bed.set_ready(*client.ready)
        multipart = count // FORMS
        search(bodies.case, client.check, count - multipart, start + number)
        search(forms.case, client.check, multipart - count // QUERIES, start + number)
        search(queries.case, client.check, count // QUERIES, start + number)
        watch.look()
    watch.bed.set_ready(*bed.READY)
    return client.sent - before


def all_lines(client: Lines, total: int, start: int, watch: Watch) -> int:
    before, edges = client.sent, list(lines.corpus())
    for at in range(0, len(edges), LOOK):
        client.check_all(edges[at : at + LOOK])
    for number, count in rounds(total - (client.sent - before), "request lines"):
        search(lines.line, client.check, count, start + number)
        watch.look()
    return client.sent - before


def fuzz(made: bed.Bed, *, total_bodies: int, total_lines: int, start: int) -> Iterator[str]:
    """Send all of it; what came to pass, as it does, or Mismatch."""
    watch = Watch(made)
    if total_bodies:
        began, client = time.monotonic(), Client(made.port, bed.READY)
        sent = all_bodies(client, total_bodies, start, watch)
        client.close()
        seconds, size = client.slowest
        yield f"{sent} bodies in {time.monotonic() - began:.0f} s, the slowest {seconds:.2f} s ({size} bytes):"
        yield from (f"  {count:6} {outcome}" for outcome, count in sorted(client.outcomes.items()))
        yield watch.end()
    if total_lines:
        began, raw = time.monotonic(), Lines(made)
        sent = all_lines(raw, total_lines, start, watch)
        yield f"{sent} request lines in {time.monotonic() - began:.0f} s; answers: {raw.summary()}"
        yield watch.end()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bodies", type=int, default=100_000)
    parser.add_argument("--lines", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1 << 32))
    parser.add_argument("--image", default=bed.ROUTER_IMAGE)
    parser.add_argument("--name", default="tandem-fuzz")
    asked = parser.parse_args()
    print(f"seed {asked.seed}", flush=True)
    with bed.running(asked.name, image=asked.image) as made:
        try:
            for said in fuzz(made, total_bodies=asked.bodies, total_lines=asked.lines, start=asked.seed):
                print(said, flush=True)
        except Mismatch as mismatch:
            print(mismatch)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
