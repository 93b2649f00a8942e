"""JSON bodies with an edge each, written by hand."""

import gzip
import json
from collections.abc import Iterator

from tests.routing.reference import ENCODINGS, JSON_PATHS, JSON_TYPE, Case

MEGABYTE = 1 << 20
A, B = b'"model":"alpha"', b'"model":"beta"'
# Strings that end, or seem to end, where a quick look does not see it.
STRINGS = (
    rb'"\"model\":\"beta\""', rb'"\\"', rb'"\\\\"', rb'"\\\""', rb'"{\"model\":\"beta\"}"',
    rb'",\"model\":\"beta\",\""', rb'"model"', rb'"model\""', rb'"\\\"model\\\":\\\"beta\\\""',
    rb'"\u0022model\u0022:\u0022beta\u0022"', rb'"}, \"model\": \"beta\" {"', rb'"]}"', rb'"[{"',
    rb'"\\\\\"model\":\"beta\""', rb'"\/"', rb'"\u005c"', rb'"\u005c\u0022"', b'"\xe6\xa8\xa1"', b'"\xf0\x9f\xa6\x99"',
    rb'"\ud83e\udd99"', rb'"\u0000"', b'"\x7f"',
)  # fmt: skip
VALUES = (b"1", b"[]", b"{}", b"null", b"true", b"-0.5e+3", b"[[1],{}]", *STRINGS)
ODD_NAMES = (
    "constructor", "__proto__", "toString", "hasOwnProperty", "valueOf", "prototype", "__index", "nil", "nan",
    "undefined", "alpha\0", "\0alpha", "alpha\n", "alpha\r\nX-Tandem-Model: beta", " alpha", "alpha ", "Alpha", "ALPHA",
    "alph", "alphaa", "alpha/", "../beta", "alpha/../beta", "%61lpha", "org%2Fbeta", "org\\beta", "alpha\"", "alpha'",
    "alpha;beta", "a" * 5000, "$tandem_model", "${alpha}", "*", ".", "..", "/", "\u0430lpha", "\u200balpha",
    "\U0001f999", "beta\u0301", "\ufeffalpha", "alpha-too", "org/beta", "org/gamma", "0", "1", "-1", "true", "null",
    "[object Object]", "alpha,beta",
)  # fmt: skip


def bodies() -> Iterator[bytes]:
    """Every body that goes with the usual headers."""
    yield from plain()
    yield from two_keys()
    yield from other_spellings()
    yield from strings_around()
    yield from odd_values()
    yield from not_quite_json()
    yield from not_utf8()
    yield from deep()
    yield from lists()


def plain() -> Iterator[bytes]:
    for name in ("alpha", "alpha-too", "constructor", "beta", "org/beta", "__proto__", "gamma", "org/gamma"):
        yield json.dumps({"model": name}).encode()
        yield json.dumps({"messages": [{"role": "user", "content": "model"}], "model": name, "stream": True}).encode()
        yield json.dumps({"a": {"b": 1}, "model": name}, indent=4).encode()
        yield json.dumps({"tools": [{"model": "other"}], "model": name}, separators=(",", ":")).encode()
    for space in (b" ", b"\n", b"\r\n", b"\t", b" \t\r\n" * 300):
        yield space.join([b"", b"{", b'"model"', b":", b'"alpha"', b",", b'"x"', b":", b"1", b"}", b""])
    for name in ODD_NAMES:
        yield json.dumps({"model": name}).encode()
        yield json.dumps({"x": 1, "model": name, "y": {}}, ensure_ascii=False).encode()


def two_keys() -> Iterator[bytes]:
    for first, second in ((A, B), (B, A), (A, A), (A, b'"model":null'), (b'"model":1', A), (A, b'"model":""')):
        yield b"{%b,%b}" % (first, second)
        yield b'{"x":1,%b,"y":[1],%b,"z":{}}' % (first, second)
        yield b'{"x":{%b},%b}' % (first, second)
        yield b'{%b,"x":{%b}}' % (first, second)
        yield b'{"x":[{%b}],%b}' % (first, second)
        yield b'{%b,"x":[[{"y":{%b}}]]}' % (first, second)
        yield b'{"x":{%b,%b},%b}' % (first, second, A)
        yield b"[{%b},{%b}]" % (first, second)
        yield b"{%b}{%b}" % (first, second)
        yield b"{%b}\n{%b}" % (first, second)
        yield b'{%b,"x":"' % first + b"x" * MEGABYTE + b'",%b}' % second
    for depth in range(1, 6):
        yield b'{"x":' * depth + b"{" + B + b"}" + b"}" * depth
        yield b'{"x":' * depth + b"{" + B + b"}" + b"}" * (depth - 1) + b"," + A + b"}"
        yield b"{" + A + b',"x":' + b"[" * depth + b"{" + B + b"}" + b"]" * depth + b"}"


