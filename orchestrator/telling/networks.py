"""Finds the addresses of machines in a text, of all kinds, and tells them from versions. Pure."""

import re
from collections.abc import Callable
from ipaddress import AddressValueError, IPv4Address, IPv4Network, IPv6Address

# Gives the word that stands for an address of a kind (ADDRESS, MAC) throughout a report.
Word = Callable[[str, str], str]

# What may stand right before an address although it ends with a letter or a digit: signs as JSON and addresses write
# them, a line's end and a bracket, say.
_ESCAPE = r"(?<=\\[nrt])|(?<=%[0-9A-Fa-f]{2})"
_FOUR = re.compile(rf"(?:(?<![0-9])(?<![0-9]\.)|{_ESCAPE})(?:[0-9]{{1,3}}\.){{3}}[0-9]{{1,3}}(?![0-9])(?!\.[0-9])")
_REVERSE = re.compile(r"(?<![0-9A-Za-z.])((?:[0-9]{1,3}\.){1,4})(?=in-addr\.arpa\b)", re.IGNORECASE)
# Names that are made of an address, as clouds and home routers give them.
_DASHED = re.compile(r"(?<![0-9A-Za-z])(?:ip-(?:[0-9]{1,3}-){3}[0-9]{1,3}|192-168-[0-9]{1,3}-[0-9]{1,3})(?![0-9])")
_SIX = re.compile(rf"(?:(?<![\w:.%])|{_ESCAPE})[0-9A-Fa-f:]*:[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*(?![\w])")
# Six bytes, or more as InfiniBand's. What goes on before it is no address.
_MAC = re.compile(
    r"(?:(?<![0-9A-Za-z])(?<![0-9A-Fa-f]{2}[:-])|(?<=\\[nrt]))"
    r"[0-9A-Fa-f]{2}([:-])[0-9A-Fa-f]{2}(?:\1[0-9A-Fa-f]{2}){4,30}(?![0-9A-Za-z:-])"
)
# Interfaces that are called after theirs.
_NAMED_BY_MAC = re.compile(r"(?<![0-9A-Za-z])(enx|wlx|wwx)([0-9a-f]{12})(?![0-9A-Za-z])")

# RFC 1918, RFC 6598 (shared by a provider's customers) and RFC 3927 (link-local): machines of somebody's own network.
_OWN = tuple(
    IPv4Network(each) for each in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16")
)
# NVIDIA's packages and libraries, which have four figures; curand's begin with 10.
_PACKAGE_BEFORE = re.compile(r"(?:\bnvidia[-_][a-z]+[-_]cu[0-9]{2,3}(?:[=~<>!]=|[- ]{1,4})|\blib[a-z_]+\.so\.)$")
# What else comes before or after four figures that are a version.
_VERSION_BEFORE = re.compile(
    r"(?:[=~<>!]=|\b(?:version|cuda|cudnn|cublas|nccl)[\"']?[ :=]{1,3}v?|[-_]cu\d+[- ]{1,4})$", re.IGNORECASE
)
_VERSION_AFTER = re.compile(r"-(?:microsoft|WSL2|py\d|cp\d|\d+-)|\+[A-Za-z]")
# WSL's own: 0 to 2 first, 0 last, which no machine's address has.
_WSL_BEFORE = re.compile(r"\bWSL[ :]{1,2}v?$", re.IGNORECASE)
_WSL = re.compile(r"[0-2]\.[0-9]+\.[0-9]+\.0")
# A port, a network's size, a bracket that ends it: no version has these after it.
_ADDRESS_AFTER = re.compile(r":[0-9]|>|/[0-9]{1,2}(?![0-9A-Za-z.])")

# What goes on as a name of a host does, and not as that of a file.
_HOST_AFTER = re.compile(
    r"\.(?!(?:so|tar|t?gz|xz|zst|zip|whl|egg|dist|deb|rpm|dll|exe|bin|run|json|toml|txt|log|md|py|sh|x86|noarch|post|dev|rc)"
    r"(?![A-Za-z]))[A-Za-z]",
    re.IGNORECASE,
)


def replaced(text: str, word: Word) -> str:
    """Put words in the place of all addresses but those that every machine has, such as 127.0.0.1 and ::1."""
    text = _NAMED_BY_MAC.sub(lambda found: found[1] + word("MAC", ":".join(re.findall("..", found[2]))), text)
    text = _MAC.sub(lambda found: word("MAC", found[0].lower().replace("-", ":")), text)
    text = _REVERSE.sub(lambda found: f"{word('ADDRESS', _turned(found[1]))}.", text)
    text = _DASHED.sub(lambda found: word("ADDRESS", found[0].removeprefix("ip-").replace("-", ".")), text)
    text = _SIX.sub(lambda found: _six(found[0], word), text)
    return _FOUR.sub(lambda found: _four(found, word), text)


def _turned(figures: str) -> str:
    return ".".join(reversed(figures.strip(".").split(".")))


def _four(found: re.Match[str], word: Word) -> str:
    try:
        address = IPv4Address(".".join(str(int(part)) for part in found[0].split(".")))
    except AddressValueError:
        return found[0]
    if address.is_loopback or address.is_unspecified or int(address) == 0xFFFFFFFF or _version(found, address):
        return found[0]
    return word("ADDRESS", str(address))


def _version(found: re.Match[str], address: IPv4Address) -> bool:
    """Whether four figures are a version, by what stands around them.

    Those of somebody's own network are none, whatever is around them but the name of one of NVIDIA's packages.
    """
    before, text, end = found.string[max(0, found.start() - 40) : found.start()], found.string, found.end()
    if _ADDRESS_AFTER.match(text, end):
        return False
    if _PACKAGE_BEFORE.search(before):
        return True
    if any(address in network for network in _OWN):
        return False
    if _VERSION_BEFORE.search(before) or _VERSION_AFTER.match(text, end) or _part_of_a_word(before, text, end):
        return True
    return _WSL_BEFORE.search(before) is not None and _WSL.fullmatch(found[0]) is not None


def _part_of_a_word(before: str, text: str, end: int) -> bool:
    """Whether a word goes on before or after figures, as that of a file or a library does; a host's name is none."""
    if _HOST_AFTER.match(text, end) or re.search(r"\\[nrt]$|%[0-9A-Fa-f]{2}$", before):
        return False
    return re.search(r"[\w.]$", before) is not None or re.match(r"\.?\w", text[end : end + 2]) is not None


def _six(said: str, word: Word) -> str:
    # What ends it may belong to the sentence, or be a port.
    bare = said.rstrip(":.")
    for text in dict.fromkeys((said, said[:-1] if said[-1] in ":." else said, bare, bare.rpartition(":")[0])):
        try:
            address = IPv6Address(text)
        except AddressValueError:
            continue
        inner = address.ipv4_mapped
        if address.is_loopback or address.is_unspecified or (inner is not None and inner.is_loopback):
            return said
        return word("ADDRESS", str(inner or address)) + said[len(text) :]
    return said
