"""The KV cache: the same tokens as vLLM reported for models of every kind, and what its parts mean."""

from typing import Any

import pytest

from orchestrator.fit import kv, overhead, shape
from orchestrator.fit.flags import GIB, Flags
from orchestrator.fit.kv import Cache
from tests.unit import checkpoints as models

TINY = {
    "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 6, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 32, "vocab_size": 1536, "max_position_embeddings": 4096,
    "torch_dtype": "bfloat16",
}  # fmt: skip
GEMMA = TINY | {"model_type": "gemma3_text", "sliding_window": 512, "sliding_window_pattern": 6}
MISTRAL = TINY | {"model_type": "mistral", "sliding_window": 512}
MIXTRAL = TINY | {"model_type": "mixtral", "sliding_window": None, "num_local_experts": 4}
MLA = TINY | {"model_type": "deepseek_v2", "kv_lora_rank": 512, "qk_rope_head_dim": 64, "num_key_value_heads": 4}


def cache(config: dict[str, Any], *, in_flight: int = 0, **said: Any) -> Cache:
    read = shape.read(config)
    assert isinstance(read, shape.Shape), read
    found = kv.cache(read, Flags(**{"cpu": False} | said), in_flight)
    assert isinstance(found, Cache), found
    return found


@pytest.mark.parametrize(
    ("config", "said", "tokens", "requests"),
    # `CPU KV cache size` of vLLM 0.32.0 with VLLM_CPU_KVCACHE_SPACE=1 and --max-model-len 4000: docs/fit.md.
    [
        (GEMMA, {}, 956_729, 239.18),
        (GEMMA, {"hybrid": False}, 682_625, 170.66),
        (MISTRAL, {}, 1_040_190, 260.05),
        (MIXTRAL, {}, 682_625, 170.66),
        (MIXTRAL, {"cache_dtype": "fp8"}, 1_365_250, 341.31),
        (MIXTRAL, {"block": 64, "batched": 512}, 693_460, 173.37),
        (MIXTRAL, {"tensor_parallel": 2}, 1_365_250, 341.31),
        (MLA, {}, 155_344, 38.84),
    ],
)
def test_tokens_and_requests_are_those_that_vllm_reported_on_cpus(
    config: dict[str, Any], said: dict[str, Any], tokens: int, requests: float
) -> None:
    read = shape.read(config)
    assert isinstance(read, shape.Shape), read
    told = Flags(**{"cpu": True, "block": 128} | said)
    found = cache(config, in_flight=overhead.steps(told, 0, "", 4000).in_flight, **{"cpu": True, "block": 128} | said)
    assert found.tokens(GIB, 4000) == tokens
    assert round(found.concurrency(GIB, 4000), 2) == requests


@pytest.mark.parametrize(
    ("config", "said", "kibibytes"),
    [
        # Layers times KV heads times head size times two for keys and values times bytes.
        (models.QWEN_14B, {}, 192),
        (models.QWEN_14B, {"tensor_parallel": 2}, 96),
        (models.QWEN_32B_AWQ, {"tensor_parallel": 2}, 128),
        (models.QWEN_32B_AWQ, {"tensor_parallel": 2, "cache_dtype": "fp8"}, 64),
        (models.QWEN_14B, {"dtype": "float32"}, 384),
        # Of 4 heads each of 8 GPUs has one.
        (models.QWEN3_30B, {"tensor_parallel": 8}, 24),
        (models.DEEPSEEK_V2_LITE, {"tensor_parallel": 2}, 30.375),
        (models.LLAMA_8B | {"quantization_config": models.FP8 | {"kv_cache_scheme": models.FP8_CACHE}}, {}, 64),
        (models.QWEN_14B, {"pipeline_parallel": 2}, 96),
    ],
)
def test_a_token_takes_so_many_kibibytes_of_a_gpu(
    config: dict[str, Any], said: dict[str, Any], kibibytes: float
) -> None:
    assert cache(config, **said).token_bytes == kibibytes * 1024


def test_a_window_takes_no_more_than_itself_and_what_is_under_way() -> None:
    found = cache(models.MISTRAL_7B, in_flight=2 * 2048)
    # 4095 tokens of the window and two steps, in blocks of 16, and one for where it begins.
    assert found.blocks(32768) == 512 + 1
    assert found.blocks(1000) == 63 + 1
    assert cache(models.MISTRAL_7B, in_flight=4096, slides=False).blocks(32768) == 2048


def test_layers_of_two_kinds_form_groups_of_equal_size() -> None:
    found = cache(models.GEMMA3_12B, in_flight=4096)
    assert [(group.count, group.window) for group in found.groups] == [(5, 1024), (1, None)]
    # 8 layers a group.
    assert found.block_bytes == 8 * 16 * 2 * 8 * 256 * 2


def test_groups_of_nearly_equal_size_are_filled_up() -> None:
    types = ["sliding_attention"] * 12 + ["full_attention"] * 13
    config = models.MISTRAL_7B | {"num_hidden_layers": 25, "layer_types": types}
    found = cache(config)
    assert [group.count for group in found.groups] == [1, 1]
    assert found.block_bytes == 13 * 16 * 2 * 8 * 128 * 2


def test_the_longest_request_is_the_last_that_fits() -> None:
    found = cache(models.QWEN_14B, tensor_parallel=2)
    room = found.needed(5000)
    longest = found.longest(room, 32768)
    assert longest == 5008
    assert found.needed(longest) <= room < found.needed(longest + 1)
    assert found.longest(room, 4000) == 4000
    assert found.longest(found.block_bytes, 4000) == 0


@pytest.mark.parametrize(
    ("config", "said", "words"),
    [
        (models.QWEN_14B | {"mamba_d_state": 16}, {}, "its layers cache more than keys and values (mamba_d_state)"),
        (models.QWEN_14B, {"cache_dtype": "nvfp4"}, "how --kv-cache-dtype nvfp4 packs its values"),
    ],
)
def test_a_cache_that_is_not_known_is_said(config: dict[str, Any], said: dict[str, Any], words: str) -> None:
    read = shape.read(config)
    assert isinstance(read, shape.Shape), read
    assert kv.cache(read, Flags(cpu=False, **said), 0) == words
