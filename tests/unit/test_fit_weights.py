"""Weights of one GPU: as published for the whole model, and as vLLM reported them for half of it."""

from math import prod
from typing import Any

import pytest

from orchestrator.fit import allocator, shape, weights
from orchestrator.fit.flags import GIB, Flags
from orchestrator.fit.weights import BITS, Tensor, Weights
from tests.unit import checkpoints as models

MIB = 1 << 20


def held(config: dict[str, Any], tensors: list[Tensor] | None = None, **said: Any) -> Weights:
    read = shape.read(config)
    assert isinstance(read, shape.Shape), read
    listed = models.tensors(config) if tensors is None else tensors
    found = weights.of_tensors(listed, read, Flags(cpu=said.pop("cpu", False), **said), "here")
    assert isinstance(found, Weights), found
    return found


@pytest.mark.parametrize(
    ("config", "gigabytes"),
    [
        # What the index of each repository gives as total_size, in GB.
        (models.QWEN_14B, 29.540),
        (models.QWEN_32B, 65.528),
        (models.LLAMA_8B, 16.061),
        (models.LLAMA_3B, 6.425),
        (models.MISTRAL_7B, 14.483),
        (models.MIXTRAL, 93.406),
        (models.QWEN3_30B, 61.064),
        (models.DEEPSEEK_V2_LITE, 31.413),
        (models.LLAMA_8B_FP8, 9.084),
        (models.QWEN_32B_AWQ, 19.329),
    ],
)
def test_the_checkpoints_of_these_tests_are_as_large_as_the_published_ones(
    config: dict[str, Any], gigabytes: float
) -> None:
    size = sum(prod(tensor.shape) * BITS[tensor.dtype] // 8 for tensor in models.tensors(config))
    assert size / 1e9 == pytest.approx(gigabytes, abs=0.001)


@pytest.mark.parametrize(
    ("config", "reported"),
    # `Model loading took` of vLLM 0.24.0 on two H200s, tensor parallel 2: docs/fit.md.
    [(models.QWEN_14B, 13.93), (models.QWEN_32B_AWQ, 9.34)],
)
def test_half_a_model_is_within_3_percent_of_what_vllm_reported(config: dict[str, Any], reported: float) -> None:
    assert held(config, tensor_parallel=2).size / GIB == pytest.approx(reported, rel=0.03)


@pytest.mark.parametrize(
    "config",
    [
        models.QWEN_14B, models.QWQ_32B_AWQ, models.QWEN_14B_GPTQ, models.LLAMA_8B_FP8, models.MIXTRAL,
        models.QWEN3_30B, models.GEMMA3_12B, models.DEEPSEEK_V2_LITE, models.LLAMA_3B,
    ],
)  # fmt: skip
def test_all_but_norms_and_the_like_is_halved_by_two_gpus(config: dict[str, Any]) -> None:
    # On CPUs, where no allocator rounds.
    one, two = (held(config, cpu=True, tensor_parallel=count).size for count in (1, 2))
    assert one / 2 < two < one / 2 * 1.006


def test_a_gpu_has_a_head_of_keys_and_values_at_least() -> None:
    tensor = Tensor("model.layers.0.self_attn.k_proj.weight", "BF16", (4 * 128, 2048))
    sizes = [held(models.QWEN3_30B, [tensor], cpu=True, tensor_parallel=count).size for count in (1, 2, 4, 8)]
    assert sizes == [2097152, 1048576, 524288, 524288]


@pytest.mark.parametrize(
    ("name", "dtype", "dimensions", "size"),
    [
        ("model.layers.0.mlp.gate_proj.weight", "BF16", (100, 64), 100 * 64),
        ("model.layers.0.mlp.down_proj.weight", "BF16", (64, 100), 100 * 64),
        ("model.layers.0.mlp.down_proj.bias", "BF16", (64,), 128),
        ("model.layers.0.self_attn.q_proj.bias", "BF16", (64,), 64),
        ("model.layers.0.input_layernorm.weight", "BF16", (64,), 128),
        ("model.layers.0.mlp.gate.weight", "BF16", (8, 64), 1024),
        ("model.layers.0.self_attn.kv_a_proj_with_mqa.weight", "BF16", (576, 64), 2 * 576 * 64),
        # 152065 words become 152128, a multiple of 64.
        ("model.embed_tokens.weight", "BF16", (152065, 64), 152128 * 64),
        ("lm_head.weight", "BF16", (152064, 64), 152064 * 64),
        # Kept in 32 bits, run in 16.
        ("model.layers.0.mlp.up_proj.weight", "F32", (100, 64), 100 * 64),
        ("model.layers.0.mlp.down_proj.qweight", "I32", (1024, 8), 1024 * 8 * 2),
        ("model.layers.0.mlp.down_proj.scales", "F16", (8, 64), 512),
        ("model.layers.0.mlp.down_proj.weight_scale", "BF16", (64, 1), 128),
        ("model.layers.0.mlp.gate_proj.weight_scale", "F32", (64, 1), 128),
        ("model.layers.0.mlp.gate_proj.input_scale", "F32", (), 4),
        ("model.layers.0.mlp.down_proj.weight_scale_inv", "F32", (8, 8), 128),
        ("model.layers.0.mlp.experts.3.w2.weight", "BF16", (64, 100), 6400),
        ("model.layers.0.mlp.experts.gate_up_proj", "BF16", (4, 64, 100), 25600),
        ("model.layers.0.mlp.experts.down_proj_blocks", "U8", (4, 64, 10, 16), 20480),
        # Not loaded: layers for speculation, and what is computed.
        ("model.layers.48.self_attn.q_proj.weight", "BF16", (100, 64), 0),
        ("mtp.layers.0.mlp.gate_proj.weight", "BF16", (100, 64), 0),
        ("model.layers.0.self_attn.rotary_emb.inv_freq", "F32", (64,), 0),
    ],
)
def test_each_kind_of_tensor_is_split_as_vllm_splits_it(
    name: str, dtype: str, dimensions: tuple[int, ...], size: int
) -> None:
    found = held(models.QWEN_14B, [Tensor(name, dtype, dimensions)], cpu=True, tensor_parallel=2)
    assert found.size == size


@pytest.mark.parametrize(("tied", "size"), [(True, 0), (False, 2048), (None, 2048)])
def test_a_head_that_is_tied_takes_nothing(tied: bool | None, size: int) -> None:
    config = models.QWEN_14B | {"tie_word_embeddings": tied}
    assert held(config, [Tensor("lm_head.weight", "BF16", (64, 16))], cpu=True).size == size


def test_the_zeros_of_a_symmetric_gptq_and_its_order_are_not_kept() -> None:
    names = [Tensor(f"model.layers.0.mlp.gate_proj.{kind}", "I32", (8, 8)) for kind in ("qzeros", "g_idx")]
    assert held(models.QWEN_14B_GPTQ, names, cpu=True).size == 0
    ordered = models.QWEN_14B | {"quantization_config": models.GPTQ | {"desc_act": True, "sym": False}}
    # The order twice: as it is and as it sorts.
    assert held(ordered, names, cpu=True).size == 256 + 512


def test_latent_attention_keeps_its_up_projection_twice() -> None:
    tensor = Tensor("model.layers.0.self_attn.kv_b_proj.weight", "BF16", (4096, 512))
    assert held(models.DEEPSEEK_V2_LITE, [tensor], cpu=True, tensor_parallel=2).size == 2 * 4096 * 512


def test_a_model_that_is_quantized_as_it_loads_to_8_bits_is_half_as_large() -> None:
    whole, half = (held(models.LLAMA_8B, cpu=True, quantization=said).size for said in ("", "fp8"))
    embeddings = 2 * 128256 * 4096 * 2
    assert half - embeddings == pytest.approx((whole - embeddings) / 2, rel=0.001)


def test_another_quantization_at_the_start_is_said_not_to_be_known() -> None:
    (note,) = held(models.LLAMA_8B, quantization="bitsandbytes").notes
    assert note.startswith("what quantization bitsandbytes makes of the weights at the start is not known")


def test_stages_of_a_pipeline_share_the_layers_and_the_largest_counts() -> None:
    whole, half = (held(models.QWEN_14B, cpu=True, pipeline_parallel=count).size for count in (1, 2))
    embedding = 152064 * 5120 * 2
    assert half == pytest.approx((whole - 2 * embedding) / 2 + embedding, rel=0.001)


@pytest.mark.parametrize(
    ("layers", "stages", "sizes"), [(48, 2, [24, 24]), (7, 2, [4, 3]), (10, 4, [2, 3, 3, 2]), (5, 1, [5])]
)
def test_what_is_over_goes_to_the_stages_before_the_last(layers: int, stages: int, sizes: list[int]) -> None:
    found = [weights.stage_of(layer, layers, stages) for layer in range(layers)]
    assert [found.count(stage) for stage in range(stages)] == sizes


def test_weights_in_the_machines_own_memory_are_none_of_the_gpus() -> None:
    assert held(models.QWEN_14B).size - held(models.QWEN_14B, offload=4 * GIB).size == 4 * GIB


def test_a_type_that_is_not_known_is_said() -> None:
    read = shape.read(models.QWEN_14B)
    assert isinstance(read, shape.Shape)
    tensors = [Tensor("model.norm.weight", "F6_E3M2", (5120,))]
    assert weights.of_tensors(tensors, read, Flags(cpu=False), "here") == (
        "its tensors are of F6_E3M2, whose size is not known"
    )


def test_the_sum_of_its_files_is_near_what_its_tensors_say() -> None:
    read = shape.read(models.QWEN_14B)
    assert isinstance(read, shape.Shape)
    found = weights.of_size(29_540_067_328, read, Flags(cpu=False, tensor_parallel=2), "the hub")
    assert found.size == pytest.approx(held(models.QWEN_14B, tensor_parallel=2).size, rel=0.01)
    assert found.notes == ("weights are those of the hub's list of files, shared equally",)


@pytest.mark.parametrize(
    ("sizes", "total"),
    [
        ([1], 512),
        ([MIB], MIB),
        # The next 2 MiB, and what is over stays with it when it is 1 MiB at most.
        ([35 * MIB], 36 * MIB),
        ([36 * MIB + 1], 38 * MIB),
        # Segments of 20 MiB are shared.
        ([8 * MIB, 8 * MIB], 16 * MIB),
        ([11 * MIB + 512], 12 * MIB),
        # A rest of 1 MiB that nobody can have is counted.
        ([9 * MIB, 10 * MIB - 512 + 512], 20 * MIB),
    ],
)
def test_what_the_allocator_counts(sizes: list[int], total: int) -> None:
    assert allocator.granted(sizes) == total
