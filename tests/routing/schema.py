"""Sends what the server's OpenAPI document allows, and what it does not, through the router, whose errors have a shape.

    python -m tests.routing.schema [--examples 100] [--seed 1]

It starts a stack of its own, with vLLM on the CPU, and exits 1 when an answer is not as it should be.
"""

import argparse
import contextlib
import json
import sys
import tempfile
import unittest
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.errors
import requests
import schemathesis
from hypothesis import strategies
from schemathesis.errors import UnsupportedSchema

from tests.routing import cases, served
from tests.routing.compare import ask
from tests.routing.paths import BY_PATH

PROJECT = "tandem-test-schema"
# What makes an answer long, and how much of it is enough.
LONG = {"max_tokens": 4, "max_completion_tokens": 4, "max_output_tokens": 4, "min_tokens": 4, "n": 2, "best_of": 2}
# Has a grammar compiled first, which takes seconds and is no concern of the router.
SLOW = ("response_format", "structured_outputs", "text", "tools", "output_config", "output_format")
SECONDS = 180
# The first of each path, and what ends its answer early.
GOODS = {case.path: case.body for case in reversed(cases.GOOD) if isinstance(case.body, dict)}
ENDS = {cases.CHAT: "max_tokens", cases.TEXT: "max_tokens", cases.RESPONSES: "max_output_tokens"}
MODES = (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE)


@dataclass
class Found:
    """How often each path gave each status, and what was wrong."""

    answers: Counter[tuple[str, int]] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


def fault(status: int, kind: str, body: bytes) -> str:
    """Say what is wrong with an answer; "" for nothing."""
    if status < 400:
        return ""
    if not kind.startswith("application/json"):
        return f"an error in {kind or 'no type at all'}"
    try:
        content = json.loads(body)
    except ValueError:
        return "an error that is no JSON"
    if not isinstance(content, dict):
        return "an error in no known shape"
    error = content.get("error")
    # The router's codes are words, vLLM's numbers; in Anthropic's shape there is none.
    if isinstance(error, dict) and isinstance(error.get("message"), str) and isinstance(error.get("type"), str):
        return "a 5xx of the router" if status >= 500 and isinstance(error.get("code"), str) else ""
    return "" if set(content) == {"detail"} and status < 500 else "an error in no known shape"


@strategies.composite
def _case(draw: strategies.DrawFn, operation: Any, mode: schemathesis.GenerationMode) -> schemathesis.Case:
    """Draw a request that mostly names the model, and of which the answer is short."""
    try:
        case: schemathesis.Case = draw(operation.as_strategy(generation_mode=mode))
    except UnsupportedSchema:
        # It says of some things against a schema that it cannot make them.
        hypothesis.reject()
    if isinstance(case.body, dict):
        body = {key: value for key, value in case.body.items() if key not in SLOW}
        # Nearly all of what is made up is refused for something; a good request with a little of it may not be.
        good = GOODS.get(operation.path)
        if good and draw(strategies.booleans()):
            kept = draw(strategies.sets(strategies.sampled_from(sorted(body)), max_size=3)) if body else set()
            body = {**{key: body[key] for key in kept}, **good}
            if operation.path in ENDS:
                body.setdefault(ENDS[operation.path], 4)
        for key, most in LONG.items():
            if isinstance(body.get(key), int) and body[key] > most:
                body[key] = most
        if draw(strategies.integers(0, 3)):
            body["model"] = served.MODEL
        case.body = body
    return case


def _made(strategy: strategies.SearchStrategy[schemathesis.Case], count: int, seed: int) -> list[schemathesis.Case]:
    made: list[schemathesis.Case] = []

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=count,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
        database=None,
        deadline=None,
    )
    @hypothesis.given(strategy)
    def make(case: schemathesis.Case) -> None:
        made.append(case)

    make()
    return made


def _cases(operation: Any, examples: int, seed: int) -> Iterator[schemathesis.Case]:
    """Make examples of an operation, half of them against its schema where that can be."""
    for mode in MODES:
        # There is nothing that /version could be asked wrongly.
        with contextlib.suppress(unittest.SkipTest, hypothesis.errors.Unsatisfiable):
            yield from _made(_case(operation, mode), max(1, examples // len(MODES)), seed)


def run(address: str, document: dict[str, Any], examples: int, seed: int) -> Found:
    """Send so many examples to each path that passes."""
    found = Found()
    session = requests.Session()
    session.trust_env = False
    for result in schemathesis.openapi.from_dict(document).get_all_operations():
        operation = result.ok()
        decision = BY_PATH.get(operation.path)
        if decision is None or not decision.passes:
            continue
        for case in _cases(operation, examples, seed):
            shown = f"{case.method} {operation.path} {str(case.body)[:300]}"
            try:
                answer = case.call(base_url=address, session=session, timeout=SECONDS)
            except requests.RequestException as error:
                found.faults.append(f"{shown}: {error}")
                continue
            found.answers[operation.path, answer.status_code] += 1
            kind = answer.headers.get("content-type", [""])[0]
            if wrong := fault(answer.status_code, kind, answer.content):
                found.faults.append(f"{shown}: {wrong}: {answer.status_code} {answer.content[:300]!r}")
    return found


def _report(found: Found) -> int:
    for (path, status), count in sorted(found.answers.items()):
        print(f"{count:6} {status} {path}")
    for line in found.faults:
        print(line, file=sys.stderr)
    return 1 if found.faults else 0


def main() -> int:
    """Run it as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=100, help="of each path and method")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, served.running(Path(folder) / "stack", PROJECT) as up:
        document = ask(up.server, "GET", "/openapi.json").json
        return _report(run(up.router, document, options.examples, options.seed))


if __name__ == "__main__":
    sys.exit(main())
