"""The command line of a server: `vllm serve` and its flags. Pure."""

import json
from collections.abc import Callable
from typing import Any

from orchestrator.profiles import Profile

# What a Compose variable may override, without rendering again.
OVERRIDABLE = ("max_model_len", "gpu_memory_utilization")


def folder(profile: Profile) -> str:
    """Where the server finds the model: a folder in its container, or the id when vLLM fetches it itself."""
    if profile.local:
        return f"/local/{profile.name}"
    return f"/models/{profile.model}" if profile.pull else profile.model


def variable(profile: Profile, key: str) -> str:
    """Name the Compose variable that overrides a key: QWEN_14B_MAX_MODEL_LEN."""
    return f"{profile.variable}_{key.upper()}"


def serve(profile: Profile, value: Callable[[str], str] | None = None) -> list[str]:
    """Build the argv of a profile's server.

    value(key) gives the text of an overridable key (the Compose variable, say); models.toml's own value by default.
    """
    value = value or (lambda key: str(getattr(profile, key)))
    argv = ["vllm", "serve", folder(profile), "--served-model-name", *profile.names]
    argv += ["--tensor-parallel-size", str(profile.tensor_parallel_size)]
    for key in OVERRIDABLE:
        if getattr(profile, key) is not None:
            argv += [_flag(key), value(key)]
    if not profile.pull and profile.revision is not None:
        argv += ["--revision", profile.revision]
    for key in ("dtype", "quantization", "reasoning_parser"):
        if getattr(profile, key) is not None:
            argv += [_flag(key), getattr(profile, key)]
    if profile.tool_call_parser is not None:
        argv += ["--enable-auto-tool-choice", "--tool-call-parser", profile.tool_call_parser]
    if profile.enforce_eager:
        argv += ["--enforce-eager"]
    return argv + [word for flag, given in profile.args.items() for word in _argument(flag, given)]


def _flag(key: str) -> str:
    return "--" + key.replace("_", "-")


def _argument(flag: str, given: Any) -> list[str]:
    if given is True:
        return [f"--{flag}"]
    if given is False:
        return [f"--no-{flag}"]
    if isinstance(given, dict):
        return [f"--{flag}", json.dumps(given, ensure_ascii=False)]
    if isinstance(given, list):
        return [f"--{flag}", *map(str, given)]
    return [f"--{flag}", str(given)]