def escaped(word: str, at: int, form: str) -> str:
    return word[:at] + form % ord(word[at]) + word[at + 1 :]


def other_spellings() -> Iterator[bytes]:
    for form in ("\\u%04x", "\\u%04X"):
        for at in range(len("model")):
            key = b'"%b"' % escaped("model", at, form).encode()
            yield b'{%b:"beta"}' % key
            yield b'{%b,%b:"beta"}' % (A, key)
            yield b'{%b:"beta",%b}' % (key, A)
            yield b'{"x":{%b:"beta"},%b}' % (key, A)
            yield b'{%b,"x":"%b"}' % (A, key.strip(b'"'))
        for at in range(len("beta")):
            yield b'{"model":"%b"}' % escaped("beta", at, form).encode()
    whole = "".join(f"\\u{ord(letter):04x}" for letter in "model").encode()
    yield b'{"%b":"beta"}' % whole
    yield b'{%b,"%b":"beta"}' % (A, whole)
    for key in (
        b"model ", b" model", b"Model", b"MODEL", b"models", b"mode", b"model\\u0000", b"model\\n", b"\\/model",
        b"model.", b"mod\\/el", b"\\u0000model", "mod\u00e8l".encode(), b"m\\u006Fdel2", b"model\\\"", b"\\\"model",
        b"model\\\\", b"\xef\xbb\xbfmodel", b"model\xe2\x80\x8b", b"m\\u006fdel", b"\\u006Dodel", b"",
        "m\u043edel".encode(),
    ):  # fmt: skip
        yield b'{"%b":"beta"}' % key
        yield b'{"%b":"beta",%b}' % (key, A)
        yield b'{%b,"%b":"beta"}' % (A, key)


def strings_around() -> Iterator[bytes]:
    for string in STRINGS:
        yield b'{"x":%b,%b}' % (string, A)
        yield b'{%b,"x":%b}' % (A, string)
        yield b"{%b:1,%b}" % (string, A)
        yield b"{%b,%b:1}" % (A, string)
        yield b'{"x":[%b,%b,%b],%b}' % (string, string, string, A)
        yield b'{"model":%b}' % string
        yield b'{"x":%b}' % string
        yield b"{" + A + b',"x":%b' % string
        yield b'{"x":' + string + b"," + A
    for value in VALUES:
        yield b'{"x":%b,%b}' % (value, A)
        yield b'{%b,"x":%b}' % (A, value)
        yield b'{"x" : %b\n,\t%b}' % (value, A)
        yield value
    yield b'{"x":"model","model":"alpha"}'
    yield b'{"x":"model",' + rb'"\u006dodel":"beta"}'
    yield b'{"x":["model"],"y":"model","model":"alpha"}'
    for length in (1, 2, 3, 1022, 1023, 1024, 4096, 65535, MEGABYTE - 30, MEGABYTE, 10 * MEGABYTE):
        yield b'{"x":"' + b"x" * length + b'",' + A + b"}"
        yield b"{" + A + b',"x":"' + b"x" * length + b'"}'
    yield b'{"x":"' + b"\\\\" * MEGABYTE + b'",' + A + b"}"
    yield b'{"x":"' + b'\\"model\\":\\"beta\\"' * 50_000 + b'",' + A + b"}"
    yield b"{" + b'"x":{"model":"beta"},' * 50_000 + A + b"}"
    yield b" " * MEGABYTE + b"{" + A + b"}" + b"\n" * MEGABYTE
    yield b'{"x":"model' + b'","x":"model' * 20_000 + b'",' + A + b"}"


