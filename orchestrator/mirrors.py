"""env/mirrors.toml: the mirrors that `doctor network` may try, in their order. Pure: text in, addresses out."""

import tomllib

from orchestrator.addresses import MIRRORS, fault_of_address
from orchestrator.errors import ConfigError
from orchestrator.problems import show, suggest

PATH = "env/mirrors.toml"


def load(text: str) -> dict[str, tuple[str, ...]]:
    """Read the addresses of each kind of mirror. Raises ConfigError with every fault."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([f"{PATH}: {error}"]) from None
    faults = [f"{PATH}: {name}: {_unknown(name, MIRRORS)}" for name in data if name not in MIRRORS]
    found: dict[str, tuple[str, ...]] = {}
    for kind in MIRRORS:
        table = data.get(kind, {})
        if not isinstance(table, dict):
            faults.append(f"{PATH}: {kind}: should be a table, got {show(table)}")
            continue
        faults += [f"{PATH}: {kind}.{key}: {_unknown(key, ['addresses'])}" for key in table if key != "addresses"]
        addresses = table.get("addresses", [])
        if not isinstance(addresses, list) or not all(isinstance(address, str) for address in addresses):
            faults.append(f"{PATH}: {kind}.addresses: should be a list of addresses, got {show(addresses)}")
            continue
        faults += [
            f"{PATH}: {kind}.addresses.{number}: {fault}"
            for number, address in enumerate(addresses)
            if (fault := fault_of_address(MIRRORS[kind], address))
        ]
        found[kind] = tuple(addresses)
    if faults:
        raise ConfigError(faults)
    return found


def _unknown(name: str, valid: "list[str] | dict[str, str]") -> str:
    return "unknown key" + suggest(name, valid, f"; there are: {', '.join(valid)}")
