"""What vLLM's benchmark saved becomes runs, medians and spreads; a failed request is never averaged away."""

import json

import pytest

from orchestrator.errors import TandemError
from orchestrator.load import results, words
from orchestrator.load.results import METRICS, Spread, case
from tests.unit.loads import recorded, result, run


def test_a_recorded_result_is_read() -> None:
    said = json.loads(recorded("bench-serve-0.32.0"))
    found = results.read(recorded("bench-serve-0.32.0"), asked=8, output=16, seed=77, others=1)
    assert (found.asked, found.failed, found.faults, found.seed, found.others) == (8, 0, (), 77, 1)
    assert found.metrics == {name: said[theirs] for name, theirs in METRICS.items()}
    assert found.seconds == said["duration"]
    assert found.metrics["output_tokens"] == pytest.approx(8 * 16 / found.seconds)
    assert 0 < found.metrics["tpot_ms"] < found.metrics["ttft_ms"]


def test_requests_that_failed_are_told_with_the_last_line_of_what_they_say() -> None:
    found = results.read(recorded("bench-serve-0.32.0-failed"), asked=8, output=16, seed=78)
    assert (found.failed, found.faults) == (2, ("2 failed: Too Many Requests",))


def changed(**said: object) -> str:
    return json.dumps(json.loads(recorded("bench-serve-0.32.0")) | said)


def test_an_answer_that_broke_off_is_a_fault_though_vllm_counts_it_as_done() -> None:
    found = results.read(changed(total_output_tokens=8 * 16 - 3), asked=8, output=16, seed=1)
    assert (found.failed, found.faults) == (0, ("answers broke off: 125 tokens in place of 128",))


def test_many_kinds_of_faults_are_told_with_the_most_frequent_first_and_the_rest_counted() -> None:
    errors = ["a", "b\nb", "", "Traceback\n  b\n\n", "c", "d", "e", "  "]
    found = results.read(changed(errors=errors, completed=1, total_output_tokens=16), asked=8, output=16, seed=1)
    assert found.faults == ("2 failed: b", "1 failed: a", "1 failed: c", "3 failed otherwise")


def test_failures_that_nothing_is_said_of_are_counted() -> None:
    found = results.read(changed(errors=[], completed=7, total_output_tokens=7 * 16), asked=8, output=16, seed=1)
    assert found.faults == ("1 failed",)


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("", "Expecting value"),
        ("[1]", "cannot convert"),
        ("{}", "no 'completed'"),
        (changed(duration="soon"), "seconds: "),
        (changed(p99_ttft_ms=float("nan")), "metrics.ttft_p99_ms: "),
        (changed(completed=9, errors=[]), "failed: "),
    ],
)
def test_what_is_no_result_is_an_error_and_no_number(text: str, fact: str) -> None:
    with pytest.raises(TandemError, match=r"^vllm bench serve saved what is no result: ") as caught:
        results.read(text, asked=8, output=16, seed=1)
    assert fact in str(caught.value)


def test_a_spread_is_over_the_runs_in_which_nothing_failed() -> None:
    bad = run(1.0, failed=2, faults=("2 failed: x",))
    found = case(4, [run(100), bad, run(90), run(130)])
    assert (len(found.runs), found.good) == (4, 3)
    assert found.spread["output_tokens"] == Spread(median=100, low=90, high=130)
    assert set(found.spread) == set(METRICS)


def test_runs_that_all_failed_have_no_spread() -> None:
    assert case(4, [run(failed=8, faults=("8 failed: x",))]).spread == {}


def test_a_file_is_read_back_as_it_was() -> None:
    kept = result((1, [100, 90]), (16, [900]))
    assert results.load(results.dump(kept), "a.json") == kept


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        ({"format": 2}, "format: Input should be 1"),
        ({"extra": 1}, "extra: Extra inputs are not permitted"),
        ({"cases": 3}, "cases: Input should be a valid"),
    ],
)
def test_a_file_that_is_none_is_named_with_its_fault(change: dict[str, object], fact: str) -> None:
    text = json.dumps(json.loads(results.dump(result((1, [1])))) | change)
    with pytest.raises(TandemError) as caught:
        results.load(text, "x/a.json")
    assert str(caught.value).startswith(f"x/a.json: is no result of bench: {fact}")


@pytest.mark.parametrize("text", ["nothing", "", results.dump(result((1, [100])))[:500]])
def test_a_file_of_something_else_or_a_part_of_one_is_refused(text: str) -> None:
    with pytest.raises(TandemError, match=r"^a\.json: is no result of bench: Invalid JSON"):
        results.load(text, "a.json")


@pytest.mark.parametrize("spread", [{}, {"output_tokens": {"median": 1, "low": 1, "high": 1}}])
def test_a_file_without_the_spread_of_its_good_runs_is_refused(spread: dict[str, object]) -> None:
    text = json.loads(results.dump(result((1, [100]))))
    text["cases"][0]["spread"] = spread
    with pytest.raises(TandemError, match=r"^a\.json: is no result of bench: cases\.0: .*spread should have "):
        results.load(json.dumps(text), "a.json")


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (0, "0.000"),
        (0.0123, "0.012"),
        (5.923, "5.92"),
        (12.34, "12.34"),
        (167.62, "167.6"),
        (5868.1, "5868"),
        (123456.7, "123457"),
    ],
)
def test_figures_have_about_four_digits(value: float, written: str) -> None:
    assert words.figure(value) == written


def test_the_table_shows_medians_and_spreads_in_80_columns() -> None:
    shown = words.text(result((1, [167.62, 165.1, 168.0]), (64, [5868.1, 5790, 5901])), "results/bench/a.json")
    lines = shown.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0] == "qwen-14b, vLLM 0.32.0: prompts of 64 random tokens, answers of 16; at once: 1,"
    start = lines.index("AT ONCE  OUTPUT TOKENS/S         ALL TOKENS/S            REQUESTS/S")
    assert lines[start + 1 : start + 3] == [
        "1        167.6 (165.1 to 168.0)  838.1 (825.5 to 840.0)  10.48 (10.32 to 10.50)",
        "64       5868 (5790 to 5901)     29340 (28950 to 29505)  366.8 (361.9 to 368.8)",
    ]
    assert lines[start + 4] == "AT ONCE  TTFT MS                 P99    TPOT MS                 P99"
    assert lines[start + 5] == "1        5.97 (5.95 to 6.06)     5.97   5.97 (5.95 to 6.06)     5.97"
    assert lines[-1] == "kept in results/bench/a.json"
    assert "error" not in shown


def test_the_table_says_which_runs_are_not_counted_and_who_else_asked() -> None:
    bad = run(failed=3, faults=("3 failed: Too Many Requests",))
    shown = words.text(result(cases=(case(4, [run(100, others=2), bad, bad]), case(16, [bad]))), "results/bench/a.json")
    lines = shown.splitlines()
    assert max(map(len, lines)) <= 80
    assert (
        lines.count("16       -") + lines.count("16       -                         -                         -") <= 2
    )
    joined = " ".join(line.strip() for line in lines)
    assert (
        "error: 4 at once: 2 of 3 runs are not counted, 6 of their 16 requests failed: 3 failed: Too Many Requests"
        in joined
    )
    assert "error: 16 at once: 1 of 1 runs are not counted" in joined
    assert "4 at once: other clients asked too, 2 of their requests were in flight" in joined
    assert [line.split() for line in lines if line.startswith("16 ")] == [
        ["16", "-", "-", "-"],
        ["16", "-", "-", "-", "-"],
    ]
