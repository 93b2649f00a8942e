"""What looks like a secret wherever it stands: tokens, headers, name=value, private keys, passwords. Pure."""

import re

GONE = "***"
_COLOURS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]*\x07")
# Also one whose end or line breaks a log has lost.
_PEM = re.compile(
    r"-----BEGIN [A-Z0-9 ]+-----(?:(?!-----BEGIN ).)*?-----END [A-Z0-9 ]+-----"
    r"|-----BEGIN [A-Z0-9 ]+-----(?:\\[nr]|[A-Za-z0-9+/=\s])*",
    re.DOTALL,
)
# A line of base64 as private keys have, or a longer word of it. Paths have more slashes.
_OPAQUE = re.compile(r"(?<![\w+/-])[A-Za-z0-9+/]{60,}={0,2}(?![\w+/=-])")
_SLASHES = 5
_TOKENS = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"hf_[A-Za-z0-9]{16,}|api_org_[A-Za-z0-9]{16,}|sk-[A-Za-z0-9_-]{16,}|sk-(?=[A-Za-z]*[0-9])[A-Za-z0-9]{8,}|tdm-[A-Za-z0-9_-]{12,}"
    r"|ms-[0-9A-Za-z]{24,}|ms-[0-9A-Fa-f]{4,}(?:-[0-9A-Fa-f]{4,})+"
    r"|gh[pousr]_[A-Za-z0-9]{16,}|github_pat_\w{16,}|glpat-[\w-]{16,}|dckr_pat_[\w-]{16,}|npm_[A-Za-z0-9]{20,}"
    r"|pypi-[\w-]{32,}|xox[abeoprs]-[\w-]{10,}|A(?:KI|SI)A[0-9A-Z]{16}|AIza[\w-]{30,}|LTAI[0-9A-Za-z]{12,}"
    r"|eyJ[\w-]{6,}\.[\w-]{4,}\.[\w-]*)"
)
_BEARER = re.compile(
    r"(?<![A-Za-z])(bearer|basic)(\s+|%20|\+)(?!(?:authentication|authorization|auth|tokens?|scheme|key)\b)[^\s\"'\\,;<>]{6,}",
    re.IGNORECASE,
)
# What only opaque words may follow, as prose has these words too.
_PROSE = frozenset({"token", "key", "auth", "signature"})
_VALUE = (
    r"\[[^\]\n]*\]"
    r'|b?\\*"(?:[^"\\\n]|\\.)*"'
    r"|b?\\*'(?:[^'\\\n]|\\.)*'"
)
_NAMED = re.compile(
    r"(?P<name>pass(?:wor)?d|passwd|pwd|(?<=[_-])pass|passphrase|secret|credentials?|auth|token|signature|bearer"
    r"|session[_-]?id|key(?:[_-]?(?:id|base))?)"
    r"(?P<sign>\\*[\"']?\s{0,2}(?:=>|:=|[:=]|%3[AaDd]|,(?=\s*[\"']))(?:\s{0,2}|(?:%20|\+)(?!\s))|\\*[\"']\s{0,2}\]\s{0,2}=\s{0,2})"
    rf"(?P<value>{_VALUE}|[^\s,;&}}\])]+)",
    re.IGNORECASE,
)
_FLAG = re.compile(
    r"((?<![\w-])--[\w-]{0,40}?(?:pass(?:wor)?d|passphrase|secret|token|(?:api|access|admin)[_-]?key)\s+)"
    rf"(?!-)({_VALUE}|\S+)",
    re.IGNORECASE,
)
# What these hold is a secret to the line's end, or to the quote that ends it.
_HEADER = re.compile(
    r"((?:proxy-)?authorization|(?:set-)?cookie|x-api-key|x-auth-token)"
    r"(\\*[\"']?\s{0,2}[:=,]\s{0,2})(?P<value>b?\\*[\"'][^\"'\n]*|[^\r\n\"']+)",
    re.IGNORECASE,
)
# In prose, where only what is no word can be one.
_SPOKEN = re.compile(
    r"(?P<head>\b(?:\w+_)?(?:token|password|passwd|secret|key)(?:\s+(?:is|was|of)\b|>|\()?[\s\"']{0,3})(?<!\w)"
    r"(?P<word>[\w.~+/-]{12,}={0,2})(?![\w./-])",
    re.IGNORECASE,
)
_CURL = re.compile(r"(?<=\s)(-u|--user|--proxy-user)([ =]+)(?!\d+:\d+\b)[^\s:]+:\S+")
# A word before `token` that makes it a sign of a vocabulary.
_VOCABULARY = re.compile(
    r"(?:bos|eos|pad|unk|sep|cls|mask|stop|special|image|video|audio|start|end|first|next|per|output)[ _-]$",
    re.IGNORECASE,
)
_OF_KEYS = re.compile(
    r"(?:api|access|private|secret|admin|client|auth|account|master|signing|encryption)$", re.IGNORECASE
)
# Values that are none, and the names of variables that hold one.
_NOTHING = re.compile(
    r"(?:null|none|true|false|undefined|\*\*\*|\[\]|(?-i:\$\{?[A-Z_][A-Z0-9_]*\}?)|<[\w -]+>|(?:bearer\s+)?KEY)"
    r"(?![^\s\"',;)\]}])",
    re.IGNORECASE,
)
_FIGURE = re.compile(r"-?[0-9]{1,12}(?:[.,][0-9]+)?(?:ms|s|%|k|M)?")
# The user and the password of an address; its query.
_USER = re.compile(r"(?<=//)(?:[^\s/\"'<>]*@(?!sha256:)|[^\s/\"'<>:@\[\]]+:[^\s\"'<>]*@(?!sha256:))")
_BARE_USER = re.compile(r"(?<![\w/@.:-])[\w.%+-]{1,64}:(?!/)[^\s@\"'<>]{1,256}@(?!sha256:)(?=[\w\[])")
_QUERY = re.compile(r"(?<=[\w/=)\]*])\?(?=[\w.%~\[\]-]+=)[^\s\"'<>`]*|(://[^\s\"'<>?#]*)[?#][^\s\"'<>`]+")


