"""Docker through its SDK: whose events count, what a refusal is, and what it is when the daemon is away."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from docker.errors import APIError, NotFound
from requests import Response
from requests.exceptions import ConnectionError as NoConnection

from orchestrator.activator.docker import AwayError, Docker, DockerError, Happening, Stray


def event(action: str, model: str, **said: str) -> dict[str, Any]:
    attributes = {"com.docker.compose.service": model, "name": f"tandem-{model}", **said}
    return {"Action": action, "Actor": {"Attributes": attributes}}


def refused(status: int, text: str) -> APIError:
    response = Response()
    response.status_code = status
    return APIError(text, response, text)


class Client:
    """The SDK's client, as far as it is called."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.called: list[Any] = []

    def __getattr__(self, verb: str) -> Any:
        def call(*arguments: Any, **more: Any) -> Any:
            self.called.append((verb, *arguments, *sorted(more)))
            found = self.answers.get(verb)
            if isinstance(found, Exception):
                raise found
            return found

        return call


async def happenings(client: Client) -> list[Happening | None]:
    found: list[Happening | None] = []
    try:
        async for happening in Docker("tandem", lambda: client).happenings(frozenset({"a"})):
            found.append(happening)  # noqa: PERF401 (what came before it broke off counts)
    except AwayError:
        return found
    raise AssertionError("events do not end by themselves")


def test_only_the_models_own_containers_count() -> None:
    events = [
        event("start", "a"),
        event("start", "router"),
        event("start", "a", name="tandem-a-run-1"),
        event("die", "a", **{"tandem.alone": "1"}),
        {"Action": "start", "Actor": {"Attributes": {}}},
        event("exec_create: sh", "a"),
        event("kill", "a", signal="15"),
        event("die", "a", exitCode="137"),
    ]
    assert asyncio.run(happenings(Client(events=iter(events)))) == [
        None,
        Happening("start", "a"),
        Happening("exec_create", "a"),
        Happening("kill", "a", signal=15),
        Happening("die", "a", code=137),
    ]


def test_events_that_break_off_end_as_a_daemon_that_is_away() -> None:
    def breaks() -> Iterator[Any]:
        yield event("start", "a")
        raise OSError("reset")

    assert asyncio.run(happenings(Client(events=breaks()))) == [None, Happening("start", "a")]
    assert asyncio.run(happenings(Client(events=NoConnection("no")))) == []


@pytest.mark.parametrize("error", [NoConnection("refused"), refused(502, "Bad Gateway"), refused(504, "late")])
def test_a_daemon_that_is_away_is_told_from_one_that_refuses(error: Exception) -> None:
    with pytest.raises(AwayError):
        asyncio.run(Docker("tandem", lambda: Client(start=error)).start("a"))
    with pytest.raises(DockerError, match="no such device") as caught:
        asyncio.run(Docker("tandem", lambda: Client(start=refused(500, "no such device"))).start("a"))
    assert not isinstance(caught.value, AwayError)


def test_what_is_not_there_is_none() -> None:
    assert asyncio.run(Docker("tandem", lambda: Client(inspect_container=NotFound("no"))).inspect("a")) is None


def test_containers_are_called_by_the_projects_name() -> None:
    client = Client(logs=b"one\r\ntwo\n")
    docker = Docker("other", lambda: client)
    asyncio.run(docker.stop("a", 30))
    assert asyncio.run(docker.tail("a", 5)) == ["one", "two"]
    assert [call[:2] for call in client.called] == [("stop", "other-a"), ("logs", "other-a")]


def test_lines_come_whole_whatever_the_chunks() -> None:
    async def lines() -> list[str]:
        docker = Docker("tandem", lambda: Client(logs=iter([b"on", b"e\ntw", b"o\r\nthr", b"ee\n"])))
        return [line async for line in docker.follow("a", None)]

    assert asyncio.run(lines()) == ["one", "two", "three"]


def listed(name: str, profile: str = "", **labels: str) -> dict[str, Any]:
    return {"Names": [f"/{name}"], "Labels": {"tandem.profile": profile or name.removeprefix("tandem-"), **labels}}


def test_a_server_that_runs_and_is_no_models_is_a_stray() -> None:
    running = [
        listed("tandem-old", **{"tandem.gpus": "0,1"}),
        listed("tandem-a", **{"tandem.gpus": "0,1"}),
        listed("tandem-tiny", **{"tandem.gpus": ""}),
        listed("tandem-old-run-1", profile="old"),
        listed("tandem-test", **{"tandem.alone": "true"}),
    ]
    asked: list[Any] = []

    class Lists(Client):
        def containers(self, filters: Any) -> list[dict[str, Any]]:
            asked.append(filters)
            return running

    strays = asyncio.run(Docker("tandem", Lists).strays({"a"}))
    assert strays == [Stray("old", frozenset({0, 1})), Stray("tiny", frozenset())]
    assert asked == [{"label": ["com.docker.compose.project=tandem", "tandem.profile"]}]
