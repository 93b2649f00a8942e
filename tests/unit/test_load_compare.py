"""Two results side by side: what cannot be compared is refused, and what is within the spread is no difference."""

import json

import pytest

from orchestrator.load import compare
from orchestrator.load.results import Options, Server, case
from tests.unit.loads import MACHINE, OPTIONS, result, run

NAMES = ("qwen-14b-20261122T030405", "qwen-14b-20261122T040506")


def test_two_of_the_same_kind_can_be_compared() -> None:
    other = OPTIONS.model_copy(update={"runs": 5, "warmups": 0, "concurrency": (1,)})
    assert compare.obstacles(result((1, [1])), result((1, [1]), options=other)) == []


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"model": "Qwen/QwQ-32B-AWQ"}, "model: Qwen/Qwen2.5-14B-Instruct and Qwen/QwQ-32B-AWQ"),
        ({"options": {"input": 128}}, "tokens of a prompt: 64 and 128"),
        ({"options": {"output": 32}}, "tokens of an answer: 16 and 32"),
        ({"options": {"per": 9}}, "requests of a run for each at once: 2 and 9"),
    ],
)
def test_what_was_measured_otherwise_is_named(said: dict[str, object], why: str) -> None:
    options = said.get("options")
    if isinstance(options, dict):
        said = {"options": Options(**(OPTIONS.model_dump() | options))}
    assert compare.obstacles(result((1, [1])), result((1, [1]), **said)) == [why]


@pytest.mark.parametrize(
    ("a", "b", "difference", "ratio"),
    [
        ([100, 90, 110], [105, 95, 115], "none", 1.05),
        # They touch: the same speed was seen of both.
        ([100, 90, 110], [120, 110, 130], "none", 1.2),
        ([100, 90, 110], [200, 190, 210], "better", 2.0),
        ([200, 190, 210], [100, 90, 110], "worse", 0.5),
        ([100], [200, 190, 210], "unknown", 2.0),
        ([100, 100], [200], "unknown", 2.0),
    ],
)
def test_a_difference_is_one_only_beyond_the_spread(
    a: list[float], b: list[float], difference: str, ratio: float
) -> None:
    found = compare.rows(result((1, a)), result((1, b)))
    by_metric = {row.metric: row for row in found}
    assert list(by_metric) == ["output_tokens", "ttft_ms", "tpot_ms"]
    assert (by_metric["output_tokens"].difference, by_metric["output_tokens"].ratio) == (
        difference,
        pytest.approx(ratio),
    )
    # Less time is better, and the test's times follow from the throughput.
    assert by_metric["ttft_ms"].difference == difference
    assert by_metric["tpot_ms"].ratio == pytest.approx(1 / ratio, rel=0.1)


def test_only_what_both_have_good_runs_of_is_compared() -> None:
    bad = case(16, [run(failed=1, faults=("1 failed: x",))])
    a = result(cases=(case(1, [run(), run()]), bad, case(4, [run()])))
    b = result((1, [100, 100]), (16, [100, 100]), (64, [100, 100]))
    assert {row.concurrency for row in compare.rows(a, b)} == {1}
    assert "not compared, as not both have good runs of it: 4, 16, 64 at once" in compare.text(a, b, NAMES, [])


def test_a_median_of_nothing_has_no_ratio() -> None:
    zero = run(metrics=run().metrics | {"ttft_ms": 0.0})
    [_, ttft, _] = compare.rows(result(cases=(case(1, [zero, zero]),)), result((1, [100, 100])))
    assert ttft.ratio is None
    assert "  -  " in compare.text(result(cases=(case(1, [zero, zero]),)), result((1, [100, 100])), NAMES, [])


def test_what_else_differs_is_told_flags_word_by_word() -> None:
    server = Server(
        vllm="0.32.0", image="i", image_id="sha256:1", command=("vllm", "serve", "/models/q", "--enforce-eager")
    )
    other = result((1, [1]), server=server, machine=MACHINE.model_copy(update={"gpus": (), "driver": ""}), commit="9")
    assert compare.other_than(result((1, [1])), other) == [
        "machine: NVIDIA GeForce RTX 4090, driver 580.95.05, AMD Ryzen 9 7950X 16-Core Processor (32 cores) and "
        "no GPU, AMD Ryzen 9 7950X 16-Core Processor (32 cores)",
        "tandem: 0123456 and 9",
        "flags: (none) and --enforce-eager",
    ]


def test_the_table_fits_80_columns_and_says_what_its_words_mean() -> None:
    a = result((1, [31.7, 31.5, 31.9]), (16, [596, 590, 600]), (64, [2125, 2100, 2150]))
    b = result((1, [167.6, 165.1, 168.0]), (16, [597, 590, 600]), (64, [1125.4]))
    shown = compare.text(a, b, NAMES, ["model: x and y"])
    lines = shown.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[:3] == [f"A  {NAMES[0]}", f"B  {NAMES[1]}", "not the same model: x and y"]
    start = lines.index("output tokens a second")
    assert lines[start + 1 : start + 5] == [
        "AT ONCE  A                       B                       B/A   B IS",
        "1        31.70 (31.50 to 31.90)  167.6 (165.1 to 168.0)  5.29  better",
        "16       596.0 (590.0 to 600.0)  597.0 (590.0 to 600.0)  1.00  the same",
        "64       2125 (2100 to 2150)     1125 (1125 to 1125)     0.53  unknown",
    ]
    assert "the same: no difference beyond the spread of the runs, which overlap" in lines
    assert "unknown: a single run has no spread that would tell" in lines


def test_the_values_for_scripts_are_json() -> None:
    given = json.loads(json.dumps(compare.values(result((1, [100, 90])), result((1, [200, 190])), NAMES, [])))
    assert (given["a"], given["b"], given["not_comparable"]) == (*NAMES, [])
    assert given["rows"][0]["a"] == {"median": 95.0, "low": 90.0, "high": 100.0}
    assert [row["difference"] for row in given["rows"]] == ["better"] * 3