def odd_values() -> Iterator[bytes]:
    for value in (
        b"1", b"0", b"1.5", b"true", b"false", b"null", b'""', b'" "', b"[]", b'["alpha"]', b"{}", b'{"model":"alpha"}',
        b'[["alpha"]]', b"1e5", b"-1", b'{"id":"alpha"}', b"NaN", b"Infinity", b"-Infinity", b"alpha", b"'alpha'",
        b'"alpha', b'alpha"', b'"alpha""', b'"al" "pha"', b"", b'"alpha"x', b"0x1", b"01", b"+1", b"1.", b".5",
        b'"alpha\\', b'"alpha\\"', b'"alpha\\u00"', b'"alpha\\x41"', b'"al\npha"', b'"al\tpha"', b'"al\0pha"',
        b'"\x01"',
    ):  # fmt: skip
        yield b'{"model":%b}' % value
        yield b'{"model": %b , "x":1}' % value
        yield b'{"x":{},"model":%b,"y":[]}' % value
        yield b'{"model":%b,%b}' % (value, A)
    for number in (
        b"NaN", b"Infinity", b"-Infinity", b"nan", b"inf", b"1" * 4000, b"1" * 5000, b"1e400", b"-1e400", b"1e-400",
        b"0." + b"1" * 5000, b"1E+2", b"-0", b"00", b"-", b"1e", b"0x10", b"1_000", b"9007199254740993", b"+1",
    ):  # fmt: skip
        yield b'{%b,"x":%b}' % (A, number)
        yield b'{"x":%b,%b}' % (number, A)
        yield b'{"x":[%b],%b}' % (number, A)


def not_quite_json() -> Iterator[bytes]:
    good = b'{"x":1,' + A + b',"y":[{}]}'
    yield from (good[:length] for length in range(len(good)))
    for extra in (
        b"}", b"]", b",", b"x", b"\0", b"{}", b"null", b"//", b"#", b"/**/", b'"', b"\x1a", b"\xa0", b"\xef\xbb\xbf",
        b"\x0b", b"\x0c", b"\xc2\x85", b"\xe2\x80\xa8", b";", b"\x1e", b"e", b"1", b'"model":"beta"',
    ):  # fmt: skip
        yield good + extra
        yield extra + good
        yield b"{" + extra + A + b"}"
        yield b"{" + A + extra + b"}"
        yield b'{"model"' + extra + b':"alpha"}'
        yield b'{"model":' + extra + b'"alpha"}'
        yield b'{"x":1' + extra + b"," + A + b"}"
        yield b"{" + A + b"," + extra + b'"x":1}'
    yield from (
        b'{"x":1,"model":"alpha",}', b'{,"model":"alpha"}', b'{"model"="alpha"}', b'{model:"alpha"}',
        b"{'model':'alpha'}", b'("model":"alpha")', b'["model","alpha"]', b'["model":"alpha"]',
        b'{"x":[1,2,"model":"alpha"]}', b'{"x":["y"],"model":"alpha"}', b'{"model","alpha"}',
        b'{"model":"alpha" "x":1}', b'"model":"alpha"', b'{{"model":"alpha"}}', b'{"x":{"y":1]},"model":"alpha"}',
        b'{"x":[1},"model":"alpha"}', b'{"x":"y"},"model":"alpha"}', b'{"x":1}{"model":"alpha"}',
        b'{"x":1]],"model":"alpha"}', b'{"x"{,"model":"alpha"}', b'{"x":1,{"model":"alpha"}}', b'{"model":"alpha","x"}',
        b'{"model":"alpha",1:2}', b'{"model":"alpha","x":}', b'{"model":"alpha","x":tru}',
        b'{"model":"alpha","x":TRUE}', b'{"model":"alpha","x":undefined}',
        b'{"a":{"b":1},"model":"alpha"},"model":"beta"}', b'{"a":"b" ,"c":{"d":"e"},"model":"alpha"}',
        b'{"model":"alpha"/**/}', b"", b" ", b"\n", b"\0", b"null", b"true", b"0", b'"alpha"', b'"model"', b"[]", b"{}",
        b"[{}]", b"nan", b"{", b"}", b'"', b"\\", b"model=alpha", b"model=alpha&x=1", b"<model>alpha</model>",
        b"model: alpha\n", b'data: {"model":"alpha"}\n\n',
        b'{"model":"alpha"}\r\n\r\nPOST /sleep HTTP/1.1\r\nHost: x\r\n\r\n',
    )  # fmt: skip


