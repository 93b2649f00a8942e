"""Which well-formed values of models.toml cannot work, alone or together. Pure."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from orchestrator import adapters
from orchestrator.problems import Path, Problem, show
from orchestrator.profiles import Profile
from orchestrator.versions import Versions, number

NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
MODEL_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Who publishes the families of models that are asked for most, as ModelScope calls them.
ORGANISATIONS = {
    "qwen": "Qwen",
    "qwq": "Qwen",
    "qvq": "Qwen",
    "deepseek": "deepseek-ai",
    "glm-": "ZhipuAI",
    "chatglm": "ZhipuAI",
    "internlm": "Shanghai_AI_Laboratory",
    "minicpm": "OpenBMB",
    "baichuan": "baichuan-inc",
    "yi-": "01ai",
    "bge-": "BAAI",
    "mistral": "mistralai",
    "mixtral": "mistralai",
    "meta-llama": "LLM-Research",
    "llama-": "LLM-Research",
    "gemma-": "LLM-Research",
    "phi-": "LLM-Research",
}
# On Hugging Face, where they are others.
_OTHERS = {
    "ZhipuAI": "zai-org", "Shanghai_AI_Laboratory": "internlm", "OpenBMB": "openbmb", "01ai": "01-ai",
}  # fmt: skip
_OF_LLM_RESEARCH = {"meta-llama": "meta-llama", "llama-": "meta-llama", "gemma-": "google", "phi-": "microsoft"}
# The last three: services, and the Compose profile, that watch.
RESERVED = frozenset({"router", "activator", "engine-proxy", "gpus", "example", "prometheus", "grafana", "observe"})
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
    "enable-sleep-mode": "sleep",
}
FIXED_FLAGS = frozenset({"host", "port", "uds", "root-path", "api-key", "ssl-keyfile", "ssl-certfile"})
# What the gate of a server goes by.
WIRED = ("TANDEM_FLAGS", "TANDEM_GPUS", "TANDEM_PROFILE", "TANDEM_SLEEP")
# The first version of vLLM whose sleep mode can be relied on.
SLEEPS = (0, 17)


@dataclass(frozen=True)
class Fault:
    """What is wrong: the path within a profile, the fact, and the keys that it follows from (else the path's own)."""

    path: Path
    fact: str
    follows_from: tuple[str, ...] = ()

    @property
    def keys(self) -> frozenset[str]:
        """The keys of the profile that must be right themselves for this to be a fault."""
        return frozenset(self.follows_from or map(str, self.path[:1]))


def faults(profile: Profile, versions: Versions) -> Iterator[Fault]:
    """Name every fault of a well-formed profile."""
    yield from _name(profile)
    yield from _model(profile)
    yield from _served_names(profile)
    yield from _image(profile, versions)
    yield from _sleep(profile, versions)
    yield from _gpus(profile)
    yield from _args(profile)
    yield from _adapters(profile)
    yield from _env(profile)


def _name(profile: Profile) -> Iterator[Fault]:
    if not NAME.fullmatch(profile.name):
        words = "words of lower-case letters and digits, joined by single hyphens, and begins with a letter"
        yield Fault((), f"a profile's name is {words}")
    elif profile.name in RESERVED or profile.name.startswith("pull-"):
        yield Fault((), f"the name is taken by Tandem itself ({', '.join(sorted(RESERVED))}, pull-...)")


def _model(profile: Profile) -> Iterator[Fault]:
    if profile.source == "path" and not profile.local:
        fact = f"should be a folder that begins with ./ or /, as source is path, got {show(profile.model)}"
        yield Fault(("model",), fact, ("model", "source"))
    elif not profile.local and not MODEL_ID.fullmatch(profile.model):
        valid = "org/name on a hub, or a folder that begins with ./ or /"
        close = organisation(profile.model, profile.source)
        hint = f", did you mean {show(close)}?" if close else ""
        yield Fault(("model",), f"should be {valid}, got {show(profile.model)}{hint}")
    if profile.local and not profile.pull:
        fact = "false means that the server fetches the model by its id, but model is a folder"
        yield Fault(("pull",), fact, ("pull", "model"))


def organisation(name: str, source: str) -> str | None:
    """Put a model's usual organisation on a hub before a name that lacks it; None for one that is not known."""
    if source == "path" or not MODEL_ID.fullmatch(f"a/{name}"):
        return None
    for begin, usual in ORGANISATIONS.items():
        if name.lower().startswith(begin):
            other = _OF_LLM_RESEARCH.get(begin) or _OTHERS.get(usual, usual)
            return f"{other if source == 'huggingface' else usual}/{name}"
    return None


def _served_names(profile: Profile) -> Iterator[Fault]:
    if profile.served_model_name.startswith("-") and profile.served_model_name != profile.name:
        yield Fault(("served_model_name",), f"should not begin with a hyphen, got {show(profile.served_model_name)}")
    for place, alias in enumerate(profile.aliases):
        if alias.startswith("-"):
            yield Fault(("aliases", place), f"should not begin with a hyphen, got {show(alias)}")
    if len(set(profile.names)) != len(profile.names):
        fact = f"should be names other than {show(profile.served_model_name)}, each once, got {show(profile.aliases)}"
        yield Fault(("aliases",), fact, ("aliases", "served_model_name"))


def _image(profile: Profile, versions: Versions) -> Iterator[Fault]:
    if profile.vllm is None:
        return
    if profile.vllm not in versions.builds:
        yield Fault(("vllm",), f"should be one of {', '.join(versions.builds)}, got {show(profile.vllm)}")
    elif profile.image not in versions.builds[profile.vllm]:
        builds = ", ".join(versions.builds[profile.vllm])
        fact = f"vLLM {profile.vllm} has no {profile.image} build; it has {builds}"
        yield Fault(("image",), fact, ("image", "vllm"))


def _sleep(profile: Profile, versions: Versions) -> Iterator[Fault]:
    both = ("sleep", "vllm")
    if profile.sleep == "auto" and profile.vllm in versions.builds and number(profile.vllm or "")[:2] < SLEEPS:
        why = "is broken from 0.14 to 0.16 and missing or unfinished before"
        fact = f"should be off, as vllm is {profile.vllm}: sleep mode works from 0.17 on, it {why}"
        yield Fault(("sleep",), fact, both)
    if profile.sleep == "auto" and "VLLM_SERVER_DEV_MODE" in profile.env:
        yield Fault(("env", "VLLM_SERVER_DEV_MODE"), "is set by Tandem itself, as sleep is auto", ("env", "sleep"))


def _gpus(profile: Profile) -> Iterator[Fault]:
    both = ("gpus", "image")
    if profile.image == "cpu" and profile.gpus:
        yield Fault(("gpus",), f"image is cpu, so gpus should be [], got {profile.gpus}", both)
    if profile.image == "cuda" and not profile.gpus:
        yield Fault(("gpus",), "image is cuda, so gpus should name at least one GPU, such as [0, 1]", both)
    if len(set(profile.gpus)) != len(profile.gpus):
        yield Fault(("gpus",), f"should name each GPU once, got {profile.gpus}")
    if profile.image == "cuda" and 0 < len(profile.gpus) < profile.tensor_parallel_size:
        fact = f"should be at most {len(profile.gpus)}, as gpus is {profile.gpus}, got {profile.tensor_parallel_size}"
        yield Fault(("tensor_parallel_size",), fact, ("tensor_parallel_size", *both))


def _args(profile: Profile) -> Iterator[Fault]:
    for flag, value in profile.args.items():
        meant = flag.lstrip("-").replace("_", "-").removeprefix("no-")
        if meant in TYPED_FLAGS:
            yield Fault(("args", flag), f"has a key of its own, use {TYPED_FLAGS[meant]}")
        elif meant in FIXED_FLAGS:
            fact = "is fixed, the router finds the server by it; TANDEM_PORT is the router's port"
            yield Fault(("args", flag), fact)
        elif flag.startswith("lora-m") and flag != adapters.FLAG:
            # vLLM takes beginnings of a flag, and keys of a table after a dot, for the flag itself.
            yield Fault(("args", flag), f"is written {adapters.FLAG}, so that the router knows its names")
        elif not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", flag):
            fact = "a flag is lower-case words with hyphens and without its dashes, such as max-num-seqs"
            yield Fault(("args", flag), fact)
        else:
            yield from _argument(("args", flag), value)


def _argument(path: Path, value: Any) -> Iterator[Fault]:
    """Name what a command line cannot hold: dates anywhere, and more than words in a list that becomes words."""
    if isinstance(value, list) and len(path) == 2:
        for place, element in enumerate(value):
            if isinstance(element, bool) or not isinstance(element, (str, int, float)):
                yield Fault((*path, place), f"should be a number or string, got {show(element)}")
    elif isinstance(value, dict | list):
        inner = value.items() if isinstance(value, dict) else enumerate(value)
        for key, element in inner:
            yield from _argument((*path, key), element)
    elif not isinstance(value, (bool, int, float, str)):
        yield Fault(path, f"should be a boolean, number, string, list or table, got {show(value)}")


def _adapters(profile: Profile) -> Iterator[Fault]:
    """Name what vLLM would not start with; two adapters of one name are such a thing."""
    path = ("args", adapters.FLAG)
    if adapters.FLAG in profile.args and profile.args.get(adapters.SWITCH) is not True:
        yield Fault(path, f"needs {adapters.SWITCH} = true beside it, or vLLM does not start")
    seen = set(profile.names)
    for found in adapters.read(profile.args):
        if isinstance(found, adapters.Fault):
            yield Fault((*path, *found.place), found.fact)
        elif found.name in seen:
            fact = f"the name {show(found.name)} already belongs to this model, or to an adapter before"
            yield Fault(path, fact, ("args", "served_model_name", "aliases"))
        else:
            seen.add(found.name)


def _env(profile: Profile) -> Iterator[Fault]:
    for name in profile.env:
        if not VARIABLE.fullmatch(name):
            fact = "a variable's name is letters, digits and underscores and does not begin with a digit"
            yield Fault(("env", name), fact)
        elif name in WIRED:
            yield Fault(("env", name), "is set by Tandem itself")


def clashes(profiles: list[Profile]) -> list[Problem]:
    """Say which names two profiles both answer to; a profile's own name is one of them."""
    owner: dict[str, str] = {}
    problems = []
    for profile in profiles:
        own: Path = ("models", profile.name)
        paths = dict.fromkeys([profile.name, *profile.names], own)
        for adapter in profile.adapters:
            paths.setdefault(adapter.name, (*own, "args", adapters.FLAG))
        for name, path in paths.items():
            if owner.setdefault(name, profile.name) != profile.name:
                problems.append(Problem(path, f"the name {show(name)} already belongs to models.{owner[name]}"))
    return [*problems, *_two_of_one_model(profiles)]


def preloads(profiles: list[Profile]) -> list[Problem]:
    """Say which profiles cannot be preloaded, as one before them is and they share GPUs."""
    problems = []
    loaded = [profile for profile in profiles if profile.preload]
    for place, profile in enumerate(loaded):
        for other in loaded[:place]:
            shared = sorted(set(profile.gpus) & set(other.gpus))
            if shared:
                which = ("GPU " if len(shared) == 1 else "GPUs ") + ", ".join(map(str, shared))
                fact = f"should be false, as models.{other.name} is preloaded and needs {which} too"
                problems.append(Problem(("models", profile.name, "preload"), fact))
                break
    return problems


def _two_of_one_model(profiles: list[Profile]) -> list[Problem]:
    """Say which profiles want another revision of a model than one before them: there is one place for it."""
    first: dict[str, Profile] = {}
    problems = []
    for profile in profiles:
        if profile.pulled and MODEL_ID.fullmatch(profile.model) and profile.model != "org/name":
            other = first.setdefault(profile.model, profile)
            if (other.source, other.branch) != (profile.source, profile.branch):
                fact = (
                    f"{profile.model} is pulled from {profile.source} at {profile.branch}, and by models.{other.name} "
                    f"from {other.source} at {other.branch}; there is one place for it"
                )
                problems.append(Problem(("models", profile.name), fact))
    return problems
