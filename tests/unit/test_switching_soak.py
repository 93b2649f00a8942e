"""The soak's verdict: what it lets pass, and that it fails for each thing that is against the bar."""

import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.standins.nvml_feed import Feed
from tests.switching import soak, stack
from tests.switching.kills import Kill
from tests.switching.load import Record, Tally

GOOD = Record("1", "alpha", True, 1, 2, "ok")
SEEN: list[dict[str, Any]] = [{"at": 1, "name": "alpha", "event": "ready"}]
WISH = soak.Wish(switches=1, clients=1, seconds=10)


@pytest.fixture
def bench(tmp_path: Path) -> stack.Bench:
    made = stack.Stack(tmp_path, {"TANDEM_PORT": "1", "COMPOSE_PROJECT_NAME": "tandem-test"})
    return stack.Bench(made, stack.FOUR, "standin", Feed(tmp_path / "state", list))


def verdict(bench: stack.Bench, tally: Tally, wish: soak.Wish = WISH, switches: int = 1, **more: Any) -> soak.Report:
    return soak.report(bench, wish, tally, more.pop("seen", SEEN), switches, 5, **more)


def test_a_good_run_passes_and_its_table_reads_well(bench: stack.Bench) -> None:
    found = verdict(bench, Tally([GOOD], refused=2, unreachable=1, comments=3))
    assert found.faults == []
    assert str(found).splitlines() == [
        "switches                 1 (1 by start, 0 by wake)",
        "seconds                  5",
        "requests                 1",
        "ok                       1",
        "lost                     0",
        "truncated                0",
        "wrong                    0",
        "held by what was killed  0",
        "turned away, came again  2",
        "unreachable, came again  1",
        "comments while held      3",
        "kills                    0",
    ]


@pytest.mark.parametrize("verdict_of_one", ["lost", "truncated", "wrong"])
def test_one_bad_answer_is_enough(bench: stack.Bench, verdict_of_one: Any) -> None:
    found = verdict(bench, Tally([GOOD, replace(GOOD, ident="2", verdict=verdict_of_one, note="why")]))
    assert found.faults == [f"{verdict_of_one}: alpha stream 2, 1.00 to 2.00: why"]


def test_too_few_switches_kills_or_requests_and_a_broken_killer_fail_it(bench: stack.Bench) -> None:
    assert verdict(bench, Tally([GOOD]), switches=0).faults == ["0 switches of 1 in 5 s"]
    assert verdict(bench, Tally()).faults == ["no request was made"]
    killing = replace(WISH, kill="router", times=2)
    found = verdict(bench, Tally([GOOD]), killing, failed=OSError("no"))
    assert found.faults == ["0 kills of 2 in 5 s", "the kills ended with OSError('no')"]


def test_what_a_server_saw_that_none_may_see_fails_it(bench: stack.Bench) -> None:
    asleep = {"at": 1, "name": "alpha", "event": "asked-asleep", "ident": "1"}
    assert len(verdict(bench, Tally([GOOD]), seen=[*SEEN, asleep]).faults) == 1


def test_a_kill_excuses_what_it_took_and_only_that(bench: stack.Bench) -> None:
    bench.kills.append(Kill("activator", "", 1.5, 1.6, 3))
    bench.routers.add("10.0.0.2")
    bad = [replace(GOOD, ident=ident, verdict="truncated") for ident in ("held", "direct")]
    seen = [
        *SEEN,
        {"at": 1, "name": "alpha", "event": "asked", "ident": "direct", "peer": "10.0.0.2"},
        {"at": 1, "name": "alpha", "event": "asked", "ident": "held", "peer": "10.0.0.3"},
    ]
    found = verdict(bench, Tally([GOOD, *bad]), seen=seen)
    assert [fault.split(",")[0] for fault in found.faults] == ["truncated: alpha stream direct"]
    assert ("held by what was killed", "1") in found.rows


def test_the_stacks_files_say_which_gpus_and_whose_program() -> None:
    text = stack.models_toml(stack.FOUR, "standin", sleep=["alpha"], extra={"beta": "ttl = 3\n"})
    models = tomllib.loads(text)["models"]
    assert {name: (entry["gpus"], entry["sleep"]) for name, entry in models.items()} == {
        "alpha": ([0, 1], "auto"), "beta": ([0, 1], "off"), "gamma": ([0], "off"), "delta": ([1], "off"),
    }  # fmt: skip
    assert models["beta"]["ttl"] == 3
    over = stack.override(stack.FOUR, "standin", "image", {"STANDIN_LOAD": "2"}, reservations=True)
    services = yaml.safe_load(over)["services"]
    assert services["alpha"]["environment"]["PATH"].startswith("/opt/standin/bin:")
    assert services["alpha"]["environment"]["STANDIN_LOAD"] == "2"
    assert "./switching/claims:/opt/standin/claims" in services["alpha"]["volumes"]
    assert "STANDIN_CLAIMS" not in services["gpus"]["environment"]
    without = stack.override(stack.FOUR, "vllm", "image", {}, reservations=False)
    assert without.count("deploy: !reset null") == 5


def test_switches_are_read_from_the_activators_metrics() -> None:
    metrics = (
        "# TYPE tandem_switches_total counter\n"
        'tandem_switches_total{kind="cold",outcome="ready"} 3\n'
        'tandem_switches_total{kind="wake",outcome="ready"} 4.0\n'
        'tandem_switches_total{kind="wake",outcome="failed"} 9\n'
    )
    assert stack.switches_of(metrics) == 7