def cleaned(text: str) -> str:
    """Take colours and signs that no text has out of a log."""
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f]", "", _COLOURS.sub("", text))


def hidden(text: str) -> str:
    """Give a text without what looks like a secret."""
    text = _PEM.sub(GONE, text)
    text = _BARE_USER.sub(f"{GONE}@", _USER.sub(f"{GONE}@", text))
    text = _QUERY.sub(lambda found: f"{found[1] or ''}?{GONE}", text)
    text = _TOKENS.sub(GONE, _HEADER.sub(_header, text))
    text = _BEARER.sub(rf"\1\2{GONE}", text)
    text = _CURL.sub(rf"\1\2{GONE}", _FLAG.sub(rf"\1{GONE}", text))
    text = _SPOKEN.sub(_spoken, _NAMED.sub(_named, text))
    return _OPAQUE.sub(_opaque, text)


def _header(found: re.Match[str]) -> str:
    value = found["value"]
    opening = re.match(r"b?\\*[\"']", value)
    bare = value[opening.end() :] if opening else value
    if not bare.strip() or _NOTHING.match(bare.strip()):
        return found[0]
    return f"{found[1]}{found[2]}{opening[0] if opening else ''}{GONE}"


def _spoken(found: re.Match[str]) -> str:
    return found["head"] + GONE if _mixed(found["word"]) and "/" not in found["word"] else found[0]


def _mixed(word: str) -> bool:
    return all(re.search(kind, word) for kind in ("[a-z]", "[A-Z]", "[0-9]"))


def _opaque(found: re.Match[str]) -> str:
    word = found[0]
    return GONE if _mixed(word) and word.count("/") <= _SLASHES else word


def _named(found: re.Match[str]) -> str:
    name, value, before = (
        found["name"].lower(),
        found["value"],
        found.string[max(0, found.start() - 24) : found.start()],
    )
    opening = re.match(r"b?(\\*[\"'])", value)
    bare = value[opening.end() : -len(opening[1])] if opening and value.endswith(opening[1]) else value
    if not bare or _NOTHING.match(bare) or not _secret(name, before, bare, quoted=opening is not None):
        return found[0]
    kept = f"{opening[0]}{GONE}{opening[1]}" if opening else GONE
    return f"{found['name']}{found['sign']}{kept}"


def _secret(name: str, before: str, value: str, *, quoted: bool) -> bool:
    """Judge a value by the name before it; before is what stands before the name."""
    glued = before[-1:].isalpha()
    if name == "pwd":
        # The folder that a shell is in.
        return before.endswith("_") or not value.startswith(("/", "~"))
    if name not in _PROSE and not name.startswith("key"):
        return True
    if name in ("auth", "signature") and glued:
        return False
    if name == "token" and _VOCABULARY.search(before):
        return False
    if name.startswith("key") and glued and not _OF_KEYS.search(before):
        return False
    if _FIGURE.fullmatch(value):
        return False
    if quoted and name == "token":
        return True
    if _OF_KEYS.search(before.rstrip("_-. ")) or (name == "token" and (glued or before.endswith(("_", "-")))):
        return len(value) >= 6
    return len(value) >= 8 and (re.search(r"[0-9]", value) is not None or len(value) >= 16)
