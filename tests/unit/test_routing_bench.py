"""The router's benchmark: what it sends, what it makes of wrk's words, and when it says that a bar is met."""

import json
import math
import os
from pathlib import Path

import pytest
import yaml

from tests.checkout import eventually
from tests.routing import (
    bench,
    bench_bars,
    bench_containers,
    bench_cpu,
    bench_nginx,
    bench_rivals,
    bench_tables,
    bench_wrk,
)
from tests.routing.bench_bodies import SIZES, Place, chat, numbers
from tests.routing.bench_measure import PACE, Cell, Contender, Results, pause, rotated, seconds, shuffled
from tests.routing.bench_wrk import CannotMeasureError, Sample
from tests.unit.values import ROOT


@pytest.mark.parametrize("place", ["front", "end", "twice"])
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_a_body_has_its_size_to_the_byte_and_the_key_where_it_should_be(size: int, place: Place) -> None:
    body = chat(size, "qwen-14b", place)
    value = json.loads(body)
    assert len(body) == size
    assert value["model"] == "qwen-14b"
    assert list(value).index("model") == (1 if place == "end" else 0)
    assert body.count(b'"model"') == (2 if place == "twice" else 1)
    assert len(value["messages"]) == 1 if size == SIZES["1 KB"] else len(value["messages"]) > 100


def test_numbers_have_their_size_too_and_name_the_model_twice() -> None:
    body = numbers(SIZES["8 MB"], "qwen-14b")
    value = json.loads(body)
    assert len(body) == SIZES["8 MB"]
    assert (value["model"], value["metadata"]["model"], body.count(b'"model"')) == ("qwen-14b", "qwen-14b", 2)
    assert len(value["prompt"]) > 1_600_000


def test_a_chat_of_8_mb_is_mostly_images_unless_it_is_to_be_hard_to_decode() -> None:
    def images(place: Place) -> int:
        return sum(isinstance(one["content"], list) for one in json.loads(chat(SIZES["8 MB"], "m", place))["messages"])

    assert (images("front"), images("twice")) == (5, 0)


def test_what_wrk_saw_is_its_last_line() -> None:
    seen = bench_wrk.read("Running 1s test\nRequests/sec: 20\nseen 20 2000000 87 1500 93210 1 2\n")
    assert seen == Sample(20, 10.0, 0.087, 1.5, 93.21, refused=1, broken=2, cpu=seen.cpu)


def test_no_answer_is_endless_and_not_fast() -> None:
    seen = bench_wrk.read("seen 0 1000000 0 0 0 0 0\n")
    assert (seen.requests, seen.rate, seen.median, seen.p99, seen.longest) == (0, 0, math.inf, math.inf, math.inf)


@pytest.mark.parametrize("text", ["", "\n", "unable to connect to 127.0.0.1:1", "seen 1 2 3"])
def test_other_words_of_wrk_are_no_sample(text: str) -> None:
    with pytest.raises(CannotMeasureError, match="did not say what it saw"):
        bench_wrk.read(text)


@pytest.mark.parametrize(
    ("connections", "cores", "many"), [(1, 64, 1), (16, 2, 1), (16, 8, 2), (64, 64, 16), (6, 64, 2)]
)
def test_threads_share_the_connections_evenly(connections: int, cores: int, many: int) -> None:
    assert bench_wrk.threads(connections, cores) == many


def test_the_router_listens_elsewhere_and_nothing_else_is_changed() -> None:
    files = {
        "nginx.conf": "a 8000\n listen 8000 ssl;\n listen unix:/run/9/x;\n listen [::]:9400;\n",
        "start.sh": "echo 8000\n",
    }
    changed = "a 8000\n listen 127.0.0.1:9 ssl;\n listen unix:/run/9/x;\n listen 127.0.0.1:7;\n"
    assert bench_nginx.moved(files, 9, lambda: 7) == {"nginx.conf": changed}


def test_a_router_that_says_its_port_in_another_way_is_not_measured() -> None:
    with pytest.raises(CannotMeasureError, match=r"nowhere is `listen 8000`: nginx\.conf"):
        bench_nginx.moved({"nginx.conf": "listen 80000;"}, 9, lambda: 7)


