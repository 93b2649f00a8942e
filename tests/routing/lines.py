"""Request lines and framings, written by hand and drawn."""

from collections.abc import Iterator
from dataclasses import dataclass

from tests.routing.paths import DECIDED
from tests.routing.reference import JSON_PATHS
from tests.routing.tape import Tape

BODY = b'{"model":"alpha"}'
TYPE = b"Content-Type: application/json\r\n"
HOST = b"Host: router\r\n"
LENGTH = b"Content-Length: %d\r\n" % len(BODY)
# It stands in requests that lie inside the body of another: no server may ever see it.
INSIDE = b"smuggled"
SMUGGLED = b"POST /v1/completions?%b HTTP/1.1\r\nHost: router\r\n%b%b\r\n%b" % (INSIDE, TYPE, LENGTH, BODY)
REFUSED = (
    *(decision.path.encode() for decision in DECIDED if decision.way == "refused"), b"/v1/responses/..",
    b"/v1/responses/x/cancel/", b"/v1/responses/x/y", b"/-/switch/alpha", b"/-/status", b"/-/metrics", b"/-/error",
    b"/-/sleep/alpha", b"/-/routes/", b"/in-flight", b"/", b"/v1", b"/v1/",
)  # fmt: skip
METHODS = (
    b"POST", b"GET", b"PUT", b"HEAD", b"OPTIONS", b"DELETE", b"PATCH", b"TRACE", b"CONNECT", b"post", b"PROPFIND",
    b"P\xd6ST", b"POST\t", b"", b"POST POST", b"X" * 300, b"M-SEARCH", b"PRI", b"SOURCE", b"\0", b" POST", b"POST:",
    b'"POST"',
)  # fmt: skip
VERSIONS = (
    b" HTTP/1.1", b" HTTP/1.0", b"", b" HTTP/0.9", b" HTTP/2.0", b" HTTP/1.2", b" HTTP/1", b" http/1.1", b" HTTP/1.1 ",
    b"  HTTP/1.1", b"\tHTTP/1.1", b" HTTP/11", b" HTTP/1.10", b" FTP/1.1", b" HTTP /1.1", b" HTTP/1.1\0", b" HTTP/9.9",
    b" HTTP/-1.1", b" ",
)  # fmt: skip
FRAMES = (
    b"Content-Length: %d\r\nContent-Length: %d\r\n" % (len(BODY), len(BODY)),
    b"Content-Length: %d\r\nContent-Length: 0\r\n" % len(BODY),
    b"Content-Length: 0\r\nContent-Length: %d\r\n" % len(BODY), b"Content-Length: %d, %d\r\n" % (len(BODY), len(BODY)),
    b"Content-Length: +%d\r\n" % len(BODY), b"Content-Length: -1\r\n", b"Content-Length: 0x11\r\n",
    b"Content-Length: 17 17\r\n", b"Content-Length : 17\r\n", b"Content-Length:\r\n",
    b"Content-Length: 99999999999999999999\r\n", b"Content-Length: 17\0\r\n",
    b"Transfer-Encoding: chunked\r\nContent-Length: %d\r\n" % len(BODY),
    b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", b"Transfer-Encoding: identity\r\n",
    b"Transfer-Encoding: gzip, chunked\r\n", b"Transfer-Encoding: chunked, identity\r\n",
    b"Transfer-Encoding: xchunked\r\n", b"Transfer-Encoding : chunked\r\n", b"Transfer-Encoding:\tchunked\r\n",
    b"Transfer-Encoding: chunked\0\r\n", b"Transfer-Encoding:\x0bchunked\r\n", b"Transfer-Encoding: CHUNKED\r\n",
    b"Transfer_Encoding: chunked\r\n", b"X: y\nTransfer-Encoding: chunked\r\n", b"X: y\rTransfer-Encoding: chunked\r\n",
    b" Transfer-Encoding: chunked\r\n", b"Transfer-Encoding:\r\n chunked\r\n", b"Content-Length: 1_7\r\n",
    b"Content-Length: 17;\r\n", b"Content-Length: 1e1\r\n",
)  # fmt: skip
# With these the next bytes may be a request of their own: either they are right, or they say nothing of a body.
LAWFUL = (
    b"Transfer-Encoding: CHUNKED\r\n", b"X: y\nTransfer-Encoding: chunked\r\n", b"Transfer_Encoding: chunked\r\n",
)  # fmt: skip
CHUNKS = (
    b"11\r\n" + BODY + b"\r\n0\r\n\r\n", b"11;x=y\r\n" + BODY + b"\r\n0\r\n\r\n", b"011\r\n" + BODY + b"\r\n0\r\n\r\n",
    b"0\r\n\r\n", b"11\n" + BODY + b"\n0\n\n", b"0x11\r\n" + BODY + b"\r\n0\r\n\r\n", b"-1\r\n" + BODY,
    b"ffffffffffffffff\r\n" + BODY, b"11\r\n" + BODY + b"0\r\n\r\n", b"11 \r\n" + BODY + b"\r\n0\r\n\r\n",
    b"12\r\n" + BODY + b"\r\n0\r\n\r\n", b"10\r\n" + BODY + b"\r\n0\r\n\r\n", b"\r\n" + BODY, b"g\r\n" + BODY,
    b"11\r\n" + BODY + b"\r\n0\r\nX-Tandem-Model: beta\r\n\r\n",
    b"11\r\n" + BODY + b"\r\n0\r\nContent-Length: 5\r\n\r\n", b"+11\r\n" + BODY + b"\r\n0\r\n\r\n",
    b"11;\n" + BODY + b"\r\n0\r\n\r\n", b"11;" + b"x" * 9000 + b"\r\n" + BODY + b"\r\n0\r\n\r\n",
    b"8\r\n" + BODY[:8] + b"\r\n9\r\n" + BODY[8:] + b"\r\n0\r\n\r\n",
    b"1\r\n{\r\n10\r\n" + BODY[1:] + b"\r\n00000\r\n\r\n",
)  # fmt: skip
EXTRAS = (
    b"", b"Connection: keep-alive\r\n", b"Connection: close\r\n", b"X: " + b"y" * 7000 + b"\r\n",
    b"X: " + b"y" * 40000 + b"\r\n", b"X: y\r\n" * 300, b"X: y\r\n" * 2000, b"Host: other\r\n", b"Host: a b\r\n",
    b"Host: \r\n", b"Host: router/sleep\r\n", b"Host: router:8000\r\n", b"Expect: 100-continue\r\n",
    b"Expect: 200-ok\r\n",
    b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n",
    b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n", b"X\0Y: z\r\n",
    b"X: \0\r\n", b": y\r\n", b"X\r\n", b"X Y: z\r\n", b"X: y\r\n z\r\n", b"X: y\n", b"X: y\r", b"\xff: \xff\r\n",
    b"X-Forwarded-Host: x\r\nX-Original-URL: /sleep\r\nX-Rewrite-URL: /sleep\r\n",
    b"X-HTTP-Method-Override: GET\r\nX-Accel-Redirect: /sleep\r\nX-Tandem-Model: beta\r\n",
    b"X-Tandem-Model: beta\r\nX_Tandem_Model: beta\r\n", b"Range: bytes=0-1\r\n", b"If-Match: x\r\n",
    b"Content-Type: text/plain\r\n", b"Via: " + b"x, " * 500 + b"\r\n", b"Authorization: Bearer x\r\n",
    b"Authorization: \xff\r\n", b"Content-Encoding: \xff\xfe\r\n", b"X-Request-Id: \xff\r\n", b"Origin: \xff\r\n",
    b"Origin: http://localhost:1\r\n", b"X-Request-Id: a\"b\r\n",
)  # fmt: skip
HELLO = bytes.fromhex(
    "16030100c8010000c403031f2e3d4c5b6a79880f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a6978200102030405060708090a0b0c0d0e0f10"
    "1112131415161718191a1b1c1d1e1f200008130213031301c02f01000073000000"
)


