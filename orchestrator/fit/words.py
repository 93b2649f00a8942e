"""What is said of a fit: words for people in 80 columns, values for scripts, and the error of an `up`. Pure."""

import textwrap
from collections.abc import Iterable
from typing import Any

from orchestrator.fit.gpu import Gpu, Process
from orchestrator.fit.room import Memory, gib
from orchestrator.fit.verdict import Fit

WIDTH = 80
STATES = {
    "fits": "fits",
    "tight": "may not fit",
    "cannot": "cannot fit",
    "unknown": "not known whether it fits",
}


def table(fit: Fit) -> str:
    """Say it all, a few lines of at most 80 columns."""
    whose = "a rank" if fit.flags.cpu else "a GPU"
    lines = [f"fit     {fit.profile}: {STATES[fit.state]}"]
    if fit.weights:
        lines += _line("weights", f"{gib(fit.weights.size)} {whose}, from {fit.weights.source}")
    if fit.work is not None and fit.graphs is not None:
        graphs = f", and {gib(fit.graphs)} of CUDA graphs" if fit.graphs else ""
        lines += _line("beside", f"{gib(fit.work)} {whose} of work space{graphs} (estimated)")
    if fit.budget is not None and fit.total is not None:
        share = f"{fit.flags.utilization:g} of {gib(fit.total)}, gpu_memory_utilization"
        lines += _line("may take", f"{gib(fit.budget)} {whose} ({share})")
    if fit.room is not None:
        lines += _line("KV cache", _cache(fit, whose))
    elif fit.needed is not None and fit.length:
        lines += _line("KV cache", f"one request of {fit.length:,} tokens needs {gib(fit.needed)} {whose}")
    if fit.requests is not None and fit.length:
        lines += _line("holds", f"{fit.requests:.2f} requests of {fit.length:,} tokens at once")
    if fit.memory:
        lines += [row for gpu in fit.memory.gpus for row in _gpu(gpu, fit.memory)]
    for label, sentences in (("because", fit.reasons), ("not known", fit.unknown), ("note", fit.notes)):
        lines += [row for sentence in sentences for row in _line(label, sentence)]
    lines += [row for way in fit.advice for row in _line("would do", way)]
    return "\n".join(lines)


def _cache(fit: Fit, whose: str) -> str:
    size = f"{gib(max(fit.room or 0, 0))} {whose}"
    tokens = f", {fit.tokens:,} tokens" if fit.tokens is not None else ""
    each = f" of {fit.token_bytes / 1024:.4g} KiB" if fit.tokens is not None and fit.token_bytes else ""
    one = f"; one request needs {gib(fit.needed)}" if fit.needed is not None else ""
    return f"{size}{tokens}{each}{one}"


def _line(label: str, sentence: str) -> list[str]:
    first, rest = f"  {label:<12}", " " * 14
    return textwrap.wrap(sentence, WIDTH, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False)


def _gpu(gpu: Gpu, memory: Memory) -> list[str]:
    free = memory.free(gpu)
    back = memory.back.get(gpu.index, 0)
    after = f", {gib(free)} when {_and(memory.stopped)} is stopped" if back and free is not None else ""
    if back is None:
        after = f"; how much of it is {_and(memory.stopped)}'s, which will be stopped, is not known"
    lines = _line(f"GPU {gpu.index}", f"{gpu.name}, {gib(gpu.total)}, {gib(gpu.free)} free{after}")
    for process in gpu.processes:
        lines += _line("", _process(process))
    unnamed = gpu.used - sum(process.used or 0 for process in gpu.processes)
    if unnamed > 1 << 30 and all(process.used is not None for process in gpu.processes):
        more = "more " if gpu.processes else ""
        lines += _line("", f"{gib(unnamed)} {more}are held, and the driver does not say by whom: a display, say")
    return lines


def _process(process: Process) -> str:
    used = "memory not known" if process.used is None else f"{gib(process.used)}"
    pid = "process not known" if process.pid is None else f"process {process.pid}"
    return f"{used}: {process.name or 'no name'} ({pid})"


def _and(names: Iterable[str]) -> str:
    return " and ".join(names) or "another server"


def refusal(fit: Fit) -> str:
    """The error of an `up` of what cannot fit: one line that says why, and below it the ways out."""
    ways = "; or ".join(fit.advice) or "a smaller model, or more GPUs"
    holders = [
        f"  GPU {gpu.index}: {_process(process)}" for gpu in _gpus(fit) for process in gpu.processes if process.used
    ]
    return "\n".join([
        f"{fit.profile} cannot fit: {'; '.join(fit.reasons)}",
        f"  What would do: {ways}",
        *(holders if any("free" in reason for reason in fit.reasons) else ()),
        f"  The numbers: python -m orchestrator plan {fit.profile}; to try all the same: up {fit.profile} --force",
    ])  # fmt: skip


def warning(fit: Fit, *, forced: bool) -> str:
    """What `up` says and goes on; "" when all is well."""
    if fit.state == "cannot" and forced:
        return f"{fit.profile} cannot fit: {'; '.join(fit.reasons)}; going on, as --force says"
    if fit.state == "tight":
        ways = "; or ".join(fit.advice)
        return f"{fit.profile} may not fit: {'; '.join(fit.reasons)}" + (f"; what would do: {ways}" if ways else "")
    if fit.state == "unknown":
        return f"whether {fit.profile} fits is not known: {'; '.join(fit.unknown)}; going on"
    return ""


def _gpus(fit: Fit) -> tuple[Gpu, ...]:
    return fit.memory.gpus if fit.memory else ()


def values(fit: Fit) -> dict[str, Any]:
    """The same for scripts: sizes in bytes a GPU, lengths in tokens, null for what is not known."""
    return {
        "profile": fit.profile,
        "state": fit.state,
        "weights": fit.weights.size if fit.weights else None,
        "weights_from": fit.weights.source if fit.weights else None,
        "work_space": fit.work,
        "cuda_graphs": fit.graphs,
        "gpu_memory_utilization": None if fit.flags.cpu else fit.flags.utilization,
        "budget": fit.budget,
        "kv_cache": fit.room,
        "kv_cache_tokens": fit.tokens,
        "max_model_len": fit.length,
        "one_request": fit.needed,
        "requests": None if fit.requests is None else round(fit.requests, 2),
        "gpus": [
            {
                "index": gpu.index,
                "name": gpu.name,
                "total": gpu.total,
                "free": gpu.free,
                "free_then": fit.memory.free(gpu) if fit.memory else None,
                "processes": [
                    {"pid": process.pid, "name": process.name, "used": process.used} for process in gpu.processes
                ],
            }
            for gpu in _gpus(fit)
        ],
        "reasons": list(fit.reasons),
        "ways_out": list(fit.advice),
        "not_known": list(fit.unknown),
        "notes": list(fit.notes),
    }
