"""Draws JSON bodies: documents, tokens in any order, edges of the corpus with a change; encodings and framings too."""

from tests.routing import corpus
from tests.routing.reference import CHAT, ENCODINGS, JSON_PATHS, JSON_TYPE, Case
from tests.routing.tape import Tape

NAMES = (
    "alpha",
    "beta",
    "gamma",
    "alpha-too",
    "org/beta",
    "constructor",
    "__proto__",
    "nobody",
    "",
    "toString",
    "al\u00fcpha",
)
KEYS = (
    "messages",
    "stream",
    "model",
    "x",
    "model ",
    "Model",
    "models",
    "mode",
    'a"model',
    "\\",
    "",
    "prompt",
    '"',
    "model\0",
)
SCALARS = (b"1", b"null", b"true", b"0.5", b"-1e9", b'""', b'"x"', b"[]", b"{}", b"NaN", b"1e400")
SPACES = (b"", b"", b"", b" ", b"\n", b"\t", b"\r\n  ", b" " * 40, b"\x0b", b"\xc2\xa0", b"/**/")
TOKENS = (
    b'"model"', b":", b'"alpha"', b",", b"{", b"}", b'"beta"', b'"x"', b"[", b"]", b"1", b" ", b'"', b"\\", b'\\"',
    b"\\\\", b'"model":"beta"', b'"model":"alpha"', b"\n", b'"\\u006dodel"', b"null", b"model", b'""', b'"\\\\"',
    b'"\\""', b"\0", b"\xff", b"\xef\xbb\xbf", b"\\u0022", b"'", b"-", b"e", b"//", b'{"x":', b'"mode\\u006c"',
    b'"gamma"', b"\\u0", b"06d",
)  # fmt: skip
TYPES = (
    "application/json; charset=utf-8",
    "application/json;charset=utf-16",
    "text/plain",
    "application/vnd.x+json",
    "",
)
# Edges that are cheap to send again and again.
SMALL = tuple(body for body in corpus.bodies() if len(body) < 3000)


def case(entropy: bytes) -> Case:
    """Draw a request."""
    tape = Tape(entropy)
    kind = tape.number(10)
    if kind < 6:
        body = document(tape)
    elif kind < 8:
        body = tokens(tape)
    elif kind < 9:
        body = changed(tape, tape.pick(SMALL))
    else:
        body = changed(tape, document(tape))
    body = encoded(tape, padded(tape, body))
    headers: tuple[tuple[str, str], ...] = (JSON_TYPE,)
    if tape.once_in(30):
        headers = (("Content-Type", tape.pick(TYPES)),)
    if tape.once_in(60):
        headers += (("Content-Encoding", tape.pick(("gzip", "identity", "br"))),)
    if tape.once_in(30):
        headers += (("X-Tandem-Model", tape.pick(("beta", "gamma"))),)
    path = tape.pick(JSON_PATHS) if tape.once_in(6) else CHAT
    return Case(body, headers, path, chunk=tape.pick((1, 5, 64)) if tape.once_in(10) and len(body) < 5000 else 0)


def document(tape: Tape) -> bytes:
    """Write an object whose `model` key stands somewhere, and more such keys elsewhere."""
    members = [member(tape, tape.pick(KEYS), value(tape, 0)) for _ in range(tape.number(5))]
    for _ in range(tape.pick((1, 1, 1, 1, 1, 1, 0, 2))):
        name = string(tape, tape.pick(NAMES)) if not tape.once_in(12) else value(tape, 0)
        members.insert(tape.number(len(members) + 1), member(tape, "model", name))
    text = b"{" + b",".join(members) + b"}"
    if tape.once_in(12):
        text = tape.pick((b"[%b]", b'{"x":%b}', b"%b%%b" % text, b"%b,", b"x%b", b"%b x", b"\xef\xbb\xbf%b")) % text
    return space(tape) + text + space(tape)


def member(tape: Tape, key: str, written: bytes) -> bytes:
    return space(tape) + string(tape, key) + space(tape) + b":" + space(tape) + written + space(tape)


def space(tape: Tape) -> bytes:
    """Mostly none; sometimes something that is no white space in JSON."""
    return tape.pick(SPACES if tape.once_in(25) else SPACES[:8])


def string(tape: Tape, text: str) -> bytes:
    """Write a string, with escapes that need not be."""
    how = tape.number(16)
    letters = []
    for at, letter in enumerate(text):
        code = ord(letter)
        needed = code < 32 or letter in '"\\'
        if how == 15 or (how == 14 and at == tape.number(len(text))):
            letters.append(f"\\u{code:04X}" if how == 14 else f"\\u{code:04x}")
        elif needed:
            letters.append(f"\\{letter}" if code >= 32 else f"\\u{code:04x}")
        else:
            letters.append("\\/" if letter == "/" and how == 13 else letter)
    return b'"%b"' % "".join(letters).encode()


def value(tape: Tape, depth: int) -> bytes:
    kind = tape.number(10 if depth < 4 else 6)
    if kind < 3:
        return tape.pick(SCALARS if tape.once_in(10) else SCALARS[:9])
    if kind < 5:
        return tape.pick(corpus.STRINGS)
    if kind == 5:
        return string(tape, tape.pick(NAMES))
    if kind == 6:
        return b"[" + b",".join(value(tape, depth + 1) for _ in range(tape.number(3))) + b"]"
    inner = [member(tape, tape.pick(KEYS), value(tape, depth + 1)) for _ in range(tape.number(3))]
    inner += [member(tape, "model", string(tape, tape.pick(NAMES)))] if tape.once_in(2) else []
    return b"{" + b",".join(inner) + b"}"


def tokens(tape: Tape) -> bytes:
    """Put tokens in any order, sometimes between a beginning and an end that are right."""
    middle = b"".join(tape.pick(TOKENS) for _ in range(tape.number(16)))
    around = tape.pick(
        (
            (b"{", b"}"),
            (b"", b""),
            (b'{"model":"alpha",', b"}"),
            (b"{", b',"model":"beta"}'),
            (b'{"x":"', b'","model":"alpha"}'),
        )
    )
    return around[0] + middle + around[1]


def changed(tape: Tape, body: bytes) -> bytes:
    """Change a body in up to three places."""
    for _ in range(1 + tape.number(3)):
        at = tape.number(len(body) + 1)
        length = tape.pick((1, 1, 2, 5, 20))
        how = tape.number(4)
        if how == 0:
            body = body[:at] + body[at + length :]
        elif how == 1:
            body = body[:at] + tape.pick(TOKENS) + body[at:]
        elif how == 2:
            body = body[:at] + body[at : at + length] * 2 + body[at + length :]
        else:
            body = body[:at] + bytes([tape.number(256)]) + body[at + 1 :]
    return body


def padded(tape: Tape, body: bytes) -> bytes:
    """Make some long, so that they come in pieces or lie in a file."""
    if body.startswith(b"{") and tape.once_in(40):
        length = tape.pick((9_000, 70_000, 1_100_000))
        pad = b'"pad":"' + b"x" * length + b'"'
        if tape.once_in(2):
            return b"{" + pad + b"," + body[1:]
        return body[:-1] + b"," + pad + body[-1:]
    return body


def encoded(tape: Tape, body: bytes) -> bytes:
    if not tape.once_in(25):
        return body
    return body.decode("latin-1").encode(tape.pick(ENCODINGS))
