"""What of a model's config.json decides how much memory it takes. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# Bytes of the types that a model may run in, by the names of config.json and of vLLM's --dtype.
BYTES = {"float16": 2, "half": 2, "bfloat16": 2, "float32": 4, "float": 4}
# Keys of config.json that belong to layers whose cache is none of keys and values.
OTHER_CACHES = ("ssm_cfg", "mamba_d_state", "state_size", "linear_num_key_heads", "attention_chunk_size", "index_topk")
# Each layer of these kinds slides, but for every n-th, where config.json names no layer_types (Transformers'
# configurations: Gemma2Config and Gemma3TextConfig, Cohere2Config).
PATTERNS = {"gemma2": 2, "gemma3_text": 6, "cohere2": 4}


@dataclass(frozen=True)
class Shape:
    """A model's dimensions; heads and sizes are of the text part, whole, before any split over GPUs.

    windows has an entry for each layer: tokens that it looks back, None for all. latent is the size of what MLA caches
    for a token, 0 for other models. tied is None where config.json does not say. kv_fault is why the size of the KV
    cache is not known, "" when it is.
    """

    kind: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_size: int
    intermediate: int
    vocab: int
    dtype: str
    positions: int
    windows: tuple[int | None, ...]
    latent: int = 0
    rope_size: int = 0
    tied: bool | None = None
    quantization: str = ""
    desc_act: bool = False
    symmetric: bool = False
    fp8_cache: bool = False
    experts_per_token: int = 0
    has_other_parts: bool = False
    kv_fault: str = ""


def read(config: Mapping[str, Any]) -> Shape | str:
    """Read a config.json; the reason in a few words when its dimensions are not what is known."""
    text = next((config[key] for key in ("text_config", "llm_config") if isinstance(config.get(key), Mapping)), config)
    try:
        return _shape(config, text)
    except (LookupError, TypeError, ValueError, ZeroDivisionError, AttributeError) as error:
        missing = error.args[0] if isinstance(error, KeyError) else "its values are not numbers"
        return f"config.json does not say what it should: {missing}"


def _shape(config: Mapping[str, Any], text: Mapping[str, Any]) -> Shape:
    layers = _number(text, "num_hidden_layers", "n_layer", "n_layers", "num_layers")
    hidden = _number(text, "hidden_size", "n_embd", "d_model")
    heads = _number(text, "num_attention_heads", "n_head", "n_heads")
    latent = int(text["kv_lora_rank"]) + int(text["qk_rope_head_dim"]) if text.get("kv_lora_rank") else 0
    head_size = int(text.get("head_dim") or hidden // heads)
    quantized = config.get("quantization_config") or text.get("quantization_config") or {}
    windows, window_fault = _windows(text, layers)
    kind = str(text.get("model_type") or config.get("model_type") or "")
    return Shape(
        kind=kind,
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=_kv_heads(text, heads),
        head_size=head_size,
        intermediate=int(text.get("intermediate_size") or text.get("n_inner") or 4 * hidden),
        vocab=_number(text, "vocab_size"),
        dtype=_dtype(config, text),
        positions=_positions(text),
        windows=windows,
        latent=latent,
        rope_size=int(text.get("qk_rope_head_dim") or head_size),
        tied=_tied(config, text),
        quantization=str(quantized.get("quant_method") or ""),
        desc_act=bool(quantized.get("desc_act")),
        symmetric=bool(quantized.get("sym")),
        fp8_cache=_fp8_cache(quantized),
        experts_per_token=int(text.get("num_experts_per_tok") or 0),
        has_other_parts=text is not config,
        kv_fault=window_fault or _fault(config, text),
    )


def _number(text: Mapping[str, Any], *names: str) -> int:
    found = next((text[name] for name in names if text.get(name)), None)
    if found is None:
        raise KeyError(f"no {names[0]}")
    return int(found)


def _kv_heads(text: Mapping[str, Any], heads: int) -> int:
    if text.get("multi_query"):
        return 1
    return int(text.get("num_key_value_heads") or text.get("num_kv_heads") or text.get("n_head_kv") or heads)


def _tied(config: Mapping[str, Any], text: Mapping[str, Any]) -> bool | None:
    found = text.get("tie_word_embeddings", config.get("tie_word_embeddings"))
    return None if found is None else bool(found)


def _dtype(config: Mapping[str, Any], text: Mapping[str, Any]) -> str:
    """Name the type that --dtype auto takes: vLLM runs what is kept in 32 bits in 16 (config/model.py)."""
    said = text.get("torch_dtype") or text.get("dtype") or config.get("torch_dtype") or config.get("dtype")
    name = str(said or "float16").removeprefix("torch.")
    return "float16" if name not in BYTES or BYTES[name] > 2 else name


def _fp8_cache(quantized: Mapping[str, Any]) -> bool:
    """Whether the checkpoint asks for a cache in 8 bits, which vLLM does unless told otherwise (attention.py)."""
    if quantized.get("kv_cache_scheme") and quantized.get("quant_method") != "modelopt":
        return True
    return str(quantized.get("kv_cache_quant_algo") or "").lower() == "fp8"


def _positions(text: Mapping[str, Any]) -> int:
    """The longest context that the model says it has, stretched as vLLM does it (_get_and_verify_max_len); 0: none."""
    longest = int(text.get("max_position_embeddings") or text.get("n_positions") or text.get("max_seq_len") or 0)
    scaling = text.get("rope_scaling") or text.get("rope_parameters") or {}
    kind = str(scaling.get("rope_type") or scaling.get("type") or "default")
    if kind in ("yarn", "linear", "dynamic") and scaling.get("factor"):
        original = scaling.get("original_max_position_embeddings") if kind == "yarn" else None
        return int(int(original or longest) * float(scaling["factor"]))
    return longest


def _windows(text: Mapping[str, Any], layers: int) -> tuple[tuple[int | None, ...], str]:
    """How far each layer looks back, and why that is not known ("" when it is)."""
    every: tuple[int | None, ...] = (None,) * layers
    window = text.get("sliding_window")
    types = text.get("layer_types")
    if isinstance(types, Sequence) and not isinstance(types, str) and types:
        others = sorted({str(kind) for kind in types} - {"full_attention", "sliding_attention"})
        if others:
            return every, f"it has layers of {', '.join(others)}"
        sliding = [kind == "sliding_attention" for kind in types[:layers]]
        if any(sliding) and not window:
            return every, "some layers slide over a window that config.json does not give"
        return tuple(int(window) if slides and window else None for slides in sliding), ""
    if not window or text.get("use_sliding_window") is False:
        return every, ""
    kind = str(text.get("model_type") or "")
    if kind in PATTERNS:
        period = int(text.get("sliding_window_pattern") or PATTERNS[kind])
        return tuple(int(window) if (layer + 1) % period else None for layer in range(layers)), ""
    if int(text.get("max_window_layers") or 0) not in (0, layers):
        return every, "only some layers slide, and config.json does not list them"
    return (int(window),) * layers, ""


def _fault(config: Mapping[str, Any], text: Mapping[str, Any]) -> str:
    """Say why the KV cache of a model is not that of equal attention layers; "" when it is."""
    if config.get("is_encoder_decoder"):
        return "it has an encoder and a decoder"
    other = next((key for key in OTHER_CACHES if text.get(key)), None)
    if other:
        return f"its layers cache more than keys and values ({other})"
    odd = next((key for key in ("global_head_dim", "num_global_key_value_heads", "num_kv_shared_layers")
                if text.get(key)), None)  # fmt: skip
    return f"its layers differ in what they cache ({odd})" if odd else ""
