"""Lines that servers really print become a phase and words for a person."""

import pytest

from orchestrator import progress


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (
            "tandem: waiting for GPU 0: qwen-14b is starting on it (10 s)",
            "waiting for GPU 0, where qwen-14b starts",
        ),
        (
            "tandem: waiting for memory: GPU 1 has 3.5 of the 21.6 GiB that are needed; held by python3 (pid 4711)",
            "waiting for memory: GPU 1 has 3.5 of the 21.6 GiB",
        ),
        (
            "tandem: starting vllm serve /models/Qwen/Qwen2.5-14B-Instruct --served-model-name qwen-14b",
            "importing vLLM",
        ),
        (
            "(APIServer pid=7) INFO 11-23 00:41:48 [model.py:733] Resolved architecture: Qwen2ForCausalLM",
            "Qwen2ForCausalLM, starting the engine",
        ),
        # 0.19
        (
            "(APIServer pid=1) INFO 11-23 09:12:05 [model.py:547] Resolved architecture: Qwen2ForCausalLM",
            "Qwen2ForCausalLM, starting the engine",
        ),
        (
            "(EngineCore pid=25) INFO 11-23 00:41:55 [core.py:133] Initializing a V1 LLM engine (v0.32.0) with config:"
            " model='/models/demo', speculative_config=None, tokenizer='/models/demo'",
            "starting the engine",
        ),
        (
            "(Worker_TP0 pid=153) INFO 11-23 09:12:31 [gpu_model_runner.py:2602] Starting to load model"
            " /models/Qwen/Qwen2.5-14B-Instruct...",
            "loading weights",
        ),
        (
            "Loading safetensors checkpoint shards:   0% Completed | 0/8 [00:00<?, ?it/s]",
            "loading weights 0% (0/8)",
        ),
        (
            "(Worker_TP0 pid=153) Loading safetensors checkpoint shards:  12% Completed | 1/8 [00:01<00:11,  1.68s/it]",
            "loading weights 12% (1/8)",
        ),
        (
            "Loading safetensors checkpoint shards: 100% Completed | 1/1 [00:00<00:00, 290.65it/s]",
            "loading weights 100% (1/1)",
        ),
        (
            "Loading pt checkpoint shards:  50% Completed | 1/2 [00:01<00:01,  1.68s/it]",
            "loading weights 50% (1/2)",
        ),
        (
            "(Worker pid=35) INFO 11-23 00:42:03 [default_loader.py:501] Loading weights took 0.06 seconds",
            "weights loaded in 0.06 s",
        ),
        (
            "(Worker_TP0 pid=153) INFO 11-23 09:12:48 [gpu_model_runner.py:2653] Model loading took 13.9281 GiB and"
            " 15.327431 seconds",
            "weights take 13.9281 GiB a GPU",
        ),
        (
            "(Worker_TP0 pid=153) INFO 11-23 09:12:48 [gpu_model_runner.py:4100] Model loading took 13.93 GiB memory"
            " and 15.327431 seconds",
            "weights take 13.93 GiB a GPU",
        ),
        (
            "(Worker pid=35) INFO 11-23 00:42:04 [cpu_model_runner.py:87] Warming up model for the compilation...",
            "compiling and warming up",
        ),
        (
            "(Worker_TP0 pid=153) INFO 11-23 09:13:01 [backends.py:559] Using cache directory:"
            " /cache/vllm/torch_compile_cache/0f1e2d for vLLM's torch.compile",
            "compiling and warming up",
        ),
        (
            "(Worker_TP0 pid=153) INFO 11-23 09:13:12 [backends.py:197] Cache the graph of shape None for later use",
            "compiling and warming up",
        ),
        (
            "(Worker_TP0 pid=153) INFO 11-23 09:13:20 [monitor.py:34] torch.compile takes 18.64 s in total",
            "compiling and warming up",
        ),
        (
            "(Worker_TP0 pid=153) Capturing CUDA graphs (mixed prefill-decode, PIECEWISE):  34%|███▍      | 23/67"
            " [00:01<00:02, 17.26it/s]",
            "capturing CUDA graphs 34%",
        ),
        (
            "Capturing CUDA graphs (decode, FULL): 100%|██████████| 35/35 [00:02<00:00, 14.02it/s]",
            "capturing CUDA graphs 100%",
        ),
        (
            "(EngineCore pid=25) INFO 11-23 00:42:32 [kv_cache_utils.py:2327] CPU KV cache size: 2,097,152 tokens,"
            " Maximum concurrency for 1,024 tokens per request: 2048.00x",
            "KV cache holds 2,097,152 tokens",
        ),
        (
            "(EngineCore_DP0 pid=147) INFO 11-23 09:13:25 [kv_cache_utils.py:1091] GPU KV cache size: 52,416 tokens",
            "KV cache holds 52,416 tokens",
        ),
        (
            "(EngineCore pid=25) INFO 11-23 00:42:33 [core.py:402] init engine (profile, create kv cache, warmup model)"
            " took 28.11 s",
            "engine up in 28.11 s",
        ),
        (
            "(EngineCore_DP0 pid=147) INFO 11-23 09:13:33 [core.py:210] init engine (profile, create kv cache, warmup"
            " model) took 41.82 seconds",
            "engine up in 41.82 s",
        ),
        (
            "(APIServer pid=7) INFO 11-23 00:42:33 [entry.py:140] Starting vLLM server on http://0.0.0.0:8000",
            "starting the API server",
        ),
        (
            "(APIServer pid=1) INFO 11-23 09:13:34 [api_server.py:1912] Starting vLLM API server 0 on"
            " http://0.0.0.0:8000",
            "starting the API server",
        ),
        ("INFO:     Application startup complete.", "the API server is up"),
        ("(APIServer pid=7) INFO:     Application startup complete.", "the API server is up"),
    ],
)
def test_a_line_says_how_far_the_start_is(line: str, text: str) -> None:
    assert progress.read(line) == text


