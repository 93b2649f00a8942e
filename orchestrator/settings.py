"""The settings of this machine, read as Compose reads them: the shell before the --env-file files before .env."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator import reach
from orchestrator.addresses import MIRRORS, PROXIES, fault_of_address, here
from orchestrator.doctor import derived
from orchestrator.errors import ConfigError
from orchestrator.problems import suggest
from orchestrator.profiles import Profile
from orchestrator.render.serve import OVERRIDABLE, variable
from orchestrator.switch import tunables
from orchestrator.versions import Versions

# Every setting of ours, and what it is when nobody sets it. env/example.env explains them.
KNOWN = {
    "TANDEM_PORT": "8000",
    "TANDEM_BIND": "127.0.0.1",
    "TANDEM_MODELS": "models",
    "TANDEM_REGISTRY": "",
    "TANDEM_VLLM": "",
    "TANDEM_BASE_IMAGE": "",
    "TANDEM_DEBIAN_MIRROR": "",
    "TANDEM_PYPI_INDEX": "",
    "TANDEM_TORCH_INDEX": "",
    "TANDEM_WHEELS": "",
    "TANDEM_CA_BUNDLE": "",
    "TANDEM_LIMIT_RATE": "",
    "TANDEM_MODELSCOPE_TOKEN_FILE": "",
    "TANDEM_HF_TOKEN_FILE": "",
    **tunables.defaults(),
    "TANDEM_WAIT_AS": tunables.WAIT_AS[0],
    "TANDEM_ADMIN_KEY_FILE": "",
    "TANDEM_BIND_WITHOUT_KEY": "",
    "TANDEM_KEYS_FOLDER": reach.KEYS,
    "TANDEM_CORS_ORIGINS": reach.ORIGINS,
    "TANDEM_BODY_LIMIT": "64m",
    "TANDEM_LORA_LOADING": "",
    "TANDEM_TLS_CERT_FILE": "",
    "TANDEM_TLS_KEY_FILE": "",
    "TANDEM_TLS_FOLDER": "",
    "TANDEM_DOCKER_SOCKET": "/var/run/docker.sock",
    "TANDEM_WITHOUT": "",
    "TANDEM_PROMETHEUS_PORT": "9090",
    "TANDEM_GRAFANA_PORT": "3000",
}
# What listens on this machine, each on a port of its own.
PORTS = ("TANDEM_PORT", "TANDEM_PROMETHEUS_PORT", "TANDEM_GRAFANA_PORT")
# The setting that holds a hub's token, and the one that names a file with it.
TOKENS = {
    "modelscope": ("MODELSCOPE_API_TOKEN", "TANDEM_MODELSCOPE_TOKEN_FILE"),
    "huggingface": ("HF_TOKEN", "TANDEM_HF_TOKEN_FILE"),
}
_RATE = re.compile(r"0|0*[1-9][0-9]*(?:\.[0-9]+)?[kKMG]?|0?\.[0-9]*[1-9][0-9]*[kKMG]")
# The names that mean something to us; what else stands in an env file is the user's and Compose's alone.
OURS = re.compile(
    r"^(?:TANDEM_|COMPOSE_)|_(?:MAX_MODEL_LEN|GPU_MEMORY_UTILIZATION)$|^(?:MODELSCOPE_ENDPOINT|MODELSCOPE_API_TOKEN|HF_ENDPOINT|HF_TOKEN|HTTPS?_PROXY|NO_PROXY)$"
)


@dataclass(frozen=True)
class Settings:
    """The values in force, and the env files they came from, to be passed on to Compose."""

    values: Mapping[str, str]
    env_files: tuple[Path, ...]
    # The files that were read: those named, or .env.
    read: tuple[Path, ...] = field(default=(), compare=False)

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
    def proxies(self) -> dict[str, str]:
        """The proxies as programs on this machine take them; those of the settings are for containers."""
        words = {"http_proxy": "HTTP_PROXY", "https_proxy": "HTTPS_PROXY", "no_proxy": "NO_PROXY"}
        return {word: here(self.get(name)) for word, name in words.items() if self.get(name)}

    @property
    def certificate(self) -> str:
        """The path of the router's certificate; "" where it speaks plain HTTP."""
        folder = self.get("TANDEM_TLS_FOLDER")
        return f"{folder.rstrip('/')}/cert.pem" if folder else self.get("TANDEM_TLS_CERT_FILE")

    @property
    def certificate_key(self) -> str:
        """The path of the key of the router's certificate; "" where it speaks plain HTTP."""
        folder = self.get("TANDEM_TLS_FOLDER")
        return f"{folder.rstrip('/')}/key.pem" if folder else self.get("TANDEM_TLS_KEY_FILE")

    @property
    def address(self) -> str:
        """Where the router answers on this machine, such as http://localhost:8000."""
        bind, scheme = self.get("TANDEM_BIND"), "https" if self.certificate else "http"
        host = "localhost" if bind in ("127.0.0.1", "0.0.0.0", "::", "[::]") else bind  # noqa: S104 (compared, not bound)
        return f"{scheme}://{host}:{self.get('TANDEM_PORT')}"

    @property
    def shut(self) -> str:
        """Say why the router answers nobody below /-/, and so no switch can be asked for; "" when it does."""
        bind = self.get("TANDEM_BIND")
        if reach.only_here(bind) or self.get("TANDEM_ADMIN_KEY_FILE"):
            return ""
        return (
            f"TANDEM_BIND={bind} lets other machines in, and without a key the router switches for nobody then.\n"
            "  Make one:  (umask 077; openssl rand -hex 32 > admin.key)\n"
            "  and put its whole path into .env:  TANDEM_ADMIN_KEY_FILE=$PWD/admin.key"
        )


