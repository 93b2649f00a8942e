"""Says who may reach the router, and what the settings of that may be: address, keys, origins, certificate. Pure."""

import re
from collections.abc import Callable
from ipaddress import ip_address

KEYS = "./docker/router/keys"
# Chatbox's web edition, and pages that a program on this machine serves.
ORIGINS = "https://web.chatboxai.app,http://localhost:*,http://127.0.0.1:*"
# As a browser writes it: no path, in small letters; a port of * is any, none included.
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(?:[a-z0-9_.-]+|\[[0-9a-f:.]+\])(?::(?:[0-9]{1,5}|\*))?")
# nginx counts bytes in 63 bits.
_SIZE = re.compile(r"[1-9][0-9]{0,8}[kKmMgG]?", re.ASCII)


def only_here(bind: str) -> bool:
    """Say whether an address lets in nobody but this machine."""
    return ip_address(bind.strip("[]")).is_loopback


def exposed(bind: str, *, keys: bool, said_twice: str) -> str:
    """Say why whoever reaches the router could use it, though nobody said so twice; "" when that is not so."""
    if keys or said_twice == "yes" or only_here(bind):
        return ""
    return (
        f"TANDEM_BIND={bind} lets other machines in, and with no key whoever reaches the port may use every model.\n"
        "  Make a key:  python -m orchestrator keys add NAME\n"
        "  or, where everybody may, put into .env:  TANDEM_BIND_WITHOUT_KEY=yes"
    )


def faults(get: Callable[[str], str]) -> list[str]:
    """Say what is wrong with these settings, one line each."""
    found = []
    if not _is_address(get("TANDEM_BIND")):
        found.append(f'TANDEM_BIND: should be an IP address such as 127.0.0.1, got "{get("TANDEM_BIND")}"')
    found += [
        f'{name}: should be yes or no, got "{get(name)}"'
        for name in ("TANDEM_BIND_WITHOUT_KEY", "TANDEM_LORA_LOADING")
        if get(name) not in ("", "yes", "no")
    ]
    folder = get("TANDEM_KEYS_FOLDER")
    if folder != KEYS and not folder.startswith("/"):
        found.append(f'TANDEM_KEYS_FOLDER: should be {KEYS}, or a folder that begins with /, got "{folder}"')
    wrong = [origin for origin in _origins(get("TANDEM_CORS_ORIGINS")) if not _ORIGIN.fullmatch(origin)]
    if wrong:
        found.append(
            "TANDEM_CORS_ORIGINS: should be *, none, or origins with commas between them, such as "
            f'https://web.chatboxai.app or http://localhost:*, got "{wrong[0]}"'
        )
    if not _SIZE.fullmatch(get("TANDEM_BODY_LIMIT")):
        given = get("TANDEM_BODY_LIMIT")
        found.append(f'TANDEM_BODY_LIMIT: should be a size such as 64m or 1g, of up to nine digits, got "{given}"')
    pair = {name: get(name) for name in ("TANDEM_TLS_CERT_FILE", "TANDEM_TLS_KEY_FILE")}
    alone = [name for name, value in pair.items() if value]
    if len(alone) == 1:
        other = next(name for name in pair if name not in alone)
        found.append(f"{other}: should be set too, as {alone[0]} is: a certificate and its key go together")
    if alone and get("TANDEM_TLS_FOLDER"):
        found.append(f"TANDEM_TLS_FOLDER: should not be set beside {alone[0]}: one of the two names the certificate")
    return found


def _origins(value: str) -> list[str]:
    return [] if value in ("*", "none") else [origin.strip() for origin in value.split(",")]


def _is_address(text: str) -> bool:
    try:
        ip_address(text.strip("[]"))
    except ValueError:
        return False
    return True