@dataclass(frozen=True)
class Line:
    """What is sent over one connection. good: it is a request that a server must see; code: what an error must say."""

    sent: bytes
    good: bool = False
    code: str = ""

    def __str__(self) -> str:
        return repr(self.sent if len(self.sent) < 1500 else self.sent[:700] + b" ... " + self.sent[-700:])


def post(
    target: bytes, *, method: bytes = b"POST", version: bytes = b" HTTP/1.1", extra: bytes = b"", body: bytes = BODY
) -> bytes:
    length = b"Content-Length: %d\r\n" % len(body)
    return b"%b %b%b\r\n%b%b%b%b\r\n%b" % (method, target, version, HOST, TYPE, length, extra, body)


def framed(frame: bytes, body: bytes) -> bytes:
    return b"POST /v1/completions HTTP/1.1\r\n%b%b%b\r\n%b" % (HOST, TYPE, frame, body)


def spellings(path: bytes) -> Iterator[bytes]:
    """Ways to write a path that some reader takes for it."""
    inner = path[1:]
    for at in range(min(len(path), 4)):
        yield path[:at] + b"%%%02x" % path[at] + path[at + 1 :]
        yield path[:at] + b"%%%02X" % path[at] + path[at + 1 :]
        yield path[:at] + b"%%25%02x" % path[at] + path[at + 1 :]
    yield from (
        path, b"/" + path, b"//" + path, path + b"/", path.upper(), path.title(), b"/." + path, b"/./." + path,
        b"/x/.." + path, b"/x/%2e%2e" + path, b"/v1/.." + path, b"/v1/completions/.." + path,
        b"/v1/completions/../.." + path, b"/v1/models/../.." + path, b"/v1/models/..%2f.." + path,
        b"/v1/responses/.." + path, b"/v1/responses/..%2f.." + path, b"/v1/responses/x/../../.." + path,
        b"/v1/responses/%2e%2e/%2e%2e" + path, b"/v1/responses/a%2f..%2f.." + path, b"/v1/responses/a%0d%0a" + inner,
        b"/v1/responses/a%20" + inner, b"/v1/responses/a?" + inner, b"/-/.." + path, b"/..;" + path, b"/;" + path,
        path + b";x", path + b"?x=1", path + b"#x", path + b"%00", path + b"%20", path + b"%0a", path + b".json",
        path + b"%3f", path + b"\0", path + b"\t", path + b"%09", path.replace(b"/", b"\\"), b"\\" + inner, inner, b"*",
        b"http://router" + path, b"http://127.0.0.1:8000" + path, b"http://alpha:8000" + path, b"HTTP://ROUTER" + path,
        b"https://router" + path, b"http:/" + path, b"http://" + path, b"router" + path, b"//alpha:8000" + path,
        b"http://router@alpha" + path, b"http://router:x" + path, b"ftp://router" + path, b"unix:/x:" + path,
        path.replace(b"/", b"%2f"), path.replace(b"/", b"%5c"), path.replace(b"/", b"/%2e/"), path.replace(b"/", b"//"),
        path.replace(b"/", b"/./"), path.replace(b"e", b"%c4%97"), path.replace(b"s", "\u017f".encode()),
        b"/%c0%af" + inner, b"/%u002f" + inner, b"/%2", b"/%", b"/%zz" + inner, b"/%00" + path, b"/health/.." + path,
        b"/health" + path, b"/v1/completions%00" + path, b"/v1/completions%0d%0a" + path,
        b"/v1/completions%20HTTP/1.1%0d%0aX:%20" + path, b"/v1/completions " + path, b"/v1/completions;" + path,
        b"/v1/completions?" + path, b"/v1/completions#" + path, b"/v1/completions/" + inner,
        b"/v1/audio/transcriptions/.." + path, b"/v1/realtime/.." + path, b"/v1/realtime?model=alpha&x=/.." + path,
        b"/version/.." + path, b"/version" + path,
    )  # fmt: skip


