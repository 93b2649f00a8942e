"""How far a pull is: rate, time left, words; and a rate limit that all threads keep together."""

import json
import threading
from typing import Any

import pytest
from weights import meter
from weights.meter import Limit, Progress, Teller, Ticker

from tests.checkout import PATIENCE


class Clock:
    """A clock that a test sets, and the pauses that were asked for."""

    def __init__(self) -> None:
        self.now = 100.0
        self.pauses: list[float] = []

    def __call__(self) -> float:
        return self.now

    def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


def progress(clock: Clock, present: dict[str, int] | None = None, **sizes: int) -> Progress:
    return Progress(sizes, present or {}, clock)


def test_nothing_is_known_of_a_rate_at_first() -> None:
    seen = progress(Clock(), a=1000, b=0).snapshot()
    assert seen == {"bytes": 0, "total": 1000, "rate": 0, "seconds_left": None, "files": []}


def test_what_is_there_already_is_no_part_of_the_rate() -> None:
    clock = Clock()
    seen = progress(clock, {"a": 900}, a=1000)
    clock.now += 10
    assert seen.snapshot()["rate"] == 0
    seen.at("a", 950)
    clock.now += 10
    found = seen.snapshot()
    assert (found["bytes"], found["rate"], found["seconds_left"]) == (950, 2, 20.0)


def test_the_rate_is_that_of_the_last_seconds() -> None:
    clock = Clock()
    seen = progress(clock, a=10**6)
    for _ in range(100):
        clock.now += 1
        seen.at("a", seen.bytes + 1000)
        seen.snapshot()
    for _ in range(40):
        clock.now += 1
        seen.at("a", seen.bytes + 10)
        found = seen.snapshot()
    assert found["rate"] == 10
    assert found["seconds_left"] == pytest.approx((10**6 - 100_400) / 10)


def test_a_line_that_stands_has_no_rate_and_no_time_left() -> None:
    clock = Clock()
    seen = progress(clock, a=1000)
    seen.at("a", 500)
    clock.now += 1
    assert seen.snapshot()["rate"] == 500
    for _ in range(40):
        clock.now += 1
        found = seen.snapshot()
    assert (found["rate"], found["seconds_left"]) == (0, None)


def test_a_file_that_begins_anew_makes_no_rate_below_nothing() -> None:
    clock = Clock()
    seen = progress(clock, {"a": 900}, a=1000)
    assert seen.at("a", 0) == -900
    clock.now += 1
    found = seen.snapshot()
    assert (found["bytes"], found["rate"], found["seconds_left"]) == (0, 0, None)


def test_what_is_new_of_a_file_is_what_it_has_more_than_before() -> None:
    seen = progress(Clock(), {"a": 10}, a=1000)
    assert [seen.at("a", size) for size in (10, 15, 1000)] == [0, 5, 985]


def test_files_under_way_are_those_that_have_begun_and_have_not_ended() -> None:
    seen = progress(Clock(), {"whole": 5, "half": 2}, whole=5, half=4, none=7, empty=0)
    assert seen.snapshot()["files"] == [{"name": "half", "bytes": 2, "size": 4}]


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [
        (0, 100, "0%"),
        (1, 3, "33%"),
        (999, 1000, "99%"),
        (10**12 - 1, 10**12, "99%"),
        (1000, 1000, "100%"),
        (0, 0, "100%"),
    ],
)
def test_a_hundred_per_cent_are_only_the_whole(part: int, whole: int, text: str) -> None:
    assert meter.percent(part, whole) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (3_900_000, "3.9 MB"),
        (29_600_000_000, "29.6 GB"),
        (1_500_000_000_000, "1500.0 GB"),
    ],
)
def test_bytes_are_said_in_the_units_of_disks(size: float, text: str) -> None:
    assert meter.amount(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (1.4, "1 s"),
        (99, "99 s"),
        (100, "2 min"),
        (3600, "60 min"),
        (6000, "1 h 40 min"),
        (90061, "25 h 1 min"),
    ],
)
def test_a_time_is_said_roughly(seconds: float, text: str) -> None:
    assert meter.duration(seconds) == text


