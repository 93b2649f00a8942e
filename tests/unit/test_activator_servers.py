"""What servers, the router and the GPU reader are asked, and what their answers mean."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from orchestrator.activator.gpus import Gpus, Process
from orchestrator.activator.router import Router
from orchestrator.activator.servers import Load, RefusedError, ServerError, Servers

LISTED = {"data": [{"id": "A"}, {"id": "org/a"}]}
METRICS = """# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="a"} 2.0
vllm:num_requests_waiting{engine="0",model_name="a"} 1.0
vllm:num_requests_waiting_by_reason{reason="x"} 9.0
vllm:prompt_tokens_total{engine="0"} 100.0
vllm:generation_tokens_total{engine="0"} 1.1e+03
"""


class Answers:
    """Answers by method and path; what is not there is refused as by nobody listening."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.asked: list[str] = []

    def transport(self) -> httpx.MockTransport:
        return httpx.MockTransport(self.answer)

    def answer(self, request: httpx.Request) -> httpx.Response:
        path = request.url.raw_path.decode()
        self.asked.append(
            f"{request.method} {request.url.host}:{request.url.port} {path} {request.content.decode()}".strip()
        )
        found = self.answers.get(path.partition("?")[0].strip("/").replace("/", "_").replace("-", "_"))
        if found is None:
            raise httpx.ConnectError("refused", request=request)
        if isinstance(found, Exception):
            raise found
        status, body = found if isinstance(found, tuple) else (200, found)
        return httpx.Response(status, text=body) if isinstance(body, str) else httpx.Response(status, json=body)


def asked(answers: Answers, ask: Callable[[Servers], Awaitable[Any]]) -> Any:
    async def whole() -> Any:
        servers = Servers({"a": "A"}.__getitem__, answers.transport())
        try:
            return await ask(servers)
        finally:
            await servers.close()

    return asyncio.run(whole())


def test_listed_is_who_answers_with_its_own_name() -> None:
    assert asked(Answers(v1_models=LISTED), lambda servers: servers.lists("a")) is True
    for answer in ({"data": [{"id": "a"}]}, (503, ""), "words", {}, [], None, httpx.ReadTimeout("late")):
        assert asked(Answers(v1_models=answer), lambda servers: servers.lists("a")) is False


def test_one_token_is_asked_for_and_nothing_more() -> None:
    answers = Answers(v1_completions={"choices": [{"text": "."}]})
    asked(answers, lambda servers: servers.prove("a"))
    assert answers.asked == ['POST a:8000 /v1/completions {"model":"A","prompt":"Hi","max_tokens":1,"temperature":0}']


@pytest.mark.parametrize(
    "answer",
    [(404, {"detail": "Not Found"}), (400, {"error": {"message": "The model does not support Completions API"}})],
)
def test_a_model_that_generates_nothing_is_proven_by_its_listing(answer: Any) -> None:
    asked(Answers(v1_completions=answer, v1_models=LISTED), lambda servers: servers.prove("a"))
    with pytest.raises(ServerError):
        asked(Answers(v1_completions=answer), lambda servers: servers.prove("a"))


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((404, {"error": {"message": "The model `a` does not exist."}}), "404: The model `a` does not exist."),
        ((500, {"error": {"message": "EngineCore died"}}), "500: EngineCore died"),
        ((400, {"detail": "bad"}), "400: bad"),
        (httpx.ReadTimeout("late"), "no answer in time"),
        (httpx.RemoteProtocolError("gone"), "broke off: gone"),
    ],
)
def test_no_token_is_no_proof(answer: Any, said: str) -> None:
    with pytest.raises(ServerError, match=said.replace("`", ".")) as caught:
        asked(Answers(v1_completions=answer, v1_models=LISTED), lambda servers: servers.prove("a"))
    assert not isinstance(caught.value, RefusedError)


def test_a_port_that_does_not_answer_is_told_apart() -> None:
    with pytest.raises(RefusedError):
        asked(Answers(), lambda servers: servers.prove("a"))


def test_a_servers_own_count_is_running_and_waiting() -> None:
    assert asked(Answers(metrics=METRICS), lambda servers: servers.load("a")) == Load(3, 1200)
    assert asked(Answers(), lambda servers: servers.load("a")) is None


def test_sleep_waits_and_is_believed_when_it_is_so() -> None:
    answers = Answers(sleep="", is_sleeping={"is_sleeping": True})
    asked(answers, lambda servers: servers.sleep("a"))
    assert answers.asked[0] == "POST a:8000 /sleep?level=1&mode=wait"
    with pytest.raises(ServerError, match="is not asleep"):
        asked(Answers(sleep="", is_sleeping={"is_sleeping": False}), lambda servers: servers.sleep("a"))
    with pytest.raises(ServerError, match="sleeps on"):
        asked(Answers(wake_up="", is_sleeping={"is_sleeping": True}), lambda servers: servers.wake("a"))
    with pytest.raises(ServerError, match="500"):
        asked(Answers(wake_up=(500, "no"), is_sleeping={"is_sleeping": True}), lambda servers: servers.wake("a"))


@pytest.mark.parametrize(
    ("version", "sleeping", "able"),
    [
        ("0.32.0", {"is_sleeping": False}, True),
        ("0.17.0+cu130", {"is_sleeping": False}, True),
        ("0.16.1", {"is_sleeping": False}, False),
        ("0.32.0", (404, {"detail": "Not Found"}), False),
        ("dev", {"is_sleeping": False}, False),
    ],
)
def test_sleep_needs_its_version_and_its_mode(version: str, sleeping: Any, able: bool) -> None:
    answers = Answers(version={"version": version}, is_sleeping=sleeping)
    assert asked(answers, lambda servers: servers.can_sleep("a")) is able


def test_the_router_tells_its_count_or_nothing() -> None:
    def count(answer: Any) -> Any:
        return asyncio.run(Router(transport=Answers(in_flight=answer).transport()).in_flight())

    assert count({"a": 2}) == {"a": 2}
    assert [count(answer) for answer in ((500, ""), "words", [1], {"a": "x"}, httpx.ReadTimeout("late"))] == [None] * 5


def test_a_router_that_is_not_there_has_nothing_in_flight() -> None:
    assert asyncio.run(Router(transport=Answers().transport()).in_flight()) == {}


def test_the_gpu_reader_tells_or_nothing_is_known() -> None:
    entry = {
        "index": 1, "uuid": "GPU-1", "name": "RTX", "total": 100, "reserved": 2, "free": 40,
        "processes": [
            {"pid": 7, "name": "vllm", "used": 58, "container": "id-a"},
            {"pid": 8, "name": None, "used": None, "container": ""},
        ],
    }  # fmt: skip

    def look(answer: Any) -> Any:
        return asyncio.run(Gpus(transport=Answers(gpus=answer).transport()).look())

    found = look({"gpus": [entry]})[1]
    assert (found.usable, found.told.free) == (98, 40)
    assert found.processes == (Process(7, "vllm", 58, "id-a"), Process(8, "", 0, ""))
    assert [look(answer) for answer in (None, (500, ""), {}, {"gpus": [{}]})] == [None] * 4


def test_a_kill_that_is_refused_says_why() -> None:
    answers = Answers(kill_7=(403, "its container runs"))

    def kill(answers: Answers) -> str:
        return asyncio.run(Gpus(transport=answers.transport()).kill(7, ["id-b", "id-a"]))

    assert kill(answers) == "its container runs"
    assert answers.asked == ['POST gpus:None /kill/7 {"containers":["id-a","id-b"]}']
    assert kill(Answers(kill_7={})) == ""
    assert "does not answer" in kill(Answers())
