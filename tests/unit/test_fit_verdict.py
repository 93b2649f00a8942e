"""Whether a model fits two RTX 4090s, what is said of it, and what would do."""

import json
import re
from typing import Any

import pytest

from orchestrator.fit import shape, verdict, ways, weights, words
from orchestrator.fit.flags import GIB, Flags
from orchestrator.fit.gpu import Gpu, Process
from orchestrator.fit.room import Memory
from orchestrator.fit.verdict import Fit
from tests.unit import checkpoints as models

NAME = "NVIDIA GeForce RTX 4090"


def cards(*free: float, total: float = 23.52, back: dict[int, int | None] | None = None, by: str = "") -> Memory:
    """GPUs with so many GiB free; back is what servers give back."""
    found = tuple(
        Gpu(index, NAME, int(total * GIB), int(size * GIB), int((total - size) * GIB))
        for index, size in enumerate(free)
    )
    return Memory(found, back or {}, (by,) if by else ())


def decide(config: dict[str, Any], memory: Memory | str = "", **said: Any) -> Fit:
    told = Flags(**{"cpu": False, "tensor_parallel": 2, "max_model_len": 16384, "utilization": 0.9} | said)
    read = shape.read(config)
    assert isinstance(read, shape.Shape), read
    held = weights.of_tensors(models.tensors(config), read, told, "the headers of its folder")
    return verdict.decide("m", read, held, told, memory or cards(23.1, 23.1))


@pytest.mark.parametrize(
    ("config", "said", "state"),
    [
        (models.QWEN_14B, {}, "fits"),
        (models.DEEPSEEK_14B, {"max_model_len": 32768}, "fits"),
        (models.QWEN_32B_AWQ, {"dtype": "half"}, "fits"),
        (models.QWQ_32B_AWQ, {"dtype": "half"}, "fits"),
        # 30.7 GiB a GPU.
        (models.QWEN_32B, {}, "cannot"),
        (models.QWEN_14B, {"max_model_len": 131072}, "cannot"),
        (models.QWEN_14B, {"max_model_len": 131072, "cache_dtype": "fp8", "utilization": 0.89}, "tight"),
        (models.QWEN_14B, {"tensor_parallel": 1}, "cannot"),
        (models.GEMMA3_12B, {"max_model_len": 32768}, "fits"),
        (models.LLAMA_8B_FP8, {"tensor_parallel": 1}, "fits"),
        (models.QWEN_14B_GPTQ, {"tensor_parallel": 1}, "fits"),
        (models.MIXTRAL, {}, "cannot"),
        (models.DEEPSEEK_V2_LITE, {}, "fits"),
    ],
)
def test_what_fits_two_cards(config: dict[str, Any], said: dict[str, Any], state: str) -> None:
    assert decide(config, **said).state == state


def test_a_context_that_is_too_long_is_answered_with_the_longest_that_fits() -> None:
    found = decide(models.DEEPSEEK_14B, max_model_len=131072)
    (reason,) = found.reasons
    assert reason.startswith("one request of 131,072 tokens needs 12.00 GiB of KV cache, and ")
    length = int(found.advice[0].removeprefix("max_model_len = "))
    assert length % 256 == 0
    assert decide(models.DEEPSEEK_14B, max_model_len=length).state == "fits"
    assert decide(models.DEEPSEEK_14B, max_model_len=length + 256).state != "fits"


def test_no_longer_context_is_advised_than_the_model_has() -> None:
    assert decide(models.QWEN_14B, max_model_len=131072).advice == ("max_model_len = 32768",)


def test_a_share_that_is_too_small_is_answered_with_one_that_does() -> None:
    found = decide(models.QWEN_14B, utilization=0.6)
    assert found.state == "cannot"
    share = next(way for way in found.advice if way.startswith("gpu_memory_utilization"))
    assert decide(models.QWEN_14B, utilization=float(share.rpartition(" ")[2])).state == "fits"


