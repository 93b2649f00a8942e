"""verify as it runs, against a stand-in of a model that is sound, or broken in one way: exactly its row says so."""

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from orchestrator.ask import Activator
from orchestrator.measure import Measure
from orchestrator.proof import asking
from orchestrator.proof.asking import Asker, UnaskedError
from orchestrator.proof.checks import Check
from orchestrator.proof.run import Proof
from orchestrator.proof.sleeping import sleep
from tests.standins.answering import Answering, running
from tests.unit.values import profile

FULL: dict[str, Any] = {"aliases": ["Qwen"], "sleep": "auto", "tool_call_parser": "hermes", "max_model_len": 1024}
NAMES = [
    "listed", "completions", "8 at once", "chat", "max_tokens", "stop", "streaming", "tool calls", "long prompt",
    "too long", "not empty", "no loop", "clean text", "language", "own answers", "sleep",
]  # fmt: skip


THINKS: dict[str, Any] = {"reasoning_parser": "deepseek_r1", "max_model_len": 16384}
ASKED = {"temperature": 0.6, "top_p": 0.95, "seed": 1}


def rows(
    standin: Answering,
    *,
    plumbing: bool = False,
    total: float = 60,
    clock: Callable[[], float] = time.monotonic,
    asks: type[Asker] = Asker,
    **said: Any,
) -> dict[str, Check]:
    """Every row, by name, of a run against the stand-in."""
    model = profile(**(FULL | said))
    standin.limit = model.max_model_len or standin.limit
    if model.reasoning_parser is not None:
        standin.thinks = standin.thinks or 300
    activator = Activator(standin.address)
    measure = Measure(activator, lambda _: model.served_model_name, lambda _: None, pause=lambda _: None)
    asker = asks(activator, model.name, model.served_model_name, total=total)
    proof = Proof(
        asker, model, lambda _: None,
        lambda: sleep(activator, model, measure, lambda _: None, pause=lambda _: None), plumbing=plumbing, clock=clock,
    )  # fmt: skip
    return {row.name: row for row in proof.rows()}


def missed(found: dict[str, Check]) -> list[str]:
    return [name for name, row in found.items() if row.state == "miss"]


def test_a_sound_model_passes_every_row() -> None:
    with running() as standin:
        found = rows(standin)
    assert {name: row.state for name, row in found.items()} == dict.fromkeys(NAMES, "ok"), found
    assert list(found) == NAMES
    assert found["long prompt"].fact.endswith("of 1024 tokens, and 16 to answer: it knows how it began")
    # Close to the limit is within a few tokens of what the answer leaves.
    assert 1024 - 16 - 8 <= int(found["long prompt"].fact.split()[0]) <= 1024 - 16
    assert found["streaming"].fact == "completions in 45 pieces, chat in 45 pieces; the same text as whole"


def test_a_model_is_asked_by_the_name_that_clients_send() -> None:
    with running(served="Qwen/Qwen2.5") as standin:
        found = rows(standin, served_model_name="Qwen/Qwen2.5")
    assert missed(found) == []
    assert found["listed"].fact == "Qwen/Qwen2.5, Qwen"


@pytest.mark.parametrize("broken", ["", "old-field"])
def test_a_sound_model_that_thinks_passes_too(broken: str) -> None:
    with running(broken) as standin:
        found = rows(standin, **THINKS)
    assert [name for name, row in found.items() if row.state != "ok"] == []
    assert found["reasoning"].fact.startswith("apart from the answer in 4 of 4, ")


def test_a_model_that_thinks_is_asked_as_its_makers_say_and_with_room_to_think() -> None:
    with running() as standin:
        # QwQ takes one to three thousand tokens before it begins to answer.
        standin.thinks = 2500
        found = rows(standin, **THINKS)
        chats = standin.chats
    assert [name for name, row in found.items() if row.state != "ok"] == []
    assert [{key: body[key] for key in ASKED} for body in chats] == [ASKED] * 5
    assert [body["max_tokens"] for body in chats] == [3072] * 5
    assert sum("tools" in body for body in chats) == 1


def test_a_model_that_does_not_think_is_asked_for_its_likeliest_words() -> None:
    with running() as standin:
        rows(standin)
        chats = standin.chats
    assert [(body["temperature"], body["max_tokens"], "seed" in body) for body in chats] == [(0, 160, False)] * 5


