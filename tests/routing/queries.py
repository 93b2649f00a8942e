"""Queries of the WebSocket's path, which name a model in the address: edges written by hand, and drawn ones."""

from collections.abc import Iterator

from tests.routing.reference import Case
from tests.routing.tape import Tape

REALTIME = "/v1/realtime"
PIECES = (
    "model=alpha", "model=beta", "model=org/beta", "model=org%2Fbeta", "model=gamma", "x=1", "model", "model=",
    "=alpha", "%6dodel=beta", "mode%6C=beta", "model=%61lpha", "model%00=beta", "model=alpha%00", "model=al+pha",
    "+model=beta", "model+=beta", "Model=beta", "model[]=beta", "model=alpha=beta", "model==alpha",
    "model=alpha%26model=beta", "x=%26model=beta", "model=%", "model=alpha%", "model=alpha%2", "model=alpha%zz",
    "%model=beta", "model=%ff", "model=%c3%a9", "model=alpha;model=beta", ";model=beta", "", "model=constructor",
    "model=__proto__", "?model=beta", "m%6f%64el=alpha", "model=%e2%80%8balpha", "mod%C3%A8l=beta", "model%20=beta",
    "model\xff=beta",
)  # fmt: skip
MANY = "&".join(f"a{number}=1" for number in range(200))
BETWEEN = ("&", "&", "&", "&", ";", "&&", "%26", "&amp;")


def asked(query: str, *, plain: str | None = None) -> Case:
    return Case(b"", (), f"{REALTIME}?{query}", plain=plain, method="GET")


def cases() -> Iterator[Case]:
    """Queries with an edge each; the first are plain, and must be served."""
    for name in ("alpha", "beta", "gamma", "constructor", "__proto__", "org/beta", "alpha-too"):
        yield asked(f"model={name}", plain=name)
        yield asked(f"x=1&model={name}&y=%ff", plain=name)
    yield asked("model=org%2Fbeta", plain="org/beta")
    for one in PIECES:
        yield from (asked(f"{one}&{other}") for other in PIECES)
    for count in (18, 19, 20, 21, 99, 100, 101, 200):
        many = "&".join(MANY.split("&")[:count])
        yield asked(f"{many}&model=beta")
        yield asked(f"model=alpha&{many}&model=beta")
        yield asked(f"model=alpha&{many}&%6dodel=beta")
    yield Case(b"", (), REALTIME, method="GET")


def case(entropy: bytes) -> Case:
    tape = Tape(entropy)
    query = tape.pick(PIECES)
    for _ in range(tape.number(5)):
        query += tape.pick(BETWEEN) + (tape.pick(PIECES) if not tape.once_in(20) else MANY)
    for _ in range(tape.pick((0, 0, 1, 2))):
        at = tape.number(min(len(query), 40) + 1)
        query = (
            query[:at]
            + tape.pick(("%", "&", "=", "+", ";", "%00", "%3d", "%25", "/", "?"))
            + query[at + tape.number(2) :]
        )
    return asked(query)
