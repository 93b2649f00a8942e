"""Results of `bench NAME` for the tests: valid ones, of which a test says only what it is about."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from orchestrator.load.results import METRICS, Gpu, Machine, Options, Result, Run, Server, case

RECORDED = Path(__file__).with_name("recorded")
GIB = 1 << 30
OPTIONS = Options(input=64, output=16, per=2, runs=3, warmups=3, concurrency=(1, 16))
MACHINE = Machine(
    cpu="AMD Ryzen 9 7950X 16-Core Processor", cores=32, driver="580.95.05",
    gpus=(Gpu(index=0, name="NVIDIA GeForce RTX 4090", memory=24 * GIB),),
)  # fmt: skip


def recorded(name: str) -> str:
    """What `vllm bench serve` of vLLM 0.32.0 saved in a run of 8 requests of 16 tokens each."""
    return (RECORDED / f"{name}.json").read_text(encoding="utf-8")


def run(output_tokens: float = 100.0, **said: Any) -> Run:
    """A run whose latencies follow from its throughput."""
    metrics = dict.fromkeys(METRICS, 1000 / output_tokens) | {
        "output_tokens": output_tokens,
        "total_tokens": output_tokens * 5,
        "requests": output_tokens / 16,
    }
    usual = {"seed": 7, "asked": 8, "failed": 0, "seconds": 1.5, "input_tokens": 512, "metrics": metrics}
    return Run(**(usual | said))


def result(*throughputs: tuple[int, Sequence[float]], **said: Any) -> Result:
    """A result with runs of such throughputs at each concurrency."""
    usual: dict[str, Any] = {
        "profile": "qwen-14b",
        "model": "Qwen/Qwen2.5-14B-Instruct",
        "date": "2026-11-22T03:04:05Z",
        "tandem": "0.1.0",
        "commit": "0123456",
        "server": Server(
            vllm="0.32.0", image="tandem/vllm:0.32.0-cu130", image_id="sha256:1", command=("vllm", "serve", "/models/q")
        ),
        "machine": MACHINE,
        "options": OPTIONS,
        "cases": tuple(case(at_once, [run(each) for each in runs]) for at_once, runs in throughputs),
    }
    return Result(**(usual | said))