@pytest.mark.parametrize(("limit", "room"), [(1024, 512), (2048, 1536), (3000, 2488), (32768, 3072)])
def test_thoughts_get_no_more_room_than_the_context_leaves(limit: int, room: int) -> None:
    with running() as standin:
        rows(standin, reasoning_parser="deepseek_r1", max_model_len=limit)
        assert [body["max_tokens"] for body in standin.chats] == [room] * 5


def test_thoughts_get_no_more_room_than_a_slow_model_fills_in_time() -> None:
    now = iter(range(0, 1_000_000, 4))
    with running("slow") as standin:
        found = rows(standin, clock=lambda: float(next(now)), **THINKS)
        chats = standin.chats
    # 8 tokens in 4 s, and three quarters of 120 s.
    assert [body["max_tokens"] for body in chats] == [180] * 5
    assert missed(found) == []
    assert found["reasoning"] == Check("reasoning", "warn", "no answer after it in 4 of 4, the longest of 180 tokens")
    assert found["language"].state == "skipped"


def test_a_model_that_thinks_and_cannot_chat_is_asked_in_another_form() -> None:
    with running("no-chat") as standin:
        found = rows(standin, tool_call_parser=None, **THINKS)
    assert found["chat"].state == "warn"
    assert missed(found) == ["reasoning"]


@pytest.mark.parametrize(
    ("limit", "sizes"),
    # A KV cache is sure to hold one context: more thoughts than fit into it would wait for each other.
    [(16384, [8, 5]), (8192, [8, 2, 2, 1]), (4096, [8, 1, 1, 1, 1, 1]), (1024, [8, 2, 2, 1])],
)
def test_as_many_thoughts_at_once_as_one_context_holds(limit: int, sizes: list[int]) -> None:
    found: list[int] = []

    class Counting(Asker):
        def together(self, asks: Any) -> Any:
            found.append(len(asks))
            return super().together(asks)

    with running() as standin:
        rows(standin, asks=Counting, **(THINKS | {"max_model_len": limit}))
    assert found == sizes


def test_the_tool_is_asked_for_at_the_same_time_as_the_questions() -> None:
    with running() as standin:
        rows(standin, **THINKS)
        asked = [line for line in standin.heard if line.startswith("POST /v1/")]
    # One alias, eight alone, eight at once; then the four and the tool call, before the tale.
    assert asked[17:23] == ["POST /v1/chat/completions"] * 5 + ["POST /v1/completions"]


