"""The Compose profile observe with a real Prometheus: its rules, and what it finds of a router that runs."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator import base, host
from orchestrator.engine import Engine
from tests.checkout import PATIENCE, ROOT, Checkout, eventually
from tests.integration.conftest import DIRECT
from tests.observe import names, text
from tests.observe.lab import CHAT, RECORDED, Lab, docker, lab

pytestmark = pytest.mark.docker

IMAGE = "tandem/stand-in-prometheus:latest"
NAME = "tandem-test-prometheus"
RULES_TEST = ROOT / "tests/observe/rules.test.yml"
CONFIGURATION = ROOT / "docker/observe/prometheus"


@pytest.fixture(scope="module")
def prometheus_image() -> str:
    """Debian's Prometheus and promtool; BuildKit has them from the second time on."""
    with contextlib.closing(Engine(ROOT, "tandem", os.environ)) as engine:
        chosen = base.choose(engine, "", host.debian_mirror(), print)
    mirror = host.debian_mirror() if chosen.image == base.OWN_IMAGE else ""
    argv = [
        "docker",
        "buildx",
        "build",
        "--quiet",
        "--load",
        "--tag",
        IMAGE,
        "--build-arg",
        f"BASE_IMAGE={chosen.image}",
    ]
    argv += ["--secret", "id=debian-mirror,env=TANDEM_DEBIAN_MIRROR"]
    argv += ["--file", str(ROOT / "tests/observe/Dockerfile"), str(ROOT / "docker")]
    environment = {**os.environ, "TANDEM_DEBIAN_MIRROR": mirror}
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return IMAGE


@pytest.fixture
def here(images: Checkout) -> Iterator[Lab]:
    """A router that has seen one request of each kind, with one of its two models up."""
    with lab("one", "closed") as made:
        made.server("one")
        made.activator()
        assert made.send("POST", CHAT, {"model": "one"})[0] == 200
        assert made.send("POST", CHAT, {"model": "none"})[0] == 404
        yield made


def promtool(image: str, folder: Path, *words: str) -> None:
    docker("run", "--rm", "--network", "none", "--volume", f"{folder}:/rules:ro", "--workdir", "/rules", image,
           "/usr/bin/promtool", *words)  # fmt: skip


def test_promtool_is_content_with_configuration_and_rules(prometheus_image: str) -> None:
    promtool(prometheus_image, CONFIGURATION, "check", "config", "--lint=all", "--lint-fatal", "prometheus.yml")
    promtool(prometheus_image, CONFIGURATION, "check", "rules", "--lint=all", "--lint-fatal", "rules.yml")


def test_the_rules_say_what_they_should(prometheus_image: str, tmp_path: Path) -> None:
    shutil.copy(names.RULES, tmp_path)
    shutil.copy(RULES_TEST, tmp_path)
    promtool(prometheus_image, tmp_path, "test", "rules", RULES_TEST.name)


def test_every_rule_has_a_test() -> None:
    tested = RULES_TEST.read_text(encoding="utf-8")
    said = [rule.get("record") or f"alertname: {rule['alert']}" for rule in names.rules()]
    assert [name for name in said if name not in tested] == []


def test_the_image_is_of_the_version_that_compose_pins(prometheus_image: str) -> None:
    pinned = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))["services"]["prometheus"]["image"]
    here = docker("run", "--rm", prometheus_image, "/usr/bin/prometheus", "--version")
    assert re.findall(r":v(\d+\.\d+)\.", pinned) == re.findall(r"version (\d+\.\d+)\.", here)


