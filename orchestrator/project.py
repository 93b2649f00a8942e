"""The project's folder: reads models.toml, settings and what is rendered; the one writer of rendered files."""

import difflib
import functools
import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator import config, host, keyfile, keys, reach, render, settings, trust, versions
from orchestrator.contents import Made, Service
from orchestrator.doctor import derived, kept, nccl
from orchestrator.doctor.derived import Setting
from orchestrator.doctor.machine import Box
from orchestrator.doctor.nccl import Result, Tried
from orchestrator.errors import ConfigError, TandemError
from orchestrator.problems import suggest
from orchestrator.profiles import Profile
from orchestrator.render.activator import PATH as MODELS
from orchestrator.settings import Settings
from orchestrator.versions import Build, Choice, Versions

ROUTER_IMAGE = "tandem/router:0.1.0"
ACTIVATOR_IMAGE = versions.ACTIVATOR
# Our own images, by the services that compose.yaml builds them for.
OWN_IMAGES: Mapping[str, Service] = {ROUTER_IMAGE: "router", ACTIVATOR_IMAGE: "activator"}
# The services that run beside every model, and their images.
SERVICES = {"router": ROUTER_IMAGE, "engine-proxy": ROUTER_IMAGE, "activator": ACTIVATOR_IMAGE}


@dataclass(frozen=True)
class Project:
    """Everything that was read from the project's folder, checked."""

    folder: Path
    profiles: dict[str, Profile]
    versions: Versions
    settings: Settings
    # Asks for the version of the NVIDIA driver, "" where there is none; only when a choice depends on it.
    driver: Callable[[], str] = lambda: ""
    # What the file of the clients' keys held.
    client_keys: tuple[keys.Key, ...] = ()
    # What was kept of the machine in box/; None where nobody looked at its GPUs yet.
    box: Box | None = None
    reduced: Mapping[Tried, Result] = field(default_factory=dict)

    def profile(self, name: str) -> Profile:
        """Find a profile by its name or by a name that clients send. Raises TandemError with those there are."""
        known = {each: profile for profile in self.profiles.values() for each in (profile.name, *profile.reached_by)}
        if name in known:
            return known[name]
        hint = suggest(name, known, ";")
        raise TandemError(f"{name}: no such profile{hint} models.toml has: {', '.join(self.profiles)}")

    def images(self, profile: Profile) -> dict[str, str]:
        """Name the image of each service that a profile's start needs."""
        return {**SERVICES, profile.name: self.choice(profile).build.image}

    def creatable(self, target: Profile, present: Collection[str]) -> list[str]:
        """Name the other profiles whose image is on this machine, so that a request can start them."""
        others = [profile for profile in self.profiles.values() if profile.name != target.name]
        return [profile.name for profile in others if self.wanted(profile).image in present]

    def made(self, image: str) -> Made:
        """Say what an image is: which build of vLLM, or the service of ours."""
        if image in OWN_IMAGES:
            return OWN_IMAGES[image]
        return next(b for found in self.versions.builds.values() for b in found.values() if b.image == image)

    def choice(self, profile: Profile) -> Choice:
        """Choose the build of vLLM for a profile. Raises TandemError when this machine's driver cannot run it."""
        return self.versions.choose(profile.image, pinned=profile.vllm, tag=self._tag, driver=self._driver(profile))

    def wanted(self, profile: Profile) -> Build:
        """Name the build of vLLM that a profile is meant to have, also where the driver is too old for it."""
        return self.versions.wanted(
            profile.image, pinned=profile.vllm, tag=self._tag, driver=self._driver(profile)
        ).build

    @property
    def keys_file(self) -> Path:
        """Name the file of the keys that clients send."""
        return _keys_file(self.folder, self.settings)

    @property
    def exposed(self) -> str:
        """Say why the router would not start, as it would serve whoever reaches it; "" when nothing is against it."""
        said_twice = self.settings.get("TANDEM_BIND_WITHOUT_KEY")
        return reach.exposed(self.settings.get("TANDEM_BIND"), keys=bool(self.client_keys), said_twice=said_twice)

    @property
    def uncertified(self) -> str:
        """Say why the router would not start with what its folder of certificates holds now; "" when it would.

        Whoever renews puts two files there, one after the other: a router that runs goes on with the pair before.
        """
        return next(iter(_certificate_faults(self.settings)), "") if self.settings.get("TANDEM_TLS_FOLDER") else ""

    @property
    def against_serving(self) -> list[str]:
        """Name what keeps a router from being started, though all else may go on."""
        return [fault for fault in (self.exposed, self.uncertified) if fault]

    @property
    def client_key(self) -> str:
        """Give a key for requests of our own commands: one without limits, if there is any; "" where there is none."""
        free = [key for key in self.client_keys if not key.rate and not key.concurrent]
        return next((key.key for key in free or self.client_keys), "")

    @property
    def _tag(self) -> str:
        return self.settings.get("TANDEM_VLLM")

    def _driver(self, profile: Profile) -> str:
        return self.driver() if profile.image == "cuda" else ""

    def derived(self, profile: Profile) -> list[Setting]:
        """Name the settings of a profile's server that follow from this machine, as it was last looked at."""
        if self.box is None or profile.image != "cuda":
            return []
        # By the driver that was seen then: what is rendered must not change with whether a driver answers just now.
        build = self.versions.wanted(profile.image, pinned=profile.vllm, tag=self._tag, driver=self.box.driver).build
        return derived.settings(
            self.box,
            profile,
            build.version,
            without=derived.names(self.settings.get(derived.WITHOUT)),
            needed=nccl.needed(self.reduced, build.tag, self.box.driver, profile.gpus),
        )

    def rendered(self) -> list[render.File]:
        """Render what models.toml says, and what follows from this machine, in memory."""
        boxes = [file for profile in self.profiles.values() for file in render.box(profile, self.derived(profile))]
        return [*render.files(self.profiles.values(), self.versions), *boxes]