def load(folder: Path, env_files: Iterable[Path], shell: Mapping[str, str]) -> Settings:
    """Read the env files and lay the shell's variables over them, as Compose does.

    Without env_files they are those of COMPOSE_ENV_FILES, else .env in folder, if it is there. Raises ConfigError when
    a file cannot be read, or when a line of ours is one that python-dotenv and Compose read differently.
    """
    named = tuple(env_files)
    values: dict[str, str] = {}
    problems: list[str] = []
    read = named or tuple(_unnamed(folder, shell))
    for path in read:
        try:
            values |= _read(path)
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)
    return Settings(values | dict(shell), named, read)


def _unnamed(folder: Path, shell: Mapping[str, str]) -> list[Path]:
    if shell.get("COMPOSE_ENV_FILES"):
        return [folder / name for name in shell["COMPOSE_ENV_FILES"].split(",")]
    if shell.get("COMPOSE_DISABLE_ENV_FILE", "").lower() in ("1", "true"):
        return []
    return [path for path in (folder / ".env",) if path.is_file()]


def _read(path: Path) -> dict[str, str]:
    from dotenv.parser import parse_stream

    try:
        with path.open(encoding="utf-8-sig") as stream:
            bindings = list(parse_stream(stream))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"{path}: cannot be read: {unreadable(error)}"]) from None
    problems = [f"{path}: line {line.original.line}: should be NAME=value" for line in bindings if line.error]
    values: dict[str, str] = {}
    for binding in bindings:
        # A name alone means the shell's value, which comes over these anyway.
        if binding.key is not None and binding.value is not None:
            values[binding.key] = binding.value
            doubt = _doubt(binding.original.string) if OURS.search(binding.key) else None
            if doubt:
                problems.append(f"{path}: line {binding.original.line}: {binding.key}: {doubt}")
    if problems:
        raise ConfigError(problems)
    return values


def _doubt(line: str) -> str | None:
    """Say why a line does not mean the same to every reader of env files; None when it does."""
    raw = line.partition("=")[2].strip(" \t\r\n")
    if raw != raw.strip():
        return "begins or ends with a space that only some readers of env files take for one; use a plain space"
    if raw.startswith("'"):
        return "holds a backslash in single quotes; use none" if "\\" in raw else None
    if raw.startswith('"') and re.search(r"\\['0]", raw.replace(r"\\", "")):
        return "holds a backslash that readers of env files take differently; use none"
    if "$" in raw:
        return "holds a $, which readers of env files take differently; write the value out, or in single quotes"
    if raw.startswith("#") or re.search(r"\t#", raw):
        return (
            "holds a # that may begin a comment or not; put a space before a comment, and quotes around a value with #"
        )
    return None


