"""Real models' config.json, as far as memory goes, and the tensors that their checkpoints hold, made from it."""

from collections.abc import Iterator
from typing import Any

from orchestrator.fit.weights import Tensor

AWQ = {"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemm", "zero_point": True}
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False, "sym": True}
FP8 = {"quant_method": "compressed-tensors", "format": "float-quantized", "kv_cache_scheme": None}
FP8_CACHE = {"num_bits": 8, "type": "float", "strategy": "tensor", "dynamic": False}
FINE_FP8 = {"quant_method": "fp8", "weight_block_size": [128, 128]}

QWEN_14B: dict[str, Any] = {
    "model_type": "qwen2", "hidden_size": 5120, "intermediate_size": 13824, "num_hidden_layers": 48,
    "num_attention_heads": 40, "num_key_value_heads": 8, "vocab_size": 152064, "max_position_embeddings": 32768,
    "torch_dtype": "bfloat16", "tie_word_embeddings": False, "use_sliding_window": False, "sliding_window": 131072,
    "max_window_layers": 70,
}  # fmt: skip
DEEPSEEK_14B = QWEN_14B | {"max_position_embeddings": 131072, "max_window_layers": 48}
QWEN_32B = QWEN_14B | {"intermediate_size": 27648, "num_hidden_layers": 64}
QWEN_32B_AWQ = QWEN_32B | {"torch_dtype": "float16", "quantization_config": AWQ}
QWQ_32B_AWQ = QWEN_32B_AWQ | {"torch_dtype": "bfloat16", "max_position_embeddings": 40960, "sliding_window": 32768,
                              "max_window_layers": 64}  # fmt: skip
QWEN_14B_GPTQ = QWEN_14B | {"torch_dtype": "float16", "quantization_config": GPTQ}
LLAMA_8B: dict[str, Any] = {
    "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256, "max_position_embeddings": 131072,
    "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 8192},
    "torch_dtype": "bfloat16", "tie_word_embeddings": False,
}  # fmt: skip
LLAMA_8B_FP8 = LLAMA_8B | {"quantization_config": FP8}
LLAMA_3B = LLAMA_8B | {
    "hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 28, "num_attention_heads": 24,
    "head_dim": 128, "tie_word_embeddings": True,
}  # fmt: skip
MISTRAL_7B: dict[str, Any] = {
    "model_type": "mistral", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 32000, "max_position_embeddings": 32768,
    "sliding_window": 4096, "torch_dtype": "bfloat16", "tie_word_embeddings": False,
}  # fmt: skip
MIXTRAL = MISTRAL_7B | {
    "model_type": "mixtral",
    "sliding_window": None,
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
}
QWEN3_30B: dict[str, Any] = {
    "model_type": "qwen3_moe", "hidden_size": 2048, "intermediate_size": 6144, "moe_intermediate_size": 768,
    "num_hidden_layers": 48, "num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 128, "num_experts": 128,
    "num_experts_per_tok": 8, "vocab_size": 151936, "max_position_embeddings": 40960, "torch_dtype": "bfloat16",
    "tie_word_embeddings": False, "use_sliding_window": False, "sliding_window": None,
}  # fmt: skip
GEMMA3_12B: dict[str, Any] = {
    "model_type": "gemma3",
    "torch_dtype": "bfloat16",
    "text_config": {
        "model_type": "gemma3_text", "hidden_size": 3840, "intermediate_size": 15360, "num_hidden_layers": 48,
        "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 256, "vocab_size": 262208,
        "max_position_embeddings": 131072, "sliding_window": 1024, "sliding_window_pattern": 6,
        "tie_word_embeddings": True,
    },
}  # fmt: skip
DEEPSEEK_V2_LITE: dict[str, Any] = {
    "model_type": "deepseek_v2", "hidden_size": 2048, "intermediate_size": 10944, "moe_intermediate_size": 1408,
    "num_hidden_layers": 27, "num_attention_heads": 16, "num_key_value_heads": 16, "n_routed_experts": 64,
    "n_shared_experts": 2, "num_experts_per_tok": 6, "first_k_dense_replace": 1, "kv_lora_rank": 512,
    "q_lora_rank": None, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128, "vocab_size": 102400,
    "max_position_embeddings": 163840, "torch_dtype": "bfloat16", "tie_word_embeddings": False,
    "rope_scaling": {"type": "yarn", "factor": 40, "original_max_position_embeddings": 4096},
}  # fmt: skip


def tensors(config: dict[str, Any]) -> list[Tensor]:
    """The tensors of a checkpoint of this shape, in the order of its layers."""
    text = config.get("text_config", config)
    quantized = config.get("quantization_config", {})
    return list(_tensors(text, quantized, "language_model.model" if text is not config else "model"))


