#!/usr/bin/python3
"""Stands in for vLLM's server: its command line, its paths and the words of its log, with no model and no GPU.

What befalls it is in the profile's `env`: STANDIN_DIES=out-of-memory, STANDIN_HANGS=1 (never gets beyond loading), and
STANDIN_LINGERS (seconds from SIGTERM to its end).
"""

import json
import os
import signal
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

# As vLLM 0.32 with tensor parallel 2 prints it: the worker that ran out says why, the others that one of them failed.
OUT_OF_MEMORY = """\
(Worker_TP0 pid=91) INFO {time} [gpu_model_runner.py:4301] Starting to load model {model}...
(Worker_TP1 pid=92) INFO {time} [gpu_model_runner.py:4301] Starting to load model {model}...
(Worker_TP1 pid=92) ERROR {time} [multiproc_executor.py:852] WorkerProc failed to start.
(Worker_TP1 pid=92) ERROR {time} [multiproc_executor.py:852] Traceback (most recent call last):
(Worker_TP1 pid=92) ERROR {time} [multiproc_executor.py:852]   File "/opt/vllm/lib/python3.11/site-packages/vllm/v1/executor/multiproc_executor.py", line 824, in worker_main
(Worker_TP1 pid=92) ERROR {time} [multiproc_executor.py:852]     worker = WorkerProc(*args, **kwargs)
(Worker_TP1 pid=92) ERROR {time} [multiproc_executor.py:852]   File "/opt/vllm/lib/python3.11/site-packages/torch/utils/_device.py", line 109, in __torch_function__
(Worker_TP1 pid=92) ERROR {time} [multiproc_executor.py:852]     return func(*args, **kwargs)
(Worker_TP1 pid=92) ERROR {time} [multiproc_executor.py:852] torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 270.00 MiB. GPU 1 has a total capacity of 23.52 GiB of which 171.12 MiB is free. Including non-PyTorch memory, this process has 23.35 GiB memory in use.
[rank0]:[W1123 00:41:57.103 ProcessGroupNCCL.cpp:1553] Warning: WARNING: destroy_process_group() was not called before program exit, which can leak resources.
(EngineCore pid=70) ERROR {time} [core.py:1140] EngineCore failed to start.
(EngineCore pid=70) ERROR {time} [core.py:1140] Traceback (most recent call last):
(EngineCore pid=70) ERROR {time} [core.py:1140]   File "/opt/vllm/lib/python3.11/site-packages/vllm/v1/engine/core.py", line 1114, in run_engine_core
(EngineCore pid=70) ERROR {time} [core.py:1140]     engine_core = EngineCoreProc(*args, engine_index=dp_rank, **kwargs)
(EngineCore pid=70) ERROR {time} [core.py:1140]     raise e from None
(EngineCore pid=70) ERROR {time} [core.py:1140] Exception: WorkerProc initialization failed due to an exception in a background process. See stack trace for root cause.
(EngineCore pid=70) Process EngineCore:
(EngineCore pid=70) Traceback (most recent call last):
(EngineCore pid=70)   File "/usr/lib/python3.11/multiprocessing/process.py", line 314, in _bootstrap
(EngineCore pid=70)     self.run()
(EngineCore pid=70) Exception: WorkerProc initialization failed due to an exception in a background process. See stack trace for root cause.
(APIServer pid=7) Traceback (most recent call last):
(APIServer pid=7)   File "/opt/vllm/bin/vllm", line 10, in <module>
(APIServer pid=7)     sys.exit(main())
(APIServer pid=7)              ^^^^^^
(APIServer pid=7)   File "/opt/vllm/lib/python3.11/site-packages/vllm/v1/engine/utils.py", line 1105, in wait_for_engine_startup
(APIServer pid=7)     raise RuntimeError(
(APIServer pid=7) RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {{}}
"""  # noqa: E501 (its lines are as long as this)


def say(text: str, process: str = "APIServer", where: str = "api_server.py:1840") -> None:
    print(f"({process} pid={os.getpid()}) INFO {time.strftime('%m-%d %H:%M:%S')} [{where}] {text}", flush=True)


def served_names(argv: list[str]) -> list[str]:
    """Read `serve MODEL --served-model-name NAME...`; without the flag, vLLM serves the model by its path."""
    if "--served-model-name" not in argv:
        return [argv[1]]
    rest = argv[argv.index("--served-model-name") + 1 :]
    return rest[: next((i for i, word in enumerate(rest) if word.startswith("--")), len(rest))]


def load(model: str) -> None:
    """Say what vLLM says until it serves; this is where a server dies or hangs."""
    say("Resolved architecture: Qwen2ForCausalLM", where="model.py:733")
    say(f"Initializing a V1 LLM engine (v0.32.0) with config: model='{model}'", "EngineCore", "core.py:133")
    if os.environ.get("STANDIN_DIES") == "out-of-memory":
        print(OUT_OF_MEMORY.format(time=time.strftime("%m-%d %H:%M:%S"), model=model), file=sys.stderr, flush=True)
        sys.exit(1)
    say(f"Starting to load model {model}...", "Worker_TP0", "gpu_model_runner.py:4301")
    while os.environ.get("STANDIN_HANGS"):
        signal.pause()
    say("Loading weights took 0.02 seconds", "Worker_TP0", "default_loader.py:501")
    say("init engine (profile, create kv cache, warmup model) took 0.05 s", "EngineCore", "core.py:402")


def terminate(*_: object) -> None:
    time.sleep(float(os.environ.get("STANDIN_LINGERS", "0")))
    sys.exit(0)


class Handler(BaseHTTPRequestHandler):
    """Answers as vLLM does, with words that name the server."""

    protocol_version = "HTTP/1.1"
    names: tuple[str, ...] = ()

    def answer(self, status: int, body: dict[str, Any] | None = None) -> None:
        text = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def do_GET(self) -> None:
        if self.path == "/health":
            self.answer(200)
        elif self.path == "/v1/models":
            data = [{"id": name, "object": "model", "created": 0, "owned_by": "vllm"} for name in self.names]
            self.answer(200, {"object": "list", "data": data})
        else:
            self.answer(404, {"detail": "Not Found"})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        model = asked.get("model") or self.names[0]
        if model not in self.names:
            message = f"The model `{model}` does not exist."
            self.answer(404, {"error": {"message": message, "type": "NotFoundError", "param": "model", "code": 404}})
            return
        text = f"This is {self.names[0]}."
        chat = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        completion = {"index": 0, "text": text, "finish_reason": "stop"}
        if self.path == "/v1/chat/completions":
            self.answer(200, {"id": "chatcmpl-0", "object": "chat.completion", "model": model, "choices": [chat]})
        elif self.path == "/v1/completions":
            self.answer(200, {"id": "cmpl-0", "object": "text_completion", "model": model, "choices": [completion]})
        else:
            self.answer(404, {"detail": "Not Found"})

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the name is http.server's)
        print(f"INFO:     {self.client_address[0]} - {format % args}", flush=True)


def main(argv: list[str]) -> None:
    if argv[:1] != ["serve"] or len(argv) < 2 or not (Path(argv[1]) / "config.json").is_file():
        sys.exit(f"vllm (stand-in): should be: serve FOLDER [--flags], got {argv}")
    signal.signal(signal.SIGTERM, terminate)
    Handler.names = tuple(served_names(argv))
    load(argv[1])
    server = ThreadingHTTPServer(("0.0.0.0", 8000), Handler)
    say("Starting vLLM server on http://0.0.0.0:8000")
    print("INFO:     Application startup complete.", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main(sys.argv[1:])
