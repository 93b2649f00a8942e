"""What `plan` says of the KV cache is what vLLM reports, for models of several kinds; what cannot fit is refused."""

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.checkout import LONG_PATIENCE, ROOT, Checkout, eventually
from tests.integration.conftest import Stack, stack

pytestmark = pytest.mark.docker

TINY: dict[str, Any] = {
    "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 6, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 32, "vocab_size": 1536, "max_position_embeddings": 4096, "bos_token_id": 0,
    "eos_token_id": 2, "pad_token_id": 0, "rms_norm_eps": 1e-6, "torch_dtype": "bfloat16", "hidden_act": "silu",
    "tie_word_embeddings": False, "sliding_window": None,
}  # fmt: skip
SHAPES: dict[str, dict[str, Any]] = {
    # Five layers slide, then one does not; tied.
    "mixed-windows": {
        "architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text", "sliding_window": 512,
        "sliding_window_pattern": 6, "tie_word_embeddings": True, "query_pre_attn_scalar": 32,
        "hidden_activation": "gelu_pytorch_tanh", "rope_theta": 10000.0, "rope_local_base_freq": 10000.0,
    },
    # All slide; experts, grouped queries, on two ranks; the cache in 8 bits.
    "experts": {
        "architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "num_local_experts": 4,
        "num_experts_per_tok": 2, "sliding_window": 512,
    },
    "latent": {
        "architectures": ["DeepseekV2ForCausalLM"], "model_type": "deepseek_v2", "kv_lora_rank": 512,
        "q_lora_rank": None, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128, "head_dim": 64,
        "num_key_value_heads": 4, "n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2,
        "first_k_dense_replace": 6, "moe_intermediate_size": 64, "moe_layer_freq": 1,
    },
    # A request of full length needs 1.4 GiB of cache.
    "too-long": {
        "architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "num_local_experts": 4,
        "num_experts_per_tok": 2, "max_position_embeddings": 1_000_000,
    },
}  # fmt: skip
PROFILE = """
[models.{name}]
model = "./shapes/{name}"
image = "cpu"
gpus = []
tensor_parallel_size = {ranks}
max_model_len = {length}
enforce_eager = true
shm_size = "1gb"
args = {{ load-format = "dummy"{more} }}
"""
REPORTED = re.compile(r"KV cache size: ([\d,]+) tokens, Maximum concurrency for [\d,]+ tokens per request: ([\d.]+)x")


@dataclass
class Reported:
    """What vLLM reported of one profile, and what `plan` had said."""

    tokens: int
    requests: float
    planned: dict[str, Any]


@pytest.fixture(scope="module")
def shapes(images: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack whose models are tiny ones of several kinds, with no weights: vLLM makes them up."""
    for made in stack(tmp_path_factory.mktemp("fit"), "tandem-test-fit"):
        fill(made)
        yield made


def fill(made: Stack) -> None:
    for name, shape in SHAPES.items():
        folder = made.folder / "shapes" / name
        shutil.copytree(ROOT / "docker/demo/model", folder)
        (folder / "model.safetensors").unlink()
        (folder / "config.json").write_text(json.dumps(TINY | shape), encoding="utf-8")
        more = ', kv-cache-dtype = "fp8", max-num-batched-tokens = 1024' if name == "experts" else ""
        ranks = 2 if name == "experts" else 1
        length = 1_000_000 if name == "too-long" else 4000
        made.extend_models(PROFILE.format(name=name, ranks=ranks, length=length, more=more))
    rendered = made.tandem("render")
    assert rendered.returncode == 0, rendered.stderr


def reported(made: Stack, name: str) -> Reported:
    """Start one server, by Compose alone, until it says how large its cache is."""
    planned = made.tandem("plan", name, "--json")
    assert planned.returncode == 0, planned.stderr
    started = made.compose("--env-file", f"env/{name}.env", "up", "-d", "--no-build", "--no-deps", name)
    assert started.returncode == 0, started.stderr
    container = made.inspect(name)["Name"]
    try:
        found: list[tuple[str, str]] = []

        def said() -> bool:
            log = made.run(["docker", "logs", container])
            found[:] = REPORTED.findall(log.stdout + log.stderr)
            assert made.inspect(name)["State"]["Running"], (log.stdout + log.stderr)[-3000:]
            return bool(found)

        eventually(said, seconds=LONG_PATIENCE, what=f"the size of {name}'s cache in its log")
    finally:
        # vLLM takes no notice of a stop while it starts; there is nothing to wait for.
        made.run(["docker", "rm", "--force", container])
    ((tokens, requests),) = found
    return Reported(int(tokens.replace(",", "")), float(requests), json.loads(planned.stdout)["fit"])


# Each is a whole start of vLLM; one that the unit tests hold against a figure as well waits for -m slow.
@pytest.mark.parametrize(
    "name", ["mixed-windows", *(pytest.param(name, marks=pytest.mark.slow) for name in ("experts", "latent"))]
)
def test_plan_says_of_the_kv_cache_what_vllm_reports(shapes: Stack, name: str) -> None:
    found = reported(shapes, name)
    # No weights are there to be read, so that is said; the cache is known all the same.
    assert found.planned["not_known"] == ["weights: no safetensors files"]
    assert found.planned["kv_cache_tokens"] == pytest.approx(found.tokens, rel=0.03)
    assert found.planned["requests"] == pytest.approx(found.requests, rel=0.03)


def test_the_demo_fits(shapes: Stack) -> None:
    planned = json.loads(shapes.tandem("plan", "demo", "--json").stdout)
    assert [step["kind"] for step in planned["switch"]] == ["start", "prove", "open"]
    fit = planned["fit"]
    assert (fit["state"], fit["weights_from"], fit["not_known"]) == ("fits", "the headers of its folder", [])
    # bf16, tied: as large as its file but for the header.
    assert fit["weights"] == pytest.approx((ROOT / "docker/demo/model/model.safetensors").stat().st_size, rel=0.03)


def test_what_cannot_fit_is_refused_before_anything_is_made(shapes: Stack) -> None:
    done = shapes.tandem("up", "too-long")
    assert (done.returncode, done.stdout) == (1, "")
    lines = done.stderr.splitlines()
    assert lines[0] == (
        "error: too-long cannot fit: one request of 1,000,000 tokens needs 1.43 GiB of KV cache, and 1.00 GiB are left"
    )
    assert lines[1].startswith("  What would do: max_model_len = ")
    assert 'VLLM_CPU_KVCACHE_SPACE = "2"' in lines[1]
    assert "--force" in lines[2]
    assert shapes.compose("--profile", "*", "ps", "-aq").stdout == ""


@pytest.mark.slow
def test_forced_it_is_vllm_that_refuses_and_with_the_same_length(shapes: Stack) -> None:
    advised = shapes.tandem("up", "too-long").stderr.partition("max_model_len = ")[2].partition(";")[0]
    done = shapes.tandem("up", "too-long", "--force")
    assert done.returncode == 1
    assert "; going on, as --force says\n" in done.stderr
    log = shapes.tandem("logs", "too-long").stdout
    estimated = re.search(r"the estimated maximum model length is (\d+)", log)
    assert estimated is not None, done.stderr
    assert 0 <= int(estimated[1]) - int(advised) < 256
