"""The flags of `vllm serve` that tests/gpu/flags.py tries, the shapes that it tries them at, and their command lines.

Ours are those that a profile of models.toml really gets; the tutorial's are those of tests/golden/tutorial.toml, which
a test holds to its four command lines. Each other variant is ours and a few words more, which come last and win.
"""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator import config, versions
from orchestrator.errors import TandemError
from orchestrator.fit import flags, kv, shape, weights
from orchestrator.profiles import Profile
from orchestrator.render.serve import serve
from tests.unit import checkpoints

ROOT = Path(__file__).resolve().parents[2]
GIB = 1 << 30
QWEN2 = {"architectures": ["Qwen2ForCausalLM"]}
SHAPES: Mapping[str, dict[str, Any]] = {
    "qwen-14b": checkpoints.QWEN_14B | QWEN2,
    "deepseek-14b": checkpoints.DEEPSEEK_14B | QWEN2,
    "qwen-32b-awq": checkpoints.QWEN_32B_AWQ | QWEN2,
    "qwq-32b-awq": checkpoints.QWQ_32B_AWQ | QWEN2,
}
# Qwen2.5-0.5B's dimensions, but for its vocabulary of 151,936: vLLM refuses a draft whose vocabulary is not as large as
# the model's (config/speculative.py, verify_equal_vocab_size_if_draft_model), so this is one that was padded.
DRAFT = checkpoints.QWEN_14B | QWEN2 | {
    "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14,
    "num_key_value_heads": 2, "tie_word_embeddings": True, "max_window_layers": 24,
}  # fmt: skip
# What a server of these shapes holds of a GPU beside weights and cache: vLLM 0.24.0 had 2.78 GiB with no graphs
# (docs/fit.md), NCCL's and CUDA's own included, and graphs are below 1.
OTHER = 3.5
# What a server on CPUs takes of the machine's memory: 2.3 to 2.7 GiB were seen with tiny models.
ON_CPU = 3.0
# The share of a GPU that has to be free when a server begins; what it takes is decided by the size of its cache.
LITTLE = 0.04
# What vLLM chooses by itself on 24 GiB, and a pass that it has on larger cards alone: from 70 GiB on it would take
# 1024 sequences and 8192 tokens (engine/arg_utils.py, get_batch_defaults), which takes more memory.
LARGER = 1.0
AS_ON_24_GIB = {
    "--max-num-seqs": "256",
    "--max-num-batched-tokens": "2048",
    "--compilation-config": json.dumps({"pass_config": {"fuse_allreduce_rms": False}}),
}
OURS, TUTORIAL = "ours", "tutorial"


@dataclass(frozen=True)
class Variant:
    """Flags to try: words after a profile's own, variables of the server, and the variant that they are held against.

    only is the quantization of the shapes that it is for; more is GiB of each GPU that it takes beside what ours do.
    `{draft}` in a word is the folder of the draft model.
    """

    words: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    against: str = OURS
    only: str = ""
    more: float = 0.0


def _speculative(**given: object) -> tuple[str, ...]:
    return ("--speculative-config", json.dumps(given))


def _accepting(tokens: float) -> dict[str, object]:
    """Have vLLM take so many tokens a step on average, the one that it makes anyway counted, whatever was drafted.

    With random weights what is accepted by comparing says nothing: such a model repeats itself, or guesses nothing.
    """
    return {"rejection_sample_method": "synthetic", "synthetic_acceptance_length": tokens}