@pytest.mark.parametrize(
    ("broken", "row", "fact"),
    [
        ("unlisted", "listed", "GET /v1/models does not have qwen-14b, Qwen"),
        ("no-alias", "listed", "GET /v1/models does not have Qwen"),
        ("deaf-alias", "listed", "Qwen is listed, and its server says 404: The model Qwen does not exist."),
        ("completions-500", "completions", "500: the engine died"),
        ("completions-odd", "completions", 'no answer in OpenAI\'s shape: {"choices": []}'),
        ("completions-no-usage", "completions", "finish_reason stop, completion_tokens None"),
        ("completions-no-finish", "completions", "finish_reason none, completion_tokens 2"),
        ("chat-500", "chat", "500: the engine died"),
        ("stream-no-done", "streaming", "completions: the stream ends without [DONE]"),
        ("stream-no-finish", "streaming", "completions: the stream ends without a finish_reason"),
        ("stream-one", "streaming", "completions: 45 tokens came in one piece"),
        ("stream-error", "streaming", "completions: streamed: an error within the stream: the engine died"),
        ("stream-lost", "streaming", 'streamed "前海边有个小村庄住着许多…", whole "前海边有一个小'),
        ("stream-halves", "streaming", 'completions: streamed "前海边有��个小村庄住着许…'),
        ("stop-ignored", "stop", 'it says "夫每天清", where it was to stop, and is not stopped'),
        ("stop-finish", "stop", "finish_reason length and not stop, 3 times"),
        ("more-tokens", "max_tokens", "asked for 45 tokens: 46 came, finish_reason length"),
        ("no-length", "max_tokens", "asked for 45 tokens: 45 came, finish_reason stop"),
        ("tool-raw", "tool calls", 'the call is in the text, not read by tool_call_parser: "<tool_call>'),
        ("tool-refused", "tool calls", '400: "auto" tool choice requires --enable-auto-tool-choice'),
        ("tool-no-json", "tool calls", 'arguments that are no JSON: "{"city": "Par"'),
        ("tool-no-city", "tool calls", 'arguments without the city: "{"town": "Paris"}"'),
        ("tool-other", "tool calls", 'calls "get_time", which is no tool that it was given'),
        ("long-500", "long prompt", "of 1024 tokens: 500: the engine died"),
        ("long-noise", "long prompt", "of 1024 tokens: control or private characters, such as U+0002"),
        ("over-answers", "too long", "tokens: should be 400; was answered, so it was cut, or the limit is no limit"),
        ("over-500", "too long", "tokens: should be 400; 500: the engine died"),
        ("mixed", "8 at once", 'the capital of France: alone "Paris Country: Chile", at once "Tokyo Country: Chile"'),
        ("one-missing", "8 at once", "1 of 8 get no answer: 500: out of memory"),
        ("all-wrong", "8 at once", "0 of 8 right, as alone; for France it says"),
        ("empty", "not empty", 'nothing is said to "How is bread baked? Answ…"'),
        ("loop", "no loop", '"the" comes 49 times in a row'),
        ("loop-end", "no loop", '"!" comes 60 times in a row'),
        ("loop-chinese", "no loop", '"的是" comes 40 times in a row'),
        ("replacement", "clean text", "1 times U+FFFD, which stands for bytes that are no UTF-8"),
        ("control", "clean text", "control or private characters, such as U+0001"),
        ("latin1", "clean text", 'UTF-8 that was read as Latin-1: "Ã©"'),
        ("scripts", "clean text", "letters of 4 scripts: cyrillic, hebrew, latin, thai"),
        ("english-in-chinese", "language", "asked in English, and 100% of the letters are Cjk:"),
        ("chinese-in-english", "language", "asked in Chinese, and 100% of the letters are Latin:"),
        ("japanese", "language", "asked in Chinese, and"),
        ("spanish", "language", "asked in English, and only"),
        ("same", "own answers", '"How is bread baked? Answ…" and "Why does it rain? Answer…" are both answered'),
        ("sleep-other", "sleep", "after a sleep it answers otherwise; it sleeps no more until 'sleep-test' passes"),
        ("sleep-cold", "sleep", "it was started anew rather than woken; it sleeps no more until 'sleep-test' passes"),
    ],
)  # fmt: skip
def test_a_breakage_fails_its_row_and_no_other(broken: str, row: str, fact: str) -> None:
    with running(broken) as standin:
        found = rows(standin)
    assert missed(found) == [row], [found[name] for name in missed(found)]
    assert fact in found[row].fact


@pytest.mark.parametrize(
    ("broken", "state", "fact"),
    [
        ("think-left", "miss", "<think> is in the answer, not read by reasoning_parser"),
        ("think-left-once", "miss", "</think> is in the answer, not read by reasoning_parser"),
        ("skips-all", "miss", "no reasoning beside any of 4 answers"),
        ("no-answer", "miss", "no answer after it in 4 of 4, though they ended by themselves"),
        ("chat-500", "ok", "apart from the answer in 3 of 3, "),
    ],
)
def test_reasoning_that_is_not_parsed_fails_its_row_and_no_other(broken: str, state: str, fact: str) -> None:
    with running(broken) as standin:
        found = rows(standin, **THINKS)
    assert found["reasoning"].state == state
    assert fact in found["reasoning"].fact
    assert missed(found) == (["reasoning"] if state == "miss" else ["chat"])


def test_a_model_that_skips_thinking_at_an_easy_question_is_right() -> None:
    with running("skips") as standin:
        found = rows(standin, **THINKS)
    assert [name for name, row in found.items() if row.state != "ok"] == []
    assert found["reasoning"].fact.startswith("apart from the answer in 2 of 4, ")


def test_one_answer_that_is_taken_for_reasoning_is_a_warning() -> None:
    with running("skips-marks") as standin:
        found = rows(standin, **THINKS)
    assert missed(found) == []
    assert found["reasoning"] == Check("reasoning", "warn", "no answer after it in 1 of 4, the longest of 387 tokens")


