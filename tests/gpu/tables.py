"""Markdown of what tests/gpu/flags.py measured. Figures are medians of the rounds, in brackets the least and the most.

Each server's runs are held against those of the same batch and round: they had the same prompts, seconds apart.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from orchestrator.load import compare
from orchestrator.load.results import Case, Machine, Options, Result, Server, case
from orchestrator.load.words import between, figure
from tests.gpu.kept import Kept, Made, Start
from tests.gpu.variants import OURS, TUTORIAL, VARIANTS, Spec, Variant

# How many times as fast as with the tutorial's flags a profile has to be, at so many requests at once: by whether its
# weights are quantized.
BARS: Mapping[bool, Mapping[int, float]] = {False: {1: 5.0, 64: 2.7}, True: {1: 4.0, 64: 1.7}}
# What wins at these is taken into a profile.
DECIDING = (1, 16)
TOKENS = "output_tokens"


def markdown(kept: Kept) -> str:
    """Write everything that a folder holds. Raises TandemError when it holds nothing."""
    machine, vllm, as_is = kept.machine()
    runs, starts = kept.runs(), kept.starts()
    chosen = "these cards" if as_is else "24 GiB"
    lines = [f"On {compare.machine(machine)}; vLLM {vllm}, with what it chooses on {chosen}; random weights."]
    for load in dict.fromkeys(made.load for made in runs):
        mine = [made for made in runs if made.load == load]
        lines += ["", *_load(mine, starts, machine, vllm)]
    lines += ["", *_starts(starts)]
    return "\n".join(lines)


def _load(runs: Sequence[Made], starts: Sequence[Start], machine: Machine, vllm: str) -> Iterator[str]:
    into, out, per, least = runs[0].load
    at_once = sorted({made.at_once for made in runs})
    asked = ", ".join(f"{max(least, per * number)} at {number}" for number in at_once)
    yield f"Prompts of {into} random tokens, answers of {out}; requests of a run: {asked}."
    pairs = {spec: Pair(spec, runs, starts, machine, vllm) for spec in dict.fromkeys(made.spec for made in runs)}
    for profile in dict.fromkeys(made.profile for made in runs):
        of_profile = {spec: pair for spec, pair in pairs.items() if spec.profile == profile}
        yield from ("", *_speeds(profile, of_profile, at_once))
        yield from ("", *_waits(profile, of_profile, at_once))
        yield from ("", *_winners(profile, of_profile))
    yield from _bars(pairs)
    yield from _drafts(runs)


class Pair:
    """One server's runs, and those of the one that it is held against in the same rounds."""

    def __init__(self, spec: Spec, runs: Sequence[Made], starts: Sequence[Start], machine: Machine, vllm: str) -> None:
        self.spec, self.against = spec, Spec(spec.profile, VARIANTS.get(spec.variant, Variant()).against)
        mine = {_place(made): made for made in runs if made.spec == spec}
        theirs = {_place(made): made for made in runs if made.spec == self.against}
        both = [place for place in mine if place in theirs]
        self.result = _result(spec, [mine[place] for place in both or mine], starts, machine, vllm)
        self.rows = {}
        if both and spec != self.against:
            other = _result(self.against, [theirs[place] for place in both], starts, machine, vllm)
            self.rows = {(row.metric, row.concurrency): row for row in compare.rows(other, self.result)}

    def case(self, at_once: int) -> Case | None:
        """Give what was measured at so many requests at once; None where no run of it counts."""
        return next((one for one in self.result.cases if one.concurrency == at_once and one.good), None)


def _place(made: Made) -> tuple[int, int, int]:
    return made.batch, made.round, made.at_once


def _result(spec: Spec, runs: Sequence[Made], starts: Sequence[Start], machine: Machine, vllm: str) -> Result:
    """Put runs together as a result of `bench`."""
    into, out, per, _ = runs[0].load
    at_once = tuple(sorted({made.at_once for made in runs}))
    start = next((start for start in reversed(starts) if start.spec == spec), None)
    each = [[made.run for made in runs if made.at_once == number] for number in at_once]
    return Result(
        profile=spec.profile, model=spec.profile, date=start.date if start else "", tandem="", commit="",
        server=Server(vllm=vllm, image="", image_id="", command=tuple(start.argv) if start else ()), machine=machine,
        options=Options(input=into, output=out, per=per, runs=max(map(len, each)), warmups=1, concurrency=at_once),
        cases=tuple(case(number, found) for number, found in zip(at_once, each, strict=True)),
    )  # fmt: skip


def _speeds(profile: str, pairs: Mapping[Spec, Pair], at_once: Sequence[int]) -> Iterator[str]:
    heads = [f"{number} at once" for number in at_once]
    yield from _head([f"{profile}: output tokens/s", *(word for head in heads for word in (head, "times ours"))])
    for pair in pairs.values():
        cells = [_name(pair)]
        for number in at_once:
            found = pair.case(number)
            row = pair.rows.get((TOKENS, number))
            cells.append(between(found.spread[TOKENS]) if found else "-")
            cells.append("" if row is None or row.ratio is None else f"{row.ratio:.2f}{_sure(row)}")
        yield _row(cells)


def _name(pair: Pair) -> str:
    other = pair.against.variant
    return pair.spec.variant + (f" (against {other})" if other not in (OURS, pair.spec.variant) else "")