def test_the_router_that_ships_can_be_moved() -> None:
    folder = ROOT / "docker/router"
    files = {name: (folder / name).read_text(encoding="utf-8") for name in ("nginx.conf", "start.sh")}
    assert bench_nginx.moved(files, 9, lambda: 7)


def test_the_containers_have_the_limits_of_compose() -> None:
    router = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))["services"]["router"]
    log = router["logging"]
    assert router["read_only"] is True
    assert [
        "--read-only", "--tmpfs", *router["tmpfs"], "--cap-drop", *router["cap_drop"],
        "--security-opt", *router["security_opt"], "--log-driver", log["driver"],
        "--log-opt", f"max-size={log['options']['max-size']}", "--log-opt", f"max-file={log['options']['max-file']}",
    ] == bench_containers.LIMITS  # fmt: skip


def test_each_round_begins_with_another_contender() -> None:
    found = [Contender(name, 0, 0) for name in "abc"]
    assert ["".join(one.name for one in rotated(found, number)) for number in range(4)] == ["abc", "bca", "cab", "abc"]


def test_no_contender_always_comes_after_the_same_one() -> None:
    found, cells = [Contender(name, 0, 0) for name in "abcde"], bench.FULL
    orders = ["".join(one.name for one in shuffled(found, cell, number)) for cell in cells for number in range(5)]
    assert all(sorted(order) == list("abcde") for order in orders)
    assert {order[order.index("d") - 1] for order in orders if order[0] != "d"} == set("abce")
    assert {order[0] for order in orders} == set("abcde")
    assert orders[1] == "".join(one.name for one in shuffled(found, cells[0], 1))


def test_slow_ones_and_large_bodies_get_more_time() -> None:
    slow, fast = Contender("litellm", 0, 0, (2, 3)), Contender("plain", 0, 0)
    assert [seconds(Cell("1 KB", 64), one) for one in (slow, fast)] == [2, 1]
    assert [seconds(Cell("8 MB", 64), one) for one in (slow, fast)] == [6, 2]
    assert [seconds(Cell("8 MB", 1), one) for one in (slow, fast)] == [3, 1]


def test_litellm_gets_a_configuration_that_names_its_server(tmp_path: Path) -> None:
    argv = bench_rivals.RIVALS["litellm"].arguments(tmp_path, 1, 2, "m")
    assert argv == ["--config", str(tmp_path / "litellm.json"), "--host", "127.0.0.1", "--port", "1"]
    behind = {"model": "hosted_vllm/m", "api_base": "http://127.0.0.1:2/v1", "api_key": "none"}
    assert json.loads((tmp_path / "litellm.json").read_text(encoding="utf-8")) == {
        "model_list": [{"model_name": "m", "litellm_params": behind}]
    }


def test_the_command_line_has_defaults_and_knows_who_can_be_left_out() -> None:
    options = bench.arguments(["--without", "litellm"])
    assert (options.quick, options.rounds, options.image, options.without) == (False, None, bench.IMAGE, ["litellm"])
    with pytest.raises(SystemExit):
        bench.arguments(["--without", "nginx"])


def test_time_on_a_core_is_that_of_a_process_and_its_children() -> None:
    me = os.getpid()
    before = bench_cpu.used([me])
    eventually(lambda: sum(range(100_000)) and bench_cpu.used([me]) > before + 5, what="5 ms of work")
    assert me in bench_cpu.family(os.getppid())
    assert bench_cpu.family(me)[0] == me


def sample(median: float, rate: float, p99: float = 1.0, longest: float = 10.0) -> Sample:
    return Sample(100, rate, median, p99, longest, cpu=median / 2)


def results(added: float = 0.04, kept: float = 0.9, wait: float = 20, rival: Sample | None = None) -> Results:
    """Two rounds of one cell, on a machine that was slower in the second, and of one kind of large bodies."""
    found = Results()
    cell = Cell("1 KB", 1)
    for slower in (1, 3):
        found.add(cell, "bare", sample(0.05 * slower, 20000 / slower))
        found.add(cell, "plain", sample(0.1 * slower, 10000 / slower))
        found.add(cell, "tandem", sample(0.1 * slower + added, 10000 / slower * kept))
        turn = {"bare": [0.02] * 3, "plain": [0.1 * slower, 9, 0.1], "tandem": [0.1 * slower + added, 9 + added, 5]}
        found.turns.setdefault("1 KB", []).append(turn)
        found.add_wait("8 MB", "plain", sample(1, 1, longest=5 * slower))
        found.add_wait("8 MB", "tandem", sample(1, 1, longest=5 * slower + wait))
    if rival:
        found.add(cell, "litellm", rival)
    return found


