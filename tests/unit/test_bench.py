"""What is made of measured switches and sleeps: medians, a matrix of 80 columns, values for scripts."""

import json
from textwrap import dedent

import pytest

from orchestrator import bench
from orchestrator.bench import Cell, Cycle, Part, SleepTest, Switch


@pytest.mark.parametrize(("values", "middle"), [([3], 3), ([3, 1, 2], 2), ([4, 1, 3, 2], 2.5), ([1, 100], 50.5)])
def test_a_median_is_the_middle_or_the_mean_of_the_two(values: list[float], middle: float) -> None:
    assert bench.median(values) == middle


def test_nothing_has_no_median() -> None:
    with pytest.raises(ValueError, match="no values"):
        bench.median([])


def test_every_model_is_left_for_each_other() -> None:
    assert bench.pairs(["a", "b"]) == [("a", "b"), ("b", "a")]
    assert len(bench.pairs(["a", "b", "c", "d"])) == 12


ROUNDS = [
    Switch("a", "b", "wake", {"drain": 0, "sleep": 0.3, "wake": 0.4}, 0.8, 0.9),
    Switch("b", "a", "wake", fault="a is stopped and does not sleep"),
    Switch("a", "b", "wake", {"drain": 0.2, "sleep": 0.5, "wake": 0.4}, 1.2, 1.3),
    Switch("a", "b", "wake", {"sleep": 0.4, "wake": 0.6}, 1.0, 1.1),
    Switch("a", "b", "wake", fault="b: 503: the queue is full"),
]


def test_rounds_of_one_kind_are_put_together_and_what_failed_counts_in_no_median() -> None:
    assert bench.matrix(ROUNDS) == [
        Cell("a", "b", "wake", 4, 1.1, 1.0, {"drain": 0, "sleep": 0.4, "wake": 0.4}, ("b: 503: the queue is full",)),
        Cell("b", "a", "wake", 1, None, None, {}, ("a is stopped and does not sleep",)),
    ]


def test_a_matrix_is_a_table_of_first_tokens_with_the_phases_of_each_switch_below() -> None:
    warm = Switch("a", "b", "warm", {"drain": 0.01, "stop": 2, "start": 18}, 20.5, 20.6)
    assert bench.text(bench.matrix([warm, *ROUNDS])) == dedent("""\
        seconds from the request to its first token, medians of the rounds that worked

        FROM  TO  WARM   WAKE
        a     b   20.60  1.10
        b     a   -      -

        FROM  TO  KIND  ROUNDS  FIRST TOKEN  SWITCH
        a     b   warm  1       20.60        20.50
          drain 0.01, stop 2.00, start 18.00
        a     b   wake  4       1.10         1.00
          drain 0.00, sleep 0.40, wake 0.40
        failed: b: 503: the queue is full
        b     a   wake  1       -            -
        failed: a is stopped and does not sleep

        warm: a start with the kernels that were compiled before
        wake: it slept, and wakes""")


def test_what_cold_means_is_said() -> None:
    cells = bench.matrix([Switch("a", "b", "cold", {"start": 70}, 71, 71)])
    assert bench.text(cells).splitlines()[-2:] == [
        "cold: a start with no kernels compiled before; its weights may still be in the",
        "  machine's memory",
    ]


def test_a_matrix_of_the_usual_profiles_fits_80_columns() -> None:
    seconds = dict.fromkeys(bench.PHASES, 123.456)
    cells = bench.matrix([Switch("deepseek-14b", "qwen-32b-awq", "cold", seconds, 1234.5, 1234.5, "")])
    assert max(map(len, bench.text(cells).splitlines())) <= 80


def test_scripts_get_the_matrix_and_each_switch() -> None:
    given = bench.values(bench.matrix(ROUNDS), ROUNDS)
    assert json.loads(json.dumps(given))["matrix"][0]["first_token"] == 1.1
    assert len(given["switches"]) == 5


SLEPT = Part(12.34, {"drain": 0.001, "sleep": 12.3}, 3 << 30, 28 << 30)
WOKEN = Part(0.41, {"release": 0.02, "wake": 0.35, "prove": 0.04}, 20 << 30, -(1 << 20))
CYCLES = (Cycle(SLEPT, WOKEN), Cycle(Part(0.3), Part(0.4), same=False))


def test_a_sleep_test_is_a_table_and_ends_with_what_it_means() -> None:
    shown = bench.sleep_text(SleepTest("qwen-14b", CYCLES, "after a sleep it answers otherwise"))
    assert shown == dedent("""\
        CYCLE  STEP   SECONDS  GPU MIB  HOST MIB  OF WHICH
        1      sleep  12.34    3,072    28,672    sleep 12.30
        1      wake   0.41     20,480   -1        release 0.02, wake 0.35, prove 0.04
        2      sleep  0.30     -        -
        2      wake   0.40     -        -

        MiB afterwards: in use on its fullest GPU, and what the machine has less than
          before the test
        qwen-14b is not to sleep, and will not until it has another image: after a sleep
          it answers otherwise""")
    passed = bench.sleep_text(SleepTest("qwen-14b", CYCLES[:1]))
    assert passed.endswith("qwen-14b may sleep: the same answer after each of 1 cycles")


def test_a_cycle_is_a_line() -> None:
    assert [bench.cycle_text(cycle) for cycle in CYCLES] == [
        "asleep in 12.34 s, awake in 0.41 s, the same answer",
        "asleep in 0.30 s, awake in 0.40 s, another answer",
    ]


def test_the_activator_is_told_the_most_that_a_sleeper_kept() -> None:
    test = SleepTest("a", (Cycle(SLEPT, WOKEN), Cycle(Part(1, {}, 4 << 30, -5), WOKEN)))
    assert bench.verdict(test) == {"cycles": 2, "fault": "", "gpu": 4 << 30, "host": 28 << 30}
    assert bench.verdict(SleepTest("a", (), "it died")) == {"cycles": 1, "fault": "it died", "gpu": None, "host": None}


def test_scripts_get_sizes_in_bytes() -> None:
    given = json.loads(json.dumps(bench.sleep_values(SleepTest("qwen-14b", CYCLES, "another answer"))))
    assert (given["profile"], given["passed"], given["fault"]) == ("qwen-14b", False, "another answer")
    assert given["cycles"][0]["sleep"] == {
        "seconds": 12.34, "phases": {"drain": 0.001, "sleep": 12.3}, "gpu": 3 << 30, "host": 28 << 30
    }  # fmt: skip
    assert bench.sleep_values(SleepTest("qwen-14b", CYCLES[:1]))["fault"] is None
