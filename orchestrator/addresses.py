"""The addresses that settings name, of mirrors and proxies: what one looks like, and how it may be shown. Pure."""

import re

# Each kind of mirror, and the setting that names one.
MIRRORS = {
    "registry": "TANDEM_REGISTRY",
    "debian": "TANDEM_DEBIAN_MIRROR",
    "pypi": "TANDEM_PYPI_INDEX",
    "modelscope": "MODELSCOPE_ENDPOINT",
}
PROXIES = ("HTTPS_PROXY", "HTTP_PROXY")
SECRET_IN_URL = re.compile(r"//[^/@\s]*@")
# A container's name for the machine that it runs on.
OUTSIDE = "host.docker.internal"
_HOST = r"(?:[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?|\[[0-9A-Fa-f:.]+\])"
# No character that a shell or an env file would take for something else.
_URL = re.compile(rf"https?://(?:[^/@\s]*@)?{_HOST}(?::[0-9]{{1,5}})?(?:/[^\s'\"#$\\`?]*)?")
# Without a dot or a port Docker takes the first word for a name at its own registry.
_REGISTRY = re.compile(
    r"(?:localhost|[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+|[A-Za-z0-9-]+(?=:))(?::[0-9]{1,5})?"
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
    if name in (MIRRORS["debian"], MIRRORS["pypi"]) and SECRET_IN_URL.search(value):
        return "holds a password, which would stay in the image; use an address without one"
    return None


def masked(address: str) -> str:
    """Give an address as it may be shown: without its password."""
    return re.sub(r"(^|//)[^/@\s]*@", r"\1***@", address)


def here(address: str) -> str:
    """Give an address that a container is told as this machine itself reaches it."""
    return address.replace(OUTSIDE, "127.0.0.1")


def on_itself(address: str) -> bool:
    """Say whether an address means the machine, or the container, that asks."""
    return re.search(r"^\w+://(?:[^/@]*@)?(?:localhost|127\.[0-9.]+|\[::1\])(?:[:/]|$)", address) is not None
