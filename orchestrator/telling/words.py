"""Writes what was gathered as Markdown, section by section; what is wrapped is redacted before. Pure."""

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from orchestrator import report
from orchestrator.addresses import MIRRORS, PROXIES, masked
from orchestrator.doctor import words as doctors
from orchestrator.doctor.finding import Finding
from orchestrator.doctor.smi import Card, Seen
from orchestrator.inventory import size
from orchestrator.load import results
from orchestrator.load import words as loads
from orchestrator.project import Project
from orchestrator.proof import result as proofs
from orchestrator.states import Container, Image
from orchestrator.telling.known import SECRET_NAME
from orchestrator.telling.lines import chosen
from orchestrator.telling.redaction import Redaction

# Of models.toml, far above the lines of any that a person writes.
MOST_LINES = 300
NO_TOML = "[it is no TOML: each line is told as far as its first #]"
# TOML's strings, in which a # is a sign as any other, and its comments. At the end of a string of several lines there
# may be quotes of its own.
_PARTS = re.compile(
    r"(?P<string>\"\"\"(?:[^\\]|\\.)*?\"{3,5}|'''.*?'{3,5}|\"(?:[^\"\\\n]|\\.)*\"|'[^'\n]*')|#[^\n]*", re.DOTALL
)
# In TOML's strings there is none.
_BREAK = "\x00"
HEAD = (
    "# Tandem: a report of one machine\n\n"
    "{when}. Keys, tokens, passwords, names of users and machines, and addresses were taken out (`***`, `USER1`, "
    "`HOST1`, `ADDRESS1`). Read it before you paste it: no program knows what else is private to you.\n"
)


def document(when: str, sections: Iterable[tuple[str, str]], unread: Sequence[str] = ()) -> str:
    """Put sections together: a title and a text, which stands between fences as it is.

    unread are the files whose secrets are not known.
    """
    parts = [HEAD.format(when=when)]
    if unread:
        parts.append(f"**Could not be read, so secrets in it were found by their look alone: {', '.join(unread)}**\n")
    for title, text in sections:
        longest = max((len(found) for found in re.findall(r"`{3,}", text)), default=2)
        fence = "`" * (longest + 1)
        parts.append(f"## {title}\n\n{fence}text\n{text.strip(chr(10))}\n{fence}\n")
    return "\n".join(parts)


def rows(found: Sequence[tuple[str, str]]) -> str:
    """Lay out names and what is said of them."""
    width = max((len(name) for name, _ in found), default=0)
    return "\n".join(f"{name:<{width}}  {said}".rstrip() for name, said in found)


def images(found: Iterable[Image]) -> list[tuple[str, str]]:
    """Say which of our images are here, each with its id."""
    listed = [(image.name or "(no name)", f"{_short(image.ident)}, {size(image.size)}") for image in found]
    return [("image", f"{name}  {said}") for name, said in listed] or [("image", "none of Tandem's is here")]


def _short(ident: str) -> str:
    return ident.removeprefix("sha256:")[:12]


def gpus(seen: Seen) -> list[tuple[str, str]]:
    """Say what is known of the GPUs."""
    if seen.fault:
        return [("gpus", seen.fault)]
    pairs = ", ".join(f"{one}-{other} {word}" for one, other, word in seen.links)
    return [(f"gpu {card.index}", _card(card)) for card in seen.cards] + ([("peer to peer", pairs)] if pairs else [])


def _card(card: Card) -> str:
    parts = [
        card.name,
        f"{card.total >> 20} MiB, {card.free >> 20} free, {card.reserved >> 20} the driver's",
        *([f"compute {card.capability[0]}.{card.capability[1]}"] if card.capability else []),
        *([f"{card.power:g} W of {card.power_usual:g}"] if card.power and card.power_usual else []),
        *([f"PCIe {card.gen_most or '?'} x{card.width}"] if card.width else []),
        *(["has a display"] if card.display else []),
    ]
    return "; ".join(parts)