def not_utf8() -> Iterator[bytes]:
    texts = (
        '{"model":"beta"}',
        '{"x":"\u732b","model":"beta"}',
        '{"model":"alpha","model":"beta"}',
        "{}",
        '{"x":{"model":"alpha"},"model":"beta"}',
    )
    for text in texts:
        for name in ENCODINGS:
            yield text.encode(name)
        yield b"\xff\xfe" + text.encode("utf-16-be")
        yield b"\xef\xbb\xbf" * 2 + text.encode()
        yield b"\xfe\xff" + text.encode()
        yield text.encode("utf-16-le") + b"\0"
        yield text.encode("utf-16-le")[:-1]
        yield text.encode("utf-7")
        yield text.encode("cp037", errors="replace")
    # Characters of UTF-16 whose bytes, to who looks for them, say "model":"alpha".
    hidden = b'  "model":"alpha"  '
    for name in ("utf-16-le", "utf-16-be"):
        for before, after in (('{"x":"', '","model":"beta"}'), ('{"model":"beta","x":"', '"}'), ('{"x":"', '"}')):
            for shown in (hidden, hidden[1:-1], b' {"model":"alpha"} ', b',"model":"alpha",'):
                padded = shown + b" " * (len(shown) % 2)
                yield before.encode(name) + padded + after.encode(name)
                yield before.encode("utf-16")[:2] + before.encode("utf-16-le") + padded + after.encode("utf-16-le")
    for bad in (
        b"\xff", b"\xfe", b"\xc0\x80", b"\xc1\xa1", b"\xe0\x80\xaf", b"\xed\xa0\x80", b"\xed\xb0\x80",
        b"\xed\xa0\xbe\xed\xb6\x99", b"\xf4\x90\x80\x80", b"\xf8\x88\x80\x80\x80", b"\x80", b"\xe6\xa8",
        b"\xf0\x9f\xa6", b"\xef\xbf\xbe", b"\xef\xbf\xbf", b"\xf0\x82\x82\xac", b"\xc3", b"\xc1\xad",
    ):  # fmt: skip
        yield b'{"model":"alpha%b"}' % bad
        yield b'{"x":"%b","model":"alpha"}' % bad
        yield b'{"model":"alpha","x":"%b"}' % bad
        yield b'{"%b":1,"model":"alpha"}' % bad
        yield b'{"%bmodel":"beta","model":"alpha"}' % bad
        yield b"%b{" % bad + A + b"}"
        yield b"{" + A + b"}%b" % bad
        yield b"{%b" % bad + A + b"}"
    yield b'{"\xc1\xadodel":"beta","model":"alpha"}'
    for half in (
        b"\\ud800",
        b"\\udc00",
        b"\\ud83e\\ud83e",
        b"\\ud83e\\u0041",
        b"\\udd99\\ud83e",
        b"\\uD83E",
        b"\\ud83e\\udd99",
    ):
        yield b'{"model":"%b"}' % half
        yield b'{"x":"%b","model":"alpha"}' % half
        yield b'{"model":"alpha","x":["%b"]}' % half
        yield b'{"%b":1,"model":"alpha"}' % half
    yield from (
        b'{"model\0":"beta"}', b'{"model":"alpha\0"}', b'{"model":"al\0pha"}', b'{"model"\0:"alpha"}',
        b'\0{"model":"alpha"}', b'{\0"model":"alpha"}', b'{"model":"alpha"}\0\0', b'{"\0x":1,"model":"alpha"}',
        b'{"x":"\0","model":"alpha"}',
    )  # fmt: skip
    for control in range(32):
        yield b'{"x":"%c","model":"alpha"}' % control
        yield b'{"model":"alpha","x":"%c"}' % control
        yield b'{"model":"alpha"%c}' % control
        yield b'{"model":"alpha%c"}' % control


def deep() -> Iterator[bytes]:
    for levels in (100, 499, 900, 1000, 1001, 10_000, 100_000):
        for opening, closing in ((b"[", b"]"), (b'{"x":', b"}")):
            inner = b"1" if opening != b"[" else b""
            nest = opening * levels + inner + closing * levels
            yield b'{"x":' + nest + b"," + A + b"}"
            yield b"{" + A + b',"x":' + nest + b"}"
            yield opening * levels + b"{" + A + b"}" + closing * levels
            yield b'{"x":' + opening * levels + b"," + A + b"}"
            yield b"{" + A + b',"x":' + opening * levels + b"}"


