"""Profiles, containers and projects for the tests: valid ones, of which a test says only what it is about."""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from orchestrator import config
from orchestrator.profiles import Profile
from orchestrator.project import Project
from orchestrator.settings import Settings
from orchestrator.states import Container
from orchestrator.versions import Build, Versions

ROOT = Path(__file__).resolve().parents[2]
# Two versions, the second without a build for CPUs; the tests do not follow docker/vllm/versions.toml.
CU130 = Build("0.32.0", "cuda", "cu130", driver=580, gigabytes=20)
CPU = Build("0.32.0", "cpu", "cpu", gigabytes=7)
CU124 = Build("0.7.3", "cuda", "cu124", driver=525, gigabytes=20)
VERSIONS = Versions("0.32.0", {"0.32.0": {"cuda": CU130, "cpu": CPU}, "0.7.3": {"cuda": CU124}})

QWEN = """
[models.qwen-14b]
model = "Qwen/Qwen2.5-14B-Instruct"
gpus = [0, 1]
tensor_parallel_size = 2
max_model_len = 16384
"""


def in_order(folder: Path, models: str, versions: str) -> Path:
    """Put into a folder all that a project with these models and versions is loaded from."""
    for name, text in (
        ("models.toml", models),
        ("compose.yaml", "name: tandem\n"),
        ("docker/vllm/versions.toml", versions),
        ("demo/config.json", "{}"),
    ):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


def script(path: str) -> ModuleType:
    """A script of the project that is no part of a package, such as docker/vllm/gate.py."""
    spec = spec_from_file_location(Path(path).stem.replace("-", "_"), ROOT / path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def profiles(text: str) -> dict[str, Profile]:
    """The profiles of a models.toml's text."""
    return config.load(text, VERSIONS)


def profile(**said: Any) -> Profile:
    """A profile for two GPUs, called qwen-14b, but for what is said."""
    usual = {
        "name": "qwen-14b",
        "served_model_name": said.get("name", "qwen-14b"),
        "model": "Qwen/Qwen2.5-14B-Instruct",
        "gpus": [0, 1],
    }
    return Profile(**(usual | said))


def container(service: str, status: str = "running", health: str = "healthy", **said: Any) -> Container:
    """A container of the project `tandem`: running and healthy, but for what is said."""
    return Container(service=service, name=f"tandem-{service}", status=status, health=health, **said)


def project(*listed: Profile, folder: Path = Path("/tandem"), values: dict[str, str] | None = None) -> Project:
    """A project of these profiles; values are its settings."""
    return Project(folder, {found.name: found for found in listed}, VERSIONS, Settings(values or {}, ()))
