"""The short form of tests/routing: the corpora, some drawn bodies and request lines, streams, reloads under load."""

import asyncio
import base64
import contextlib
import random
from collections.abc import Iterator

import pytest

from tests.checkout import Checkout
from tests.routing import bed, corpus, forms, lines, queries, wire
from tests.routing.client import Client
from tests.routing.crowd import crowd
from tests.routing.fuzz import fuzz
from tests.routing.idle import idle
from tests.routing.reference import Case

pytestmark = pytest.mark.docker

PROJECT = "tandem-test-fuzz"
BODIES, LINES, SEED = 2_000, 500, 20_261_127
# TANDEM_BODY_LIMIT, unless it is set.
LARGEST = 64 << 20


@pytest.fixture(scope="module")
def made(images: Checkout) -> Iterator[bed.Bed]:
    with bed.running(PROJECT) as running:
        yield running


def test_bodies_go_where_their_server_reads_them_and_lines_nowhere_else(made: bed.Bed) -> None:
    bodies_of_corpus = sum(1 for _ in (*corpus.cases(), *forms.cases(), *queries.cases()))
    lines_of_corpus = sum(1 for _ in lines.corpus())
    wanted = {"total_bodies": bodies_of_corpus + BODIES, "total_lines": lines_of_corpus + LINES}
    said = "\n".join(fuzz(made, **wanted, start=SEED))
    assert f"{bodies_of_corpus + BODIES} bodies" in said
    assert f"{lines_of_corpus + LINES} request lines" in said


@pytest.mark.parametrize("chunk", [0, 1 << 20], ids=["with its length", "in chunks"])
def test_a_body_as_large_as_may_be_passes_byte_for_byte(made: bed.Bed, chunk: int) -> None:
    start, end = b'{"model":"alpha","image":"', b'"}'
    size = LARGEST - len(start) - len(end)
    image = base64.b64encode(random.Random(SEED).randbytes(size))[:size]
    client = Client(made.port, bed.READY)
    with contextlib.closing(client):
        # The stand-in says how many bytes it got, and their checksum.
        client.check(Case(start + image + end, chunk=chunk, plain="alpha"))
    assert dict(client.outcomes) == {"names, plain: 200 of a server": 1}
    with contextlib.closing(wire.Connection(made.port)) as connection:
        connection.send(Case(start + image + end + b" ", chunk=chunk).wire)
        assert connection.answer().status == 413


def test_streams_that_say_little_are_whole_and_in_nobodys_way(made: bed.Bed) -> None:
    # How long an answer beside them takes is for the long form, on a machine that does nothing else.
    held = asyncio.run(idle(made, streams=200, seconds=5, every=1))
    assert held.whole, held


def test_a_reload_each_second_drops_no_stream_of_a_crowd(made: bed.Bed) -> None:
    tally, reloads = asyncio.run(crowd(made, clients=100, seconds=5, reload_each=1, least=3))
    assert not tally.wrong, tally
    assert tally.whole >= 100
    assert reloads >= 3
