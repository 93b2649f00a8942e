"""Writes docker/vllm/requirements/<version>-<build>.txt: names, versions and hashes, no addresses."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from orchestrator import host, settings, versions
from orchestrator.addresses import here
from orchestrator.errors import TandemError
from orchestrator.settings import Settings
from orchestrator.versions import Build

FOLDER = Path("docker/vllm")
# Ours to choose, so newer than what vLLM's own day had.
OF_TODAY = ("modelscope", "modelscope-hub")


def argv(uv: str, build: Build, wheels: str, source: Path, target: Path) -> list[str]:
    """Give the command line that resolves a build; wheels is a folder or page with the CPU build of torch, or ""."""
    words = [uv, "pip", "compile", "-q", "--no-header", "--no-annotate", "--generate-hashes", "--no-emit-index-url"]
    # Debian 12's libc.
    words += ["--python-version", build.python, "--python-platform", "x86_64-manylinux_2_36"]
    if build.before:
        words += ["--exclude-newer", build.before.isoformat()]
        words += [word for name in OF_TODAY for word in ("--exclude-newer-package", f"{name}=false")]
    if build.variant == "cpu":
        words += ["--overrides", str(FOLDER / "requirements/overrides.txt")]
        words += ["--find-links", wheels] if wheels else ["--torch-backend", "cpu"]
    return [*words, str(source), "-o", str(target)]


def environment(in_force: Settings, shell: Mapping[str, str]) -> dict[str, str]:
    """Give what uv runs with: the shell's variables, and the index, proxies and authorities of the settings."""
    index = here(in_force.get("TANDEM_PYPI_INDEX")) or host.package_index()
    found = {"UV_DEFAULT_INDEX": index, "SSL_CERT_FILE": in_force.get("TANDEM_CA_BUNDLE")}
    return {**shell, **in_force.proxies, **{name: value for name, value in found.items() if value}}


def lock(uv: str, build: Build, in_force: Settings) -> Path:
    """Resolve one build. Raises TandemError with uv's own words when there is no resolution."""
    path = FOLDER / f"requirements/{build.tag}.txt"
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "requirements.in"), Path(folder, "requirements.txt")
        source.write_text("\n".join(build.packages) + "\n", encoding="utf-8")
        named = in_force.get("TANDEM_WHEELS")
        folder_of_wheels = named if named and host.holds_torch(named) else host.wheels()
        wheels = folder_of_wheels or here(in_force.get("TANDEM_TORCH_INDEX"))
        words = argv(uv, build, wheels, source, target)
        # No `check`: what uv says is the message.
        done = subprocess.run(words, env=environment(in_force, os.environ), capture_output=True, text=True, check=False)
        if done.returncode:
            raise TandemError(f"{build.tag}: {done.stderr.strip()}")
        day = f", as of {build.before}" if build.before else ""
        heading = f"# vLLM {build.version} for {build.name}, Python {build.python}{day}. Written by scripts/lock.\n"
        path.write_text(heading + target.read_text(encoding="utf-8"), encoding="utf-8")
    return path


def main(uv: str, names: list[str]) -> int:
    """Lock every build of the named versions; 1 and a line on the first that has no resolution."""
    try:
        known = versions.load((FOLDER / "versions.toml").read_text(encoding="utf-8"))
        if not names:
            raise TandemError(f"usage: scripts/lock VERSION...; versions.toml has: {', '.join(known.builds)}")
        in_force = settings.load(Path(), [], os.environ)
        for build in [known.find(name, variant) for name in names for variant in known.variants(name)]:
            print(lock(uv, build, in_force))
    except TandemError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