def test_weights_that_alone_are_too_many_leave_nothing_to_say_of_the_context() -> None:
    found = decide(models.QWEN_32B)
    assert found.reasons == (
        "the weights take 30.71 GiB a GPU, and vLLM may take 21.17 GiB with all that it needs beside them",
    )
    assert found.advice == ()


def test_what_others_hold_is_named_and_the_share_that_is_left_advised() -> None:
    held = cards(23.1, 17.5)
    chrome = Process(4242, "chrome", 5 * GIB)
    memory = Memory((held.gpus[0], Gpu(1, NAME, *_sizes(held.gpus[1]), processes=(chrome,))), {})
    found = decide(models.QWEN_14B_GPTQ, memory)
    assert found.state == "cannot"
    assert found.reasons == ("GPU 1 has 17.50 GiB free, and vLLM asks for 21.17 GiB when it starts",)
    assert found.advice == ("gpu_memory_utilization = 0.72",)
    assert words.refusal(found).splitlines() == [
        "m cannot fit: GPU 1 has 17.50 GiB free, and vLLM asks for 21.17 GiB when it starts",
        "  What would do: gpu_memory_utilization = 0.72",
        "  GPU 1: 5.00 GiB: chrome (process 4242)",
        "  The numbers: python -m orchestrator plan m; to try all the same: up m --force",
    ]


def _sizes(gpu: Gpu) -> tuple[int, int, int]:
    return gpu.total, gpu.free, gpu.used


def test_what_a_server_holds_that_is_stopped_first_is_free() -> None:
    busy = cards(2.0, 2.0, back={0: 21 * GIB, 1: 21 * GIB}, by="qwen-32b-awq")
    assert decide(models.QWEN_14B, busy).state == "fits"
    assert decide(models.QWEN_14B, cards(2.0, 2.0)).state == "cannot"
    assert "GPU 0       NVIDIA GeForce RTX 4090, 23.52 GiB, 2.00 GiB free, 23.00 GiB when" in words.table(
        decide(models.QWEN_14B, busy)
    )


def test_what_a_driver_does_not_tell_blocks_nothing() -> None:
    unknown = cards(2.0, 2.0, back={0: None, 1: None}, by="qwen-32b-awq")
    found = decide(models.QWEN_14B, unknown)
    assert found.state == "fits"
    assert "is qwen-32b-awq's, which will be stopped, is not known" in " ".join(words.table(found).split())


def test_less_free_than_a_server_takes_before_it_looks_is_tight() -> None:
    found = decide(models.QWEN_14B, cards(21.4, 21.4))
    assert found.state == "tight"
    assert words.warning(found, forced=False).startswith("m may not fit: GPU 0 has 21.40 GiB free")


@pytest.mark.parametrize(
    ("fit", "unknown"),
    [
        (decide(models.QWEN_14B, "nvidia-smi does not tell"), "the GPUs' memory: nvidia-smi does not tell"),
        (decide(models.QWEN_14B | {"mamba_d_state": 1}), "the KV cache: its layers cache more"),
        (decide(models.QWEN_14B | {"max_position_embeddings": 0}, max_model_len=None), "the longest request: neither"),
        (verdict.decide("m", "no hub", "as its shape is not", Flags(cpu=False), cards(23)), "the model: no hub"),
        (decide(models.QWEN_14B, "none", cpu=True), "the KV cache's room: VLLM_CPU_KVCACHE_SPACE is no number of GiB"),
    ],
)
def test_what_is_not_known_is_said_and_blocks_nothing(fit: Fit, unknown: str) -> None:
    assert fit.state == "unknown"
    assert fit.unknown[0].startswith(unknown)
    assert unknown in words.warning(fit, forced=False)
    assert words.values(fit)["not_known"][0].startswith(unknown)


def test_what_one_request_needs_is_said_where_the_gpus_are_not_known() -> None:
    said = words.table(decide(models.QWEN_14B, "nvidia-smi does not tell"))
    assert "  KV cache    one request of 16,384 tokens needs 1.50 GiB a GPU" in said.splitlines()