_NGRAM = {"method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_min": 2, "prompt_lookup_max": 4}
_SMALL = {"method": "draft_model", "model": "{draft}", "num_speculative_tokens": 4}
# Without peer-to-peer, as two RTX 4090s are: NCCL through the host's memory, and no all-reduce of vLLM's own.
_HOST = {"NCCL_P2P_DISABLE": "1"}
VARIANTS: Mapping[str, Variant] = {
    OURS: Variant(),
    TUTORIAL: Variant(),
    # What of the tutorial's flags costs it.
    "eager": Variant(("--enforce-eager",)),
    "graphs": Variant(("--no-enforce-eager",)),
    "fp8-cache": Variant(("--kv-cache-dtype", "fp8")),
    "batched-1024": Variant(("--max-num-batched-tokens", "1024")),
    "batched-4096": Variant(("--max-num-batched-tokens", "4096")),
    "batched-8192": Variant(("--max-num-batched-tokens", "8192"), more=0.5),
    "batched-16384": Variant(("--max-num-batched-tokens", "16384"), more=1.0),
    # Of a prompt that is longer, so many tokens a step: it takes prompts that long to see it.
    "prefill-512": Variant(("--long-prefill-token-threshold", "512")),
    "prefill-1024": Variant(("--long-prefill-token-threshold", "1024")),
    "capture-32": Variant(("--max-cudagraph-capture-size", "32")),
    "capture-64": Variant(("--max-cudagraph-capture-size", "64")),
    "capture-128": Variant(("--max-cudagraph-capture-size", "128")),
    # Nothing compiled, and graphs of decoding alone: a start of the 32B spends 14 s on loading what was compiled.
    "no-compile": Variant(("--compilation-config", json.dumps({"mode": 0, "cudagraph_mode": "FULL_DECODE_ONLY"}))),
    "flash-attn": Variant(("--attention-backend", "FLASH_ATTN")),
    "flashinfer": Variant(("--attention-backend", "FLASHINFER")),
    "triton-attn": Variant(("--attention-backend", "TRITON_ATTN")),
    # Each step's price when nothing that was drafted is right, and its worth when some of it is.
    "ngram": Variant(_speculative(**_NGRAM)),
    "ngram-none": Variant(_speculative(**_NGRAM, **_accepting(1))),
    "ngram-half": Variant(_speculative(**_NGRAM, **_accepting(1.5))),
    "ngram-2": Variant(_speculative(**_NGRAM, **_accepting(2))),
    "draft-none": Variant(_speculative(**_SMALL, **_accepting(1)), more=1.5),
    "draft-2": Variant(_speculative(**_SMALL, **_accepting(2)), more=1.5),
    "draft-3": Variant(_speculative(**_SMALL, **_accepting(3)), more=1.5),
    # On Hopper vLLM takes Machete for AWQ; an RTX 4090 gets Marlin.
    "marlin": Variant(env={"VLLM_DISABLED_KERNELS": "MacheteLinearKernel"}, only="awq"),
    "nccl": Variant(("--disable-custom-all-reduce",)),
    "no-p2p": Variant(("--disable-custom-all-reduce",), _HOST),
    "tutorial-no-p2p": Variant(("--disable-custom-all-reduce",), _HOST, against="no-p2p"),
}


def _turn(variant: str) -> int:
    return {TUTORIAL: 0, OURS: 2}.get(variant, 1)


def named(text: str) -> tuple[str, Variant]:
    """Read a variant of one's own, NAME=FLAGS. Raises TandemError when it is none."""
    name, equals, words = text.partition("=")
    if not equals or not name or not name.replace("-", "").isalnum():
        raise TandemError(f'--try: should be NAME=FLAGS, such as "small=--max-num-seqs 64", got "{text}"')
    if name in VARIANTS:
        raise TandemError(f"--try: {name} is known already; take another name")
    try:
        return name, Variant(tuple(shlex.split(words)))
    except ValueError as error:
        raise TandemError(f"--try: cannot be split into words: {error}, got {text}") from None


@dataclass(frozen=True)
class Spec:
    """One server to be measured: a profile's name and a variant's."""

    profile: str
    variant: str

    def __str__(self) -> str:
        return f"{self.profile} {self.variant}"


def _shape(spec: Spec) -> shape.Shape:
    read = shape.read(SHAPES[spec.profile])
    assert isinstance(read, shape.Shape), read
    return read