@pytest.mark.parametrize(
    "line",
    [
        "",
        "(APIServer pid=7) INFO 11-23 00:41:44 [utils.py:263] non-default args: {'model_tag': '/models/demo'}",
        "(APIServer pid=7) INFO 11-23 00:41:48 [model.py:1510] Using max model len 1024",
        "WARNING 11-23 00:41:50 [interface.py:222] Failed to import from vllm._C",
        "INFO:     Started server process [7]",
        "INFO:     Waiting for application startup.",
        'INFO:     172.18.0.3:44818 - "POST /v1/completions HTTP/1.1" 200 OK',
        "tandem: could not pull Qwen/Qwen2.5-14B-Instruct: ConnectionError: no route to host",
        "tandem: weights missing: /models/Qwen/Qwen2.5-14B-Instruct holds no config.json",
    ],
)
def test_a_line_about_something_else_says_nothing(line: str) -> None:
    assert progress.read(line) is None


def test_the_configuration_of_the_engine_is_not_taken_for_compiling() -> None:
    line = (
        "(EngineCore pid=25) INFO 11-23 00:41:55 [core.py:133] Initializing a V1 LLM engine (v0.32.0) with config:"
        " model='/models/demo', compilation_config={'mode': 3, 'backend': 'torch.compile'}"
    )
    assert progress.read(line) == "starting the engine"


def test_phases_come_in_the_order_of_a_start() -> None:
    assert progress.PHASES == (
        "image", "container", "weights", "queued", "drain", "sleep", "stop", "release", "start", "wake", "prove",
        "ready",
    )  # fmt: skip


def test_a_phase_of_the_activator_that_a_start_does_not_show_is_none() -> None:
    assert progress.phase("drain") == "drain"
    assert progress.phase("failed") is None