def test_weights_that_do_not_fit_are_refused_whatever_else_is_not_known() -> None:
    assert decide(models.QWEN_32B | {"mamba_d_state": 1}).state == "cannot"


@pytest.mark.parametrize(("length", "state"), [(1024, "fits"), (2_000_000, "cannot")])
def test_on_cpus_a_request_must_fit_the_room_of_the_cache(length: int, state: str) -> None:
    tiny = models.LLAMA_8B | {
        "num_hidden_layers": 3, "hidden_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2
    }  # fmt: skip
    found = decide(tiny, "it has none", cpu=True, tensor_parallel=1, kv_bytes=GIB, block=128, max_model_len=length)
    assert found.state == state
    if state == "cannot":
        assert found.reasons == ("one request of 2,000,000 tokens needs 1.43 GiB of KV cache, and 1.00 GiB are left",)
        assert found.advice == ("max_model_len = 131072", 'env = { VLLM_CPU_KVCACHE_SPACE = "2" }')


def test_a_cache_of_a_given_size_is_all_there_is() -> None:
    found = decide(models.QWEN_14B, kv_bytes=GIB)
    assert found.state == "cannot"
    assert found.advice == ("max_model_len = 10752",)


def test_what_vllm_will_not_take_is_a_note() -> None:
    assert "its 40 heads cannot be split over 3 GPUs" in decide(models.QWEN_14B, tensor_parallel=3).notes
    notes = decide(models.QWEN_14B, max_model_len=40000).notes
    assert notes == ("max_model_len is above the 32768 tokens that config.json allows",)


@pytest.mark.parametrize(
    ("model", "profiles", "found"),
    [
        ("Qwen/Q-32B", {"a": "Qwen/Q-32B", "b": "Qwen/Q-32B-FP8"}, ["Qwen/Q-32B-FP8", "Qwen/Q-32B-AWQ"]),
        ("Qwen/Q-32B-AWQ", {}, []),
        ("./folder", {}, []),
    ],
)
def test_quantized_models_are_found_by_their_names(model: str, profiles: dict[str, str], found: list[str]) -> None:
    assert ways.siblings(model, profiles)[:2] == found


@pytest.mark.parametrize(
    "fit",
    [
        decide(models.QWEN_14B), decide(models.QWEN_32B), decide(models.QWEN_14B, max_model_len=131072),
        decide(models.QWEN_14B, cards(2.0, 2.0, back={0: None, 1: 3 * GIB}, by="qwen-32b-awq")),
        verdict.decide("m", "it is not pulled " * 9, "no", Flags(cpu=False, notes=("a note " * 20,)), "no"),
    ],
)  # fmt: skip
def test_it_is_readable_in_80_columns_and_says_what_the_values_say(fit: Fit) -> None:
    lines = words.table(fit).splitlines()
    assert lines[0] == f"fit     m: {words.STATES[fit.state]}"
    assert max(map(len, lines)) <= 80
    assert json.loads(json.dumps(words.values(fit)))["state"] == fit.state


def test_the_numbers_of_one_that_fits() -> None:
    assert words.table(decide(models.QWEN_14B)).splitlines()[:3] == [
        "fit     m: fits",
        "  weights     13.93 GiB a GPU, from the headers of its folder",
        "  beside      0.99 GiB a GPU of work space, and 0.95 GiB of CUDA graphs",
    ]
    held = re.search(r"holds +([\d.]+) requests of 16,384 tokens at once", words.table(decide(models.QWEN_14B)))
    assert held is not None
    assert 3 < float(held[1]) < 5


def test_forced_it_says_that_it_goes_on() -> None:
    assert words.warning(decide(models.QWEN_32B), forced=True).endswith("; going on, as --force says")
    assert words.warning(decide(models.QWEN_14B), forced=True) == ""


def test_memory_that_nobody_holds_by_name_is_said() -> None:
    said = words.table(decide(models.QWEN_14B, cards(10.0, 10.0)))
    assert "13.52 GiB are held, and the driver does not say by whom" in said