def snapshot(**said: Any) -> dict[str, Any]:
    return {"bytes": 420, "total": 1000, "rate": 0, "seconds_left": None, "files": []} | said


def under_way(*names: str) -> list[dict[str, Any]]:
    return [{"name": name, "bytes": 1, "size": 2} for name in names]


@pytest.mark.parametrize(
    ("seen", "line"),
    [
        (snapshot(), "pulling a/b: 42% of 1.0 kB"),
        (snapshot(rate=10, seconds_left=58.0), "pulling a/b: 42% of 1.0 kB, 10 B/s, 58 s left"),
        (snapshot(rate=10), "pulling a/b: 42% of 1.0 kB, 10 B/s"),
        (snapshot(bytes=1000, rate=10, seconds_left=0.0), "pulling a/b: 100% of 1.0 kB, 10 B/s"),
        (snapshot(files=under_way("x")), "pulling a/b: 42% of 1.0 kB (x 50%)"),
        (snapshot(files=under_way("x", "y")), "pulling a/b: 42% of 1.0 kB (x 50%, y 50%)"),
        (snapshot(files=under_way("x", "y", "z", "w")), "pulling a/b: 42% of 1.0 kB (x 50%, y 50%, 2 more)"),
    ],
)
def test_a_snapshot_is_one_line(seen: dict[str, Any], line: str) -> None:
    assert meter.words("a/b", "pulling", seen) == line


def test_no_limit_waits_for_nothing() -> None:
    clock = Clock()
    Limit(0, clock, clock.pause).take(10**9)
    assert clock.pauses == []


@pytest.mark.parametrize("size", [0, -5])
def test_nothing_new_waits_for_nothing(size: int) -> None:
    clock = Clock()
    Limit(10, clock, clock.pause).take(size)
    assert clock.pauses == []


def test_so_many_bytes_take_as_long_as_the_limit_has_them_take() -> None:
    clock = Clock()
    limit = Limit(1000, clock, clock.pause)
    for _ in range(50):
        limit.take(100)
    assert clock.now == pytest.approx(105)
    assert max(clock.pauses) == pytest.approx(0.1)


def test_time_in_which_nothing_came_is_not_made_up_for() -> None:
    clock = Clock()
    limit = Limit(1000, clock, clock.pause)
    limit.take(100)
    clock.now += 3600
    limit.take(1000)
    assert clock.pauses[-1] == pytest.approx(1)


def test_threads_keep_the_rate_together() -> None:
    # A pause that ends when all have come: each then has to wait for those before it.
    waits: list[float] = []
    together = threading.Barrier(4, timeout=PATIENCE)

    def pause(seconds: float) -> None:
        waits.append(seconds)
        together.wait()

    limit = Limit(100, lambda: 0.0, pause)
    threads = [threading.Thread(target=limit.take, args=(100,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=PATIENCE)
    assert sorted(waits) == [1, 2, 3, 4]


def test_a_line_for_people_and_an_event_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    Teller(events=False).say("file", "pulled 千问", file="千问")
    Teller(events=True).say("file", "pulled 千问", file="千问")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "tandem: pulled 千问"
    assert json.loads(lines[1]) == {"event": "file", "text": "pulled 千问", "file": "千问"}


@pytest.mark.parametrize("text", ["a\nb", 'a "b"', "\u2028"])
def test_an_event_is_one_line_whatever_is_in_it(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    Teller(events=True).say("error", text)
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    assert json.loads(said)["text"] == text


def test_a_ticker_tells_until_its_block_ends(capsys: pytest.CaptureFixture[str]) -> None:
    looked = threading.Event()

    def look() -> dict[str, Any]:
        looked.set()
        return snapshot()

    with Ticker(Teller(events=True), "a/b", "pulling", look):
        assert looked.wait(PATIENCE)
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {line["text"] for line in said} == {"pulling a/b: 42% of 1.0 kB"}
    assert {line["model"] for line in said} == {"a/b"}
