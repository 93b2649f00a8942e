"""The addresses that settings name, of mirrors and proxies: what one looks like, and how it may be shown. Pure."""

import re
from ipaddress import IPv6Address

# Each kind of mirror, and the setting that names one.
MIRRORS = {
    "registry": "TANDEM_REGISTRY",
    "debian": "TANDEM_DEBIAN_MIRROR",
    "pypi": "TANDEM_PYPI_INDEX",
    "torch": "TANDEM_TORCH_INDEX",
    "modelscope": "MODELSCOPE_ENDPOINT",
    "huggingface": "HF_ENDPOINT",
}
# The kinds of those that are hubs, which weights come from.
HUBS = ("modelscope", "huggingface")
PROXIES = ("HTTPS_PROXY", "HTTP_PROXY")
# The kinds whose address tools that are not ours have in their command lines and messages: debootstrap, apt, pip, uv.
NO_PASSWORD = ("debian", "pypi", "torch")
SECRET_IN_URL = re.compile(r"//[^/@\s]*@")
# A password may hold any character, @ and / too; only what is before an image's digest is none.
_HIDDEN = re.compile(r"^((?:.*?\s)??[a-z][a-z0-9+.-]*://)?.*@(?=\S)(?!sha256:[0-9a-f]{64}$)", re.IGNORECASE | re.DOTALL)
# A container's name for the machine that it runs on.
OUTSIDE = "host.docker.internal"
_PORT = r"(?::(?P<port>[0-9]{1,5}))?"
# Longer or empty names between dots are none that DNS could look up.
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[(?P<ipv6>[0-9A-Fa-f:.]+)\])"
# No character that a shell or an env file would take for something else.
_URL = re.compile(rf"https?://(?:[^/@\s]*@)?{_HOST}{_PORT}(?:/[^\s'\"#$\\`?]*)?")
# Without a dot or a port Docker takes the first word for a name at its own registry.
_REGISTRY = re.compile(
    rf"(?:localhost|[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+|[A-Za-z0-9-]+(?=:)){_PORT}"
    r"(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*"
)


def fault_of_address(name: str, value: str) -> str | None:
    """Say what is wrong with the value of a setting that names a mirror or a proxy; None when nothing is."""
    if name == MIRRORS["registry"]:
        fits = _REGISTRY.fullmatch(value)
        words = "a registry such as mirror.example.org or mirror.example.org:5000/hub, no https:// and no / at the end"
    else:
        fits, words = _URL.fullmatch(value), "an address that begins with http:// or https://"
    if not fits:
        return f'should be {words}, got "{masked(value)}"'
    parts = fits.groupdict()
    if not 1 <= int(parts["port"] or 1) <= 65535:
        return f'should have a port from 1 to 65535, got "{masked(value)}"'
    if parts.get("ipv6") and not _is_ipv6(parts["ipv6"]):
        return f'should have an IPv6 address in its brackets, got "{masked(value)}"'
    if name in [MIRRORS[kind] for kind in NO_PASSWORD] and SECRET_IN_URL.search(value):
        return "holds a password, which command lines and logs may show; use an address without one"
    return None


def _is_ipv6(text: str) -> bool:
    try:
        IPv6Address(text)
    except ValueError:
        return False
    return True


def masked(address: str) -> str:
    """Give an address, or a line that ends with one, as it may be shown: rather too little of it than a password."""
    return _HIDDEN.sub(lambda found: f"{found[1] or ''}***@", address)


def here(address: str) -> str:
    """Give an address that a container is told as this machine itself reaches it."""
    return address.replace(OUTSIDE, "127.0.0.1")


def on_itself(address: str) -> bool:
    """Say whether an address means the machine, or the container, that asks."""
    return re.search(r"^\w+://(?:[^/@]*@)?(?:localhost|127\.[0-9.]+|\[::1\])(?:[:/]|$)", address) is not None