def settings(values: Mapping[str, str], usual: Mapping[str, str], source: Mapping[str, str], redact: Redaction) -> str:
    """Say which settings are in force, and where each is from; of a secret only that there is one.

    usual is what holds without them.
    """
    addresses = {*MIRRORS.values(), *PROXIES}
    found: list[tuple[str, str]] = []
    for name, value in sorted(values.items()):
        shown = "is set" if SECRET_NAME.search(name) else masked(value) if name in addresses else value
        # The secret itself, where the name of its file belongs.
        if name.endswith("_FILE") and not value.startswith("/"):
            shown = "is set, to no whole path"
        same = " (as without it)" if usual.get(name) == value else ""
        found.append((name, f"{redact(shown)}{same}  from {redact(source.get(name, 'the env file'))}"))
    return rows(found) or "none is set"


def models(text: str) -> str:
    """Give models.toml without its comments, which are for those who write it."""
    try:
        tomllib.loads(text)
        said, note = _PARTS.sub(_string, text), []
    except tomllib.TOMLDecodeError:
        # Nobody knows where its strings end.
        said, note = re.sub("#.*", "", text), [NO_TOML]
    kept = "\n".join(line.rstrip() for line in said.split("\n") if line.strip())
    lines = kept.replace(_BREAK, "\n").split("\n") if kept else []
    more = len(lines) - MOST_LINES
    return "\n".join([*note, *lines[:MOST_LINES], *([f"[{more} more lines]"] if more > 0 else [])]) or "it is empty"


def _string(found: re.Match[str]) -> str:
    """Leave a string as it is, but mark the ends of its lines: they are no lines of the file's. Comments go."""
    return (found["string"] or "").replace("\r\n", "\n").replace("\n", _BREAK)


def doctor(findings: Iterable[Finding], redact: Redaction) -> str:
    """Lay out the doctor's table."""
    return doctors.table([
        replace(each, check=redact(each.check), found=redact(each.found), why=redact(each.why), fix=redact(each.fix))
        for each in findings
    ])  # fmt: skip


def proof(found: Any, name: str, redact: Redaction) -> str:
    """Show the last verify of a model. Raises TandemError when the file holds none."""
    result = proofs.read(redact.values(found), name)
    return f"{result.when}\n{proofs.table(result)}"


def load(text: str, name: str, redact: Redaction) -> str:
    """Show the last bench of a model. Raises TandemError when the file holds none."""
    plain = results.load(text, name)
    result = results.Result.model_validate(redact.values(plain.model_dump(mode="json")))
    server, machine = result.server, result.machine
    head = [
        ("date", result.date),
        ("tandem", f"{result.tandem} {result.commit}".strip()),
        ("image", f"{server.image} {_short(server.image_id)}"),
        ("machine", f"{machine.cpu}, {machine.cores} cores; driver {machine.driver or 'none'}; "
         f"{', '.join(gpu.name for gpu in machine.gpus) or 'no GPU'}"),
        ("command", " ".join(server.command)),
    ]  # fmt: skip
    return f"{rows(head)}\n\n{loads.text(result, name)}"


def states(
    project: Project, containers: Mapping[str, Container], told: Mapping[str, Any] | None, away: str, redact: Redaction
) -> str:
    """Show what `status` shows, and the project's containers."""
    listed = [
        (redact(each.name), f"{each.status}{f' ({each.health})' if each.health else ''}, exit code {each.exit_code}, "
         f"restarts {each.restarts}, since {each.started_at[:19] or 'never'}, {each.image} {_short(each.ident)}")
        for each in containers.values()
    ]  # fmt: skip
    table = report.status(project, containers, redact.values(told), redact(away))
    return f"{table}\n\n{rows(listed) or 'no container of the project is here'}"


def last_server(
    told: Mapping[str, Any] | None, containers: Mapping[str, Container], profiles: Iterable[str]
) -> str | None:
    """Name the profile whose server's log tells most: what switches, or switched last; else what started last."""
    known = [name for name in profiles if name in containers and containers[name].started_at]
    for key in ("switch", "last"):
        target = ((told or {}).get(key) or {}).get("target")
        if target in known:
            return str(target)
    return max(known, key=lambda name: containers[name].started_at, default=None)


def logs(texts: Mapping[str, str], redact: Redaction) -> str:
    """Show the lines that matter. A whole log is redacted first, as a key of several lines would not be known later."""
    found = chosen({name: redact(text).splitlines() for name, text in texts.items()})
    return "\n\n".join("\n".join([f"--- {name}", *(lines or ["it says nothing"])]) for name, lines in found.items())
