"""The load client and its checks: each way in which an answer may be bad is told as what it is."""

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.checkout import PATIENCE, free_port
from tests.switching import events, tongues
from tests.switching.answers import Heard, Question, judge, of_standins, refused
from tests.switching.kills import Kill, excuse
from tests.switching.load import Load, Record, Tally

WHOLE = "alpha-0 alpha-1 END"


def asked(*, stream: bool = True, chat: bool = False) -> Question:
    return Question("alpha", chat, stream, {"model": "alpha", "stream": stream}, WHOLE)


def event(text: str, finish: str | None = None) -> str:
    return f"data: {json.dumps({'choices': [{'text': text, 'finish_reason': finish}]})}\n\n"


END = event("", "stop") + "data: [DONE]\n\n"


@pytest.mark.parametrize(
    ("stream", "verdict"),
    [
        (event("alpha-0") + event(" alpha-1 END") + END, "ok"),
        (": drain, about 3 s left\n\n" + event(WHOLE) + END, "ok"),
        (event("alpha-0 alpha-1"), "truncated"),
        (event("alpha-0 alpha-1") + END, "truncated"),  # whole to all appearances, but for its last word
        (event(WHOLE), "truncated"),  # every word, and yet no end
        (event(WHOLE) + event("", "stop"), "truncated"),
        (event(WHOLE) + event("", "length") + "data: [DONE]\n\n", "truncated"),
        (event("alpha-0 alpha-1 alpha-1 END") + END, "wrong"),  # a word twice
        (event("alpha-0 END") + END, "wrong"),  # a word left out
        (event("beta-0 beta-1 END") + END, "wrong"),
        (event(WHOLE + " END") + END, "wrong"),
        ("", "lost"),
        (": starting\n\n: starting\n\n", "lost"),
        ('data: {"error": {"message": "out of memory"}}\n\ndata: [DONE]\n\n', "lost"),
        (event("alpha-0") + 'data: {"error": {"message": "died"}}\n\n', "truncated"),
    ],
)
def test_a_stream_is_judged_by_every_word_and_its_end(stream: str, verdict: str) -> None:
    for size in (1, 7, 10000):
        heard = Heard()
        for start in range(0, len(stream), size):
            heard.take(stream[start : start + size])
        assert judge(asked(), heard) == verdict


def test_only_a_503_that_says_when_may_come_again() -> None:
    again = [("Retry-After", "5")]
    assert refused(503, again, b'{"error": {"code": "queue_full"}}') == 5
    assert refused(503, [], b'{"error": {"code": "queue_full"}}') is None
    assert refused(503, again, b'{"error": {"code": "model_broke_off"}}') is None
    assert refused(503, again, b"<html>") is None
    assert refused(500, again, b'{"error": {"code": "queue_full"}}') is None


def test_clients_ask_in_every_way_for_every_model() -> None:
    ask, rng = of_standins(["alpha", "beta"]), random.Random(1)
    seen = {(question.model, question.chat, question.stream) for question in (ask(rng) for _ in range(100))}
    assert len(seen) == 8


# --- against a server that misbehaves ---------------------------------------------------------------------------------

Answer = Callable[[asyncio.StreamWriter, int], Awaitable[None]]


