"""How many bytes of weights one GPU holds: tensors of the checkpoint in, split and fused as vLLM does, bytes out. Pure.

The rules are those of vLLM 0.32.0: model_executor/layers/linear.py (columns and rows), vocab_parallel_embedding.py,
layers/fused_moe (experts), quantization/auto_awq.py, auto_gptq.py and compressed_tensors.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil, prod

from orchestrator.fit import allocator
from orchestrator.fit.flags import Flags
from orchestrator.fit.shape import BYTES, Shape

# Bits of a value, by safetensors' names of types.
BITS = {
    "F64": 64, "I64": 64, "U64": 64, "F32": 32, "I32": 32, "U32": 32, "F16": 16, "BF16": 16, "I16": 16, "U16": 16,
    "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "I8": 8, "U8": 8, "BOOL": 8, "F4": 4,
}  # fmt: skip
FLOATS = ("F64", "F32", "F16", "BF16")
# Each GPU holds some of the outputs; or some of the inputs; or some of the vocabulary. All else is held by each.
COLUMNS = frozenset({
    "q_proj", "k_proj", "v_proj", "qkv_proj", "qkv", "query_key_value", "c_attn", "W_pack", "Wqkv", "wq", "wk", "wv",
    "q_b_proj", "kv_b_proj", "gate_proj", "up_proj", "gate_up_proj", "w1", "w3", "w13", "fc1", "fc_in", "c_fc",
    "dense_h_to_4h", "linear_fc1",
})  # fmt: skip
ROWS = frozenset({
    "o_proj", "down_proj", "w2", "wo", "out_proj", "c_proj", "fc2", "fc_out", "dense", "dense_4h_to_h", "linear_fc2",
    "proj",
})  # fmt: skip
VOCABULARY = frozenset({
    "embed_tokens", "lm_head", "wte", "word_embeddings", "embed_in", "embed_out", "tok_embeddings", "output",
})  # fmt: skip
# vocab_parallel_embedding.py: DEFAULT_VOCAB_PADDING_SIZE.
PADDING = 64
# What becomes one tensor when vLLM loads it, in the order in which a layer makes them.
FUSED = {
    "q_proj": "qkv", "k_proj": "qkv", "v_proj": "qkv",
    "gate_proj": "gate_up", "up_proj": "gate_up", "w1": "gate_up", "w3": "gate_up",
}  # fmt: skip
LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")
EXPERT = re.compile(r"\.experts\.\d+\.")
OTHER_PARTS = re.compile(r"(?:^|\.)(?:visual|vision\w*|audio\w*|multi_modal_projector|mm_projector|image_newline)\.")
NO_WEIGHTS = re.compile(r"(?:^|\.)mtp\.|rotary_emb\.inv_freq$|\.weight_shape$|\.masked_bias$")


@dataclass(frozen=True)
class Tensor:
    """One tensor of a checkpoint, as a header of safetensors names it."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def module(self) -> str:
        """The layer that it belongs to: q_proj of model.layers.0.self_attn.q_proj.qweight."""
        words = self.name.split(".")
        stacked = re.sub(r"_(?:blocks|scales|bias|weight_scale|weight_scale_inv)$", "", words[-1])
        return stacked if stacked in COLUMNS | ROWS or len(words) == 1 else words[-2]

    @property
    def kind(self) -> str:
        """What it is to its layer: weight, bias, qweight, scales."""
        return self.name.rsplit(".", 1)[-1]


@dataclass(frozen=True)
class Weights:
    """Bytes that the GPU with the most of them holds, where that comes from, and what is not sure about it."""

    size: int
    source: str
    notes: tuple[str, ...] = ()


def of_tensors(tensors: Iterable[Tensor], shape: Shape, flags: Flags, source: str) -> Weights | str:
    """Add up what one GPU holds of a checkpoint; the reason where a tensor is of a type that is not known."""
    stages: list[dict[str, int]] = [{} for _ in range(flags.pipeline_parallel)]
    strange, guessed = set(), 0
    last = len(stages) - 1
    for tensor in tensors:
        if _left_out(tensor, shape):
            continue
        if tensor.dtype not in BITS:
            strange.add(tensor.dtype)
            continue
        held = _held(tensor, shape, flags)
        guessed += held if OTHER_PARTS.search(tensor.name) else 0
        for stage in _stages(tensor, shape, last):
            key = _fused(tensor)
            stages[stage][key] = stages[stage].get(key, 0) + held
    if strange:
        return f"its tensors are of {', '.join(sorted(strange))}, whose size is not known"
    # The table of rotary positions, one for all layers (rotary_embedding/base.py), in the model's own type.
    rope = shape.positions * shape.rope_size * _bytes(shape, flags)
    sizes = [allocator.granted([*stage.values(), rope]) if not flags.cpu else sum(stage.values()) for stage in stages]
    notes = ["how its parts for images or sound are split is a guess"] if guessed else []
    return _offloaded(Weights(max(sizes), source, (*notes, *_quantized_here(shape, flags))), flags)


