"""Takes out of a text what is secret or private; names stay apart from each other: USER1, ADDRESS2. Pure."""

import re
from collections.abc import Iterable
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Any

from orchestrator.telling import known, shapes
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
# Windows' names may have spaces in them.
_USERS = re.compile(rf"((?:[\\/]|%2[Ff])Users{_SLASH})({_NAME}(?: {_NAME}){{0,2}}(?=[\\/])|{_NAME})", re.IGNORECASE)
_NOBODY = re.compile(r"(?:public|default|all users|default user)", re.IGNORECASE)
_EMAIL = re.compile(r"(?<![\w.+*-])[\w.+-]+@(?!sha256)[\w-]+(?:\.[\w-]+)+")
_MAC = re.compile(r"(?<![\w:.-])[0-9A-Fa-f]{2}(?:([:-])[0-9A-Fa-f]{2})(?:\1[0-9A-Fa-f]{2}){4}(?![\w:-])")
_IPV6 = re.compile(r"(?<![\w:.])[0-9A-Fa-f:]*:[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*(?![\w])")
_IPV4 = re.compile(r"(?<![\w.])(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?!\.?\w)")
# What comes before or after four figures that are a version: packages, kernels, drivers.
_VERSION_BEFORE = re.compile(
    r"(?:[=~<>!]=|[<>]|\b(?:version|release|kernel|linux|driver|cuda|cudnn|cublas|nccl|wsl|build)[\"']?[ :=]{1,3}v?"
    r"|[-_]cu\d+[- ]{1,4})$",
    re.IGNORECASE,
)
_VERSION_AFTER = re.compile(r"-(?:microsoft|WSL2|py\d|cp\d|\d+-)|\+")
_DIGEST = re.compile(r"(?<![0-9A-Za-z])(sha256:)?([0-9a-f]{12})[0-9a-f]{21,116}(?![0-9A-Za-z])")
_GPU = re.compile(r"\b(GPU-[0-9a-f]{8})-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b")


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
        text = _USERS.sub(self._home, _HOME.sub(self._home, text))
        if self._users:
            text = self._users.sub(lambda found: self._word("USER", found[0]), text)
        text = _MAC.sub(lambda found: self._word("MAC", found[0].lower()), text)
        text = _IPV4.sub(self._four, _IPV6.sub(self._six, text))
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

    def _four(self, found: re.Match[str]) -> str:
        text, start, end = found.string, found.start(), found.end()
        try:
            address = IPv4Address(".".join(str(int(part)) for part in found[0].split(".")))
        except AddressValueError:
            return found[0]
        if address.is_loopback or address.is_unspecified or int(address) == 0xFFFFFFFF:
            return found[0]
        if _VERSION_BEFORE.search(text[max(0, start - 24) : start]) or _VERSION_AFTER.match(text, end):
            return found[0]
        return self._word("ADDRESS", str(address))

    def _six(self, found: re.Match[str]) -> str:
        # What ends it may belong to the sentence.
        for cut in range(min(3, len(found[0]))):
            text = found[0][: len(found[0]) - cut]
            try:
                address = IPv6Address(text)
            except AddressValueError:
                if found[0][len(text) - 1] not in ":.":
                    return found[0]
                continue
            if address.is_loopback or address.is_unspecified:
                return found[0]
            return self._word("ADDRESS", str(address)) + found[0][len(text) :]
        return found[0]


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
    return re.compile(rf"(?<![A-Za-z0-9])(?:{listed})(?![A-Za-z0-9])", flags) if words else None
