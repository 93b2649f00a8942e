"""A model's shape is read from config.json; what it does not say is said, and nothing is guessed."""

from typing import Any

import pytest

from orchestrator.fit import shape
from orchestrator.fit.shape import Shape
from tests.unit import checkpoints as models

BOTH = ["full_attention", "sliding_attention"]
YARN = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}


def read(config: dict[str, Any]) -> Shape:
    found = shape.read(config)
    assert isinstance(found, Shape), found
    return found


def test_a_config_without_its_dimensions_is_said_to_be_one() -> None:
    assert shape.read({}) == "config.json does not say what it should: no num_hidden_layers"
    assert (
        shape.read(models.QWEN_14B | {"vocab_size": None}) == "config.json does not say what it should: no vocab_size"
    )
    odd = models.QWEN_14B | {"num_hidden_layers": "many"}
    assert shape.read(odd) == "config.json does not say what it should: its values are not numbers"


def test_the_shape_of_a_model_with_grouped_queries() -> None:
    found = read(models.QWEN_14B)
    assert (found.layers, found.heads, found.kv_heads, found.head_size) == (48, 40, 8, 128)
    assert (found.dtype, found.tied, found.positions, found.quantization) == ("bfloat16", False, 32768, "")
    assert set(found.windows) == {None}
    assert found.kv_fault == ""


def test_what_is_kept_in_32_bits_runs_in_16() -> None:
    assert read(models.QWEN_14B | {"torch_dtype": "float32"}).dtype == "float16"
    newer = {key: value for key, value in models.QWEN_14B.items() if key != "torch_dtype"}
    assert read(newer | {"dtype": "bfloat16"}).dtype == "bfloat16"


@pytest.mark.parametrize(
    ("config", "windows"),
    [
        (models.MISTRAL_7B, [4096] * 32),
        (models.MIXTRAL, [None] * 32),
        (models.GEMMA3_12B, [1024, 1024, 1024, 1024, 1024, None] * 8),
        # Named layer by layer, as newer configs do.
        (models.MISTRAL_7B | {"num_hidden_layers": 2, "layer_types": BOTH}, [None, 4096]),
        (models.QWEN_14B | {"use_sliding_window": False}, [None] * 48),
        (models.MISTRAL_7B | {"model_type": "gemma2"}, [4096, None] * 16),
    ],
)  # fmt: skip
def test_how_far_each_layer_looks_back(config: dict[str, Any], windows: list[int | None]) -> None:
    assert list(read(config).windows) == windows


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"layer_types": ["linear_attention", "full_attention"] * 24}, "it has layers of linear_attention"),
        ({"mamba_d_state": 16}, "its layers cache more than keys and values (mamba_d_state)"),
        ({"is_encoder_decoder": True}, "it has an encoder and a decoder"),
        ({"num_kv_shared_layers": 10}, "its layers differ in what they cache (num_kv_shared_layers)"),
        ({"use_sliding_window": True, "max_window_layers": 20},
         "only some layers slide, and config.json does not list them"),
        ({"layer_types": ["sliding_attention"] * 48, "sliding_window": None},
         "some layers slide over a window that config.json does not give"),
    ],
)  # fmt: skip
def test_a_cache_of_another_kind_is_not_known(more: dict[str, Any], words: str) -> None:
    assert read(models.QWEN_14B | more).kv_fault == words


def test_a_model_with_latent_attention_caches_one_vector() -> None:
    assert read(models.DEEPSEEK_V2_LITE).latent == 576


@pytest.mark.parametrize(
    ("config", "positions"),
    [
        (models.LLAMA_8B, 131072),
        (models.DEEPSEEK_V2_LITE, 163840),
        (models.QWEN_14B | {"rope_scaling": YARN}, 131072),
        ({**models.QWEN_14B, "max_position_embeddings": None}, 0),
    ],
)  # fmt: skip
def test_the_longest_context_of_a_model(config: dict[str, Any], positions: int) -> None:
    assert read(config).positions == positions


@pytest.mark.parametrize(
    ("quantized", "asked"),
    [
        (models.FP8, False),
        (models.FP8 | {"kv_cache_scheme": models.FP8_CACHE}, True),
        ({"quant_method": "modelopt", "kv_cache_quant_algo": "FP8"}, True),
    ],
)
def test_a_checkpoint_may_ask_for_a_cache_of_8_bits(quantized: dict[str, Any], asked: bool) -> None:
    assert read(models.LLAMA_8B | {"quantization_config": quantized}).fp8_cache is asked
