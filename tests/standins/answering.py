"""A stand-in for a router with one model up: answers what `verify` asks, as a sound model or broken in one way.

It has no model: it knows the prompts. A token is four characters of a prompt, and one piece of an answer.
"""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any

from orchestrator.proof.prompts import CAPITALS, CUT, PASSWORD, QUESTIONS, SENTENCES, TALE
from tests.standins.serving import serving

Json = dict[str, Any]
LIMIT = 1024
RAIN = (
    "It rains because water on the ground is warmed by the sun, rises as vapour and cools in the air. The drops in a "
    "cloud then grow until they are too heavy, and fall."
)
BREAD = (
    "Bread is baked from a dough of flour, water, salt and yeast. The dough rises for an hour, and is then put into a "
    "hot oven until the crust is brown."
)
WATER = "下雨是因为地面的水被太阳晒热，变成水蒸气上升，在高空遇冷后凝结成小水滴。水滴越来越大，就会落到地面。"
DOUGH = "面包是用面粉、水、盐和酵母做的。把面团揉好，等它发起来，然后放进烤箱，烤到表面变成金黄色就好了。"
SAID = dict(zip((question.text for question in QUESTIONS), (RAIN, BREAD, WATER, DOUGH), strict=True))
THOUGHT = "The user asks a question. I should answer it in a few sentences, and in the language of the question."
STORY = (
    "从前海边有一个小村庄住着许多渔夫每天清晨他们划船出去傍晚带回满舱的鱼有一年冬天风暴来了十日不停"
    "村里的人都很担心只有一位老人说不怕灯塔还亮着大家便聚在一起等待黎明终于天晴孩子们跑向沙滩唱起歌来"
)
# What each breakage makes of the answers to the four questions.
TEXTS: dict[str, tuple[str, str, str, str]] = {
    "empty": (RAIN, "", WATER, DOUGH),
    "loop": ("the " * 50, BREAD, WATER, DOUGH),
    "loop-end": (RAIN, BREAD + "!" * 60, WATER, DOUGH),
    "loop-chinese": (RAIN, BREAD, "的是" * 40, DOUGH),
    "replacement": (RAIN.replace("water", "wa\ufffder"), BREAD, WATER, DOUGH),
    "control": (RAIN, BREAD.replace(" ", "\x01", 1), WATER, DOUGH),
    "latin1": (RAIN + " The sky is grey: cafÃ©, ä½\xa0å¥½.", BREAD, WATER, DOUGH),
    "scripts": (RAIN + " ไทย кириллица עברית", BREAD, WATER, DOUGH),
    "english-in-chinese": (WATER, BREAD, WATER + "了", DOUGH),
    "chinese-in-english": (RAIN, BREAD, RAIN + " So.", DOUGH),
    "japanese": (RAIN, BREAD, "雨が降るのは、水がたいようにあたためられて、くもになるからです。", DOUGH),
    "spanish": ("Llueve porque el agua sube con el calor del sol, se enfría y cae otra vez.", BREAD, WATER, DOUGH),
    "same": (RAIN, RAIN, WATER, DOUGH),
}
# What each breakage makes of the reasoning and the answer to each of the four questions, None where it is as it should.
LOOP = "Wait, let me think again. " * 40
Thoughts = tuple[Json | None, Json | None, Json | None, Json | None]
THOUGHTS: dict[str, Thoughts] = {
    # As DeepSeek-R1 skips its thinking: what stood between the marks is two ends of lines, or nothing.
    "skips": ({"reasoning": "\n\n"}, None, {"reasoning": None}, None),
    "skips-all": ({"reasoning": "\n\n"}, {"reasoning": None}, {"reasoning": "\n\n"}, {"reasoning": ""}),
    # And with no marks at all, where vLLM's parser takes all of it for reasoning.
    "skips-marks": (None, {"reasoning": BREAD, "content": None}, None, None),
    "no-answer": tuple({"content": None} for _ in QUESTIONS),  # type: ignore[dict-item]
    "think-left": tuple({"reasoning": None, "content": f"<think>{THOUGHT}</think>{said}"} for said in SAID.values()),  # type: ignore[dict-item]
    "think-left-once": (None, None, None, {"content": f"{THOUGHT}</think>{DOUGH}"}),
    "loop-thought": (None, {"reasoning": LOOP}, None, None),
    "loop-thoughts": (None, {"reasoning": LOOP}, None, {"reasoning": LOOP}),
    "loop-both": ({"reasoning": LOOP, "content": "the " * 50}, None, None, None),
}


