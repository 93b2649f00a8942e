"""Sends cases to the router one after the other over a connection that is kept, and says what is wrong."""

import time
from collections import Counter
from dataclasses import dataclass, field

from tests.routing.reference import Case, reading
from tests.routing.verdict import judge
from tests.routing.wire import Answer, Broken, Connection


class Mismatch(AssertionError):  # noqa: N818 (what was found, and no error of ours)
    """The router and the server, or the router and its rules, see a request differently."""


@dataclass
class Client:
    port: int
    # Services whose routes are open.
    ready: tuple[str, ...]
    sent: int = 0
    # What came of each, by what the reference made of it.
    outcomes: Counter[str] = field(default_factory=Counter)
    # Seconds and bytes of the one that took longest; no pattern of the router's may take forever over a body.
    slowest: tuple[float, int] = (0.0, 0)
    _connection: Connection | None = field(default=None, repr=False)

    def check(self, case: Case) -> None:
        """Send it; raise Mismatch when the answer is not as it should be."""
        self.sent += 1
        data, began = case.wire, time.monotonic()
        try:
            answer = self._ask(data)
        except (Broken, TimeoutError, OSError) as error:
            self.close()
            raise Mismatch(f"no answer: {error!r}\n{case}") from error
        self.slowest = max(self.slowest, (time.monotonic() - began, len(data)))
        by = "a server" if "x-standin" in answer.headers else "the router"
        self.outcomes[f"{reading(case)}: {answer.status} of {by}"] += 1
        if complaint := judge(case, answer, self.ready):
            raise Mismatch(f"{complaint}\n  answer {answer.status} {answer.body[:400]!r}\n{case}")

    def _ask(self, data: bytes) -> Answer:
        for last in (self._connection is None, True):
            if self._connection is None:
                self._connection = Connection(self.port)
            try:
                self._connection.send(data)
                answer = self._connection.answer()
            except (Broken, OSError):
                self.close()
                # One that was kept may have been closed meanwhile: that says nothing of this request.
                if last:
                    raise
                continue
            if answer.closes:
                self.close()
            return answer
        raise AssertionError

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