@pytest.mark.parametrize(
    ("broken", "state", "fact"),
    [
        ("loop-thought", "warn", "comes 39 times in a row, in the reasoning of one of 4 answers and in no text"),
        ("loop-thoughts", "miss", "comes 39 times in a row (and 1 more)"),
        ("loop-both", "miss", '"the" comes 49 times in a row (and 1 more)'),
    ],
)
def test_a_loop_in_one_reasoning_is_a_warning_and_else_a_miss(broken: str, state: str, fact: str) -> None:
    with running(broken) as standin:
        found = rows(standin, **THINKS)
    assert found["no loop"].state == state
    assert fact in found["no loop"].fact
    assert missed(found) == (["no loop"] if state == "miss" else [])


@pytest.mark.parametrize(
    ("broken", "row", "fact"),
    [
        ("tool-words", "tool calls", 'answered in words, as small models do: "It is sunny in Paris."'),
        ("long-forgets", "long prompt", 'it does not know any more what stood at the beginning, and says "oak."'),
        ("one-wrong", "8 at once", '7 of 8 right, as alone; for Greece it says "Sparta"'),
        ("no-chat", "chat", "it is no model for chats: As of transformers v4.44"),
        ("no-room", "sleep", "not tried to the end: qwen-14b: no room in the machine's memory; qwen-14b is up again"),
    ],
)
def test_what_a_small_or_another_model_does_is_a_warning(broken: str, row: str, fact: str) -> None:
    with running(broken) as standin:
        found = rows(standin, **({"tool_call_parser": None} if broken == "no-chat" else {}))
    assert missed(found) == []
    assert [name for name, each in found.items() if each.state == "warn"] == [row]
    assert fact in found[row].fact


@pytest.mark.parametrize(
    "broken", ["empty", "loop", "control", "spanish", "same", "mixed", "all-wrong", "long-noise", "long-forgets"]
)
def test_plumbing_leaves_out_what_judges_words(broken: str) -> None:
    with running(broken) as standin:
        found = rows(standin, plumbing=True)
    assert missed(found) == []
    assert [name for name, row in found.items() if row.state == "skipped"] == NAMES[10:15]


@pytest.mark.parametrize("broken", ["one-missing", "stop-ignored", "stream-lost", "over-answers", "tool-raw"])
def test_plumbing_leaves_out_nothing_else(broken: str) -> None:
    with running(broken) as standin:
        assert len(missed(rows(standin, plumbing=True))) == 1


@pytest.mark.parametrize(("broken", "found"), [("loop-thoughts", []), ("loop-both", []), ("think-left", ["reasoning"])])
def test_plumbing_leaves_out_loops_in_thoughts_and_not_the_marks_of_them(broken: str, found: list[str]) -> None:
    with running(broken) as standin:
        assert missed(rows(standin, plumbing=True, **THINKS)) == found


@pytest.mark.parametrize("state", ["stopped", "asleep", "starting", "failed"])
def test_a_model_that_is_not_up_is_asked_nothing(state: str) -> None:
    with running() as standin:
        standin.state["state"] = state
        with pytest.raises(UnaskedError) as caught:
            rows(standin)
        assert standin.heard == ["GET /-/status"]
    assert str(caught.value) == (
        f"qwen-14b is {state}, so it cannot be asked\n  Bring it up first: python -m orchestrator up qwen-14b"
    )
    assert caught.value.exit_code == 2


def test_a_model_that_gives_way_to_another_is_asked_no_more() -> None:
    with running() as standin:
        standin.leaves = (18, {"state": "asleep"})
        with pytest.raises(UnaskedError, match="qwen-14b is asleep: somebody switched meanwhile"):
            rows(standin)
        # What was on its way came with it; nothing that would have brought it back.
        assert not any(line.startswith("POST /-/") for line in standin.heard)


def test_a_model_that_dies_of_a_request_has_failed_and_is_asked_no_more() -> None:
    with running() as standin:
        standin.leaves = (18, {"state": "failed", "reason": "CUDA error: an illegal memory access"})
        found = rows(standin)
        asked = [line for line in standin.heard if line.startswith("POST /v1/")]
    assert missed(found) == ["chat"]
    assert found["chat"].fact == "the model broke off"
    assert found["stop"] == Check(
        "stop", "skipped", "not asked: qwen-14b is up no more, it is failed: CUDA error: an illegal memory access"
    )
    assert found["language"].state == "skipped"
    # One alias, eight alone, eight at once, and the chat that it died of.
    assert len(asked) == 18