def corpus() -> Iterator[Line]:
    """Lines with an edge each; the first are good."""
    for path in (
        b"/v1/completions", b"/v1/chat/completions?x=%2e%2e/sleep", b"//v1//completions", b"/v1/./completions",
        b"/%76%31/completions", b"http://router/v1/completions", b"/x/../v1/completions",
    ):  # fmt: skip
        yield Line(post(path), good=True)
    yield Line(post(b"/v1/completions", version=b" HTTP/1.0"), good=True)
    yield Line(post(b"/v1/completions") * 5, good=True)
    yield Line(framed(b"Transfer-Encoding: chunked\r\n", CHUNKS[0]), good=True)
    yield Line(framed(b"Transfer-Encoding: chunked\r\n", CHUNKS[0]) + post(b"/v1/completions"), good=True)
    yield Line(b"\r\n" + post(b"/v1/completions"), good=True)
    yield from (Line(post(b"/v1/completions?x=%c" % byte)) for byte in (9, 10, 11, 13, 31, 34, 92, 124, 127, 128, 255))
    yield Line(post(b"/v1/completions").replace(b"\r\n", b"\n"), good=True)
    for path in REFUSED:
        for method in (b"POST", b"GET"):
            yield Line(post(path, method=method))
            yield Line(post(path, method=method, version=b" HTTP/1.0"))
            yield Line(post(b"/v1/completions") + post(path, method=method))
            yield Line(b"%b %b\r\n" % (method, path))
    for path in (
        b"/sleep", b"/metrics", b"/-/status", b"/v1/load_lora_adapter", b"/v1/completions", b"/version",
        b"/v1/responses/x/cancel", b"/v1/responses/x",
    ):  # fmt: skip
        yield from (Line(post(each)) for each in spellings(path))
        yield from (Line(post(each, method=b"GET", body=b"")) for each in spellings(path))
    for name in (
        b"%ff", b"%00", b"%0a", b"%e2%82", b"%c3%28", b"alpha%22", b"%7f", b"../sleep", b"..%2fsleep", b"org/beta",
        b"org%2fbeta", b"a" * 3000, b"%f0%9f%a6%99" * 100, b"constructor", b"%5c", b"alpha/../beta", b"?x",
        b"alpha?x=%ff", b"%25s", b"$uri", b"{}", b"\xff",
    ):  # fmt: skip
        yield Line(post(b"/v1/models/" + name, method=b"GET", body=b""))
        yield Line(post(b"/v1/models/" + name))
        yield Line(post(b"/v1/realtime?model=" + name, method=b"GET", body=b""))
        yield Line(post(b"/v1/responses/" + name, method=b"GET", body=b""))
    for method in METHODS:
        yield from (
            Line(post(path, method=method))
            for path in (b"/v1/completions", b"/sleep", b"/health", b"/v1/models", b"/version")
        )
    for version in VERSIONS:
        yield from (Line(post(path, version=version)) for path in (b"/v1/completions", b"/sleep"))
    for extra in EXTRAS:
        yield Line(post(b"/v1/completions", extra=extra))
        yield Line(post(b"/sleep", extra=extra))
        yield Line(b"GET /v1/realtime?model=alpha HTTP/1.1\r\n" + HOST + extra + b"\r\n")
    for frame in FRAMES:
        yield from (Line(framed(frame, body)) for body in (BODY, b"", *CHUNKS[:2]))
        if frame not in LAWFUL:
            yield from (Line(framed(frame, body + SMUGGLED)) for body in (b"0\r\n\r\n", BODY, b""))
    yield from (Line(framed(b"Transfer-Encoding: chunked\r\n", chunks)) for chunks in CHUNKS)
    for path in (b"/v1/completions", b"/v1/models", b"/health", b"/sleep", b"/version", b"/v1/responses/x"):
        for method in (b"POST", b"GET", b"PUT"):
            yield Line(post(path, method=method, body=SMUGGLED))
            yield Line(post(path, method=method, body=BODY + b"\r\n\r\n" + SMUGGLED))
            yield Line(
                b"%b %b HTTP/1.1\r\n%b%bTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n"
                % (method, path, HOST, TYPE, len(SMUGGLED), SMUGGLED)
            )
    yield from (Line(bytes([byte]) * 20 + b"\r\n\r\n") for byte in range(0, 256, 5))
    yield from (Line(post(b"/v1/compl%cetions" % byte)) for byte in range(256))
    yield from (
        Line(b"GET /%b HTTP/1.1\r\n%b\r\n" % (b"x" * size, HOST)) for size in (1000, 8000, 9000, 40_000, 200_000)
    )
    yield from (Line(hello, code="tls_on_plain_port") for hello in (HELLO, HELLO + b"\0" * 200))
    yield from map(Line, (
        HELLO[:5], b"\x80\x2e\x01\x03\x01" + b"\0" * 40, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"SSH-2.0-x\r\n",
        b"\0" * 100, b"\r\n" * 50, b"GET\r\n\r\n", b"GET \r\n\r\n", b"G", b"", b"GET / HTTP/1.1\r\n",
        b"GET /sleep\r\n\r\n", b"GET /sleep\n", b"GET /v1/completions\r\n\r\n", b"POST /sleep\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n", b"GET /sleep HTTP/1.1\r\n\r\n", b"<policy-file-request/>\0", b"*1\r\n$4\r\nPING\r\n",
        b"\x05\x01\x00", b"EHLO x\r\n", b"{}\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\n" + HOST + TYPE + b"Content-Length: 70000000\r\n\r\n" + BODY,
        b"POST /v1/completions HTTP/1.1\r\n" + HOST + TYPE + b"Content-Length: 100\r\n\r\n" + BODY,
        b"POST /v1/completions HTTP/1.1\r\n" + HOST + TYPE + b"\r\n" + BODY,
        b"POST /v1/completions HTTP/1.1\r\n" + TYPE + LENGTH + b"\r\n" + BODY,
        b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nHost: b\r\n" + TYPE + LENGTH + b"\r\n" + BODY,
        b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n" + post(b"/v1/completions"),
        b"\xef\xbb\xbf" + post(b"/v1/completions"),
    ))  # fmt: skip


