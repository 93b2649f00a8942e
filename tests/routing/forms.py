"""Multipart bodies for the audio paths: edges written by hand, and drawn ones."""

from collections.abc import Iterator, Sequence

from tests.routing.reference import FORM_PATHS, JSON_TYPE, SPEECH, Case
from tests.routing.tape import Tape

MARK = "mark"
TYPE = f"multipart/form-data; boundary={MARK}"
FILE = (
    b'Content-Disposition: form-data; name="file"; filename="a.wav"\r\nContent-Type: audio/wav',
    b"RIFF\0\xff\r\n--mar\r\n-",
)
LANGUAGE = (b'Content-Disposition: form-data; name="language"', b"en")
Part = tuple[bytes, bytes]


def named(value: bytes, name: bytes = b'"model"') -> Part:
    return (b"Content-Disposition: form-data; name=%b" % name, value)


ALPHA, BETA = named(b"alpha"), named(b"beta")
HEADER = ALPHA[0]
# Ways to write the header of a field, which other readers may take for another name, a file, or no header at all.
HEADERS = (
    b'Content-Disposition: form-data; name="model"', b"Content-Disposition: form-data; name=model",
    b'content-disposition:form-data;name="model"', b'CONTENT-DISPOSITION: FORM-DATA; NAME="model"',
    b'Content-Disposition: form-data; name="Model"', b'Content-Disposition: form-data; name="model "',
    b'Content-Disposition: form-data; name="mod\\el"', b'Content-Disposition: form-data; name="model\\"',
    b'Content-Disposition: form-data; name="\\"model"', b'Content-Disposition: form-data; name="mo\\\\del"',
    b"Content-Disposition: form-data; name='model'", b'Content-Disposition: form-data; name=" model"',
    b'Content-Disposition: form-data; name="model"; filename="x"',
    b'Content-Disposition: form-data; filename="x"; name="model"',
    b'Content-Disposition: form-data; name="model"; filename=""',
    b'Content-Disposition: form-data; name="model"; filename*=UTF-8\'\'x',
    b'Content-Disposition: form-data; name="x"; name="model"',
    b'Content-Disposition: form-data; name="model"; name="x"', b"Content-Disposition: form-data; name*=UTF-8''model",
    b"Content-Disposition: form-data; name=\"x\"; name*=UTF-8''model",
    b'Content-Disposition: form-data; name*0="mo"; name*1="del"',
    b'Content-Disposition: form-data; name="x;name=model"',
    b'Content-Disposition: form-data; name="x\\"; name=\\"model"',
    b'Content-Disposition: form-data; name="x"; a="; name=model"', b'Content-Disposition: form-data; name = "model"',
    b'Content-Disposition: form-data;\tname="model"', b'Content-Disposition : form-data; name="model"',
    b' Content-Disposition: form-data; name="model"', b'Content-Disposition:\tform-data; name="model"',
    b'Content-Disposition: form-data; name="model"\t ', b'Content-Disposition: attachment; name="model"',
    b'Content-Disposition: ; name="model"', b'Content-Disposition: name="model"',
    b'Content-Disposition: form-data; name="model', b'Content-Disposition: form-data; name=model"',
    b'Content-Disposition: form-data; name=""model""', b'Content-Disposition: form-data; name="mod" "el"',
    b'Content-Disposition: form-data, name="model"', b'Content-Disposition: form-data; name="m%6fdel"',
    b'Content-Disposition: form-data; name="=?utf-8?q?model?="', b'Content-Disposition: form-data; name="model\0"',
    b'Content-Disposition: form-data; name="x"\r\nContent-Disposition: form-data; name="model"',
    b'Content-Disposition: form-data; name="model"\r\nContent-Disposition: form-data; name="x"',
    b'Content-Disposition: form-data;\r\n name="model"', b'Content-Disposition: form-data; name="x";\r\n\tname="model"',
    b'Content-Disposition: form-data; name="model"\r\nContent-Type: text/plain; charset=utf-16',
    b'Content-Disposition: form-data; name="model"\r\nContent-Transfer-Encoding: base64',
    b'Content-Disposition: form-data; name="model"\r\nContent-Transfer-Encoding: quoted-printable',
    b'Content-Type: text/plain\r\nContent-Disposition: form-data; name="model"', b"X: y\r\n" * 7 + HEADER,
    b'X: y\r\n' * 8 + HEADER, b"X: " + b"y" * 5000 + b"\r\n" + HEADER,
    b'Content-Disposition: form-data; name="x"\n' + HEADER, b'Content-Disposition: form-data; name="x"\r' + HEADER,
    b"Content-Disposition: form-data", b"Content-Disposition:", b"Content-Disposition", b"", b"X: y",
    b'Content-Disposition: form-data; name=""', b'Content-Disposition: form-data; name="model[]"', b': x\r\n' + HEADER,
    b'Content-Disposition: form-data; name="model";', b'Content-Disposition: form-data;; name="model"',
    b'Content-Disposition:form-data;name=model;x', b'Content-Disposition: form-data; name="x"; \xe9="model"',
    b'Content-Disposition: form-data; name="\xe9"; name="model"',
)  # fmt: skip
TYPES = (
    TYPE, f'multipart/form-data; boundary="{MARK}"', f"Multipart/Form-Data; Boundary={MARK}",
    f"multipart/form-data;boundary={MARK}", f"multipart/form-data; boundary={MARK}; charset=utf-8",
    f"multipart/form-data; charset=utf-16; boundary={MARK}", f"multipart/form-data; boundary={MARK}; charset=utf-7",
    f"multipart/form-data; boundary={MARK}; charset=cp037", f"multipart/form-data; boundary={MARK}; charset=rot13",
    f"multipart/form-data; boundary={MARK}; charset=unicode_escape",
    f"multipart/form-data; boundary=x; boundary={MARK}", f"multipart/form-data; boundary={MARK}; boundary=x",
    f"multipart/form-data; boundary*=utf-8''{MARK}", f"multipart/form-data; boundary=x; boundary*=utf-8''{MARK}",
    f"multipart/form-data; boundary*0=ma; boundary*1=rk; boundary={MARK}", "multipart/form-data",
    "multipart/form-data; boundary=", 'multipart/form-data; boundary=""', f"multipart/form-data; boundary={MARK},x",
    f"multipart/form-data, boundary={MARK}", f"multipart/form-data boundary={MARK}",
    f'multipart/form-data; boundary="{MARK}', f'multipart/form-data; boundary={MARK}"',
    'multipart/form-data; boundary="ma\\rk"', f'multipart/form-data; x="; boundary=x"; boundary={MARK}',
    f"multipart/mixed; boundary={MARK}", f"multipart/form-data; boundary ={MARK}",
    f"multipart/form-data; boundary= {MARK}", f" multipart/form-data; boundary={MARK} ",
    f"multipart/form-data; boundary={MARK};", f"multipart/form-data ;boundary={MARK}",
    "multipart/form-data; boundary=mar", "multipart/form-data; boundary=marks",
    f"multipart/form-data; boundary='{MARK}'", "multipart/form-data; boundary=" + "m" * 300,
    "application/x-www-form-urlencoded", "application/json", "", "text/plain",
    f"multipart/form-data; boundary={MARK}, multipart/form-data",
)  # fmt: skip
PREAMBLES = (
    b"", b"\r\n", b"\n", b"\r\n\r\n", b"preamble\r\n", b"\r\n-", b"\r\nx--mark\r\n", b"\n--mark\n", b"\r\rzz", b"-",
    b"--", b" ", b'\r\n--other\r\nContent-Disposition: form-data; name="model"\r\n\r\nbeta\r\n',
)  # fmt: skip
ENDINGS = (
    b"--\r\n", b"--", b"", b"\r\n", b"-", b"-- \r\n", b"--\r\nepilogue", b" --\r\n",
    b'--\r\n--mark\r\nContent-Disposition: form-data; name="model"\r\n\r\nbeta\r\n--mark--\r\n',
)  # fmt: skip
# What, between two parts or in a value, some readers take for the boundary and some do not.
NEARLY = (
    b"\r\n--mark \r\n", b"\r\n--mark\t\r\n", b"\r\n--mark\n", b"\n--mark\r\n", b"\n--mark\n", b"\r--mark\r",
    b"\r\n --mark\r\n", b"\r\n--markx\r\n", b"\r\n--mark-\r\n", b"\r\n--MARK\r\n", b"\r\n---mark\r\n",
    b"\r\n--mark\r\r\n", b"\r\n--mark  \t \r\n", b"--mark\r\n", b"\r\r\n--mark\r\n", b"\r\n--mark\0\r\n",
    b"\r\n--mark--x\r\n", b"\r\n--mark--\r\n", b"\r\n--mark \r\r\n", b"\r\n-mark\r\n", b"\r\n--mark\x0b\r\n",
    b"\r\n--ma", b"\r\n--mark", b"\r\n--mark\r", b"\r\n\r\n--mark\r\n",
)  # fmt: skip