class Answering:
    """How it is broken, "" for sound; and what it heard."""

    def __init__(
        self, broken: str = "", name: str = "qwen-14b", aliases: tuple[str, ...] = ("Qwen",), served: str = ""
    ) -> None:
        self.broken, self.name, self.aliases, self.served = broken, name, aliases, served or name
        self.address = ""
        self.heard: list[str] = []
        self.keys: list[str] = []
        self.state: Json = {"name": name, "state": "ready", "sleep": "auto", "can_sleep": True, "gpus": [0, 1]}
        self.status: Json = {"models": [self.state], "wanted": [name], "last": None, "switch": None, "gpus": None}
        # After this many requests of a client it is in this state; the reason is why.
        self.leaves: tuple[int, Json] | None = None
        # How many tokens it takes, and how many it thinks before it answers, 0 for not at all.
        self.limit = LIMIT
        self.thinks = 0
        # What it was asked in chats, but for what streams and what is compared with that.
        self.chats: list[Json] = []
        self.slept = False
        self.over = threading.Event()
        self._asked: dict[str, int] = {}

    def times(self, prompt: str) -> int:
        """Count how often a prompt was asked, this time with it."""
        self._asked[prompt] = self._asked.get(prompt, 0) + 1
        return self._asked[prompt]

    # --- answers ------------------------------------------------------------------------------------------------------

    def completion(self, body: Json) -> tuple[int, Json]:
        prompt, most = body["prompt"], body["max_tokens"]
        if len(prompt) // 4 + most > self.limit:
            return self._beyond()
        if prompt == TALE:
            return self._tale(body)
        if PASSWORD in prompt:
            said = {"long-500": None, "long-noise": " \x02\x03\x04", "long-forgets": " oak."}.get(
                self.broken, f" {PASSWORD}.")  # fmt: skip
            return (500, _error("the engine died")) if said is None else whole(text=said, tokens=4)
        country = re.search(r"Country: (\w+)\nCapital:$", prompt)
        if country:
            return self._capital(country[1], self.times(prompt))
        if prompt.startswith("The password") or "Count from one" in prompt:
            return whole(text="other" if self.slept and self.broken == "sleep-other" else "the same", tokens=32)
        question = prompt.removeprefix("Question: ").removesuffix("\nAnswer:")
        return whole(text=SAID.get(question, "Hello"), tokens=1)

    def _beyond(self) -> tuple[int, Json]:
        if self.broken == "over-answers":
            return whole(text="yes", tokens=1)
        if self.broken == "over-500":
            return 500, _error("the engine died")
        return 400, _error(f"This model's maximum context length is {self.limit} tokens.")

    def _capital(self, country: str, time: int) -> tuple[int, Json]:
        capitals = list(CAPITALS)
        if time == 1 and country == "Japan":
            match self.broken:
                case "completions-500":
                    return 500, _error("the engine died")
                case "completions-odd":
                    return 200, {"choices": []}
                case "completions-no-usage":
                    return 200, {"choices": [{"text": " Tokyo", "finish_reason": "stop"}]}
                case "completions-no-finish":
                    return whole(text=" Tokyo", tokens=2, finish=None)
        if time == 2 and country == "Italy" and self.broken == "one-missing":
            return 500, _error("out of memory")
        if (time == 2 and self.broken == "mixed") or self.broken == "all-wrong":
            country = capitals[(capitals.index(country) + 1) % len(capitals)]
        if country == "Greece" and self.broken == "one-wrong":
            return whole(text=" Sparta", tokens=2)
        finish = "length" if self.broken == "slow" else "stop"
        return whole(text=f" {CAPITALS[country]}\n\nCountry: Chile", tokens=8, finish=finish)

    def _tale(self, body: Json) -> tuple[int, Json]:
        pieces = list(STORY[: body["max_tokens"] + (self.broken == "more-tokens")])
        if self.broken == "no-length" and not body.get("stop"):
            return whole(text="".join(pieces), tokens=len(pieces), finish="stop")
        for stop in body.get("stop", []):
            text, found, _ = "".join(pieces).partition(stop)
            if found and self.broken != "stop-ignored":
                finish = "length" if self.broken == "stop-finish" else "stop"
                return whole(text=text, tokens=len(text), finish=finish)
        return whole(text="".join(pieces), tokens=len(pieces), finish="length")

    def chat(self, body: Json) -> tuple[int, Json]:
        if self.broken == "no-chat":
            return 400, _error("As of transformers v4.44, default chat template is no longer allowed")
        question = body["messages"][0]["content"]
        if body["max_tokens"] > CUT:
            self.chats.append(body)
        if body.get("tools"):
            return self._tool()
        if self.broken == "chat-500" and question == QUESTIONS[1].text:
            return 500, _error("the engine died")
        said = dict(zip(SAID, TEXTS.get(self.broken, tuple(SAID.values())), strict=True))[question]
        if body["max_tokens"] <= CUT:
            return whole(message={"content": said[:CUT]}, tokens=CUT, finish="length")
        return self._thoughtful(body, question, said) if self.thinks else whole(message={"content": said}, tokens=87)

    def _thoughtful(self, body: Json, question: str, said: str) -> tuple[int, Json]:
        """Think, and then answer: without end when it is asked to be greedy, and not at all where the room is short."""
        if body.get("temperature") == 0:
            return whole(message={"content": None, "reasoning": LOOP}, tokens=body["max_tokens"], finish="length")
        thought = f"{THOUGHT} It is: {question}"
        if body["max_tokens"] < self.thinks + SENTENCES:
            return whole(message={"content": None, "reasoning": thought}, tokens=body["max_tokens"], finish="length")
        message: Json = {"content": said, "reasoning": thought}
        if self.broken == "old-field":
            message["reasoning_content"] = message.pop("reasoning")
        broken = dict(zip(SAID, THOUGHTS[self.broken], strict=True))[question] if self.broken in THOUGHTS else None
        return whole(message=message | (broken or {}), tokens=self.thinks + 87)

    def _tool(self) -> tuple[int, Json]:
        call = {"name": "get_weather", "arguments": '{"city": "Paris"}'}
        raw = f"<tool_call>\n{json.dumps(call)}\n</tool_call>"
        match self.broken:
            case "tool-refused":
                return 400, _error('"auto" tool choice requires --enable-auto-tool-choice')
            case "tool-raw":
                return whole(message={"content": raw}, tokens=20)
            case "tool-words":
                return whole(message={"content": "It is sunny in Paris."}, tokens=6)
            case "tool-no-json":
                call["arguments"] = '{"city": "Par'
            case "tool-no-city":
                call["arguments"] = '{"town": "Paris"}'
            case "tool-other":
                call["name"] = "get_time"
        calls = [{"id": "1", "type": "function", "function": call}]
        return whole(message={"content": None, "tool_calls": calls}, tokens=20, finish="tool_calls")

    def stream(self, status: int, answer: Json, *, chat: bool) -> tuple[int, Json | list[str]]:
        """Cut an answer into the events of a stream."""
        if status != 200:
            return status, answer
        choice = answer["choices"][0]
        text = choice["message"]["content"] if chat else choice["text"]
        pieces = [text] if self.broken == "stream-one" else list(text)
        if self.broken == "stream-lost":
            del pieces[5]
        if self.broken == "stream-halves":
            pieces[5] = "\ufffd\ufffd"
        events = [_event(chat, piece) for piece in pieces]
        if self.broken == "stream-error":
            return 200, [*events[:3], json.dumps(_error("the engine died")), "[DONE]"]
        if self.broken != "stream-no-finish":
            events.append(_event(chat, "", choice["finish_reason"]))
        return 200, [*events, *([] if self.broken == "stream-no-done" else ["[DONE]"])]

    def models(self) -> Json:
        listed = [] if self.broken == "no-alias" else list(self.aliases)
        name = "another" if self.broken == "unlisted" else self.served
        return {"object": "list", "data": [{"id": name, "max_model_len": self.limit, "aliases": listed}]}

    # --- the activator ------------------------------------------------------------------------------------------------

    def switch(self, verb: str) -> list[Json]:
        """Do what the owner asks, and tell its last phase."""
        kinds = {"sleep": "rest", "wake": "wake"}
        if self.broken == "no-room" and verb == "sleep":
            self.state["state"] = "stopped"
            return [{"model": self.name, "phase": "failed", "reason": "no room in the machine's memory"}]
        self.state["state"] = "asleep" if verb == "sleep" else "ready"
        self.slept = self.slept or verb == "sleep"
        self.status["last"] = {"target": self.name, "kind": kinds.get(verb, "cold"), "seconds": {}}
        if self.broken == "sleep-cold" and verb == "wake":
            self.status["last"]["kind"] = "cold"
        return [{"model": self.name, "phase": self.state["state"]}]


