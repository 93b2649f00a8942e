"""Flags that change how much memory a server takes are read; those that are not are said."""

from typing import Any

import pytest

from orchestrator.fit import flags
from orchestrator.fit.flags import GIB, Flags
from tests.unit.values import profile


def read(version: str = "0.32.0", override: dict[str, str] | None = None, **said: Any) -> Flags:
    return flags.read(profile(**said), lambda key: (override or {}).get(key, ""), version)


def test_what_nobody_says_is_as_vllm_has_it() -> None:
    found = read(tensor_parallel_size=2)
    assert (found.tensor_parallel, found.gpus, found.utilization, found.block) == (2, 2, 0.92, 16)
    assert (found.kv_bytes, found.seqs, found.max_model_len, found.notes) == (None, None, None, ())


def test_an_older_vllm_takes_less_and_counts_no_graphs() -> None:
    found = read("0.19.1")
    assert (found.utilization, found.counts_graphs) == (0.9, False)
    assert found.notes == ("the formula is that of vLLM 0.32.0, and this profile runs 0.19.1",)
    assert read(env={"VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS": "0"}).counts_graphs is False


def test_a_setting_beats_models_toml() -> None:
    found = read(
        override={"max_model_len": "8192", "gpu_memory_utilization": ".5"},
        max_model_len=4096,
        gpu_memory_utilization=0.8,
    )
    assert (found.max_model_len, found.utilization) == (8192, 0.5)


@pytest.mark.parametrize(
    ("args", "changed"),
    [
        ({"kv-cache-dtype": "fp8"}, {"cache_dtype": "fp8"}),
        ({"max-num-seqs": 32, "block-size": 32}, {"seqs": 32, "block": 32}),
        ({"max-num-batched-tokens": "4k"}, {"batched": 4000}),
        ({"kv-cache-memory-bytes": "2G"}, {"kv_bytes": 2 * GIB}),
        ({"cpu-offload-gb": 1.5}, {"offload": GIB * 3 // 2}),
        ({"pipeline-parallel-size": 2}, {"pipeline_parallel": 2}),
        ({"disable-hybrid-kv-cache-manager": True}, {"hybrid": False}),
        ({"disable-sliding-window": True}, {"slides": False}),
        ({"num-gpu-blocks-override": 100, "max-cudagraph-capture-size": 32}, {"blocks": 100, "capture": 32}),
        ({"enable-prefix-caching": True, "chat-template": "x"}, {}),
        ({"enable-lora": True}, {"notes": ("--enable-lora is not counted, whatever it changes",)}),
        ({"max-num-seqs": "many"}, {"notes": ("--max-num-seqs many is not understood",)}),
    ],
)
def test_a_flag_changes_what_it_means_and_nothing_else(args: dict[str, Any], changed: dict[str, Any]) -> None:
    usual = vars(read())
    assert vars(read(args=args)) == usual | changed


@pytest.mark.parametrize(
    ("env", "room"),
    [({}, GIB), ({"VLLM_CPU_KVCACHE_SPACE": "4"}, 4 * GIB), ({"VLLM_CPU_KVCACHE_SPACE": ""}, None)],
)
def test_on_cpus_the_cache_has_the_room_that_the_environment_gives(env: dict[str, str], room: int | None) -> None:
    found = read(image="cpu", gpus=[], env=env)
    assert (found.cpu, found.block, found.kv_bytes) == (True, 128, room)
