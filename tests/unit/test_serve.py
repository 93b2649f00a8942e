"""A profile becomes the command line of its server, word for word."""

import shlex
from typing import Any

import pytest

from orchestrator.render.serve import serve
from tests.unit.values import QWEN, profile, profiles

BEGINS = "vllm serve /models/Qwen/Qwen2.5-14B-Instruct --served-model-name qwen-14b"


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ({}, f"{BEGINS} --tensor-parallel-size 1"),
        ({"tensor_parallel_size": 2}, f"{BEGINS} --tensor-parallel-size 2"),
        ({"max_model_len": 16384}, f"{BEGINS} --tensor-parallel-size 1 --max-model-len 16384"),
        ({"gpu_memory_utilization": 0.9}, f"{BEGINS} --tensor-parallel-size 1 --gpu-memory-utilization 0.9"),
        ({"dtype": "half"}, f"{BEGINS} --tensor-parallel-size 1 --dtype half"),
        ({"quantization": "awq"}, f"{BEGINS} --tensor-parallel-size 1 --quantization awq"),
        ({"enforce_eager": True}, f"{BEGINS} --tensor-parallel-size 1 --enforce-eager"),
        ({"reasoning_parser": "deepseek_r1"}, f"{BEGINS} --tensor-parallel-size 1 --reasoning-parser deepseek_r1"),
        (
            {"tool_call_parser": "hermes"},
            f"{BEGINS} --tensor-parallel-size 1 --enable-auto-tool-choice --tool-call-parser hermes",
        ),
        ({"aliases": ["gpt-4", "千问 14b"]}, f"{BEGINS} gpt-4 '千问 14b' --tensor-parallel-size 1"),
        (
            {"served_model_name": "qwen"},
            "vllm serve /models/Qwen/Qwen2.5-14B-Instruct --served-model-name qwen --tensor-parallel-size 1",
        ),
        (
            {"model": "./mine"},
            "vllm serve /local/qwen-14b --served-model-name qwen-14b --tensor-parallel-size 1",
        ),
        (
            {"model": "/data/mine"},
            "vllm serve /local/qwen-14b --served-model-name qwen-14b --tensor-parallel-size 1",
        ),
        (
            {"pull": False},
            "vllm serve Qwen/Qwen2.5-14B-Instruct --served-model-name qwen-14b --tensor-parallel-size 1",
        ),
        # The pull has fetched the revision; only a server that fetches for itself has to be told.
        ({"revision": "v1.0"}, f"{BEGINS} --tensor-parallel-size 1"),
        (
            {"revision": "v1.0", "pull": False},
            "vllm serve Qwen/Qwen2.5-14B-Instruct --served-model-name qwen-14b --tensor-parallel-size 1"
            " --revision v1.0",
        ),
        # What is for the container and not for vLLM.
        (
            {"ready_timeout": 1, "shm_size": "1g", "env": {"A": "1"}, "vllm": "0.7.3", "gpus": [3]},
            f"{BEGINS} --tensor-parallel-size 1",
        ),
    ],
)
def test_each_key_becomes_its_flag_and_nothing_else(said: dict[str, Any], line: str) -> None:
    assert shlex.join(serve(profile(**said))) == line


def test_keys_come_in_one_order_and_args_come_last_in_theirs() -> None:
    found = profile(
        args={"seed": 1, "block-size": 16},
        enforce_eager=True,
        tool_call_parser="hermes",
        reasoning_parser="qwen3",
        quantization="awq_marlin",
        dtype="bfloat16",
        pull=False,
        revision="v2",
        gpu_memory_utilization=0.85,
        max_model_len=8192,
        tensor_parallel_size=2,
        aliases=["b"],
        served_model_name="a",
    )
    assert shlex.join(serve(found)) == (
        "vllm serve Qwen/Qwen2.5-14B-Instruct --served-model-name a b --tensor-parallel-size 2 --max-model-len 8192"
        " --gpu-memory-utilization 0.85 --revision v2 --dtype bfloat16 --quantization awq_marlin"
        " --reasoning-parser qwen3 --enable-auto-tool-choice --tool-call-parser hermes --enforce-eager"
        " --seed 1 --block-size 16"
    )


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (True, ["--flag"]),
        (False, ["--no-flag"]),
        (0, ["--flag", "0"]),
        (1, ["--flag", "1"]),
        (-1, ["--flag", "-1"]),
        (0.5, ["--flag", "0.5"]),
        (1e-06, ["--flag", "1e-06"]),
        ("", ["--flag", ""]),
        ("fp8", ["--flag", "fp8"]),
        ("two words, $HOME and 'quotes'", ["--flag", "two words, $HOME and 'quotes'"]),
        (["a", "b c"], ["--flag", "a", "b c"]),
        ([1, 2.5, "x"], ["--flag", "1", "2.5", "x"]),
        ({"method": "ngram", "n": 3}, ["--flag", '{"method": "ngram", "n": 3}']),
        ({"a": {"b": [True, "千问"]}}, ["--flag", '{"a": {"b": [true, "千问"]}}']),
        ({}, ["--flag", "{}"]),
    ],
)
def test_an_argument_of_each_type_becomes_words(value: Any, words: list[str]) -> None:
    assert serve(profile(args={"flag": value})) == [*BEGINS.split(), "--tensor-parallel-size", "1", *words]


def test_a_flag_may_have_dots_and_digits_as_the_json_fields_of_vllm_do() -> None:
    found = profiles(QWEN + 'args = { "compilation-config.level" = 3, k8s-2 = "x" }')["qwen-14b"]
    assert shlex.join(serve(found)).endswith(" --max-model-len 16384 --compilation-config.level 3 --k8s-2 x")


def test_overridable_values_are_asked_for_by_key_and_the_rest_is_not() -> None:
    asked: list[str] = []

    def value(key: str) -> str:
        asked.append(key)
        return f"<{key}>"

    found = profile(max_model_len=16384, gpu_memory_utilization=0.9, dtype="half", tensor_parallel_size=2)
    assert shlex.join(serve(found, value)) == (
        f"{BEGINS} --tensor-parallel-size 2 --max-model-len '<max_model_len>'"
        " --gpu-memory-utilization '<gpu_memory_utilization>' --dtype half"
    )
    assert asked == ["max_model_len", "gpu_memory_utilization"]


def test_a_value_that_models_toml_does_not_set_is_not_asked_for() -> None:
    asked: list[str] = []
    serve(profile(), lambda key: asked.append(key) or "")
    assert asked == []