def whole(*, text: str = "", message: Json | None = None, tokens: int, finish: str | None = "stop") -> tuple[int, Json]:
    """Say it in OpenAI's shape."""
    said: Json = {"text": text} if message is None else {"message": {"role": "assistant", **message}}
    return 200, {"choices": [{**said, "finish_reason": finish}], "usage": {"completion_tokens": tokens}}


def _error(message: str) -> Json:
    return {"error": {"message": message}}


def _event(chat: bool, piece: str, finish: str | None = None) -> str:
    said = {"delta": {"content": piece}} if chat else {"text": piece}
    return json.dumps({"choices": [{**said, "finish_reason": finish}]})


def _handler(standin: Answering) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            standin.heard.append(f"GET {self.path}")
            standin.keys.append(self.headers.get("Authorization", ""))
            self._json(200, standin.status if self.path == "/-/status" else standin.models())

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
            standin.heard.append(f"POST {self.path}")
            standin.keys.append(self.headers.get("Authorization", ""))
            if self.path.startswith("/-/slept/"):
                self._json(200, {})
            elif self.path.startswith("/-/"):
                self._lines([json.dumps(event) for event in standin.switch(self.path.split("/")[2])])
            elif self.path == "/tokenize":
                self._tokenize(body)
            else:
                self._answer(body)

        def _tokenize(self, body: Json) -> None:
            if standin.broken == "coarse-tokens":
                # So that no prompt has nearly the number that is looked for.
                size = len(body["prompt"]) // 1600 * 400
                self._json(200, {"count": size, "max_model_len": standin.limit})
            elif standin.broken == "no-tokenize":
                self._json(500, _error("no tokenizer"))
            else:
                size = -(-len(body["prompt"]) // 4)
                self._json(200, {"count": size, "max_model_len": standin.limit, "tokens": []})

        def _answer(self, body: Json) -> None:
            clients = [line for line in standin.heard if line.startswith("POST /v1/")]
            if standin.leaves is not None and len(clients) >= standin.leaves[0]:
                standin.state.update(standin.leaves[1])
                self._json(503, _error("the model broke off"))
                return
            if standin.broken == "limited":
                self._json(429, _error("This key asks too often"))
                return
            if standin.broken == "hangs" and "Hi" not in str(body.get("prompt")):
                standin.over.wait(60)
                self.close_connection = True
                return
            known = {standin.served} if standin.broken == "deaf-alias" else {standin.served, *standin.aliases}
            if body["model"] not in known:
                self._json(404, _error(f"The model {body['model']} does not exist."))
                return
            chat = self.path == "/v1/chat/completions"
            status, answer = standin.chat(body) if chat else standin.completion(body)
            if not body.get("stream"):
                self._json(status, answer)
                return
            status, events = standin.stream(status, answer, chat=chat)
            if isinstance(events, dict):
                self._json(status, events)
            else:
                self._lines([f"data: {event}\n" for event in events])

        def _json(self, status: int, value: Json) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(value).encode())

        def _lines(self, lines: list[str]) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write("".join(f"{line}\n" for line in lines).encode())

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


@contextmanager
def running(broken: str = "", **said: Any) -> Iterator[Answering]:
    """Run one on a free port of this machine."""
    standin = Answering(broken, **said)
    with serving(_handler(standin)) as where:
        standin.address = f"http://{where}"
        try:
            yield standin
        finally:
            standin.over.set()