SLOW = sample(20, 50, p99=30)


def met(found: Results) -> list[bool]:
    return [bar.met for bar in bench_bars.bars(found)]


def test_bars_compare_what_was_measured_side_by_side_and_not_what_a_busy_machine_did() -> None:
    assert met(results(rival=SLOW)) == [True, True, True, True]


@pytest.mark.parametrize(
    ("found", "which"),
    [(results(added=0.06), 0), (results(kept=0.87), 1), (results(wait=31), 2)],
    ids=["added", "kept", "waits"],
)
def test_each_bar_can_be_missed(found: Results, which: int) -> None:
    assert met(found) == [number != which for number in range(3)]


def test_all_that_was_measured_side_by_side_counts_for_what_is_kept() -> None:
    found = results(kept=0.89)
    cell = Cell("1 KB", 1)
    found.pairs[cell] = [(sample(0.1, 10000), sample(0.1, rate)) for rate in (8500, 8600, 8700)]
    assert bench_tables.kept(found, cell) == pytest.approx([89, 89, 85, 86, 87])
    (bar,) = [bar for bar in bench_bars.bars(found) if "requests a second" in bar.asked]
    assert (bar.met, bar.measured) == (False, "87.0 (85.0 to 89.0)")
    found.pairs[cell] = [(Sample(0, 0, math.inf, math.inf, math.inf), sample(0.1, 1))]
    assert bench_tables.kept(found, cell) == pytest.approx([89, 89])


def test_who_is_behind_in_one_measure_is_not_ahead() -> None:
    (bar,) = [bar for bar in bench_bars.bars(results(rival=sample(20, 50, p99=0.5))) if "LiteLLM" in bar.asked]
    assert (bar.met, bar.measured) == (False, "ahead in 0 of 1, not in 1 KB, 1 connection: 99 %")


def paced(ours: Sample, rival: Sample) -> Results:
    """Full load, at which the rival has shorter times and carries less; and one rate for both."""
    found = results()
    cell = Cell("1 KB", 1)
    found.add(cell, "vllm-router", sample(0.001, 50, p99=0.5))
    found.add_paced(cell, "tandem", ours)
    found.add_paced(cell, "vllm-router", rival)
    return found


def test_times_are_compared_at_one_rate_for_both_where_there_is_one() -> None:
    (bar,) = [bar for bar in bench_bars.bars(paced(sample(1, 9), sample(2, 9, p99=2))) if "vllm-router" in bar.asked]
    assert (bar.met, bar.measured) == (True, "ahead in 1 of 1")
    (bar,) = [bar for bar in bench_bars.bars(paced(sample(2, 9), sample(1, 9, p99=2))) if "vllm-router" in bar.asked]
    assert (bar.met, bar.measured) == (False, "ahead in 0 of 1, not in 1 KB, 1 connection: median")


def test_requests_a_second_are_those_of_full_load_also_where_there_is_one_rate() -> None:
    found = paced(sample(1, 9), sample(2, 9, p99=2))
    found.cells[Cell("1 KB", 1)]["vllm-router"] = [sample(2, 20_000, p99=2)] * 2
    (bar,) = [bar for bar in bench_bars.bars(found) if "vllm-router" in bar.asked]
    assert (bar.met, bar.measured) == (False, "ahead in 0 of 1, not in 1 KB, 1 connection: requests/s")


def test_the_times_of_full_load_are_told_beside_the_bars() -> None:
    assert bench_bars.at_full_load(results(rival=SLOW)) == ""
    assert bench_bars.at_full_load(paced(sample(1, 9), sample(2, 9))) == (
        "No bar, times of vllm-router with as many requests as each can take: "
        "ahead in 0 of 1, not in 1 KB, 1 connection: median, 99 %."
    )


def test_each_body_comes_as_often_over_one_connection_as_over_many() -> None:
    found = [cell for cell in bench.FULL if cell.connections > 1]
    assert {cell.size for cell in found} == set(PACE)
    for cell in found:
        assert 1000 * cell.connections / pause(cell) == PACE[cell.size][0]