def form(
    parts: Sequence[Part], *, before: bytes = b"", after: bytes = b"--\r\n", mark: bytes = b"mark", end: bytes = b"\r\n"
) -> bytes:
    """Write a form; before and after stand outside of its parts."""
    each = b"".join(b"--%b%b%b%b%b%b%b" % (mark, end, headers, end, end, value, end) for headers, value in parts)
    return before + each + b"--" + mark + after


def sent(body: bytes, kind: str = TYPE, *, chunk: int = 0, plain: str | None = None, path: str = SPEECH) -> Case:
    return Case(body, (("Content-Type", kind),), path, chunk, plain)


def cases() -> Iterator[Case]:
    """Forms with an edge each; the first are plain, and must be served."""
    yield from plain()
    yield from odd_fields()
    yield from odd_types()
    yield from odd_boundaries()


def plain() -> Iterator[Case]:
    for path in FORM_PATHS:
        for name in ("alpha", "alpha-too", "beta", "org/beta", "gamma", "constructor", "__proto__"):
            for parts in (
                [named(name.encode()), FILE],
                [FILE, named(name.encode())],
                [LANGUAGE, FILE, named(name.encode()), LANGUAGE],
            ):
                yield sent(form(parts), plain=name, path=path)
    yield sent(form([ALPHA, FILE]), TYPES[1], plain="alpha")
    yield sent(form([ALPHA, FILE], after=b"--"), plain="alpha")
    yield sent(form([(FILE[0], b"\0\r\n" * 1_000_000), ALPHA]), plain="alpha")
    yield sent(form([ALPHA, (FILE[0], b"x" + b"--mark" * 100_000)]), plain="alpha")
    yield sent(form([(FILE[0], form([BETA]).replace(b"mark", b"mork")), ALPHA]), plain="alpha")
    for size in (1, 3, 1000):
        yield sent(form([FILE, ALPHA]), chunk=size, plain="alpha")