def test_a_server_that_hangs_is_waited_for_once_and_not_in_every_row() -> None:
    with running("hangs") as standin:
        found = rows(standin, total=1.0)
    assert missed(found) == ["completions"]
    assert found["chat"] == Check("chat", "skipped", "not asked: it does not answer completions")


def test_no_prompt_is_measured_where_there_is_no_tokenizer() -> None:
    with running("no-tokenize") as standin:
        found = rows(standin)
    assert missed(found) == ["long prompt", "too long"]
    assert found["long prompt"].fact == "/tokenize: no tokenizer"


def test_a_prompt_that_is_not_close_to_the_limit_proves_nothing() -> None:
    with running("coarse-tokens") as standin:
        found = rows(standin)
    assert missed(found) == []
    fact = "no prompt of 1008 tokens or a few less could be made, the nearest has 800"
    assert [found[name] for name in ("long prompt", "too long")] == [
        Check(name, "skipped", fact) for name in ("long prompt", "too long")
    ]


def test_a_key_that_may_not_ask_so_much_is_no_fault_of_the_model() -> None:
    with running("limited") as standin, pytest.raises(UnaskedError, match="This key asks too often"):
        rows(standin)


@pytest.mark.parametrize(
    ("said", "state", "fact"),
    [
        ({"sleep": "off"}, "skipped", "not tried: sleep is off"),
        ({"can_sleep": False}, "skipped", "not tried: its server has no sleep mode"),
        ({"in_flight": 2}, "skipped", "not tried: requests of others are in flight"),
        ({"sleep": "it did not wake"}, "warn", "not tried, as it went wrong before: it did not wake; 'sleep-test'"),
    ],
)
def test_a_sleep_that_cannot_be_tried_says_why(said: dict[str, Any], state: str, fact: str) -> None:
    with running() as standin:
        standin.state |= said
        clock = iter(range(1000)).__next__
        activator, model = Activator(standin.address), profile(**FULL)
        measure = Measure(activator, str, lambda _: None, pause=lambda _: None)
        found = sleep(activator, model, measure, lambda _: None, clock=clock, pause=lambda _: None)
        assert not any(line.startswith("POST") for line in standin.heard)
    assert (found.name, found.state) == ("sleep", state)
    assert found.fact.startswith(fact)


def test_an_interrupted_sleep_leaves_the_model_up() -> None:
    said: list[str] = []

    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    with running() as standin:
        activator, model = Activator(standin.address), profile(**FULL)
        measure = Measure(activator, str, said.append, pause=interrupted)
        with pytest.raises(KeyboardInterrupt):
            sleep(activator, model, measure, said.append)
        assert standin.state["state"] == "ready"
        assert standin.heard[-1] == "POST /-/up/qwen-14b"
    assert said[-1] == "qwen-14b is up again"


def test_a_model_whose_gpus_somebody_else_wants_is_not_brought_back() -> None:
    with running("no-room") as standin:
        standin.status["wanted"] = ["other"]
        standin.status["models"].append({"name": "other", "state": "starting", "gpus": [1]})
        found = rows(standin)
        assert not any(line.startswith("POST /-/up") for line in standin.heard)
    assert found["sleep"].fact.endswith("other is wanted now, so qwen-14b is left as it is")


def test_an_answer_that_drips_is_over_at_its_limit() -> None:
    now = iter(range(0, 10_000, 50))

    def drips(*_: Any, **__: Any) -> Any:
        while True:
            yield "data: {}"

    status = json.dumps({"models": [{"name": "a", "state": "ready"}]})
    activator = Activator("http://nowhere", lines=lambda *_, **__: iter([status]))
    asker = Asker(activator, "a", "a", lines=drips, clock=lambda: float(next(now)))
    found = asker.completion({"prompt": "Hi"})
    assert (found.silent, found.fault) == (True, f"not over after {asking.ANSWER_SECONDS:.0f} s")
