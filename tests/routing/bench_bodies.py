"""What the router's benchmark sends: chats of an exact size, with the model's name where a client puts it. Pure."""

import base64
import functools
import json
import random
from collections.abc import Callable
from typing import Any, Literal

# Where the key stands. `twice`: at the front, and a tool's parameter is called so too: the bytes hold it twice.
Place = Literal["front", "end", "twice"]

KB = 1024
SIZES = {"1 KB": KB, "200 KB": 200 * KB, "8 MB": 8 * KB * KB}
# From here on it is images that make a chat so large.
IMAGES_FROM = 1 * KB * KB
IMAGE = 1_500_000
TURN = (
    'How would you read this?\n\n```python\nprint("a \\"quoted\\" word")\n```\n'
    "It should give the same on both machines, and on mine it does not – 两台机器的结果不一样。 "
)


def chat(size: int, model: str, place: Place = "front") -> bytes:
    """A chat of so many bytes, written as httpx writes JSON; with the key at the end in the openai client's order."""
    short = _chat(model, place)
    room = size - len(_bytes(short | {"messages": [_message(0, "")]}))
    messages: list[dict[str, Any]] = []
    kinds: list[Callable[[int], dict[str, Any]]] = [_image, _turn]
    for make in kinds if size >= IMAGES_FROM and place != "twice" else kinds[1:]:
        while (more := len(_bytes(make(len(messages)))) + 1) <= room:
            messages.append(make(len(messages)))
            room -= more
    # The last one fills it up, with characters that are a byte each.
    text = "So which of the two is it? "
    last = _message(0, (text * (room // len(text) + 1))[:room])
    body = _bytes(short | {"messages": [*messages, last]})
    assert len(body) == size, f"{len(body)} bytes instead of {size}"
    return body


def numbers(size: int, model: str) -> bytes:
    """A completion of so many bytes whose prompt is its tokens by their numbers; its metadata names the model again."""
    body: dict[str, Any] = {"model": model, "prompt": [], "metadata": {"model": model}}
    room = size - len(_bytes(body))
    body["prompt"] = [1234] * ((room + 1) // 5)
    return _bytes(body) + b" " * (size - len(_bytes(body)))


def _chat(model: str, place: Place) -> dict[str, Any]:
    if place == "end":
        return {"messages": [], "model": model, "max_tokens": 256, "stream": False}
    chat: dict[str, Any] = {"model": model, "messages": [], "max_tokens": 256, "stream": False}
    if place == "twice":
        parameters = {"type": "object", "properties": {"model": {"type": "string"}}}
        chat["tools"] = [{"type": "function", "function": {"name": "price", "parameters": parameters}}]
    return chat


def _message(number: int, text: str) -> dict[str, Any]:
    return {"role": "assistant" if number % 2 else "user", "content": text}


def _turn(number: int) -> dict[str, Any]:
    return _message(number, TURN * 5)


@functools.cache
def _image(number: int) -> dict[str, Any]:
    data = base64.b64encode(random.Random(number).randbytes(IMAGE * 3 // 4)).decode()
    url = {"url": f"data:image/png;base64,{data}"}
    return {"role": "user", "content": [{"type": "text", "text": TURN}, {"type": "image_url", "image_url": url}]}


def _bytes(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