def find(start: Path) -> Path:
    """Find the project's folder: the nearest one at or above start that holds models.toml, else this package's own."""
    for folder in (start, *start.parents, Path(__file__).resolve().parent.parent):
        if (folder / "models.toml").is_file() and (folder / "compose.yaml").is_file():
            return folder
    raise TandemError(f"{start}: no models.toml and compose.yaml here or above; run this in Tandem's folder")


def load(folder: Path, env_files: Iterable[Path], shell: Mapping[str, str]) -> Project:
    """Read and check the project. Raises ConfigError with every fault of models.toml and the settings at once."""
    known = versions.load(text_of(folder / "docker/vllm/versions.toml"))
    faults: list[str] = []
    found: dict[str, Profile] = {}
    in_force = Settings({}, ())
    try:
        in_force = settings.load(folder, env_files, shell)
    except ConfigError as error:
        faults += error.problems
    try:
        found = config.load(text_of(folder / "models.toml"), known)
    except ConfigError as error:
        faults += error.problems
    faults += settings.problems(in_force, found.values(), known)
    faults += [
        f"models.toml: models.{profile.name}.model: the folder {folder / profile.model} holds no config.json"
        for profile in found.values()
        if profile.local and not (folder / profile.model / "config.json").is_file()
    ]
    faults += _missing(in_force)
    faults += _key_faults(in_force)
    if not in_force.get("TANDEM_TLS_FOLDER"):
        faults += _certificate_faults(in_force)
    held: list[keys.Key] = []
    try:
        path = _keys_file(folder, in_force)
        held = keys.parse(keyfile.read(path), str(path))
    except ConfigError as error:
        faults += error.problems
    box: Box | None = None
    reduced: dict[Tried, Result] = {}
    try:
        box, reduced = kept.box(folder), kept.results(folder)
    except ConfigError as error:
        faults += error.problems
    if faults:
        raise ConfigError(faults)
    return Project(folder, found, known, in_force, functools.cache(host.driver), tuple(held), box, reduced)


def _keys_file(folder: Path, in_force: Settings) -> Path:
    return folder / in_force.get("TANDEM_KEYS_FOLDER") / keyfile.NAME


def _missing(in_force: Settings) -> list[str]:
    """Name the settings whose file or folder is not there. Compose looks for a path that is not whole elsewhere."""
    kinds = (
        ("TANDEM_CA_BUNDLE", "a file", Path.is_file),
        ("TANDEM_MODELSCOPE_TOKEN_FILE", "a file", Path.is_file),
        ("TANDEM_HF_TOKEN_FILE", "a file", Path.is_file),
        ("TANDEM_ADMIN_KEY_FILE", "a file", Path.is_file),
        ("TANDEM_TLS_CERT_FILE", "a file", Path.is_file),
        ("TANDEM_TLS_KEY_FILE", "a file", Path.is_file),
        ("TANDEM_TLS_FOLDER", "a folder", Path.is_dir),
        ("TANDEM_WHEELS", "a folder", Path.is_dir),
    )
    return [
        f"{name}: should be the whole path of {kind} that is there, beginning with /, got {_shown(name, value)}"
        for name, kind, fits in kinds
        if (value := in_force.get(name)) and not (value.startswith("/") and _holds(fits, value))
    ] + [
        f'TANDEM_KEYS_FOLDER: should be a folder that is there, got "{value}"'
        for value in [in_force.get("TANDEM_KEYS_FOLDER")]
        if value.startswith("/") and not _holds(Path.is_dir, value)
    ]