def whole(body: str, status: str = "200 OK", more: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{more}\r\n{body}".encode()


def load(
    answer: Answer | None, question: Question, patience: float = PATIENCE, *, late: bool = False
) -> tuple[Tally, int]:
    """Send one request to a server that answers so; what came of it, and how often it was sent.

    One that is late is there once somebody could not reach it.
    """
    tries = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal tries
        tries += 1
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        await reader.readexactly(int(head.split("content-length: ")[1].split("\r\n")[0]))
        assert answer is not None
        try:
            await answer(writer, tries)
        finally:
            writer.close()

    async def both() -> Tally:
        port = free_port()
        server = await asyncio.start_server(handle, "127.0.0.1", port) if answer and not late else None
        began = 0

        def enough() -> bool:
            nonlocal began
            began += 1
            return began > 1

        clients = Load(f"http://127.0.0.1:{port}", lambda _: question, clients=1, enough=enough, patience=patience)
        running = asyncio.create_task(clients.run())
        while late and not clients.tally.unreachable:
            await asyncio.sleep(0.01)
        if late:
            server = await asyncio.start_server(handle, "127.0.0.1", port)
        tally = await running
        if server:
            server.close()
        return tally

    return asyncio.run(both()), tries


def says(data: bytes) -> Answer:
    async def answer(writer: asyncio.StreamWriter, tries: int) -> None:
        writer.write(data)
        await writer.drain()

    return answer


PLAIN = json.dumps({"choices": [{"text": WHOLE, "finish_reason": "stop"}]})


@pytest.mark.parametrize(
    ("data", "stream", "verdict", "note"),
    [
        (whole(PLAIN), False, "ok", ""),
        (whole(PLAIN)[:-3], False, "lost", "RemoteProtocolError"),
        (whole(PLAIN.replace("alpha", "gamma")), False, "wrong", "gamma-0"),
        (whole("{}"), False, "lost", "not an answer"),
        (b"", False, "lost", "RemoteProtocolError"),
        (whole("{}", "500 No"), False, "lost", "500 {}"),
        (whole(event(WHOLE) + END), True, "ok", ""),
        (b"HTTP/1.1 200 OK\r\n\r\n" + event("alpha-0").encode(), True, "truncated", "alpha-0"),
        (whole(event("alpha-0") + END)[:-60], True, "truncated", "RemoteProtocolError"),
    ],
)
def test_what_a_server_does_to_a_request_is_told_apart(data: bytes, stream: bool, verdict: str, note: str) -> None:
    tally, tries = load(says(data), asked(stream=stream))
    assert [(record.verdict, tries) for record in tally.records] == [(verdict, 1)]
    assert note in tally.records[0].note


def test_a_request_that_is_turned_away_comes_again_and_is_counted() -> None:
    away = whole('{"error": {"code": "queue_full", "message": "full"}}', "503 No", "Retry-After: 0\r\n")

    async def answer(writer: asyncio.StreamWriter, tries: int) -> None:
        writer.write(away if tries < 3 else whole(PLAIN))

    tally, tries = load(answer, asked(stream=False))
    assert (tries, tally.refused, tally.count("ok"), dict(tally.reasons)) == (3, 2, 1, {"queue_full": 2})
    forever, _ = load(says(away.replace(b"-After: 0", b"-After: 1")), asked(stream=False), patience=0.2)
    assert [record.verdict for record in forever.records] == ["lost"]


def test_a_server_that_is_not_there_is_no_loss_until_patience_ends() -> None:
    tally, tries = load(says(whole(PLAIN)), asked(stream=False), late=True)
    assert tally.unreachable > 0
    assert ([record.verdict for record in tally.records], tries) == (["ok"], 1)
    tally, _ = load(None, asked(), patience=0.6)
    assert [record.verdict for record in tally.records] == ["lost"]


def test_an_answer_that_never_comes_is_lost() -> None:
    async def silent(writer: asyncio.StreamWriter, tries: int) -> None:
        await asyncio.Event().wait()

    tally, _ = load(silent, asked(), patience=0.1)
    assert [(record.verdict, record.note) for record in tally.records] == [("lost", "no end within its patience")]


# --- what a kill excuses ----------------------------------------------------------------------------------------------


def record(began: float, ended: float, model: str = "alpha", ident: str = "1") -> Record:
    return Record(ident, model, True, began, ended, "truncated")


@pytest.mark.parametrize(
    ("kill", "of", "excused"),
    [
        (Kill("server", "alpha", 10, 10.05, 10), record(9, 10.5), True),
        (Kill("server", "alpha", 10, 10.05, 10), record(9, 10.5, "beta"), False),
        (Kill("server", "alpha", 10, 10.05, 10), record(10.1, 10.5), False),  # sent after it
        (Kill("server", "alpha", 10, 10.05, 10), record(8, 9.9), False),  # over before it
        (Kill("server", "alpha", 10, 10.05, 10), record(9, 90), False),  # lived on for long
        (Kill("activator", "", 10, 10.05, 12), record(9, 10.5, "beta"), True),
        (Kill("activator", "", 10, 10.05, 12), record(9, 10.5, ident="direct"), False),
        (Kill("activator", "", 10, 10.05, 12), record(10.04, 10.1), True),  # sent while it died
        (Kill("activator", "", 10, 10.05, 12), record(11, 11.5), False),
        (Kill("router", "", 10, 10.05, 12), record(9, 10.5, ident="direct"), True),
        (Kill("router", "", 10, 10.05, 12), record(11, 12.5), True),  # Docker took the connection, nobody was behind it
        (Kill("router", "", 10, 10.05, 12), record(12.5, 13), False),
        (Kill("dockerd", "", 10, 10.05, 20), record(9, 21), True),
    ],
)
def test_only_what_the_killed_process_held_is_excused(kill: Kill, of: Record, excused: bool) -> None:
    assert (excuse(of, [kill], {"direct"}) is not None) == excused
    assert excuse(of, [], {"direct"}) is None


def seen(name: str, kind: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "event": kind, **more}


def test_what_servers_saw_counts_switches_and_what_must_never_be() -> None:
    happened = [
        seen("alpha", "loading"), seen("alpha", "ready"), seen("alpha", "asleep"), seen("alpha", "awake"),
        seen("alpha", "asked", ident="7", peer="172.18.0.2"), seen("alpha", "asked", ident="8", peer="172.18.0.3"),
        seen("alpha", "stopped", running=0),
    ]  # fmt: skip
    assert dict(events.switches(happened)) == {"start": 1, "wake": 1}
    assert events.direct(happened, {"172.18.0.2"}) == {"7"}
    assert events.faults(happened) == []
    worse = [
        seen("beta", "asked-asleep", ident="9"),
        seen("beta", "no-memory", gpu=0, free=1),
        seen("beta", "stopped", running=2),
        seen("beta", "died", line="RuntimeError", running=0),
    ]
    assert len(events.faults(worse)) == 4
    # Killed on purpose or not: what sleeps is not asked, and two do not share memory.
    assert len(events.faults(worse, {"beta"})) == 2


def test_a_moved_tongue_is_other_words_and_comes_back() -> None:
    assert tongues.moved("Who are you? 你", 1) == "Wip bsf zpv? 你"
    assert tongues.moved(tongues.moved("quick fox", 7), -7) == "quick fox"
    assert len(tongues.pairs()) > 50
    ask = tongues.asker(["a", "b"], {"a": 3, "b": 7}.__getitem__)
    questions = [ask(random.Random(seed)) for seed in range(200)]
    answers = {name: {question.expected for question in questions if question.model == name} for name in "ab"}
    assert answers["a"] and answers["b"] and not answers["a"] & answers["b"]  # noqa: PT018 (one thing)
