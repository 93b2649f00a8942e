"""When the activator begins anew, as its models changed and nothing is under way, and how long it takes to end."""

import asyncio
from collections.abc import Sequence

import pytest
import uvicorn

from orchestrator.activator.__main__ import LAST_ANSWER, LAST_WORDS, _Server
from orchestrator.activator.rereading import BETWEEN, until_changed
from orchestrator.activator.settings import Settings
from orchestrator.errors import ConfigError

OLD, NEW, WRONG = Settings(digest="old"), Settings(digest="new"), ConfigError(["models.json: is no JSON"])


def looks(*found: Settings | ConfigError, busy: Sequence[bool] = ()) -> list[float]:
    """Have these found one after another; the pauses that were made until it ended."""
    left, under_way, pauses = iter(found), iter(busy), list[float]()

    def load() -> Settings:
        each = next(left)
        if isinstance(each, ConfigError):
            raise each
        return each

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    asyncio.run(until_changed(load, OLD, lambda: next(under_way, False), pause))
    return pauses


def test_it_ends_with_the_first_look_that_finds_something_else() -> None:
    assert looks(OLD, OLD, NEW) == [BETWEEN] * 3


def test_what_is_under_way_comes_first() -> None:
    assert len(looks(NEW, NEW, NEW, busy=[True, True, False])) == 3


def test_a_change_that_is_taken_back_meanwhile_is_none() -> None:
    assert len(looks(NEW, OLD, NEW, busy=[True, False])) == 3


def test_what_cannot_be_read_is_said_once_and_waited_out(caplog: pytest.LogCaptureFixture) -> None:
    assert len(looks(WRONG, WRONG, OLD, WRONG, NEW)) == 5
    assert caplog.text.count("going on with the models as they were: models.json: is no JSON") == 2


@pytest.mark.parametrize(("passing_on", "seconds"), [(True, LAST_ANSWER), (False, LAST_WORDS)])
def test_an_answer_that_is_passed_on_has_time_to_end(passing_on: bool, seconds: int) -> None:
    server = _Server(uvicorn.Config("none"), lambda: passing_on)
    server.end()
    assert server.should_exit
    assert server.config.timeout_graceful_shutdown == seconds
    assert LAST_ANSWER < 30, "as docker stop kills who has not ended by then"
