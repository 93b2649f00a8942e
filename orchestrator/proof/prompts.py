"""What a model is asked to prove that it is right: texts, and the bodies of requests but for the model's name. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Language = Literal["English", "Chinese"]

# Any model of half a billion parameters and more knows them; each is one word that no other has.
CAPITALS = {
    "France": "Paris",
    "Japan": "Tokyo",
    "Italy": "Rome",
    "Germany": "Berlin",
    "Spain": "Madrid",
    "Russia": "Moscow",
    "Egypt": "Cairo",
    "Greece": "Athens",
}
# Tokens of an answer: two or three sentences; and the same after a model has thought about them, as QwQ does for one
# to three thousand.
SENTENCES, THOUGHT = 160, 3072
# What a question takes at most, with a chat template around it and a tool beside it.
ASKED = 512
# How a model that thinks is asked: always for its likeliest token, it may think in a circle without end. The cards of
# QwQ-32B ("Usage Guidelines") and DeepSeek-R1 and its distills ("Usage Recommendations") say so, and these values. The
# seed is one for all, so that a model that does not read its prompt says the same to each.
SAMPLED: Mapping[str, Any] = {"temperature": 0.6, "top_p": 0.95, "seed": 1}
# A number of tokens that is no multiple of a usual block of the KV cache, so that none comes out even by chance.
CUT = 45
# What is left for the answer to a prompt as long as can be.
SHORT = 16
# Characters above ASCII are several bytes, and often several tokens: what streams must put them together again.
TALE = "从前，海边有一个小村庄，"
TOOL = "get_weather"
PASSWORD = "maple"  # noqa: S105 (a model is to remember it)


@dataclass(frozen=True)
class Question:
    """A question in words, and the language in which it wants to be answered."""

    language: Language
    text: str


QUESTIONS = (
    Question("English", "Why does it rain? Answer in two or three English sentences."),
    Question("English", "How is bread baked? Answer in two or three English sentences."),
    Question("Chinese", "为什么会下雨？请用两三句中文回答。"),
    Question("Chinese", "面包是怎么做的？请用两三句中文回答。"),
)


def capital(country: str) -> dict[str, Any]:
    """Ask for a capital, as a completion: a model goes on with the pattern, whether it was taught to chat or not."""
    shown = "Country: Norway\nCapital: Oslo\n\nCountry: Peru\nCapital: Lima\n\n"
    # Longer than the answer, so that requests at once are long enough under way to be decoded together.
    return {"prompt": f"{shown}Country: {country}\nCapital:", "max_tokens": 32, "temperature": 0}


def tale(**more: Any) -> dict[str, Any]:
    """Ask for a tale of exactly CUT tokens, whatever the model makes of it."""
    return {"prompt": TALE, "max_tokens": CUT, "temperature": 0, "ignore_eos": True, **more}


def chat(text: str, tokens: int, **more: Any) -> dict[str, Any]:
    """Ask one thing in a chat."""
    return {"messages": [{"role": "user", "content": text}], "max_tokens": tokens, "temperature": 0, **more}


def plainly(text: str, tokens: int, **more: Any) -> dict[str, Any]:
    """Ask the same of a model that cannot chat."""
    body = {"prompt": f"Question: {text}\nAnswer:", "max_tokens": tokens, "temperature": 0, "stop": ["\nQuestion:"]}
    return body | more


def weather(tokens: int, **more: Any) -> dict[str, Any]:
    """Ask what a tool can tell, and leave the model the choice."""
    city = {"type": "string", "description": "The name of the city, such as Oslo"}
    function = {
        "name": TOOL,
        "description": "Tells the weather of this moment in a city.",
        "parameters": {"type": "object", "properties": {"city": city}, "required": ["city"]},
    }
    asked = "What is the weather in Paris right now? Use the tool."
    return chat(asked, tokens, tools=[{"type": "function", "function": function}], tool_choice="auto", **more)


def long(characters: int) -> str:
    """Write a prompt of about so many characters: a secret first, notes that tell nothing, and a question about it."""
    head = f"Remember this: the password is {PASSWORD}.\n"
    tail = "\n\nQuestion: What is the password?\nAnswer: The password is"
    wanted = max(characters - len(head) - len(tail), 0)
    notes, size, number = [], 0, 0
    while size < wanted:
        number += 1
        # Lines that differ: a prompt of one line again and again is answered with that line.
        note = f"Note {number}: shelf {number * 7 % 31} in room {number * 13 % 53} holds {number * 29 % 97} books.\n"
        notes.append(note)
        size += len(note)
    return head + "".join(notes)[:wanted] + tail