class Catalogue:
    """The profiles of both files, and the variants; folder is where models of a shape lie."""

    def __init__(
        self, folder: Path, more: Mapping[str, Variant], *, tokens: int = 0, as_is: bool = False
    ) -> None:  # fmt: skip
        """Tokens are those that the cache of a server on GPUs has to hold, at the least.

        What vLLM chooses by the size of a card is said as it is on 24 GiB, or left to it with as_is.
        """
        known = versions.load((ROOT / "docker/vllm/versions.toml").read_text(encoding="utf-8"))
        self.ours = config.load((ROOT / "models.toml").read_text(encoding="utf-8"), known)
        tutorial = ROOT / "tests/golden/tutorial.toml"
        self.tutorial = config.load(tutorial.read_text(encoding="utf-8"), known, where=str(tutorial))
        self.variants = {**VARIANTS, **more}
        self.folder, self._tokens, self._as_is = folder, tokens, as_is

    def wanted(self, profiles: Sequence[str], variants: Sequence[str]) -> list[Spec]:
        """List what is to be measured: the tutorial's flags first, then one profile after the other, and ours last.

        A variant is for all of the profiles, or for one, as PROFILE:VARIANT. Ours are measured beside each of the
        others anyway. Raises TandemError for a name that is not known.
        """
        each = [(name.partition(":")[0] if ":" in name else "", name.rpartition(":")[2]) for name in variants]
        for what, names, known in (
            ("--profiles", profiles, [*SHAPES, "demo"]),
            ("--variants", [profile for profile, _ in each if profile], profiles),
            ("--variants", [name for _, name in each], list(self.variants)),
        ):
            strange = [name for name in names if name not in known]
            if strange:
                raise TandemError(f"{what}: {strange[0]} is none of {', '.join(known)}")
        pairs = [(profile, name) for profile in profiles for of, name in dict.fromkeys(each) if of in ("", profile)]
        found = [Spec(*pair) for pair in dict.fromkeys(sorted(pairs, key=lambda pair: _turn(pair[1])))]
        return [spec for spec in found if self._fits(spec)]

    def _fits(self, spec: Spec) -> bool:
        """Whether there is such a server: the demo is in no tutorial, and some flags are for one kind of weights."""
        method = SHAPES.get(spec.profile, {}).get("quantization_config", {}).get("quant_method", "")
        only = self.variants[spec.variant].only
        return (not only or only == method) and (not self._tutorials(spec) or spec.profile in self.tutorial)

    def against(self, spec: Spec) -> Spec:
        """Name the server that one is held against: itself, where it is ours."""
        return Spec(spec.profile, self.variants[spec.variant].against)

    def _tutorials(self, spec: Spec) -> bool:
        return spec.variant.startswith(TUTORIAL)

    def profile(self, spec: Spec) -> Profile:
        """Give the profile whose flags a server begins with."""
        return (self.tutorial if self._tutorials(spec) else self.ours)[spec.profile]

    def on_gpus(self, spec: Spec) -> bool:
        return self.profile(spec).image == "cuda" and spec.profile in SHAPES

    def place(self, spec: Spec) -> Path:
        """Name the folder that a server reads: one of random weights for a shape, else the profile's own."""
        return self.folder / spec.profile if spec.profile in SHAPES else (ROOT / self.profile(spec).model).resolve()

    def cache_bytes(self, spec: Spec) -> int:
        """Bytes a GPU of the cache: for the longest request that the profile allows, and for all that are asked."""
        size = self._cache(spec)
        length = self.profile(spec).max_model_len or self._tokens
        # A tenth more, as requests take whole blocks, and a draft keeps its own.
        return int(max(size.needed(length), size.needed(self._tokens)) * 1.1)

    def _cache(self, spec: Spec) -> kv.Cache:
        found = kv.cache(_shape(spec), flags.read(self.profile(spec), lambda _: "", ""), 0)
        assert isinstance(found, kv.Cache), found
        return found

    def claim(self, spec: Spec) -> float:
        """GiB that a server takes of each of its GPUs, or of the machine's memory where it has none."""
        if not self.on_gpus(spec):
            return ON_CPU
        tensors = checkpoints.tensors(SHAPES[spec.profile])
        told = flags.read(self.profile(spec), lambda _: "", "")
        found = weights.of_tensors(tensors, _shape(spec), told, "the shape")
        assert isinstance(found, weights.Weights), found
        more = self.variants[spec.variant].more + LARGER * self._as_is
        return (found.size + self.cache_bytes(spec)) / GIB + OTHER + more

    def argv(self, spec: Spec, command: Sequence[str], port: int) -> list[str]:
        """Build a server's command line: the profile's own but for folder, port and memory, then the variant's."""
        profile = self.profile(spec)
        _, word, _, *own = serve(profile.model_copy(update={"gpu_memory_utilization": None}))
        argv = [*command, word, str(self.place(spec)), *own, "--host", "127.0.0.1", "--port", str(port)]
        last = [word.replace("{draft}", str(self.folder / "draft")) for word in self.variants[spec.variant].words]
        if self.on_gpus(spec):
            # The size of the cache is given, as vLLM measures what it has by what is free before and after: it ends
            # where another server gives memory back meanwhile, and counts as its own what another one takes
            # (v1/worker/gpu_worker.py, determine_available_memory).
            argv += ["--load-format", "dummy", "--gpu-memory-utilization", str(LITTLE)]
            argv += ["--kv-cache-memory-bytes", str(self.cache_bytes(spec))]
            said = {} if self._as_is else AS_ON_24_GIB
            argv += [part for pair in said.items() if pair[0] not in last for part in pair]
        return argv + last

    def environment(self, spec: Spec) -> dict[str, str]:
        """Give the variables that a server has beside the machine's."""
        own = self.profile(spec).env
        offline = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "PYTHONUNBUFFERED": "1"}
        return {**offline, **own, **self.variants[spec.variant].env}
