"""Sends request lines: whatever comes, nothing but the paths on the list may reach a server."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.routing import wire
from tests.routing.bed import Bed
from tests.routing.client import Mismatch
from tests.routing.lines import INSIDE, Line
from tests.routing.paths import DECIDED
from tests.routing.verdict import error_code

# Comes after everything that is sent, so that the router closes the connection when it has read all of it.
LAST = b"GET /health HTTP/1.1\r\nHost: router\r\nConnection: close\r\n\r\n"
ID = r"(?!render(\?|$))[A-Za-z0-9._:-]+"
# Only the spelling that the router itself gives them, whatever a client wrote; an id has no slash, no blank and no %.
SERVED = re.compile(
    "|".join(
        rf"({'|'.join(decision.methods)}) {re.escape(decision.path).replace(re.escape('{response_id}'), ID)}(\?.*)?"
        for decision in DECIDED
        if decision.passes
    ),
    re.DOTALL,
)
# What the router says by itself, and with 200 or 204.
OWN = (b'"ok"', b'"ready"', b'"object"', b'"digest"')
# What a stand-in says.
THEIRS = (b'"by"', b'"detail"')


@dataclass
class Lines:
    """Sends them, each over a connection of its own."""

    bed: Bed
    # How long a connection may say nothing until it is taken to wait for more of ours.
    quiet: float = 0.02
    sent: int = 0
    statuses: Counter[int] = field(default_factory=Counter)

    def check(self, line: Line) -> None:
        """Raise Mismatch when it reached a server as it may not, or the answer is not as it should be."""
        data = self.send(line)
        self.reached(line)
        self.judge(line, data)

    def check_all(self, lines: Sequence[Line]) -> None:
        """Check many, and look at the servers once for all of them; when there is something, for each."""
        for line in lines:
            self.judge(line, self.send(line))
        try:
            self.reached(lines[-1])
        except Mismatch:
            self.bed.forget()
            for line in lines:
                self.check(line)
            raise

    def send(self, line: Line) -> bytes:
        """Send it over a connection of its own; all that came back."""
        self.sent += 1
        connection = wire.Connection(self.bed.port)
        try:
            connection.send(line.sent + LAST)
            # The router ends the connection of one whose answer is known; who is done earlier may get none of it.
            data = connection.rest(quiet=wire.PATIENCE if line.good or line.code else self.quiet)
            connection.finish()
            return data + connection.rest()
        except TimeoutError as error:
            raise Mismatch(f"the connection stays open\n{line}") from error
        finally:
            connection.close()

    def judge(self, line: Line, data: bytes) -> None:
        """Raise Mismatch when what came back is not as it should be."""
        try:
            answers = wire.answers(data)
        except (ValueError, IndexError) as error:
            raise Mismatch(f"no HTTP: {data[:500]!r}\n{line}") from error
        if line.good and (not answers or any(answer.status != 200 for answer in answers)):
            raise Mismatch(f"a good request was not served: {answers}\n{line}")
        if line.code and [error_code(answer) for answer in answers] != [line.code]:
            raise Mismatch(f"not refused as {line.code}: {answers}\n{line}")
        for answer in answers:
            self.statuses[answer.status] += 1
            if complaint := wrong(answer, line):
                raise Mismatch(f"{complaint}: {answer}\n{line}")

    def reached(self, line: Line) -> None:
        """Look at what the servers saw."""
        for who, seen in self.bed.seen().items():
            for request in seen:
                if not SERVED.fullmatch(request) or INSIDE.decode() in request:
                    raise Mismatch(f"{who} got {request!r} from\n{line}")
            if len(seen) > 100:
                self.bed.tell(who, "/forget")

    def summary(self) -> str:
        return ", ".join(f"{count} of {status or 'no status'}" for status, count in sorted(self.statuses.items()))


def wrong(answer: wire.Answer, line: Line) -> str:
    """What is wrong with one answer; nothing if it is as it should be."""
    if "x-standin" in answer.headers:
        return ""
    # HTTP/0.9 has no status, and so nothing that says who answered; HEAD has no body.
    if answer.status == 0:
        return "" if error_code(answer) or any(word in answer.body for word in (*OWN, *THEIRS)) else "nobody's answer"
    if answer.status in (100, 200, 204):
        return (
            "" if not answer.body or any(word in answer.body for word in OWN) else "not an answer of the router's own"
        )
    if not 400 <= answer.status < 500:
        return "not 4xx"
    if not error_code(answer) and not (b"HEAD " in line.sent and not answer.body):
        return "not OpenAI's error shape"
    return ""
