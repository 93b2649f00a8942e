"""Which combinations of a well-formed models.toml cannot work. Pure."""

import re

from orchestrator.profiles import Profile
from orchestrator.versions import Versions

NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
MODEL_ID = re.compile(r"[\w.-]+/[\w.-]+")
RESERVED = frozenset({"router", "activator", "engine-proxy", "example"})
# Flags that have a typed key, or that the container's own wiring depends on.
TYPED_FLAGS = {
    "served-model-name": "served_model_name and aliases",
    "tensor-parallel-size": "tensor_parallel_size",
    "max-model-len": "max_model_len",
    "gpu-memory-utilization": "gpu_memory_utilization",
    "dtype": "dtype",
    "quantization": "quantization",
    "enforce-eager": "enforce_eager",
    "reasoning-parser": "reasoning_parser",
    "tool-call-parser": "tool_call_parser",
    "enable-auto-tool-choice": "tool_call_parser",
    "model": "model",
    "revision": "revision",
}
FIXED_FLAGS = frozenset({"host", "port"})


def rule_problems(profile: Profile, versions: Versions) -> list[str]:
    """Say which combinations of a well-formed profile cannot work, one line each."""
    return [
        f"models.{profile.name}{fault}"
        for check in (_name_faults, _model_faults, _image_faults, _gpu_faults, _args_faults, _env_faults)
        for fault in check(profile, versions)
    ]


def _name_faults(profile: Profile, _: Versions) -> list[str]:
    if not NAME.fullmatch(profile.name):
        return [": a profile's name is lower-case letters, digits and single hyphens and begins with a letter"]
    if profile.name in RESERVED or profile.name.startswith("pull-"):
        return [f": the name is taken by Tandem itself ({', '.join(sorted(RESERVED))}, pull-...)"]
    return []


def _model_faults(profile: Profile, _: Versions) -> list[str]:
    faults = []
    if not profile.local and not MODEL_ID.fullmatch(profile.model):
        faults.append(
            f'.model: should be org/name on ModelScope, or a folder that begins with ./ or /, got "{profile.model}"'
        )
    if profile.local and not profile.pull:
        faults.append(".pull: false means that the server fetches the model by its id, but model is a folder")
    return faults


def _image_faults(profile: Profile, versions: Versions) -> list[str]:
    if profile.vllm not in versions.builds:
        return [f'.vllm: should be one of {", ".join(versions.builds)}, got "{profile.vllm}"']
    if profile.image not in versions.builds[profile.vllm]:
        builds = ", ".join(versions.builds[profile.vllm])
        return [f".image: vLLM {profile.vllm} has no {profile.image} build; it has {builds}"]
    return []


def _gpu_faults(profile: Profile, _: Versions) -> list[str]:
    faults = []
    if profile.image == "cpu" and profile.gpus:
        faults.append(f".gpus: image is cpu, so gpus should be [], got {profile.gpus}")
    if profile.image == "cuda" and not profile.gpus:
        faults.append(".gpus: image is cuda, so gpus should name at least one GPU, such as [0, 1]")
    if len(set(profile.gpus)) != len(profile.gpus):
        faults.append(f".gpus: should name each GPU once, got {profile.gpus}")
    if profile.image == "cuda" and 0 < len(profile.gpus) < profile.tensor_parallel_size:
        faults.append(
            f".tensor_parallel_size: should be at most {len(profile.gpus)}, as gpus is {profile.gpus}, "
            f"got {profile.tensor_parallel_size}"
        )
    return faults


def _args_faults(profile: Profile, _: Versions) -> list[str]:
    faults = []
    for flag in profile.args:
        if not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", flag):
            faults.append(
                f".args.{flag}: a flag is lower-case words with hyphens and without its dashes, such as max-num-seqs"
            )
        elif flag in TYPED_FLAGS:
            faults.append(f".args.{flag}: has a key of its own, use {TYPED_FLAGS[flag]}")
        elif flag in FIXED_FLAGS:
            faults.append(
                f".args.{flag}: is fixed, the router finds the server by it; TANDEM_PORT is the router's port"
            )
    return faults


def _env_faults(profile: Profile, _: Versions) -> list[str]:
    return [
        f".env.{name}: a variable's name is letters, digits and underscores"
        for name in profile.env
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name)
    ]


def clashes(profiles: list[Profile]) -> list[str]:
    """Say which names two profiles both answer to, one line each."""
    owner: dict[str, str] = {}
    problems = []
    for profile in profiles:
        for name in profile.names:
            if name in owner:
                problems.append(f'models.{profile.name}: the name "{name}" already belongs to models.{owner[name]}')
            owner.setdefault(name, profile.name)
    return problems
