"""Scans a model's text for what broken weights, kernels and all-reduces make of it. Pure.

Each scan gives "" for a text with nothing against it, else the fact. They look for what no sound model says, and not
for bad style: where a sound answer could come near a threshold, it is on the safe side, and says why.
"""

import re
import unicodedata

from orchestrator.proof.prompts import Language

# A cycle longer than this is a paragraph that comes again, which small models do on their own.
LONGEST_CYCLE = 80
# A text is a loop when a cycle comes this often and fills half of it: a list has its bullets, and a table its bars,
# as often, but other words between them.
TIMES, SHARE = 6, 0.5
# And whatever share it fills when it comes this often: a sound start can end so, as when the KV cache is damaged.
# Signs that draw lines are left out there.
VERY_OFTEN, DRAWING = 32, frozenset("-=_*#~.·—–│|+ \n")
# Scripts in one answer: its own, a second for a name, a third for a formula. Noise over a whole vocabulary has more.
MOST_SCRIPTS = 3
# Of the letters that are of the script asked for; the rest may be names and units.
OWN_SCRIPT = {"English": 0.8, "Chinese": 0.5}
# Of a language's words, or signs, those that are in every text. They are a third of English prose and a seventh of
# Chinese, and hardly any of another language or of noise in the same script.
_ENGLISH = (
    "the a an of and to in is are it that this as by on for with from be or at when into which they its we i you can "
    "then because how not their until"
)
USUAL = {
    "English": frozenset(_ENGLISH.split()),
    "Chinese": frozenset("的一是了在有不和会这中为以上到从成后把将要就也我们它时用"),
}
LEAST_USUAL = {"English": 0.1, "Chinese": 0.03}
# Words, or signs, below which shares mean nothing.
ENOUGH = 8
# CJK ideographs are Chinese, and in Japanese they stand among kana.
_KANA = 0.2
_JOINED = {"HIRAGANA": "KANA", "KATAKANA": "KANA", "KATAKANA-HIRAGANA": "KANA", "FULLWIDTH": "LATIN"}


def shown(text: str, columns: int = 24) -> str:
    """Quote the beginning of a text in so many columns at most, signs that do not show as escapes."""
    quoted, width = "", 0
    for sign in re.sub(r"\s+", " ", text.strip()):
        piece = sign if sign.isprintable() else sign.encode("unicode_escape").decode()
        width += columns_of(piece)
        if width > columns:
            return f'"{quoted}…"'
        quoted += piece
    return f'"{quoted}"'


def columns_of(text: str) -> int:
    """Count the columns that a text takes on a terminal."""
    return sum(2 if unicodedata.east_asian_width(sign) in "WF" else 1 for sign in text)


def looped(text: str) -> str:
    """Look for one token, or a short cycle of tokens, again and again."""
    plain = re.sub(r"\s+", " ", text).strip()
    for period in range(1, min(LONGEST_CYCLE, len(plain) // TIMES) + 1):
        length, end = _longest_run(plain, period)
        cycle = plain[end - period : end]
        often = length // period
        drawn = set(cycle) <= DRAWING
        if often >= TIMES and length >= 4 * TIMES and length >= SHARE * len(plain):
            return f"{shown(cycle)} comes {often} times in a row"
        if often >= VERY_OFTEN and not drawn:
            return f"{shown(cycle)} comes {often} times in a row"
    return ""


def _longest_run(text: str, period: int) -> tuple[int, int]:
    """Find the longest stretch that repeats itself after so many signs: its length, and where it ends."""
    best, end, same = period, period, 0
    for place in range(period, len(text)):
        same = same + 1 if text[place] == text[place - period] else 0
        if same + period > best:
            best, end = same + period, place + 1
    return best, end


def garbled(text: str, *, cut: bool = False) -> str:
    """Look for signs that are none, UTF-8 read as something else, and many scripts at once.

    cut is whether the answer was ended by max_tokens, which may halve its last sign.
    """
    whole = text.rstrip("\ufffd") if cut else text
    if "\ufffd" in whole:
        return f"{whole.count(chr(0xFFFD))} times U+FFFD, which stands for bytes that are no UTF-8"
    odd = [sign for sign in whole if unicodedata.category(sign) in ("Cc", "Co", "Cs") and sign not in "\n\r\t"]
    if odd:
        return f"control or private characters, such as U+{ord(odd[0]):04X}"
    misread = next((run for run in re.findall(r"[^\x00-\x7f]{2,}", whole) if _is_misread(run)), "")
    if misread:
        return f"UTF-8 that was read as Latin-1: {shown(misread)}"
    scripts = scripts_of(whole)
    if len(scripts) > MOST_SCRIPTS:
        return f"letters of {len(scripts)} scripts: {', '.join(sorted(scripts)).lower()}"
    return ""


def _is_misread(run: str) -> bool:
    """Whether signs above ASCII are the bytes of other signs: true text in Windows-1252 is hardly ever valid UTF-8."""
    try:
        return len(run.encode("cp1252").decode("utf-8")) < len(run)
    except UnicodeError:
        return False


def scripts_of(text: str) -> dict[str, int]:
    """Count letters by script, as the first word of their Unicode names."""
    found: dict[str, int] = {}
    for sign in text:
        if sign.isalpha():
            word = unicodedata.name(sign, "UNNAMED").split()[0]
            # A micro sign, a feminine ordinal: letters to Unicode, and of no script.
            script = _JOINED.get(word, word)
            if script not in ("MICRO", "MASCULINE", "FEMININE", "MODIFIER", "SUPERSCRIPT", "SUBSCRIPT", "MATHEMATICAL"):
                found[script] = found.get(script, 0) + 1
    return found


def foreign(text: str, asked: Language) -> str:
    """Look whether an answer is in another language than the one asked for."""
    scripts = scripts_of(text)
    letters = sum(scripts.values())
    if letters < ENOUGH:
        return ""
    own = scripts.get("LATIN" if asked == "English" else "CJK", 0) / letters
    kana = scripts.get("KANA", 0) / letters
    if own < OWN_SCRIPT[asked] or (asked == "Chinese" and kana > _KANA):
        most = max(scripts, key=lambda script: scripts[script])
        return f"asked in {asked}, and {scripts[most] / letters:.0%} of the letters are {most.title()}: {shown(text)}"
    words = _words(text, asked)
    usual = sum(word in USUAL[asked] for word in words) / max(len(words), 1)
    if len(words) >= ENOUGH and usual < LEAST_USUAL[asked]:
        return f"asked in {asked}, and only {usual:.0%} of it are words that all {asked} has: {shown(text)}"
    return ""


def _words(text: str, language: Language) -> list[str]:
    if language == "English":
        return re.findall(r"[a-z]+", text.lower())
    return [sign for sign in text if unicodedata.name(sign, "").startswith("CJK")]


def same(texts: dict[str, str]) -> str:
    """Look for one text given to different prompts; texts are by prompt, and empty ones are left out."""
    first: dict[str, str] = {}
    for prompt, text in texts.items():
        plain = " ".join(text.split())
        if plain and plain in first:
            return f"{shown(prompt)} and {shown(first[plain])} are both answered {shown(plain)}"
        first[plain] = prompt
    return ""