def admin_key(in_force: Settings) -> str:
    """Read the key that opens the router's /-/ to other machines; "" where none is set.

    Raises ConfigError when the file cannot be read, or holds anything but a key.
    """
    path = in_force.get("TANDEM_ADMIN_KEY_FILE")
    key = text_of(Path(path)).strip() if path else ""
    if path and not re.fullmatch(r"[!-~]+", key):
        raise ConfigError([f"TANDEM_ADMIN_KEY_FILE: {path} should hold a key, one word of letters, digits and signs"])
    return key


def _key_faults(in_force: Settings) -> list[str]:
    path = in_force.get("TANDEM_ADMIN_KEY_FILE")
    if not path.startswith("/") or not _holds(Path.is_file, path):
        return []
    try:
        admin_key(in_force)
    except ConfigError as error:
        return error.problems
    return []


def _certificate_faults(in_force: Settings) -> list[str]:
    folder, paths = in_force.get("TANDEM_TLS_FOLDER"), (in_force.certificate, in_force.certificate_key)
    missing = [path for path in paths if not (path.startswith("/") and _holds(Path.is_file, path))]
    if missing:
        # Of a folder that is none, and of files that are named one by one, the settings are faults already.
        there = folder.startswith("/") and _holds(Path.is_dir, folder)
        return [f"TANDEM_TLS_FOLDER: should hold cert.pem and key.pem, and {missing[0]} is not there"] if there else []
    fault = trust.certificate_fault(*paths)
    return [f"TANDEM_TLS_{'FOLDER' if folder else 'CERT_FILE'}: {fault}"] if fault else []


def _shown(name: str, value: str) -> str:
    # A token that was put where the name of its file belongs.
    return "something else" if ("TOKEN" in name or "KEY" in name) and "/" not in value else f'"{value}"'


def _holds(fits: Callable[[Path], bool], value: str) -> bool:
    try:
        return fits(Path(value))
    except OSError:
        # A name that is too long, or a folder on the way that this user may not enter.
        return False


def text_of(path: Path) -> str:
    """Read a file of the project that has to be there. Raises ConfigError when it cannot be read."""
    try:
        return path.read_text(encoding="utf-8-sig")  # Windows' editors begin a file with a byte order mark
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"{path}: cannot be read: {settings.unreadable(error)}"]) from None


def stale(folder: Path, files: Iterable[render.File]) -> list[render.File]:
    """Name the rendered files that differ from what is on the disk, and those there that nothing renders any more."""
    expected = {file.path: file for file in files}
    differ = [file for file in expected.values() if _read(folder / file.path) != file.text]
    for path in sorted([*(folder / "env").glob("*.env"), *(folder / render.BOX).glob("*.env")]):
        relative = str(path.relative_to(folder))
        if relative not in expected and (_read(path) or "").startswith(f"# {render.NOTICE}"):
            differ.append(render.File(relative, ""))
    return differ


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise TandemError(f"{path}: cannot be read: {settings.unreadable(error)}") from None


def models_digest(folder: Path) -> str | None:
    """What the activator's models on the disk are known by; None where it can take up none."""
    try:
        return str(json.loads((folder / MODELS).read_bytes())["digest"])
    except (OSError, ValueError, LookupError, TypeError):
        return None


def write(folder: Path, files: Iterable[render.File]) -> None:
    """Put files on the disk, each in one step; an empty text removes the file. Raises TandemError when it cannot."""
    for file in files:
        try:
            _write(folder / file.path, file.text)
        except OSError as error:
            raise TandemError(f"{folder / file.path}: cannot be written: {settings.unreadable(error)}") from None


def _write(path: Path, text: str) -> None:
    if not text:
        path.unlink(missing_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(path.name + ".new")
    new.write_text(text, encoding="utf-8")
    new.replace(path)


def diff(folder: Path, file: render.File) -> list[str]:
    """The lines of a unified diff from what is on the disk to what would be rendered."""
    before = (_read(folder / file.path) or "").splitlines(keepends=True)
    return list(difflib.unified_diff(before, file.text.splitlines(keepends=True), file.path, f"{file.path} (rendered)"))