def lists() -> Iterator[bytes]:
    """Tokens by their numbers, as completions and embeddings may come, beside a model that is named twice, or once."""
    for numbers in (
        b"[]", b"[ ]", b"[1]", b"[1,2]", b"[[1,2],[3]]", b'[1,"]",2]', b"[1,[2,[3,{}]],4]", b"[true,null,-1e5,NaN]",
        b'[1,{"model":"beta"}]', b"[1,\n2 ,3]", b"[1 2]", b"[1,]", b"[,1]", b"[1,2", b"[1}", b'[1,"x]', b"[1]]",
        b"[[1]", b"[" + b"[1,2,3]," * 20_000 + b"[]]", b"[" + b"1," * 100_000, b"[" + b"1," * 999 + b'"]"]',
    ):  # fmt: skip
        for other in (B, b'"m\\u006fdel":"beta"', b'"x":1'):
            yield b'{%b,"prompt":%b,%b}' % (A, numbers, other)
            yield b'{%b,"prompt":%b,%b,"y":0}' % (other, numbers, A)
        yield b'{"prompt":%b}' % numbers
    # So many that Lua's tables for them, and PCRE's count of steps, show.
    for many in (b"1234," * 1_600_000 + b"5", b"[]," * 1_300_000 + b"[]"):
        yield b'{%b,"prompt":[%b],%b}' % (A, many, B)
        yield b'{"prompt":[%b],%b,"y":[%b]}' % (many, A, many)


def cases() -> Iterator[Case]:
    """Every body in its request, and requests whose headers are the edge."""
    yield from (Case(body) for body in bodies())
    good = b"{" + A + b"}"
    yield from (Case(good, path=path) for path in JSON_PATHS)
    yield from (Case(b'{"x":1,"model":"gamma"}', path=path) for path in JSON_PATHS)
    for size in (1, 2, 7, 100):
        yield Case(good, chunk=size)
        yield Case(b'{"x":1,"model":"beta"}', chunk=size)
        yield Case(rb'{"model":"alpha","\u006dodel":"beta"}', chunk=size)
    yield Case(b'{"x":"' + b"x" * 3 * MEGABYTE + b'",' + A + b"}", chunk=65536)
    yield Case(b"", chunk=1)
    for kind in ("gzip", "x-gzip", "deflate", "br", "zstd", "identity", "GZIP", "gzip, gzip", "", "utf-8", "gzip;q=0"):
        coded = (JSON_TYPE, ("Content-Encoding", kind))
        yield from (Case(body, coded) for body in (good, gzip.compress(good, mtime=0), b"", b"{" + A + b"," + B + b"}"))
    yield Case(gzip.compress(good, mtime=0))
    for kind in (
        "text/plain", "application/json; charset=utf-8", "application/json;charset=utf-16", "APPLICATION/JSON", "",
        "*/*", "application/problem+json", "application/json, text/plain", "multipart/form-data; boundary=x",
        "application/json ", "application/x-www-form-urlencoded", "application/x-ndjson", "text/json",
        "application /json", ";", "json",
    ):  # fmt: skip
        yield Case(good, (("Content-Type", kind),))
    yield Case(good, ())
    yield Case(good, (JSON_TYPE, ("Content-Type", "text/plain")))
    yield Case(good, (("Content-Type", "text/plain"), JSON_TYPE))
    for spoof in (
        "X-Tandem-Model", "X-Tandem-Unreachable", "X-Accel-Redirect", "X-Original-URL", "X-Rewrite-URL",
        "X-HTTP-Method-Override", "X_Tandem_Model", "Upgrade", "Expect", "TE", "Range", "If-None-Match", "Connection",
        "Keep-Alive",
    ):  # fmt: skip
        value = {"Expect": "100-continue", "Connection": "X-Tandem-Model, Content-Length", "TE": "trailers"}.get(
            spoof, "beta"
        )
        yield Case(good, (JSON_TYPE, (spoof, value)))
        yield Case(b'{"model":"gamma"}', (JSON_TYPE, (spoof, value)))