def odd_fields() -> Iterator[Case]:
    for parts in (
        [ALPHA, BETA],
        [BETA, FILE, ALPHA],
        [ALPHA, ALPHA],
        [],
        [FILE],
        [named(b""), FILE],
        [ALPHA, named(b"")],
        [named(b""), ALPHA],
    ):
        yield sent(form(parts))
    for value in (
        b"Alpha", b" alpha", b"alpha ", b"alpha\r\n", b"alpha\n", b"\nalpha", b"alpha\0", b"\xff", b"nobody",
        b"al\r\n--mar", b"'alpha'", b'"alpha"', b"YWxwaGE=", "alpha".encode("utf-16"), b"+AGEAbABwAGgAYQ-",
        b"\x81\x93\x97\x88\x81", b"\\u0061lpha", b"%61lpha", b"alpha" * 1000, b"\xef\xbb\xbfalpha", b"nycun",
        b"=61lpha",
    ):  # fmt: skip
        for kind in TYPES[:10]:
            yield sent(form([named(value), FILE]), kind)
    for header in HEADERS:
        for parts in ([(header, b"beta"), FILE], [ALPHA, (header, b"beta")], [(header, b"beta"), ALPHA]):
            yield sent(form(parts))
    yield sent(form([LANGUAGE] * 1500 + [ALPHA]))
    yield sent(form([named(b"alpha" * 300_000), FILE]))


def odd_types() -> Iterator[Case]:
    for kind in TYPES:
        yield sent(form([ALPHA, FILE]), kind)
        yield sent(form([BETA, ALPHA]), kind)
        yield sent(form([ALPHA], mark=b""), kind)
        yield sent(form([ALPHA], mark=b"x") + form([BETA]), kind)
        yield sent(form([BETA]) + form([ALPHA], mark=b"x"), kind)
        yield sent(b"model=alpha", kind)
        yield sent(b'{"model":"alpha"}', kind)
        yield sent(b"", kind)
    whole = form([LANGUAGE, ALPHA])
    other = TYPE.replace("mark", "x")
    yield Case(whole, (("Content-Type", TYPE), ("Content-Type", other)), SPEECH)
    yield Case(whole, (("Content-Type", other), ("Content-Type", TYPE)), SPEECH)
    yield Case(whole, (), SPEECH)
    yield Case(b'{"model":"alpha"}', (JSON_TYPE,), SPEECH)
    yield Case(whole, (("Content-Type", TYPE), ("Content-Encoding", "gzip")), SPEECH)