def problems(settings: Settings, profiles: Iterable[Profile], versions: Versions) -> list[str]:
    """Say what is wrong with the settings, one line each; unknown TANDEM_ names included."""
    overrides = {variable(profile, key): (profile, key) for profile in profiles for key in OVERRIDABLE}
    found = [
        f"{name}: unknown setting" + suggest(name, KNOWN, f"; there are: {', '.join(KNOWN)}")
        for name in settings.values
        if name.startswith("TANDEM_") and name not in KNOWN and name not in overrides
    ]
    for name in PORTS:
        port = settings.get(name)
        if not re.fullmatch(r"[0-9]{1,5}", port) or not 1 <= int(port) <= 65535:
            found.append(f'{name}: should be a port from 1 to 65535, got "{port}"')
    for name in (*MIRRORS.values(), *PROXIES):
        fault = fault_of_address(name, settings.get(name)) if settings.get(name) else None
        if fault:
            found.append(f"{name}: {fault}")
    models = settings.get("TANDEM_MODELS")
    if models != KNOWN["TANDEM_MODELS"] and not models.startswith("/"):
        found.append(f'TANDEM_MODELS: should be models, for a volume, or a folder that begins with /, got "{models}"')
    fault = rate_fault(settings.get("TANDEM_LIMIT_RATE"))
    if fault:
        found.append(f"TANDEM_LIMIT_RATE: {fault}")
    fault = derived.fault(settings.get(derived.WITHOUT))
    if fault:
        found.append(f"{derived.WITHOUT}: {fault}")
    found += reach.faults(settings.get)
    found += _faults_of_switching(settings)
    tag, tags = settings.get("TANDEM_VLLM"), versions.by_tag("cuda")
    if tag and tag not in tags:
        found.append(f'TANDEM_VLLM: should be one of {", ".join(tags)}, got "{tag}"')
    for name, (profile, key) in overrides.items():
        value = settings.values.get(name)
        fault = _override_fault(profile, key, value) if value else None
        if fault:
            found.append(f"{name}: {fault}")
    return found


def _faults_of_switching(settings: Settings) -> list[str]:
    found = [fault for name in tunables.TUNABLES if (fault := tunables.fault(name, settings.get(name)))]
    wait_as, socket = settings.get("TANDEM_WAIT_AS"), settings.get("TANDEM_DOCKER_SOCKET")
    if wait_as not in tunables.WAIT_AS:
        found.append(f'TANDEM_WAIT_AS: should be {" or ".join(tunables.WAIT_AS)}, got "{wait_as}"')
    if not re.fullmatch(r"/.+", socket):
        words = "the whole path of Docker's socket, beginning with /"
        found.append(f'TANDEM_DOCKER_SOCKET: should be {words}, got "{socket}"')
    return found


def rate_fault(value: str) -> str | None:
    """Say what is wrong with a limit of the rate of pulls; None when nothing is, as with none at all."""
    return (
        None if not value or _RATE.fullmatch(value) else f'should be bytes a second such as 5M or 800k, got "{value}"'
    )


def _override_fault(profile: Profile, key: str, value: str) -> str | None:
    if getattr(profile, key) is None:
        return f"overrides {key}, which models.{profile.name} does not set"
    if key == "max_model_len":
        fits, words = re.fullmatch(r"0*[1-9][0-9]*", value), "a number of tokens of at least 1"
    else:
        fits, words = re.fullmatch(r"0*\.0*[1-9][0-9]*|1(?:\.0*)?", value), "a number above 0 and up to 1"
    return None if fits else f'should be {words}, got "{value}"'


def unreadable(error: OSError | UnicodeDecodeError) -> str:
    """Say in a few words why a file cannot be read as text."""
    return "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else error.strerror or str(error)