def test_queries_name_metrics_and_labels_that_are_given(here: Lab) -> None:
    def given() -> dict[str, text.Family]:
        return text.parse(here.send("GET", "/-/metrics")[1])

    recorded = {rule["record"] for rule in names.rules() if "record" in rule}
    used = {name for query in names.queries() for name in names.metrics(query)}
    found: dict[str, text.Family] = {}

    def unknown() -> set[str]:
        found.update(given() | text.parse(RECORDED.read_text(encoding="utf-8")))
        # None of the requests here had a key, and histograms begin with their buckets.
        samples = {sample for family in found.values() for sample, _ in family.samples} | {
            "tandem_router_key_requests_total"
        }
        return used - samples - recorded

    # Workers hand their counts over once a second, one after the other.
    eventually(lambda: unknown() == names.OWN, what="all metrics that queries name, and no others")
    assert {name for name in used if name in found and name.startswith("tandem_")}, "nothing of ours is asked for"

    labels = {label for family in found.values() for _, pairs in family.samples for label, _ in pairs}
    asked = {label for query in names.queries() for label in names.labels(query)}
    assert asked - labels == {"job", "alertstate", "key"}


@contextlib.contextmanager
def prometheus(image: str, here: Lab, folder: Path) -> Iterator[str]:
    """Prometheus with our configuration, in a hurry, beside the router; where it answers."""
    shutil.copytree(CONFIGURATION, folder / "prometheus")
    file = folder / "prometheus/prometheus.yml"
    file.write_text(file.read_text(encoding="utf-8").replace("15s", "1s"), encoding="utf-8")
    subprocess.run(["docker", "rm", "-f", NAME], capture_output=True, check=False)
    try:
        docker("run", "--detach", "--name", NAME, "--network", here.name, "--add-host", f"one:{here.gateway}",
               "--publish", "127.0.0.1::9090", "--read-only", "--tmpfs", "/tmp:mode=1777", "--user", "65534:65534",
               "--volume", f"{folder}/prometheus:/etc/prometheus:ro", image, "/usr/bin/prometheus",
               "--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/tmp/data")  # fmt: skip
        yield "http://" + docker("port", NAME, "9090").splitlines()[0]
    finally:
        subprocess.run(["docker", "rm", "-f", NAME], capture_output=True, check=False)


def test_prometheus_finds_the_router_the_activator_and_the_servers(
    prometheus_image: str, here: Lab, tmp_path: Path
) -> None:
    with prometheus(prometheus_image, here, tmp_path) as address:

        def ask(path: str, **query: str) -> Any:
            with DIRECT.open(f"{address}/api/v1/{path}?{urllib.parse.urlencode(query)}", timeout=PATIENCE) as answer:
                return json.load(answer)["data"]

        def values(expression: str) -> dict[str, float]:
            found = ask("query", query=expression)["result"]
            return {each["metric"].get("model", ""): float(each["value"][1]) for each in found}

        def up() -> dict[str, float]:
            with contextlib.suppress(OSError):  # it may not be there yet
                return {each["metric"]["job"]: float(each["value"][1]) for each in ask("query", query="up")["result"]}
            return {}

        eventually(lambda: up() == {"tandem": 1, "vllm": 1}, what="both are scraped")
        counted = 'sum by (model) (tandem_router_requests_total{status="200",way="server"})'
        eventually(lambda: values(counted) == {"one": 1, "closed": 0}, what="requests are known")
        assert values('tandem_state{state="ready"}') == {"one": 1}
        assert set(values("vllm:kv_cache_usage_perc")) == {"one"}
        assert values("count({__name__=~'.*_created|python_.*'})") == {}
        rate = "model:tandem_router_requests:rate5m"
        eventually(lambda: values(rate), what="rules are evaluated")
        groups = ask("rules")["groups"]
        assert [rule for group in groups for rule in group["rules"] if rule["health"] == "err"] == []
        # Each query of the dashboards is one that Prometheus understands.
        for query in names.queries():
            ask("query", query=query.replace("$model", ".*"))
        # A route that closes takes its server from the list, and nobody is alarmed.
        (here.folder / "open/one").unlink()
        eventually(lambda: up() == {"tandem": 1}, what="it is no target any more")
        assert [alert for alert in ask("alerts")["alerts"] if alert["state"] == "firing"] == []
