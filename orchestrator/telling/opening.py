"""Opens a project for a report, in order or not, reads what must not be told of it, and puts the report on the disk."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from orchestrator import config, host, project, settings, versions
from orchestrator.errors import ConfigError, TandemError
from orchestrator.mirrors import PATH as MIRRORS
from orchestrator.profiles import Profile
from orchestrator.project import Project
from orchestrator.settings import Settings
from orchestrator.telling import known
from orchestrator.telling.known import Known
from orchestrator.versions import Versions

# The settings that name a file which holds nothing but a secret.
FILES = ("TANDEM_ADMIN_KEY_FILE", "TANDEM_MODELSCOPE_TOKEN_FILE", "TANDEM_HF_TOKEN_FILE", "TANDEM_TLS_KEY_FILE")


def opened(folder: Path, env_files: Sequence[Path], shell: Mapping[str, str]) -> tuple[Project, list[str]]:
    """Read the project; of one with faults as much as can be read, and the faults."""
    try:
        return project.load(folder, env_files, shell), []
    except ConfigError as error:
        faults = error.problems
    except TandemError as error:
        faults = str(error).splitlines()
    listed, given = Versions("", {}), Settings(dict(shell), tuple(env_files))
    profiles: dict[str, Profile] = {}
    # What fails again here is among the faults.
    with suppress(TandemError):
        listed = versions.load(project.text_of(folder / versions.PATH))
        profiles = config.load(project.text_of(folder / "models.toml"), listed)
    with suppress(TandemError):
        given = settings.load(folder, env_files, shell)
    return Project(folder, profiles, listed, given), faults


def secrets(whole: Project, env_files: Iterable[Path], shell: Mapping[str, str]) -> tuple[Known, list[str]]:
    """Read all that must not be told: keys, tokens, passwords, names, whether the project is in order or not.

    Names the files, too, that are there and could not be read: what is in them can only be found by its look.
    """
    listed = [whole.folder / name for name in shell.get("COMPOSE_ENV_FILES", "").split(",") if name]
    files = dict.fromkeys([*env_files, *listed, *whole.settings.read, whole.folder / ".env"])
    holding = [*files, whole.keys_file, whole.folder / "models.toml"]
    read: dict[str, str] = {}
    found: set[str] = set()
    for path in files:
        more = known.variables(_text(path))
        found |= set(known.of_variables(more))
        read |= more
    given = {**read, **whole.settings.values}
    found |= set(known.of_variables(given)) | set(known.of_models(_text(whole.folder / "models.toml")))
    found |= set(known.of_keys(_text(whole.keys_file))) | {key.key for key in whole.client_keys}
    for values in (read, given):
        named = [values.get(name, "") for name in FILES]
        # Where cert.pem and key.pem are found by their names.
        for value in (*named, Settings(values, ()).certificate_key):
            if value.startswith("/"):
                holding.append(Path(value))
                found |= set(known.of_file(_text(holding[-1])))
            elif len(value) >= known.ALONE:
                # The secret itself, where the name of its file belongs.
                found.add(value)
    home = Path(shell.get("HOME") or "/")
    users = [shell.get(name, "") for name in ("USER", "LOGNAME", "USERNAME", "SUDO_USER")]
    users += [home.name] if home.parent.name in ("home", "Users") else []
    hosts = known.hosts(given, _text(whole.folder / MIRRORS)) | known.hosts(read, _text(whole.folder / MIRRORS))
    what = Known(frozenset(found), known.people(users), known.people(host.names()), hosts)
    return what, [str(path) for path in dict.fromkeys(holding) if _shut(path)]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig", errors="replace")
    except (OSError, ValueError):
        return ""


def _shut(path: Path) -> bool:
    """Whether a file is there, or may be, and this user cannot read it."""
    try:
        path.read_bytes()
    except FileNotFoundError:
        return False
    except (OSError, ValueError):
        return True
    return False


def keep(path: Path, text: str) -> None:
    """Write a report's file in one step. Raises TandemError when that cannot be."""
    new = path.with_name(f"{path.name}.new")
    try:
        new.write_text(text, encoding="utf-8")
        new.replace(path)
    except OSError as error:
        raise TandemError(f"{path}: cannot be written: {settings.unreadable(error)}") from None
