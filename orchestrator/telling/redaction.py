"""Takes out of a text what is secret or private; names stay apart from each other: USER1, ADDRESS2. Pure."""

import re
from collections.abc import Iterable
from typing import Any

from orchestrator.telling import known, networks, shapes
from orchestrator.telling.known import Known
from orchestrator.telling.shapes import GONE

# Stands for base64 of a secret until the word around it is known; no text that was cleaned has it.
_MARK = "\x00"
_AROUND = re.compile(r"[A-Za-z0-9+/_-]*\x00[A-Za-z0-9+/_=\x00-]*")
# One that was replaced already; a second look changes nothing.
_DONE = re.compile(r"(?:USER|HOST|ADDRESS|EMAIL|MAC)[0-9]+")
_NAME = r"\w(?:[\w.+-]*\w)?"
_SLASH = r"(?:[\\/]{1,4}|%2[Ff])"
_HOME = re.compile(rf"((?:[\\/]|%2[Ff])home{_SLASH})({_NAME})")
# Windows' names may have spaces in them, so where one ends is judged by what comes after it: a slash, or a quote.
# Further words go where they are written as names are, and one before the line's end goes whatever it is.
_PART = r"[\w(](?:(?:[\w.+()$~-]|(?<=\w)'(?=\w))*[\w)$])?"
_GAP = r"(?: |%20)"
_SPACED = (
    rf"{_PART}(?:{_GAP}{_PART}){{0,2}}(?=[\\/]|%2[Ff])"
    rf"|{_PART}(?:{_GAP}{_PART}){{1,2}}(?=[\"'`])"
    rf"|{_PART}{_GAP}{_PART}(?=\s*$)"
    rf"|{_PART}(?:{_GAP}(?=[A-Z]|[^\x00-\x7f]){_PART}){{1,2}}"
    rf"|{_NAME}"
)
_USERS = re.compile(rf"((?:[\\/]|%2[Ff])(?i:users){_SLASH})({_SPACED})", re.MULTILINE)
_TILDE = re.compile(r"((?<![\w~./])~)([A-Za-z][\w.-]*)(?=/)")
_NOBODY = re.compile(r"(?:public|default|all users|default user)", re.IGNORECASE)
_EMAIL = re.compile(r"(?<![\w.+*-])[\w.+-]+@(?!sha256)[\w-]+(?:\.[\w-]+)+")
# Who is where: as a shell's prompt says it, and as ssh and the like are told it.
_PROMPT = re.compile(r"((?<![\w.+*/@-]))([A-Za-z_][\w.-]*)@([A-Za-z0-9][\w-]*)(?=:[~/])")
_SSH = re.compile(
    r"(\b(?:ssh(?:-[a-z0-9]+)?|scp|sftp|rsync|mosh)\s(?:[^\n@]{0,60}\s)?)([A-Za-z_][\w.-]*)@([A-Za-z0-9][\w-]*)"
)
# As environments have them.
_VARIABLE = re.compile(
    r"(?<![A-Za-z0-9_])(?:(?P<user>USER|USERNAME|LOGNAME|SUDO_USER)|COMPUTERNAME|HOSTNAME|USERDOMAIN|LOGONSERVER)"
    r"(?:[\"']?\s{0,2}[=:]\s{0,2}[\"']?\\{0,4})"
    rf"(?P<value>{_NAME}(?: {_NAME}){{1,2}}(?=\s*$|[\"'])|{_NAME})",
    re.MULTILINE,
)
# As Windows calls a machine that nobody gave a name, and who works at it.
_WINDOWS = re.compile(
    r"(?<![A-Za-z0-9-])(DESKTOP-[A-Z0-9]{7}|LAPTOP-[A-Z0-9]{8}|WIN-[A-Z0-9]{11}"
    r"|(?i:desktop-(?=[a-z]*[0-9])[a-z0-9]{7}|laptop-(?=[a-z]*[0-9])[a-z0-9]{8}))(?![A-Za-z0-9-])"
    rf"(?:(\\{{1,4}})({_SPACED}))?",
    re.MULTILINE,
)
_SERIAL = re.compile(
    r"((?<![a-z])serial(?:[ _-]?(?:number|num|no))?[\"']?\s{0,40}[:=]\s{0,4}[\"']?)"
    r"(?=[A-Z-]{0,40}[0-9])[A-Z0-9-]{6,40}(?![A-Z0-9-])",
    re.IGNORECASE,
)
_DIGEST = re.compile(r"(?<![0-9A-Za-z])(sha256:)?([0-9a-f]{12})[0-9a-f]{21,116}(?![0-9A-Za-z])")
_GPU = re.compile(r"\b((?:GPU|MIG)-[0-9a-f]{8})-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", re.IGNORECASE)


