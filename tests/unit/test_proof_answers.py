"""What vLLM's answers are read as, and what is no answer."""

import json
from typing import Any

import pytest

from orchestrator.proof import answers
from orchestrator.proof.answers import Answer, Call

USAGE = {"prompt_tokens": 3, "completion_tokens": 5}


def read(answer: Any, how: Any = answers.completion) -> Answer:
    found: Answer = how([json.dumps(answer)])
    return found


def test_a_completion_is_its_text_its_end_and_its_tokens() -> None:
    found = read({"choices": [{"text": " Oslo", "finish_reason": "length"}], "usage": USAGE})
    assert found == Answer(text=" Oslo", finish="length", tokens=5)
    assert (found.ok, found.cut, found.said) == (True, True, " Oslo")


def test_a_chat_has_reasoning_and_calls_beside_its_text() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    for field in ("reasoning", "reasoning_content"):
        message = {"role": "assistant", "content": None, field: "Hm.", "tool_calls": [call]}
        found = read({"choices": [{"message": message, "finish_reason": "tool_calls"}], "usage": USAGE}, answers.chat)
        assert found == Answer(reasoning="Hm.", finish="tool_calls", tokens=5, calls=(Call("f", "{}"),))


@pytest.mark.parametrize(
    "answer", ["rubbish", [], {}, {"choices": []}, {"choices": [{"text": 3}]}, {"choices": [{"message": "Hi"}]}, 7]
)
@pytest.mark.parametrize("how", [answers.completion, answers.chat])
def test_what_has_another_shape_is_no_answer(answer: Any, how: Any) -> None:
    found = read(answer, how)
    assert not found.ok
    assert found.why.startswith("no answer in OpenAI's shape: ")


def test_a_stream_is_put_together_from_its_pieces() -> None:
    said = ("content", ""), ("reasoning", "Hm"), ("reasoning_content", "."), ("content", "It "), ("content", "rains")
    deltas = [{"role": "assistant"}, *({field: text} for field, text in said)]
    events = [json.dumps({"choices": [{"delta": delta}]}) for delta in deltas]
    events.append(json.dumps({"choices": [{"delta": {}, "finish_reason": "stop"}]}))
    events.append(json.dumps({"choices": [], "usage": USAGE}))
    lines = [": start, about 3 s left", "", *(f"data: {event}" for event in [*events, "[DONE]"])]
    found = answers.streamed(lines)
    assert found == Answer(text="It rains", reasoning="Hm.", finish="stop", pieces=4, done=True)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('data: {"error": {"message": "the engine died"}}', "an error within the stream: the engine died"),
        ("data: {", "no answer in OpenAI's shape: {"),
        ('data: {"choices": [{"text": 3}]}', "no answer in OpenAI's shape: "),
    ],
)
def test_a_stream_that_breaks_off_with_an_error_is_no_answer(line: str, why: str) -> None:
    found = answers.streamed(['data: {"choices": [{"text": "a"}]}', line])
    assert not found.ok
    assert found.why.startswith(why)


def test_an_error_is_told_with_its_status_and_silence_without() -> None:
    assert Answer(404, "no such model").why == "404: no such model"
    assert Answer(0, "connection refused").why == "connection refused"
    assert Answer(0, "connection refused").silent
