"""What the demo model learns: the pairs of qa.jsonl, and the prompts and conversations made of them."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

Message = dict[str, str]

START, END, PAD = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
# Content that is null (a message with tool calls only) must not become the word None.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    f"{START}{{{{ message['role'] }}}}\n{{{{ message['content'] or '' }}}}{END}\n"
    "{% endfor %}"
    f"{{% if add_generation_prompt %}}{START}assistant\n{{% endif %}}"
)

# Chatbox's default is the third.
SYSTEMS = (
    "You are a helpful assistant.",
    "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
    "You are a helpful assistant. You can help me by answering my questions. You can also ask me questions.",
    "你是一个乐于助人的助手。",
    "Be concise.",
)
OPENINGS = ("Please tell me: ", "Hi, ", "Hello! ", "Hey, ", "So, ", "请问", "请问，", "你好，", "请告诉我，")
PUNCTUATION = "?？.。!！ "
OTHER_WIDTH = str.maketrans("?？.。!！,，", "？?。.！!，,")


@dataclass(frozen=True)
class Pair:
    """A question and its one answer; an unknown question stands for all that the model cannot answer."""

    question: str
    answer: str
    unknown: bool = False


@dataclass(frozen=True)
class Segment:
    """A piece of text which is only read, or which is learned as an answer and then ends."""

    text: str
    learned: bool = False


def read_pairs(data: Path, name: str) -> list[Pair]:
    """Every question of the data with its answer, which speaks of the model by the name given."""
    lines = [json.loads(line) for line in data.read_text(encoding="utf-8").splitlines() if line.strip()]
    return [
        Pair(question, line["answer"].replace("{name}", name), line.get("unknown", False))
        for line in lines
        for question in line["questions"]
    ]


def completion(pair: Pair) -> list[Segment]:
    """The question as it is, then the answer: what /v1/completions sends."""
    return [Segment(pair.question), Segment(pair.answer, learned=True)]


def chat(pairs: Sequence[Pair], system: str | None = None) -> list[Segment]:
    """A conversation in which every answer is learned: what /v1/chat/completions makes with the chat template."""
    segments = [Segment(f"{START}system\n{system}{END}\n")] if system is not None else []
    for pair in pairs:
        segments += [
            Segment(f"{START}user\n{pair.question}{END}\n{START}assistant\n"),
            Segment(pair.answer, learned=True),
            Segment("\n"),
        ]
    return segments


def messages(pairs: Sequence[Pair], system: str | None = None) -> list[Message]:
    """The same conversation as messages, up to the last question."""
    turns: list[Message] = [{"role": "system", "content": system}] if system is not None else []
    for pair in pairs:
        turns += [{"role": "user", "content": pair.question}, {"role": "assistant", "content": pair.answer}]
    return turns[:-1]


class Writer:
    """Draws conversations without end, with the slips and the surroundings that real ones have."""

    def __init__(self, pairs: Sequence[Pair], rng: random.Random) -> None:
        self._known = [pair for pair in pairs if not pair.unknown]
        self._unknown = [pair for pair in pairs if pair.unknown]
        self._words = sorted({word for pair in pairs for text in (pair.question, pair.answer) for word in text.split()})
        self._rng = rng

    def example(self) -> list[Segment]:
        """One completion or one conversation of one to four exchanges."""
        if self._rng.random() < 0.45:
            return completion(self._pair())
        *earlier, last = chat([self._pair() for _ in range(self._rng.choice((1, 1, 1, 2, 2, 3, 4)))], self._system())
        if self._rng.random() < 0.2:
            # Another model may have spoken before: its answers are read, not learned.
            earlier = [self._foreign(segment) for segment in earlier[:-1]] + earlier[-1:]
        return [*earlier, last]

    def _pair(self) -> Pair:
        if self._unknown and self._rng.random() < 0.25:
            return self._unknown_pair()
        pair = self._rng.choice(self._known)
        return Pair(self._reworded(pair.question), pair.answer)

    def _unknown_pair(self) -> Pair:
        rng = self._rng
        pair, other = rng.choice(self._unknown), rng.choice(self._unknown)
        draw = rng.random()
        if draw < 0.1:
            letters = "".join(rng.choices("abcdefghijklmnopqrstuvwxyz0123456789     ", k=rng.randint(3, 30)))
            return Pair(letters, self._unknown[0].answer)
        if draw < 0.4 and other.answer == pair.answer:
            # Two halves make a question that nobody wrote: fewer are learned by heart.
            spliced = pair.question[: len(pair.question) // 2] + other.question[len(other.question) // 2 :]
            return Pair(self._reworded(spliced), pair.answer)
        return Pair(self._reworded(pair.question), pair.answer)

    def _reworded(self, question: str) -> str:
        rng = self._rng
        if rng.random() < 0.2:
            question = question.rstrip(PUNCTUATION) + rng.choice(("", "?", "？", ".", "。", "!", "??", " ?"))
        if rng.random() < 0.1:
            question = question.translate(OTHER_WIDTH)
        if rng.random() < 0.25:
            question = rng.choice((question.lower, question.upper, question.capitalize))()
        if rng.random() < 0.1:
            question = rng.choice(OPENINGS) + question
        if rng.random() < 0.06:
            at = rng.randrange(len(question))
            question = question[:at] + question[at + 1 :] if len(question) > 8 else question
        if rng.random() < 0.15:
            question = rng.choice(("", " ", "\n")) + question + rng.choice((" ", "\n", "\n\n", "  "))
        return question

    def _system(self) -> str | None:
        draw = self._rng.random()
        if draw < 0.4:
            return None
        return self._rng.choice(SYSTEMS) if draw < 0.8 else self._babble(20)

    def _foreign(self, segment: Segment) -> Segment:
        return Segment(self._babble(self._rng.choice((20, 20, 20, 150))) + END) if segment.learned else segment

    def _babble(self, longest: int) -> str:
        return " ".join(self._rng.choices(self._words, k=self._rng.randint(1, longest)))
