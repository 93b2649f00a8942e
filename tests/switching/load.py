"""Clients that ask for models at random, all at once, and hold every answer against what it should be."""

import asyncio
import itertools
import json
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import httpx

from tests.switching.answers import Asker, Heard, Question, Verdict, judge, refused

# What a request may take with every retry; a switch takes seconds, and many may come before it.
PATIENCE = 300.0
# The longest wait that a client grants a Retry-After: the tests are in a hurry.
LONGEST_RETRY = 2.0
UNREACHABLE_RETRY = 0.1


@dataclass
class Record:
    """One try of a request: when it was sent and over (time.monotonic), and what came of it."""

    ident: str
    model: str
    stream: bool
    began: float
    ended: float = 0
    verdict: Verdict = "lost"
    note: str = ""
    # Whether it heard comments: the activator held it.
    waited: bool = False


@dataclass
class Tally:
    """What came of all requests; refused and unreachable count tries, each of which was made again."""

    records: list[Record] = field(default_factory=list)
    refused: int = 0
    unreachable: int = 0
    comments: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    def count(self, verdict: Verdict) -> int:
        return sum(record.verdict == verdict for record in self.records)

    @property
    def bad(self) -> list[Record]:
        return [record for record in self.records if record.verdict != "ok"]


class Turned(Exception):  # noqa: N818 (no error: the request may come again)
    """A request was turned away, and may come again after so many seconds."""

    def __init__(self, after: float, why: str) -> None:
        super().__init__(why)
        self.after = after


class Load:
    """Clients of one address. enough() is asked before each request; when it says so, the clients go home."""

    def __init__(
        self,
        address: str,
        ask: Asker,
        *,
        clients: int,
        enough: Callable[[], bool],
        seed: int = 0,
        patience: float = PATIENCE,
        pause: float = 0,
    ) -> None:
        self.tally = Tally()
        self._address, self._ask, self._enough = address, ask, enough
        self._clients, self._seed, self._patience, self._pause = clients, seed, patience, pause
        self._idents = (f"{seed}-{number}" for number in itertools.count())

    async def run(self) -> Tally:
        """Ask until it is enough, and let what is under way end."""
        # Each request has a connection of its own: one that could not be opened was surely not sent.
        limits = httpx.Limits(max_keepalive_connections=0)
        timeout = httpx.Timeout(self._patience, connect=5)
        async with httpx.AsyncClient(base_url=self._address, limits=limits, timeout=timeout, trust_env=False) as http:
            await asyncio.gather(*(self._client(http, random.Random(self._seed + i)) for i in range(self._clients)))
        return self.tally

    async def _client(self, http: httpx.AsyncClient, rng: random.Random) -> None:
        while not self._enough():
            await self._whole(http, self._ask(rng))
            if self._pause:
                await asyncio.sleep(rng.uniform(0, 2 * self._pause))

    async def _whole(self, http: httpx.AsyncClient, asked: Question) -> None:
        """Send a request until it is answered, or has been turned away for too long."""
        deadline = time.monotonic() + self._patience
        while True:
            record = Record(next(self._idents), asked.model, asked.stream, time.monotonic())
            try:
                await self._once(http, asked, record, deadline)
            except Turned as turned:
                self.tally.refused += 1
                self.tally.reasons[str(turned)] += 1
                wait, record.note = turned.after, f"turned away until the end: {turned}"
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                self.tally.unreachable += 1
                wait, record.note = UNREACHABLE_RETRY, f"unreachable until the end: {error!r}"
            else:
                self._add(record)
                return
            if time.monotonic() + wait > deadline:
                self._add(record)
                return
            await asyncio.sleep(wait)

    def _add(self, record: Record) -> None:
        record.ended = time.monotonic()
        self.tally.records.append(record)

    async def _once(self, http: httpx.AsyncClient, asked: Question, record: Record, deadline: float) -> None:
        """Send it once; record.verdict tells how that went."""
        heard = Heard()
        try:
            async with asyncio.timeout(max(0.1, deadline - time.monotonic())):
                await self._hear(http, asked, record.ident, heard)
        except (httpx.ConnectError, httpx.ConnectTimeout):
            raise
        except TimeoutError:
            record.note = "no end within its patience"
        except httpx.HTTPError as error:
            record.note = repr(error)
        except (ValueError, LookupError, TypeError) as error:
            record.note = f"not an answer: {error!r}"
        record.verdict = judge(asked, heard)
        record.waited = bool(heard.comments)
        record.note = record.note or heard.error or ("" if record.verdict == "ok" else f"got {heard.text[-200:]!r}")
        self.tally.comments += len(heard.comments)

    async def _hear(self, http: httpx.AsyncClient, asked: Question, ident: str, heard: Heard) -> None:
        async with http.stream("POST", asked.path, json={**asked.body, "user": ident}) as answer:
            if answer.status_code != 200:
                body = await answer.aread()
                after = refused(answer.status_code, answer.headers.items(), body)
                if after is not None:
                    raise Turned(min(after, LONGEST_RETRY), json.loads(body)["error"]["code"])
                heard.error = f"{answer.status_code} {body.decode(errors='replace')[:300]}"
            elif asked.stream:
                async for piece in answer.aiter_text():
                    heard.take(piece)
            else:
                heard.parse(await answer.aread())
