"""Words for people about a result. Pure."""

from collections.abc import Iterator

from orchestrator.load.results import Case, Options, Result, Run, Spread
from orchestrator.report import table, wrapped


def figure(value: float) -> str:
    """Write a number with about four digits that count."""
    places = 0 if value >= 1000 else 1 if value >= 100 else 2 if value >= 1 else 3
    return f"{value:.{places}f}"


def between(spread: Spread) -> str:
    """Write a median, and in brackets the least and the most."""
    return f"{figure(spread.median)} ({figure(spread.low)} to {figure(spread.high)})"


def run_line(run: Run) -> str:
    """Say in a line what a run found."""
    if run.faults:
        return f"{run.failed} of {run.asked} requests failed"
    return f"{figure(run.metrics['output_tokens'])} output tokens/s"


def options(found: Options) -> str:
    """Say what is measured."""
    at_once = ", ".join(map(str, found.concurrency))
    return (
        f"prompts of {found.input} random tokens, answers of {found.output}; at once: {at_once}; "
        f"{_count(found.warmups, 'warm-up')}, {_count(found.runs, 'run')}, {_count(found.per, 'request')} for each at "
        "once"
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def text(result: Result, file: str) -> str:
    """Print a result in at most 80 columns; file is where it is kept."""
    server = result.server
    lines = [*wrapped(f"{result.profile}, vLLM {server.vllm}: {options(result.options)}"), ""]
    lines += table(("AT ONCE", "OUTPUT TOKENS/S", "ALL TOKENS/S", "REQUESTS/S"), map(_throughput, result.cases))
    lines += ["", *table(("AT ONCE", "TTFT MS", "P99", "TPOT MS", "P99"), map(_latency, result.cases)), ""]
    lines += wrapped("median (least to most of the runs). TTFT: to the first token; TPOT: per token after it")
    lines += [line for case in result.cases for said in _faults(case) for line in wrapped(said)]
    lines.append(f"kept in {file}")
    return "\n".join(lines)


def _throughput(case: Case) -> tuple[str, ...]:
    cells = [between(case.spread[name]) if case.good else "-" for name in ("output_tokens", "total_tokens", "requests")]
    return str(case.concurrency), *cells


def _latency(case: Case) -> tuple[str, ...]:
    if not case.good:
        return str(case.concurrency), "-", "-", "-", "-"
    found = case.spread
    ttft, tpot = between(found["ttft_ms"]), between(found["tpot_ms"])
    return str(case.concurrency), ttft, figure(found["ttft_p99_ms"].median), tpot, figure(found["tpot_p99_ms"].median)


def _faults(case: Case) -> Iterator[str]:
    """Say which runs are not counted and why, and which had company."""
    bad = [run for run in case.runs if run.faults]
    if bad:
        failed, asked = sum(run.failed for run in bad), sum(run.asked for run in bad)
        why = "; ".join(dict.fromkeys(fault for run in bad for fault in run.faults))
        yield (
            f"error: {case.concurrency} at once: {len(bad)} of {len(case.runs)} runs are not counted, {failed} of "
            f"their {asked} requests failed: {why}"
        )
    others = max((run.others for run in case.runs), default=0)
    if others:
        yield f"{case.concurrency} at once: other clients asked too, {others} of their requests were in flight"