class Redaction:
    """Redacts the texts of one report. The same name or address becomes the same word in all of them."""

    def __init__(self, what: Known) -> None:
        """What is known to be secret goes first, then all that looks so."""
        self._words: dict[tuple[str, str], str] = {}
        secrets = [secret for secret in what.secrets if len(secret) >= known.SHORTEST]
        self._secrets = _any(form for secret in secrets for form in known.forms(secret))
        self._coded = _any(form for secret in secrets for form in known.stretches(secret))
        self._users = _names(what.users)
        self._machines = _names(what.machines, re.IGNORECASE)
        self._hosts = _names(what.hosts, re.IGNORECASE)

    def __call__(self, text: str) -> str:
        """Redact a text."""
        text = shapes.cleaned(text)
        if self._coded:
            marked = self._coded.sub(_MARK, text)
            text = _AROUND.sub(GONE, marked) if marked != text else text
        if self._secrets:
            text = self._secrets.sub(GONE, text)
        text = shapes.hidden(text)
        text = _EMAIL.sub(lambda found: self._word("EMAIL", found[0]), text)
        for pattern, kind in ((self._hosts, "ADDRESS"), (self._machines, "HOST")):
            if pattern:
                text = pattern.sub(lambda found, kind=kind: self._word(kind, found[0].lower()), text)  # type: ignore[misc]
        for home in (_HOME, _USERS, _TILDE):
            text = home.sub(self._home, text)
        if self._users:
            text = self._users.sub(lambda found: self._word("USER", found[0]), text)
        text = _SSH.sub(self._someone, _PROMPT.sub(self._someone, text))
        text = _VARIABLE.sub(self._variable, _WINDOWS.sub(self._windows, text))
        text = networks.replaced(_SERIAL.sub(rf"\1{GONE}", text), self._word)
        return _GPU.sub(r"\1", _DIGEST.sub(r"\1\2", text))

    def values(self, value: Any) -> Any:
        """Redact all texts within lists and tables; a value whose name says that it is a secret goes whole."""
        if isinstance(value, str):
            return self(value)
        if isinstance(value, dict):
            return {self(str(name)): self._value(str(name), inner) for name, inner in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(map(self.values, value))
        return value

    def _value(self, name: str, value: Any) -> Any:
        return GONE if value and isinstance(value, str) and known.SECRET_NAME.search(name) else self.values(value)

    def _word(self, kind: str, what: str) -> str:
        if _DONE.fullmatch(what):
            return what
        count = sum(1 for other, _ in self._words if other == kind)
        return self._words.setdefault((kind, what), f"{kind}{count + 1}")

    def _home(self, found: re.Match[str]) -> str:
        if _NOBODY.fullmatch(found[2]) or _DONE.fullmatch(found[2]):
            return found[0]
        return found[1] + self._word("USER", found[2])

    def _windows(self, found: re.Match[str]) -> str:
        machine, sign, user = found.groups()
        return self._word("HOST", machine.lower()) + (f"{sign}{self._word('USER', user)}" if user else "")

    def _variable(self, found: re.Match[str]) -> str:
        user, value = found["user"], found["value"]
        if value.lower() in known.NOBODY or _DONE.fullmatch(value):
            return found[0]
        return found[0][: -len(value)] + self._word("USER" if user else "HOST", value if user else value.lower())

    def _someone(self, found: re.Match[str]) -> str:
        before, user, machine = found.groups()
        who, where = (
            name if name.lower() in known.NOBODY else self._word(kind, name)
            for kind, name in (("USER", user), ("HOST", machine if _DONE.fullmatch(machine) else machine.lower()))
        )
        return f"{before}{who}@{where}"


def _any(forms: Iterable[str]) -> re.Pattern[str] | None:
    """One pattern for many words, the longest first; short ones only where they stand alone."""
    words = sorted({form for form in forms if form}, key=lambda form: (-len(form), form))
    parts = [
        re.escape(word) if len(word) >= known.ALONE else rf"(?<![A-Za-z0-9]){re.escape(word)}(?![A-Za-z0-9])"
        for word in words
    ]
    return re.compile("|".join(parts)) if parts else None


def _names(names: Iterable[str], flags: int = 0) -> re.Pattern[str] | None:
    words = sorted(names, key=lambda name: (-len(name), name))
    listed = "|".join(map(re.escape, words))
    # What ends a line is written as a letter in JSON.
    return re.compile(rf"(?:(?<![A-Za-z0-9])|(?<=\\[nrt]))(?:{listed})(?![A-Za-z0-9])", flags) if words else None