def _tensors(text: dict[str, Any], quantized: dict[str, Any], top: str) -> Iterator[Tensor]:
    hidden, vocab = text["hidden_size"], text["vocab_size"]
    yield Tensor(f"{top}.embed_tokens.weight", "BF16", (vocab, hidden))
    for layer in range(text["num_hidden_layers"]):
        name = f"{top}.layers.{layer}"
        yield from _attention(text, quantized, f"{name}.self_attn")
        yield from _mlp(text, quantized, f"{name}.mlp", layer)
        yield Tensor(f"{name}.input_layernorm.weight", "BF16", (hidden,))
        yield Tensor(f"{name}.post_attention_layernorm.weight", "BF16", (hidden,))
    yield Tensor(f"{top}.norm.weight", "BF16", (hidden,))
    if not text["tie_word_embeddings"]:
        yield Tensor("lm_head.weight", "BF16", (vocab, hidden))


def _attention(text: dict[str, Any], quantized: dict[str, Any], name: str) -> Iterator[Tensor]:
    hidden, heads = text["hidden_size"], text["num_attention_heads"]
    if text.get("kv_lora_rank"):
        rank, nope, rope, value = (
            text[key] for key in ("kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
        )
        yield from linear(f"{name}.q_proj", hidden, heads * (nope + rope), quantized)
        yield from linear(f"{name}.kv_a_proj_with_mqa", hidden, rank + rope, quantized)
        yield Tensor(f"{name}.kv_a_layernorm.weight", "BF16", (rank,))
        yield from linear(f"{name}.kv_b_proj", rank, heads * (nope + value), quantized)
        yield from linear(f"{name}.o_proj", heads * value, hidden, quantized)
        return
    size = text.get("head_dim", hidden // heads)
    for module, outputs in (
        ("q_proj", heads),
        ("k_proj", text["num_key_value_heads"]),
        ("v_proj", text["num_key_value_heads"]),
    ):
        yield from linear(f"{name}.{module}", hidden, outputs * size, quantized)
        if text["model_type"] == "qwen2":
            yield Tensor(f"{name}.{module}.bias", "BF16", (outputs * size,))
    yield from linear(f"{name}.o_proj", heads * size, hidden, quantized)
    if text["model_type"] in ("qwen3_moe", "gemma3_text"):
        yield Tensor(f"{name}.q_norm.weight", "BF16", (size,))
        yield Tensor(f"{name}.k_norm.weight", "BF16", (size,))


def _mlp(text: dict[str, Any], quantized: dict[str, Any], name: str, layer: int) -> Iterator[Tensor]:
    hidden = text["hidden_size"]
    experts = next((text[key] for key in ("num_local_experts", "num_experts", "n_routed_experts") if key in text), 0)
    if not experts or layer < text.get("first_k_dense_replace", 0):
        yield from _three(name, ("gate_proj", "up_proj", "down_proj"), hidden, text["intermediate_size"], quantized)
        return
    mixtral = text["model_type"] == "mixtral"
    name = name.replace(".mlp", ".block_sparse_moe") if mixtral else name
    words = ("w1", "w3", "w2") if mixtral else ("gate_proj", "up_proj", "down_proj")
    size = text.get("moe_intermediate_size", text["intermediate_size"])
    yield Tensor(f"{name}.gate.weight", "BF16", (experts, hidden))
    for expert in range(experts):
        yield from _three(f"{name}.experts.{expert}", words, hidden, size, quantized)
    if text.get("n_shared_experts"):
        yield from _three(f"{name}.shared_experts", words, hidden, size * text["n_shared_experts"], quantized)


def _three(name: str, words: tuple[str, ...], hidden: int, size: int, quantized: dict[str, Any]) -> Iterator[Tensor]:
    gate, up, down = words
    yield from linear(f"{name}.{gate}", hidden, size, quantized)
    yield from linear(f"{name}.{up}", hidden, size, quantized)
    yield from linear(f"{name}.{down}", size, hidden, quantized)


def linear(name: str, inputs: int, outputs: int, quantized: dict[str, Any]) -> Iterator[Tensor]:
    """The tensors of one linear layer, as each format keeps them."""
    method = quantized.get("quant_method", "")
    if method in ("awq", "gptq"):
        groups = inputs // quantized["group_size"]
        packed = (inputs, outputs // 8) if method == "awq" else (inputs // 8, outputs)
        yield Tensor(f"{name}.qweight", "I32", packed)
        yield Tensor(f"{name}.qzeros", "I32", (groups, outputs // 8))
        yield Tensor(f"{name}.scales", "F16", (groups, outputs))
        if method == "gptq":
            yield Tensor(f"{name}.g_idx", "I32", (inputs,))
    elif method == "compressed-tensors":
        yield Tensor(f"{name}.weight", "F8_E4M3", (outputs, inputs))
        yield Tensor(f"{name}.weight_scale", "BF16", (outputs, 1))
    elif method == "fp8":
        yield Tensor(f"{name}.weight", "F8_E4M3", (outputs, inputs))
        yield Tensor(f"{name}.weight_scale_inv", "F32", (-(-outputs // 128), -(-inputs // 128)))
    else:
        yield Tensor(f"{name}.weight", "BF16", (outputs, inputs))
