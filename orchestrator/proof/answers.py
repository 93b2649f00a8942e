"""Answers of a model as values: reads what completions, chats and their streams say. Pure."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

DONE = "[DONE]"


@dataclass(frozen=True)
class Call:
    """A tool call; arguments are JSON, as text."""

    name: str
    arguments: str


@dataclass(frozen=True)
class Answer:
    """What came back. status is HTTP's, 0 when nothing came; fault is why this is no answer, "" when it is one.

    finish is the finish_reason, tokens the usage's completion_tokens. pieces counts those that held text, and done is
    whether [DONE] came, of a stream.
    """

    status: int = 200
    fault: str = ""
    text: str = ""
    reasoning: str = ""
    finish: str = ""
    tokens: int | None = None
    calls: tuple[Call, ...] = ()
    pieces: int = 0
    done: bool = False

    @property
    def ok(self) -> bool:
        """Whether it is an answer at all."""
        return not self.fault

    @property
    def silent(self) -> bool:
        """Whether nothing came: the server hangs, or is gone."""
        return self.status == 0

    @property
    def why(self) -> str:
        """Say why it is none."""
        return self.fault if self.silent or self.status == 200 else f"{self.status}: {self.fault}"

    @property
    def cut(self) -> bool:
        """Whether max_tokens ended it."""
        return self.finish == "length"

    @property
    def said(self) -> str:
        """All that the model said, its reasoning first."""
        return self.reasoning + self.text


def completion(lines: Iterable[str]) -> Answer:
    """Read a completion that did not stream."""
    said = "\n".join(lines)
    try:
        answer = json.loads(said)
        choice = answer["choices"][0]
        return Answer(text=_text(choice["text"]), finish=_finish(choice), tokens=_tokens(answer))
    except (ValueError, LookupError, TypeError):
        return _odd(said)


def chat(lines: Iterable[str]) -> Answer:
    """Read a chat completion that did not stream."""
    said = "\n".join(lines)
    try:
        answer = json.loads(said)
        choice = answer["choices"][0]
        message = choice["message"]
        calls = tuple(
            Call(_text(call["function"]["name"]), _text(call["function"]["arguments"]))
            for call in message.get("tool_calls") or []
        )
        return Answer(
            text=_text(message.get("content") or ""),
            reasoning=_reasoning(message),
            finish=_finish(choice),
            tokens=_tokens(answer),
            calls=calls,
        )
    except (ValueError, LookupError, TypeError, AttributeError):
        return _odd(said)


def streamed(lines: Iterable[str]) -> Answer:
    """Read a stream of server-sent events, of a completion or of a chat."""
    texts: list[str] = []
    thoughts: list[str] = []
    finish, pieces, done = "", 0, False
    for line in lines:
        if not line.startswith("data:"):
            continue
        data = line.removeprefix("data:").strip()
        if data == DONE:
            done = True
            continue
        try:
            event = json.loads(data)
            if "error" in event:
                return Answer(fault=f"an error within the stream: {event['error'].get('message')}", pieces=pieces)
            # The last piece may hold nothing but the usage.
            for choice in event["choices"][:1]:
                delta = choice.get("delta") or {}
                text, thought = _text(choice.get("text") or delta.get("content") or ""), _reasoning(delta)
                texts.append(text)
                thoughts.append(thought)
                pieces += bool(text or thought)
                finish = _finish(choice) or finish
        except (ValueError, LookupError, TypeError, AttributeError):
            return _odd(data)
    return Answer(text="".join(texts), reasoning="".join(thoughts), finish=finish, pieces=pieces, done=done)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("should be a text")
    return value


def _reasoning(message: Mapping[str, Any]) -> str:
    """Give the reasoning apart from the answer; older versions of vLLM call it reasoning_content."""
    return _text(message.get("reasoning") or message.get("reasoning_content") or "")


def _finish(choice: Mapping[str, Any]) -> str:
    return _text(choice.get("finish_reason") or "")


def _tokens(answer: Mapping[str, Any]) -> int | None:
    found = (answer.get("usage") or {}).get("completion_tokens")
    return found if isinstance(found, int) else None


def _odd(said: str) -> Answer:
    return Answer(fault=f"no answer in OpenAI's shape: {said[:80] or 'nothing at all'}")
