"""What a report must not hold, as far as this machine's own files and settings name it. Pure."""

import json
import re
import tomllib
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.addresses import MIRRORS, OUTSIDE, PROXIES

# A word of fewer signs is no secret, as anybody guesses it, and the text would lose it everywhere.
SHORTEST = 4
# Shorter ones count only where they stand alone: they may be a part of other words.
ALONE = 8
# Of base64, a stretch of fewer signs may stand in it by chance.
STRETCH = 8
# Names of variables and keys whose values nobody else is to see; paths of files with secrets end in _FILE.
SECRET_NAME = re.compile(
    r"(?:pass(?:wor)?d|passwd|passphrase|secret|credentials?|(?<![a-z])auth|token|(?<![a-z])key|(?:api|access)key)$",
    re.IGNORECASE,
)
# Names that many machines have, and that say nothing of anybody.
NOBODY = frozenset(
    {
        "activator", "admin", "box", "cpu", "cuda", "data", "debian", "default", "demo", "dev", "docker", "gpu", "gpus",
        "home", "linux", "llm", "localhost", "models", "nobody", "nvidia", "public", "python", "root", "router",
        "runner", "server", "tandem", "test", "ubuntu", "user", "users", "vllm", "workstation", "wsl",
    }
)  # fmt: skip
# Hosts that everybody may know; those of env/mirrors.toml come to them.
PUBLIC = frozenset(
    {
        "localhost", "docker.io", "www.modelscope.cn", "modelscope.cn", "huggingface.co", "hf-mirror.com",
        "web.chatboxai.app", OUTSIDE,
    }
)  # fmt: skip
# Values that switch something, and are in every text.
_WORDS = frozenset({"true", "false", "none", "null", "auto", "enabled", "disabled"})
_PLAIN = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_USER = re.compile(r"^(?:[A-Za-z][A-Za-z0-9+.-]*://)?(.+)@(?!sha256:)")
_HOST = re.compile(r"^(?:[A-Za-z][A-Za-z0-9+.-]*://)?(?:.*@)?([A-Za-z0-9][A-Za-z0-9.-]*)")
_IN_TEXT = re.compile(r"[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+")


@dataclass(frozen=True)
class Known:
    """secrets are words; users, machines (this one's names) and hosts (of mirrors and proxies) are names."""

    secrets: frozenset[str] = frozenset()
    users: frozenset[str] = frozenset()
    machines: frozenset[str] = frozenset()
    hosts: frozenset[str] = frozenset()


def of_keys(text: str) -> Iterator[str]:
    """Name all that may be a key in the file of the clients' keys, also of lines that are wrong."""
    for line in text.splitlines():
        words = line.replace("#", " ").split()
        yield from (word for word in words[1:] if not re.match(r"(?:rate|concurrent)=", word))


def of_file(text: str) -> Iterator[str]:
    """Name what a file holds that is nothing but a secret: a token, a key, or a private key of several lines."""
    for line in text.splitlines():
        if line.strip() and not line.startswith("-----"):
            yield line.strip()


def variables(text: str) -> dict[str, str]:
    """Read an env file as far as that goes: a line that Compose does not understand may hold a token too."""
    found = re.findall(r"(?m)^\s*(?:export\s+)?([A-Za-z_]\w*)\s*[=:]\s*(.*?)\s*$", text)
    return {name: re.sub(r"\s#.*$", "", value).strip("\"'") for name, value in found}


def of_variables(values: Mapping[str, str]) -> Iterator[str]:
    """Name the secrets among variables: by their names, and the passwords of the addresses in any of them."""
    for name, value in values.items():
        if SECRET_NAME.search(name) and value.lower() not in _WORDS:
            # A log has a value of several lines in as many.
            yield from {value, *(line for line in value.splitlines() if len(line) >= ALONE)}
        if "://" in value or name in {*MIRRORS.values(), *PROXIES, "TANDEM_BASE_IMAGE"}:
            for word in value.split():
                yield from _of_address(word)


def _of_address(address: str) -> Iterator[str]:
    found = _USER.search(address)
    if found:
        user, sign, password = found[1].partition(":")
        yield found[1]
        # A token is often a user without a password.
        yield password if sign else user


def of_models(text: str) -> Iterator[str]:
    """Name the secrets of a models.toml's text; of one that is no TOML only what looks like one is found elsewhere."""
    try:
        yield from _walk("", tomllib.loads(text))
    except tomllib.TOMLDecodeError:
        return


def _walk(name: str, value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _walk(str(key), inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _walk(name, inner)
    elif isinstance(value, str) and SECRET_NAME.search(name):
        yield value
    elif isinstance(value, str) and "://" in value:
        yield from _of_address(value)


def hosts(values: Mapping[str, str], mirrors: str) -> frozenset[str]:
    """Name the hosts that settings name and that are this machine's own affair; mirrors is env/mirrors.toml's text."""
    public = PUBLIC | {name.lower() for name in _IN_TEXT.findall(mirrors)}
    named = [values.get(name, "") for name in (*MIRRORS.values(), *PROXIES, "TANDEM_BASE_IMAGE", "TANDEM_BIND")]
    named += re.split(r"[,\s]+", values.get("TANDEM_CORS_ORIGINS", "") + "," + values.get("NO_PROXY", ""))
    # Docker's own registry has images without a host before them.
    found = [match[1].strip(".") for value in named if (match := _HOST.search(value.strip().lstrip(".*")))]
    return frozenset(host for host in found if "." in host and host.lower() not in public and not _number(host))


def _number(host: str) -> bool:
    """Whether it is an address of figures, which has a rule of its own."""
    return re.fullmatch(r"[0-9.]+", host) is not None


def people(names: Iterable[str]) -> frozenset[str]:
    """Leave out the names that are nobody's, and those too short to be told from other words."""
    return frozenset(name for name in names if len(name) >= 3 and name.lower() not in NOBODY and not name.isdigit())


def forms(secret: str) -> frozenset[str]:
    """Write a secret in all the ways in which a log, a program or an address may: as it is, escaped, in hex."""
    raw = secret.encode()
    quoted = "".join(sign if sign in _PLAIN else "".join(f"%{byte:02X}" for byte in sign.encode()) for sign in secret)
    paths = re.sub(r"%(2F|3A|40)", lambda found: chr(int(found[1], 16)), quoted)
    low = [re.sub(r"%..", lambda found: found[0].lower(), each) for each in (quoted, paths)]
    escaped = [json.dumps(secret, ensure_ascii=each)[1:-1] for each in (True, False)]
    # A JSON text within another, and Python's own way.
    escaped += [json.dumps(escaped[1])[1:-1], repr(secret)[1:-1], secret.replace("'", "'\\''")]
    marked = [each.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;") for each in (secret,)]
    plus = quoted.replace("%20", "+")
    return frozenset([secret, quoted, paths, plus, *low, *escaped, *marked, raw.hex(), raw.hex().upper()])


def stretches(secret: str) -> frozenset[str]:
    """Write what base64 of any text around a secret has of it: three ways, by how many bytes stand before it."""
    raw, found = secret.encode(), set()
    for before in range(3):
        bits = 8 * (before + len(raw))
        # The first and the last sign may hold bits of the neighbours.
        whole = b64encode(bytes(before) + raw).decode()[-(-8 * before // 6) : bits // 6]
        if len(whole) >= STRETCH:
            found |= {whole, whole.replace("+", "-").replace("/", "_")}
    return frozenset(found)