def test_no_table_of_times_without_cells() -> None:
    assert bench_tables.times({}, ["plain"], lambda one: one.median) == ""
    assert bench_tables.who(results(rival=SLOW).cells) == ["bare", "plain", "tandem", "litellm"]


def test_who_gives_no_answer_is_behind() -> None:
    none = Sample(0, 0, math.inf, math.inf, math.inf)
    assert met(results(rival=none))[-1]


def test_a_run_that_measured_one_of_two_says_nothing_of_the_pair() -> None:
    found = Results()
    found.add(Cell("1 KB", 1), "tandem", sample(0.1, 1000))
    assert [(bar.measured, bar.met) for bar in bench_bars.bars(found)] == [("–", False)]


def test_bars_are_a_table() -> None:
    head, line, *rows = bench_bars.text(bench_bars.bars(results(wait=31))).splitlines()
    assert (head, line) == ("| bar | measured |  |", "| --- | --- | --- |")
    keep = "8 MB keep coming: no other request waits more than 30 ms longer than behind plain nginx"
    assert [row.strip("| ").split(" | ") for row in rows] == [
        ["1 KB: at most 0.05 ms more than plain nginx at the median", "0.040 (0.040 to 0.040)", "met"],
        ["1 KB, 1 connection: at least 88 % of plain nginx's requests a second", "90.0 (90.0 to 90.0)", "met"],
        [keep, "31.0 (31.0 to 31.0)", "**not met**"],
    ]


def test_times_are_a_table_of_medians_with_what_is_added_to_bare_and_plain() -> None:
    shown = bench_tables.times(
        results(rival=SLOW).cells, ["bare", "plain", "tandem", "litellm"], lambda one: one.median
    )
    head, _, row = shown.splitlines()
    assert head.endswith(
        "| upstream bare | plain nginx | Tandem | LiteLLM | Tandem adds to bare | Tandem adds to plain |"
    )
    assert row == "| 1 KB | 1 | 0.100 | 0.200 | 0.240 | 20.0 | 0.140 (0.090 to 0.190) | 0.040 (0.040 to 0.040) |"


def test_turns_are_a_table_of_differences_of_requests_that_belong_together() -> None:
    assert bench_tables.turns(results()).splitlines()[-1] == (
        "| 1 KB | 0.020 | 0.200 | 5.000 | 4.980 (4.980 to 4.980) | 0.040 (0.040 to 0.040) |"
    )


def test_rates_are_a_table_with_the_share_of_plain_nginx() -> None:
    assert bench_tables.rates(results(), ["plain", "tandem", "vllm-router"]).splitlines()[-1] == (
        "| 1 KB | 1 | 6,667 | 6,000 | – | 90 (90 to 90) |"
    )


def test_waits_and_cores_are_tables() -> None:
    assert bench_tables.waits(results()).splitlines()[-1] == (
        "| 8 MB | 1.000 | 10.0 (5.000 to 15.0) | 1.000 | 30.0 (25.0 to 35.0) | 20.0 (20.0 to 20.0) |"
    )
    assert bench_tables.cpu(results(), ["plain", "tandem"]).splitlines()[-1] == (
        "| 1 KB | 0.100 | 0.120 | 0.020 (0.020 to 0.020) |"
    )


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0314, "0.031"), (-0.02, "-0.020"), (12.34, "12.3"), (1234.5, "1,234"), (math.inf, "no answer")],
)
def test_milliseconds_are_as_exact_as_they_are_worth(value: float, shown: str) -> None:
    assert bench_tables.ms(value) == shown


def test_errors_are_told() -> None:
    found = results()
    assert bench_tables.faults(found) == []
    found.add(Cell("1 KB", 1), "plain", Sample(5, 5, 1, 1, 1, refused=2, broken=1))
    assert bench_tables.faults(found) == ["1 KB, 1 connection: plain nginx refused 2 and broke off 1"]


def test_who_is_ten_times_slower_needs_one_round() -> None:
    found = results(rival=SLOW)
    cell = Cell("1 KB", 1)
    assert found.hopeless(cell, "litellm")
    assert not found.hopeless(cell, "plain")
    assert not Results().hopeless(cell, "litellm")


def test_a_busy_machine_is_told() -> None:
    assert bench_tables.noise(results()) == (
        " Between rounds the bare upstream's own requests a second differed by 100 % (1 KB, 1 connection)."
    )