def _sure(row: compare.Row) -> str:
    return {"none": ", the same", "unknown": ", one run"}.get(row.difference, "")


def _waits(profile: str, pairs: Mapping[Spec, Pair], at_once: Sequence[int]) -> Iterator[str]:
    heads = [f"{what}, {number} at once" for number in at_once for what in ("TTFT", "TPOT")]
    yield from _head([f"{profile}: ms", *heads])
    for pair in pairs.values():
        cells = [_name(pair)]
        for number in at_once:
            found = pair.case(number)
            cells += [between(found.spread[metric]) if found else "-" for metric in ("ttft_ms", "tpot_ms")]
        yield _row(cells)


def _winners(profile: str, pairs: Mapping[Spec, Pair]) -> Iterator[str]:
    """Say which variants are faster than ours beyond the spread, the fastest first, and which are slower."""
    for number in DECIDING:
        rows = {spec.variant: row for spec, pair in pairs.items() if pair.against.variant == OURS
                and (row := pair.rows.get((TOKENS, number))) and row.ratio is not None}  # fmt: skip
        if not rows:
            continue
        parts = []
        for kind, reverse in (("better", True), ("worse", False)):
            of_kind = [(row.ratio or 0.0, name) for name, row in rows.items() if row.difference == kind]
            of_kind.sort(reverse=reverse)
            said = ", ".join(f"{name} {ratio:.2f}" for ratio, name in of_kind)
            parts.append(f"{'faster' if reverse else 'slower'} than ours beyond the spread: {said or 'none'}")
        yield f"- {profile}, {number} at once: {'; '.join(parts)}."


def _bars(pairs: Mapping[Spec, Pair]) -> Iterator[str]:
    """Hold ours, in times of the tutorial's, against what it has to be."""
    lines = []
    for spec, pair in pairs.items():
        for number, bar in BARS["awq" in spec.profile].items():
            row = pair.rows.get((TOKENS, number))
            if spec.variant == TUTORIAL and row is not None and row.b.median:
                times = row.a.median / row.b.median
                said = "met" if times >= bar else "**missed**"
                cells = (spec.profile, str(number), figure(row.b.median), figure(row.a.median), f"{times:.2f}")
                lines.append(_row([*cells, f"{bar:.1f}", said]))
    if lines:
        yield ""
        yield from _head(["", "at once", "the tutorial's", "ours", "times", "at least", ""])
        yield from lines


def _drafts(runs: Sequence[Made]) -> Iterator[str]:
    """Say what was drafted and accepted, all runs together."""
    lines = []
    for spec in dict.fromkeys(made.spec for made in runs if made.drafts):
        for number in sorted({made.at_once for made in runs}):
            mine = [made.drafts for made in runs if made.spec == spec and made.at_once == number and made.drafts]
            times, drafted, taken = (
                sum(each.get(name, 0) for each in mine) for name in ("drafts", "draft_tokens", "accepted_tokens")
            )
            if times:
                cells = (f"{int(drafted)}", f"{int(taken)}", f"{1 + taken / times:.2f}")
                lines.append(_row([str(spec), str(number), *cells]))
    if lines:
        yield ""
        yield from _head(["drafts", "at once", "tokens drafted", "accepted", "tokens a step with a draft"])
        yield from lines


def _starts(starts: Sequence[Start]) -> Iterator[str]:
    """Tell of the starts: how long, what they hold, what they took; and of those that failed."""
    heads = ("start", "s until ready", "KV tokens", "GiB held of each GPU", "graphs, GiB", "took")
    yield from _head(heads)
    for spec in dict.fromkeys(start.spec for start in starts if start.state == "ready"):
        mine = [start for start in starts if start.spec == spec and start.state == "ready"]
        last = mine[-1]
        graphs = last.said.get("graphs, as captured", "")
        took = "; ".join(last.said[key] for key in ("attention", "weights' kernel", "all-reduce") if key in last.said)
        seconds = ", ".join(f"{start.seconds:.0f}" for start in mine)
        yield _row([str(spec), seconds, last.said.get("tokens", ""), ", ".join(map(str, last.held)), graphs, took])
    failed = [start for start in starts if start.reason]
    if failed:
        yield ""
    for start in failed:
        yield f"- failed: {start.spec}, after {start.seconds:.0f} s: {start.reason}"
    commands = {start.spec: start for start in starts}
    yield from ("", "```")
    for spec, start in commands.items():
        env = {**VARIANTS.get(spec.variant, Variant()).env}
        yield " ".join([f"# {spec}:", *(f"{key}={value}" for key, value in env.items()), *_short(start.argv)])
    yield "```"


def _short(argv: Sequence[str]) -> list[str]:
    """Give a command line from `serve` on, without what only says where: host and port."""
    words = list(argv[argv.index("serve") :]) if "serve" in argv else list(argv)
    for flag in ("--host", "--port"):
        if flag in words:
            place = words.index(flag)
            del words[place : place + 2]
    # The folder's last name alone: it is where it was made.
    return [words[0], words[1].rpartition("/")[2], *words[2:]] if len(words) > 1 else words


def _head(cells: Sequence[str]) -> Iterator[str]:
    yield _row(cells)
    yield "|" + "---|" * len(cells)


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