def odd_boundaries() -> Iterator[Case]:
    for before in PREAMBLES:
        for after in ENDINGS:
            for size in (0, 1, 20):
                yield sent(form([ALPHA, FILE], before=before, after=after), chunk=size)
    hidden = BETA[0] + b"\r\n\r\nbeta"
    # A boundary right behind a part's headers is data to python-multipart, and the end of an empty part to others.
    for first, second in ((HEADER, FILE[0]), (LANGUAGE[0], HEADER), (FILE[0], HEADER)):
        for ending in (b"\r\n", b"--\r\n", b" \r\n", b""):
            yield sent(form([(first, b"--mark" + ending + second + b"\r\n\r\nalpha")]))
            yield sent(form([(first, b"--mark" + ending + second + b"\r\n\r\nalpha"), ALPHA]))
            yield sent(form([(first, b"\r\n--mark" + ending + second + b"\r\n\r\nalpha")]))
    for near in NEARLY:
        for parts in (
            [ALPHA, (FILE[0], b"x" + near + hidden)], [(FILE[0], near + hidden), ALPHA],
            [named(b"alpha" + near + hidden)], [named(b"alpha" + near), FILE], [(FILE[0], near), ALPHA],
            [named(b""), (FILE[0], near + ALPHA[0] + b"\r\n\r\nalpha")],
            [named(b"alpha" + near + FILE[0] + b"\r\n\r\n" + b"x" + near), FILE], [(FILE[0] + near, b"x"), ALPHA],
            [(near + FILE[0], b"x"), ALPHA],
        ):  # fmt: skip
            yield sent(form(parts))
            yield sent(form(parts), chunk=7)
    for end in (b"\n", b"\r", b"\r\r\n", b"\n\r"):
        yield sent(form([ALPHA, FILE], end=end))
        yield sent(form([ALPHA, FILE]) + form([BETA], end=end))
    whole = form([LANGUAGE, ALPHA])
    yield from (sent(whole[:length]) for length in range(0, len(whole), 3))


def case(entropy: bytes) -> Case:
    """Draw one: mostly parts in the usual way with an oddity here and there."""
    tape = Tape(entropy)
    parts = [part(tape) for _ in range(1 + tape.number(4))]
    kind = tape.pick(TYPES) if tape.once_in(10) else TYPE
    body = form(
        parts,
        before=tape.pick(PREAMBLES) if tape.once_in(12) else b"",
        after=tape.pick(ENDINGS) if tape.once_in(8) else b"--\r\n",
        mark=tape.pick((b"x", b"", b"mark ", b"mar")) if tape.once_in(40) else b"mark",
    )
    for _ in range(tape.pick((0, 0, 0, 1, 1, 3))):
        at, length = tape.number(len(body) + 1), tape.pick((1, 2, 8))
        how = tape.number(4)
        if how == 0:
            body = body[:at] + body[at + length :]
        elif how == 1:
            body = body[:at] + tape.pick((*NEARLY, b"\r\n", b'"', b"\\", b";", b"\0", b"model")) + body[at:]
        elif how == 2:
            body = body[:at] + body[at : at + length] * 2 + body[at + length :]
        else:
            body = body[:at] + bytes([tape.number(256)]) + body[at + 1 :]
    return sent(body, kind, chunk=tape.pick((0, 0, 0, 0, 0, 0, 1, 30)), path=tape.pick(FORM_PATHS))


def part(tape: Tape) -> Part:
    value = tape.pick((b"alpha", b"beta", b"gamma", b"org/beta", b"", b"nobody"))
    kind = tape.number(6)
    if kind < 2:
        chosen = named(value)
    elif kind == 2:
        chosen = FILE
    elif kind == 3:
        chosen = LANGUAGE
    elif kind == 4:
        chosen = (tape.pick(HEADERS), value)
    else:
        chosen = (
            tape.pick((ALPHA, FILE, LANGUAGE))[0],
            value + tape.pick(NEARLY) + tape.pick(HEADERS) + b"\r\n\r\n" + value,
        )
    return chosen
