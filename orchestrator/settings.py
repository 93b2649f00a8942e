"""The settings of this machine, read as Compose reads them: the shell before the --env-file files before .env."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from orchestrator.errors import ConfigError
from orchestrator.profiles import Profile

# Every setting of ours, and what it is when nobody sets it. env/example.env explains them.
KNOWN = {
    "TANDEM_PORT": "8000",
    "TANDEM_BIND": "127.0.0.1",
    "TANDEM_MODELS": "models",
    "TANDEM_BASE_IMAGE": "",
    "TANDEM_DEBIAN_MIRROR": "",
    "TANDEM_PYPI_INDEX": "",
    "TANDEM_WHEELS": "",
    "TANDEM_CA_BUNDLE": "",
}
SECRET_IN_URL = re.compile(r"//[^/@\s]+:[^/@\s]+@")


@dataclass(frozen=True)
class Settings:
    """The values in force, and the env files they came from, to be passed on to Compose."""

    values: Mapping[str, str]
    env_files: tuple[Path, ...]

    def get(self, name: str) -> str:
        """Give a setting's value; an empty one counts as not set, as with Compose's `:-`."""
        return self.values.get(name) or KNOWN.get(name, "")

    @property
    def project(self) -> str:
        """Compose's project name; compose.yaml says tandem."""
        return self.get("COMPOSE_PROJECT_NAME") or "tandem"

    @property
    def profiles(self) -> list[str]:
        """The Compose profiles that COMPOSE_PROFILES names."""
        return [name.strip() for name in self.get("COMPOSE_PROFILES").split(",") if name.strip()]

    @property
    def address(self) -> str:
        """Where the router answers on this machine, such as http://localhost:8000."""
        bind = self.get("TANDEM_BIND")
        host = "localhost" if bind in ("127.0.0.1", "0.0.0.0", "::", "[::]") else bind  # noqa: S104 (compared, not bound)
        return f"http://{host}:{self.get('TANDEM_PORT')}"


def load(folder: Path, env_files: Iterable[Path], shell: Mapping[str, str]) -> Settings:
    """Read the env files (.env of folder when none is named) and lay the shell's variables over them.

    Raises ConfigError when a file is missing or not readable as text.
    """
    named = tuple(env_files)
    files = named or tuple(path for path in (folder / ".env",) if path.is_file())
    values: dict[str, str] = {}
    for path in files:
        values |= _read(path)
    return Settings(values | dict(shell), named)


def _read(path: Path) -> dict[str, str]:
    from dotenv import dotenv_values
    from dotenv.parser import parse_stream

    try:
        with path.open(encoding="utf-8-sig") as stream:
            wrong = [binding.original.line for binding in parse_stream(stream) if binding.error]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"{path}: cannot be read: {error}"]) from None
    if wrong:
        raise ConfigError([f"{path}: line {line}: should be NAME=value" for line in wrong])
    return {key: value or "" for key, value in dotenv_values(path, encoding="utf-8-sig").items()}


def problems(settings: Settings, profiles: Iterable[Profile]) -> list[str]:
    """Say what is wrong with the settings, one line each; unknown TANDEM_ names included."""
    found = []
    for name in settings.values:
        if name.startswith("TANDEM_") and name not in KNOWN:
            close = get_close_matches(name, KNOWN, n=1)
            hint = f", did you mean {close[0]}?" if close else f"; there are: {', '.join(KNOWN)}"
            found.append(f"{name}: unknown setting{hint}")
    port = settings.get("TANDEM_PORT")
    if not port.isdecimal() or not 1 <= int(port) <= 65535:
        found.append(f'TANDEM_PORT: should be a port from 1 to 65535, got "{port}"')
    found += [
        f"{name}: holds a password, which would stay in the image; use an address without one"
        for name in ("TANDEM_PYPI_INDEX", "TANDEM_DEBIAN_MIRROR")
        if SECRET_IN_URL.search(settings.get(name))
    ]
    return found + [fault for profile in profiles for fault in _override_problems(settings, profile)]


def _override_problems(settings: Settings, profile: Profile) -> list[str]:
    found = []
    length, share = f"{profile.variable}_MAX_MODEL_LEN", f"{profile.variable}_GPU_MEMORY_UTILIZATION"
    value = settings.get(length)
    if value and not (value.isdecimal() and int(value) > 0):
        found.append(f'{length}: should be a number of tokens of at least 1, got "{value}"')
    value = settings.get(share)
    if value and not (re.fullmatch(r"[0-9]*\.?[0-9]+", value) and 0 < float(value) <= 1):
        found.append(f'{share}: should be a number above 0 and up to 1, got "{value}"')
    return found
