"""Scans of a model's text: what sound models say passes, in all its forms, and what broken ones say does not."""

import random
from typing import Any

import pytest

from orchestrator.proof import texts
from tests.standins.answering import BREAD, DOUGH, RAIN, STORY, WATER

TABLE = (
    "| Country | Capital | Since |\n| --- | --- | --- |\n| France | Paris | 987 |\n| Japan | Tokyo | 1868 |\n"
    "| Italy | Rome | 1871 |\n| Spain | Madrid | 1561 |\n| Egypt | Cairo | 969 |\n| Greece | Athens | 1834 |\n"
)
CODE = (
    "```python\nfor i in range(10):\n    print(i)\n```\n"
    + "-" * 40
    + "\nIt prints the numbers from 0 to 9, each in a line."
)
LIST = "\n".join(f"{n}. {word}" for n, word in enumerate(("flour", "water", "salt", "yeast", "milk", "oil", "eggs"), 1))
VERSE = "Row, row, row your boat, gently down the stream. Merrily, merrily, merrily, merrily, life is but a dream."
MATHS = "The angle α is the angle β, so the area is ½·a·b·sin γ ≈ 3.2 m² (see Müller, naïve café)."
FRENCH = "« L’été, la pluie tombe à cause de la chaleur », dit-il ; l’eau s’évapore déjà… C’est « ça »."
SOUND = (
    RAIN,
    BREAD,
    WATER,
    DOUGH,
    STORY,
    TABLE,
    CODE,
    LIST,
    VERSE,
    MATHS,
    FRENCH,
    "Ha ha ha ha!",
    "Nooooooo!",
    "42",
    "",
)


@pytest.mark.parametrize("text", SOUND)
def test_what_a_sound_model_says_has_nothing_against_it(text: str) -> None:
    assert (texts.looped(text), texts.garbled(text)) == ("", "")


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("!" * 40, '"!" comes 40 times in a row'),
        ("the " * 30, "comes 29 times in a row"),
        (
            RAIN[:60] + " is is is is is is is is is is is is is is is is is is is is is is is is is is",
            "times in a row",
        ),
        ("是的" * 20, "comes 20 times in a row"),
        ("I am a cat. " * 12, "comes 11 times in a row"),
        (RAIN + BREAD + "0" * 50, '"0" comes 50 times in a row'),
        (RAIN + " of" * 40 + BREAD + RAIN, "comes 40 times in a row"),
    ],
)
def test_one_token_or_a_short_cycle_again_and_again_is_a_loop(text: str, fact: str) -> None:
    assert fact in texts.looped(text)


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("The sky \ufffd is blue", "1 times U+FFFD, which stands for bytes that are no UTF-8"),
        ("\ufffd" * 3, "3 times U+FFFD"),
        ("The sky\x00 is blue", "control or private characters, such as U+0000"),
        ("The sky \ue000 is blue", "such as U+E000"),
        ("cafÃ©", "UTF-8 that was read as Latin-1: "),
        ("itâ€™s", "UTF-8 that was read as Latin-1: "),
        ("æ°´", "UTF-8 that was read as Latin-1: "),
        ("the дом नमस्ते 水 ไทย", "letters of 5 scripts: cjk, cyrillic, devanagari, latin, thai"),
    ],
)
def test_signs_that_are_none_and_noise_are_garbled(text: str, fact: str) -> None:
    assert fact in texts.garbled(text)


def test_an_answer_that_max_tokens_ended_may_end_within_a_sign() -> None:
    assert texts.garbled("下雨是因为\ufffd", cut=True) == ""
    assert texts.garbled("下雨是因为\ufffd") != ""
    assert texts.garbled("下雨\ufffd是因为", cut=True) != ""


@pytest.mark.parametrize("text", [RAIN, BREAD, VERSE, MATHS + " It is so.", "42", "Yes.", ""])
def test_english_is_english(text: str) -> None:
    assert texts.foreign(text, "English") == ""


@pytest.mark.parametrize(
    "text", [WATER, DOUGH, STORY, "下雨是因为水蒸气(H2O)遇冷凝结成水滴，再落到地面。", "42", "是。", ""]
)
def test_chinese_is_chinese(text: str) -> None:
    assert texts.foreign(text, "Chinese") == ""


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        (WATER, "English"),
        (RAIN, "Chinese"),
        ("Дождь идёт потому, что вода испаряется и поднимается вверх.", "English"),
        ("Es regnet, weil warmes Wasser steigt, kalt wird und dann wieder auf uns herab fällt.", "English"),
        ("雨が降るのは、水があたためられて、くもになるからです。", "Chinese"),
        ("비가 오는 이유는 물이 증발하여 구름이 되기 때문입니다.", "Chinese"),
        ("鬱龘靐齉爩麤灪爨癵籱饢驫鱺鸞黌亹", "Chinese"),
    ],
)
def test_another_language_is_told(text: str, asked: Any) -> None:
    assert texts.foreign(text, asked).startswith(f"asked in {asked}, and ")


def test_words_without_sense_are_no_english() -> None:
    noise = random.Random(7)
    words = ["".join(noise.choice("aeioustrnlmkpdg") for _ in range(noise.randint(3, 9))) for _ in range(60)]
    assert "are words that all English has" in texts.foreign(" ".join(words), "English")


def test_one_text_for_two_prompts_is_told_and_silence_is_not() -> None:
    assert texts.same({"a": "It rains.", "b": "It  rains.\n"}) == '"b" and "a" are both answered "It rains."'
    assert texts.same({"a": "It rains.", "b": "It is baked.", "c": ""}) == ""
    assert texts.same({"a": "", "b": ""}) == ""


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ("It rains.\nA lot", '"It rains. A lot"'),
        ("x" * 30, '"' + "x" * 24 + '…"'),
        ("水" * 13, '"' + "水" * 12 + '…"'),
        ("a\x1bb\u200b", '"a\\x1bb\\u200b"'),
        ("", '""'),
    ],
)
def test_a_quote_is_short_and_shows_every_sign(text: str, quoted: str) -> None:
    assert texts.shown(text) == quoted
