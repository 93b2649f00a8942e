"""What a bundle takes from this machine besides Docker's: the project's own files, and the packages of setup."""

import os
import platform
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

from orchestrator.addresses import here, masked
from orchestrator.errors import TandemError
from orchestrator.settings import Settings

REQUIREMENTS = ("requirements/run.txt", "requirements/build.txt")
# CPython releases that another machine may have, besides this machine's own.
PYTHONS = ("3.11", "3.12", "3.13")
_PLATFORMS = ("manylinux_2_28", "manylinux_2_17", "manylinux2014")
_LEFT_OUT = frozenset({".git", ".venv", "__pycache__", "build", ".env", ".tandem"})


def own_python() -> str:
    """Name this machine's CPython, such as 3.11."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def requirements_digest(folder: Path) -> str:
    """Say in a few letters which packages setup installs."""
    return sha256(b"".join((folder / name).read_bytes() for name in REQUIREMENTS)).hexdigest()


def revision(folder: Path) -> str:
    """The commit of the project's files; "" where there is no git."""
    done = _git(folder, "rev-parse", "HEAD")
    return done.stdout.decode().strip() if done is not None and done.returncode == 0 else ""


def _git(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[bytes] | None":
    if shutil.which("git") is None:
        return None
    return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, check=False)


def project_files(folder: Path, left_out: Iterable[Path]) -> list[str]:
    """Name the files that make the project; never .env, an env file in use, or what a bundle itself wrote.

    Nor what is kept of this machine in box/, which would be wrong on another.

    They are those that git tracks; without git, all but what a run leaves behind.
    """
    done = _git(folder, "ls-files", "-z")
    if done is not None and done.returncode and (folder / ".git").exists():
        fault = done.stderr.decode(errors="replace").strip().splitlines() or ["it said nothing"]
        raise TandemError(f"{folder}: git does not say which files are the project's: {fault[0]}")
    listed = done.stdout.decode().split("\0") if done is not None and done.returncode == 0 else []
    names = listed if "models.toml" in listed else _walked(folder)
    outside = [path.resolve() for path in left_out]
    return sorted(
        name
        for name in names
        if name
        and (folder / name).is_file()
        and not _private(Path(name).name)
        and not (name.startswith("box/") and name != "box/.gitignore")
        and not any((folder / name).resolve().is_relative_to(path) for path in outside)
    )


def _private(name: str) -> bool:
    return name == ".env" or name.startswith(".env.")


def _walked(folder: Path) -> list[str]:
    names: list[str] = []
    for above, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name not in _LEFT_OUT and not name.endswith(("_cache", ".egg-info"))]
        names += [str((Path(above) / name).relative_to(folder)) for name in files if not name.endswith(".new")]
    return names


def pack(folder: Path, names: Iterable[str], target: Path) -> None:
    """Write the project's files to a tar that unpacks into a folder `tandem`."""
    with tarfile.open(target, "w") as packed:
        for name in names:
            member = packed.gettarinfo(folder / name, f"tandem/{name}")
            member.uid = member.gid = 0
            member.uname = member.gname = ""
            # Whoever unpacks it may have another umask, and user 1000 of a container reads some of these.
            member.mode = 0o755 if member.mode & 0o100 else 0o644
            if member.isreg():
                with (folder / name).open("rb") as stream:
                    packed.addfile(member, stream)
            else:
                packed.addfile(member)


def download(folder: Path, python: str, target: Path, settings: Settings) -> str | None:
    """Fetch the wheels that setup needs with one release of CPython; None, or why there are none."""
    machine = platform.machine()
    argv = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--require-hashes",
            "--no-deps", "--only-binary=:all:", "--implementation", "cp", "--python-version", python,
            *(word for name in _PLATFORMS for word in ("--platform", f"{name}_{machine}")),
            *(word for name in REQUIREMENTS for word in ("-r", str(folder / name))), "-d", str(target)]  # fmt: skip
    environment = {**os.environ, **pip_environment(settings)}
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, errors="replace", check=False)
    return None if done.returncode == 0 else pip_fault(done.stderr)


def pip_environment(settings: Settings) -> dict[str, str]:
    """Give pip the index, proxies and authorities of the settings; every user may read the passwords in an argv."""
    index = settings.get("TANDEM_PYPI_INDEX")
    authorities = settings.get("TANDEM_CA_BUNDLE")
    # The second beats the first where a shell has it.
    names = ("PIP_CERT", "REQUESTS_CA_BUNDLE") if authorities else ()
    given = {"PIP_INDEX_URL": here(index)} if index else {}
    return given | settings.proxies | dict.fromkeys(names, authorities)


def pip_fault(said: str) -> str:
    """Find the line that says why pip failed, without a password of its index."""
    lines = said.strip().splitlines() or ["it said nothing"]
    faults = [line for line in lines if line.startswith("ERROR: ")] or lines
    return masked(faults[-1].removeprefix("ERROR: "))
