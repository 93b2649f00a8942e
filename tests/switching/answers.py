"""What a request should get, and whether what it got is that: the checks that everything else rests on. Pure."""

import json
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.standins.server import words

Verdict = Literal["ok", "lost", "truncated", "wrong"]
# The words of 503 that do not mean "try again": the server had the request.
HELD = frozenset({"model_broke_off"})


@dataclass(frozen=True)
class Question:
    """A request, and the one text that answers it whole."""

    model: str
    chat: bool
    stream: bool
    body: dict[str, Any]
    expected: str

    @property
    def path(self) -> str:
        return "/v1/chat/completions" if self.chat else "/v1/completions"


Asker = Callable[[random.Random], Question]


def question(rng: random.Random, model: str, prompt: str, expected: str, tokens: int) -> Question:
    """Ask a model, in one of the four ways."""
    chat, stream = rng.random() < 0.5, rng.random() < 0.5
    said: dict[str, Any] = {"messages": [{"role": "user", "content": prompt}]} if chat else {"prompt": prompt}
    body = {"model": model, **said, "max_tokens": tokens, "stream": stream}
    return Question(model, chat, stream, body, expected)


def of_standins(models: Sequence[str], longest: int = 40) -> Asker:
    """Ask stand-in servers for answers of up to so many words."""

    def ask(rng: random.Random) -> Question:
        model, count = rng.choice(models), rng.randint(1, longest)
        return question(rng, model, "Tell me", " ".join(words(model, count)), count)

    return ask


@dataclass
class Heard:
    """What came of a request so far. whole: it ended as it should; error: what it said instead of an answer."""

    text: str = ""
    whole: bool = False
    finish: str | None = None
    error: str = ""
    comments: list[str] = field(default_factory=list)
    # The bytes of a stream that are no whole line yet.
    rest: str = ""

    def take(self, piece: str) -> None:
        """Read on in a stream of events."""
        *lines, self.rest = (self.rest + piece).split("\n")
        for line in lines:
            self._line(line.rstrip("\r"))

    def _line(self, line: str) -> None:
        if line.startswith(":"):
            self.comments.append(line[1:].strip())
        if not line.startswith("data:"):
            return
        data = line.removeprefix("data:").strip()
        if data == "[DONE]":
            self.whole = True
            return
        event = json.loads(data)
        if "error" in event:
            self.error = str(event["error"].get("message", event["error"]))
            return
        for choice in event["choices"]:
            self.text += choice.get("text") or choice.get("delta", {}).get("content") or ""
            self.finish = choice.get("finish_reason") or self.finish

    def parse(self, body: bytes) -> None:
        """Read an answer in one piece."""
        choice = json.loads(body)["choices"][0]
        self.text = choice["text"] if "text" in choice else choice["message"]["content"]
        self.finish, self.whole = choice["finish_reason"], True


def judge(asked: Question, heard: Heard) -> Verdict:
    """Hold an answer against the one that it should be: cut off is another fault than another model's words."""
    if heard.error and not heard.text:
        return "lost"
    if heard.text == asked.expected and heard.whole and heard.finish == "stop" and not heard.error:
        return "ok"
    if asked.expected.startswith(heard.text):
        return "truncated" if heard.text else "lost"
    return "wrong"


def refused(status: int, headers: Iterable[tuple[str, str]], body: bytes) -> float | None:
    """Tell after how many seconds a request that was turned away may come again; None for any other answer."""
    if status != 503:
        return None
    after = next((value for name, value in headers if name.lower() == "retry-after"), None)
    try:
        code = json.loads(body)["error"]["code"]
    except (ValueError, KeyError, TypeError):
        return None
    return float(after) if after and code not in HELD else None