def of_size(total: int, shape: Shape, flags: Flags, source: str) -> Weights:
    """Share the size of all its files among the GPUs, where no tensor is known: norms are a thousandth of a model.

    A hundredth is added for what the allocator rounds up, as was measured with the two shapes of docs/fit.md.
    """
    size = ceil(total / flags.gpus * 1.01)
    notes = ("weights are those of the hub's list of files, shared equally", *_quantized_here(shape, flags))
    return _offloaded(Weights(size, source, notes), flags)


def _offloaded(found: Weights, flags: Flags) -> Weights:
    return Weights(max(found.size - flags.offload, 0), found.source, found.notes)


def _quantized_here(shape: Shape, flags: Flags) -> list[str]:
    if not flags.quantization or shape.quantization or flags.quantization == "fp8":
        return []
    return [f"what quantization {flags.quantization} makes of the weights at the start is not known: they may be fewer"]


def _left_out(tensor: Tensor, shape: Shape) -> bool:
    """Whether vLLM loads nothing of a tensor: layers for speculation, what is tied, what Marlin needs no more."""
    layer = LAYER.search(tensor.name)
    if NO_WEIGHTS.search(tensor.name):
        return True
    if layer and not OTHER_PARTS.search(tensor.name) and int(layer[1]) >= shape.layers:
        return True
    if tensor.kind == "qzeros" and shape.quantization == "gptq" and shape.symmetric:
        return True
    if tensor.kind == "g_idx" and not shape.desc_act:
        return True
    return tensor.module in ("lm_head", "embed_out") and shape.tied is True


def _bytes(shape: Shape, flags: Flags) -> int:
    """The size of a value of the type that the model runs in."""
    return BYTES[shape.dtype if flags.dtype == "auto" else flags.dtype]


def _held(tensor: Tensor, shape: Shape, flags: Flags) -> int:
    """Bytes of a tensor on one GPU."""
    count, split = prod(tensor.shape), flags.tensor_parallel
    bits = BITS[tensor.dtype]
    module, kind = tensor.module, tensor.kind
    if tensor.dtype in FLOATS and (kind in ("weight", "bias", "scales") or kind in COLUMNS | ROWS):
        bits = 8 * _bytes(shape, flags)
        if flags.quantization == "fp8" and not shape.quantization and kind == "weight" and module in COLUMNS | ROWS:
            bits = 8
    if module in VOCABULARY and kind == "weight" and len(tensor.shape) == 2:
        rows = ceil(tensor.shape[0] / PADDING) * PADDING
        count = rows * tensor.shape[1] // split
    elif module in COLUMNS and kind != "g_idx" and count > 1:
        count = ceil(count / _columns(module, shape, split))
    elif module in ROWS and count > 1 and _has_inputs(tensor):
        count = ceil(count / split)
    # MLA keeps what decoding multiplies with beside what prefill does (mla_attention.py: W_UV and W_UK_T).
    copies = count * 8 * _bytes(shape, flags) if module == "kv_b_proj" and kind == "weight" and shape.latent else 0
    return ceil((count * bits + copies) / 8) * (2 if kind == "g_idx" else 1)


def _columns(module: str, shape: Shape, split: int) -> int:
    """In how many parts a layer's outputs are split: a GPU has one head of keys and values at least."""
    return min(split, shape.kv_heads) if module in ("k_proj", "v_proj", "wk", "wv") else split


def _has_inputs(tensor: Tensor) -> bool:
    """Whether a tensor of a layer that is split by its inputs has a value for each, or for each group of them."""
    if tensor.kind in ("weight", "qweight", "weight_packed", "g_idx") or tensor.kind in ROWS:
        return True
    return "bias" not in tensor.kind and len(tensor.shape) > 1 and min(tensor.shape) > 1


def _fused(tensor: Tensor) -> str:
    """Name the tensor that this one becomes part of."""
    name = EXPERT.sub(".experts.", tensor.name)
    module = tensor.module
    return name.replace(f".{module}.", f".{FUSED[module]}.") if module in FUSED else name


def _stages(tensor: Tensor, shape: Shape, last: int) -> list[int]:
    """On which stages of a pipeline a tensor lies; vLLM gives what is over to those before the last (utils.py)."""
    if not last:
        return [0]
    layer = LAYER.search(tensor.name)
    if layer and not OTHER_PARTS.search(tensor.name):
        return [stage_of(int(layer[1]), shape.layers, last + 1)]
    if tensor.module in VOCABULARY and "embed" in tensor.name and shape.tied:
        return [0, last]
    return [last] if tensor.module in ("lm_head", "norm", "ln_f", "embed_out", "output") else [0]


def stage_of(layer: int, layers: int, stages: int) -> int:
    """Name the stage of a pipeline that a layer is on (distributed/utils.py, get_pp_indices)."""
    each, over = divmod(layers, stages)
    sizes = [each + (1 if stages - 1 - over <= stage < stages - 1 else 0) for stage in range(stages)]
    for stage, size in enumerate(sizes):
        if layer < size:
            return stage
        layer -= size
    return stages - 1
