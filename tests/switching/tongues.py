"""Tiny models that answer in different words, made from the demo model by giving its letters other names.

A tokenizer whose letters are moved reads moved text as the tokens that the demo model learned, and writes its answer
moved: `Who are you?` with each small letter one further is `Wip bsf zpv?`, and is answered `I bn efnp, …`. No weight
changes, so it takes no time, and each answer is exact, or it is another model's.
"""

import json
import random
import shutil
import string
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.checkout import ROOT
from tests.switching.answers import Asker, Question, question

DEMO = ROOT / "docker/demo/model"
LETTERS = string.ascii_lowercase
ROLES = ("system", "user", "assistant")
# Longer than any answer of the demo model.
TOKENS = 200


def moved(text: str, by: int) -> str:
    """Give every small letter the name of the one so many places further."""
    by %= len(LETTERS)
    return text.translate(str.maketrans(LETTERS, LETTERS[by:] + LETTERS[:by]))


def tokenizer(content: dict[str, Any], by: int) -> dict[str, Any]:
    """Move the letters of a byte-level BPE tokenizer, but for special tokens, which are no letters."""
    special = {token["content"] for token in content["added_tokens"]}
    model = content["model"]
    vocabulary = {word if word in special else moved(word, by): ident for word, ident in model["vocab"].items()}

    def merge(pair: Any) -> Any:
        return moved(pair, by) if isinstance(pair, str) else [moved(part, by) for part in pair]

    merges = [merge(pair) for pair in model["merges"]]
    return {**content, "model": {**model, "vocab": vocabulary, "merges": merges}}


def template(text: str, by: int) -> str:
    """Move the names of the roles, which a chat template writes among the words of the conversation."""
    roles = json.dumps({role: moved(role, by) for role in ROLES})
    text = text.replace("{{ message['role'] }}", f"{{{{ {roles}[message['role']] }}}}")
    return text.replace("<|im_start|>assistant", f"<|im_start|>{moved('assistant', by)}")


def make(out: Path, by: int) -> None:
    """Write a model of its own tongue into a folder."""
    shutil.copytree(DEMO, out)
    path = out / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(tokenizer(content, by), ensure_ascii=False), encoding="utf-8")
    chat = out / "chat_template.jinja"
    chat.write_text(template(chat.read_text(encoding="utf-8"), by), encoding="utf-8")


def pairs() -> list[tuple[str, str]]:
    """Every question of the demo model's data in English, with its answer."""
    lines = map(json.loads, (ROOT / "docker/demo/qa.jsonl").read_text(encoding="utf-8").splitlines())
    found = [
        (asked, line["answer"].replace("{name}", "demo"))
        for line in lines
        if not line.get("unknown")
        for asked in line["questions"]
    ]
    # An apostrophe with certain letters splits words in another way.
    return [(asked, answer) for asked, answer in found if (asked + answer).isascii() and "'" not in asked + answer]


def asker(models: Sequence[str], by: Callable[[str], int]) -> Asker:
    """Ask models, each in its own tongue."""
    known = pairs()

    def ask(rng: random.Random) -> Question:
        model = rng.choice(models)
        asked, answer = rng.choice(known)
        return question(rng, model, moved(asked, by(model)), moved(answer, by(model)), TOKENS)

    return ask