def line(entropy: bytes) -> Line:
    """Draw what is sent over a connection: a request or more, each odd in one way or another, or bytes with changes."""
    tape = Tape(entropy)
    sent = b"".join(request(tape) for _ in range(tape.pick((1, 1, 1, 1, 2, 3))))
    for _ in range(tape.pick((0, 0, 0, 0, 1, 3))):
        at, how = tape.number(min(len(sent), 250) + 1), tape.number(3)
        put = tape.pick(
            (
                b"\0",
                b"\r\n",
                b"\n",
                b"\t",
                b" ",
                b"%",
                b"/",
                b"..",
                b"\r",
                b"%2f",
                b"?",
                b"#",
                b":",
                b"\xff",
                b"//",
                b"\\",
                b"\r\n\r\n",
            )
        )
        sent = (sent[:at] + put + sent[at:], sent[:at] + sent[at + 1 :], sent[:at] + put + sent[at + len(put) :])[how]
    # A change may take a request out of the body that it lay in.
    return Line(sent.replace(INSIDE, b"drawn"))


def request(tape: Tape) -> bytes:
    path = tape.pick(
        (
            *REFUSED,
            *(each.encode() for each in JSON_PATHS),
            b"/v1/responses/x/cancel",
            b"/version",
            b"/v1/models/alpha",
            b"/ready",
        )
    )
    every = tuple(spellings(path))
    target = tape.pick(every) if not tape.once_in(5) else path
    method = tape.pick(METHODS if tape.once_in(6) else METHODS[:2])
    version = tape.pick(VERSIONS) if tape.once_in(8) else b" HTTP/1.1"
    extra = tape.pick(EXTRAS) if tape.once_in(4) else b""
    if tape.once_in(6):
        body = tape.pick((BODY, b"", *CHUNKS))
        return b"%b %b%b\r\n%b%b%b%b\r\n%b" % (method, target, version, HOST, TYPE, tape.pick(FRAMES), extra, body)
    return post(target, method=method, version=version, extra=extra, body=tape.pick((BODY, BODY, b"", SMUGGLED)))
