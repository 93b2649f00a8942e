"""What the activator counts, in Prometheus' text form: buckets add up, and what cannot be known is not said."""

import re
from collections import defaultdict

import pytest

from orchestrator.activator.metrics import BUCKETS, Metrics
from orchestrator.switch.world import Footprint, Server

SERVERS = {"a": Server("ready"), "b": Server("asleep", footprint=Footprint(3, 4))}
LINE = re.compile(r'tandem_[a-z_]+(?:\{[a-z]+="[^"]*"(?:,[a-z]+="[^"]*")*\})? [0-9.e+]+')


def text(metrics: Metrics) -> str:
    return metrics.text(SERVERS, 3, {"b": 2_500_000_000})


def counted() -> Metrics:
    metrics = Metrics()
    metrics.switched("wake", "ready", {"drain": 0.05, "sleep": 0.3, "wake": 0.4})
    metrics.switched("wake", "ready", {"drain": 7, "sleep": 0.2, "wake": 5000})
    metrics.switched("cold", "failed", {"start": 60})
    metrics.waited(0.6)
    metrics.refused("queue_full")
    metrics.given_up += 1
    return metrics


def test_seconds_are_counted_in_buckets_by_kind_and_phase() -> None:
    said = text(counted())
    assert "# TYPE tandem_switch_seconds histogram\n" in said
    # A limit is part of its bucket.
    for limit, count in (("0.05", 1), ("0.1", 1), ("5", 1), ("10", 2), ("+Inf", 2)):
        assert f'tandem_switch_seconds_bucket{{kind="wake",phase="drain",le="{limit}"}} {count}\n' in said
    assert 'tandem_switch_seconds_sum{kind="wake",phase="drain"} 7.05\n' in said
    assert 'tandem_switch_seconds_count{kind="wake",phase="drain"} 2\n' in said
    assert 'tandem_switch_seconds_bucket{kind="wake",phase="wake",le="1200"} 1\n' in said
    assert 'tandem_switch_seconds_bucket{kind="cold",phase="start",le="60"} 1\n' in said


def test_every_histogram_grows_up_to_its_count() -> None:
    buckets: dict[str, list[tuple[float, float]]] = defaultdict(list)
    said = text(counted())
    for name, labels, limit, count in re.findall(r'^(\w+)_bucket\{(.*?),?le="(.+)"\} (\S+)$', said, re.MULTILINE):
        buckets[f"{name}_count" + (f"{{{labels}}}" if labels else "")].append((float(limit), float(count)))
    assert len(buckets) == 5
    for count, found in buckets.items():
        assert found == sorted(found)
        assert (len(found), found[-1][0]) == (len(BUCKETS) + 1, float("inf"))
        assert f"{count} {found[-1][1]:g}\n" in said


def test_how_long_requests_waited_is_known_before_the_first() -> None:
    assert "tandem_queue_wait_seconds_count 0\n" in text(Metrics())
    said = text(counted())
    assert 'tandem_queue_wait_seconds_bucket{le="0.5"} 0\n' in said
    assert 'tandem_queue_wait_seconds_bucket{le="1"} 1\n' in said
    assert "tandem_queue_wait_seconds_sum 0.6\n" in said


@pytest.mark.parametrize(
    "line",
    [
        'tandem_switches_total{kind="wake",outcome="ready"} 2',
        'tandem_switches_total{kind="cold",outcome="failed"} 1',
        'tandem_switches_total{kind="rest",outcome="rested"} 0',
        "tandem_queue_length 3",
        "tandem_holds_given_up_total 1",
        'tandem_refused_total{code="queue_full"} 1',
        'tandem_state{model="a",state="ready"} 1',
        'tandem_state{model="a",state="asleep"} 0',
        'tandem_state{model="b",state="asleep"} 1',
        'tandem_asleep_gpu_bytes{model="b"} 2500000000',
    ],
)
def test_all_else_is_a_counter_or_a_gauge(line: str) -> None:
    assert line in text(counted()).splitlines()


def test_every_line_is_one_that_prometheus_reads_and_every_family_is_declared_once() -> None:
    said = text(counted()).splitlines()
    wrong = [line for line in said if not line.startswith("#") and not LINE.fullmatch(line)]
    assert wrong == []
    kinds = [line.split()[2] for line in said if line.startswith("# TYPE")]
    assert len(kinds) == len(set(kinds)) == 8
