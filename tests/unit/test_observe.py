"""What comes with the Compose profile observe: dashboards as their script writes them, and queries of what there is."""

import importlib.util
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.activator.metrics import Metrics
from orchestrator.switch.world import Server
from tests.observe import names, text
from tests.observe.names import DASHBOARDS, OBSERVE
from tests.unit.values import ROOT

RECORDED = ROOT / "tests/observe/vllm-0.32.0.txt"
READ = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in DASHBOARDS}


def written() -> dict[str, str]:
    """What docker/observe/dashboards.py would write."""
    spec = importlib.util.spec_from_file_location("dashboards", OBSERVE / "dashboards.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return dict(module.texts())


def known() -> dict[str, text.Family]:
    """What the activator and vLLM give."""
    activator = Metrics()
    activator.switched("cold", "ready", {"start": 1})
    activator.refused("queue_full")
    said = activator.text({"a": Server("ready")}, 1, {"a": 1})
    return text.parse(said) | text.parse(RECORDED.read_text(encoding="utf-8"))


def test_the_dashboards_are_what_their_script_writes() -> None:
    assert {path.name: path.read_text(encoding="utf-8") for path in DASHBOARDS} == written()


@pytest.mark.parametrize("name", READ)
def test_no_panel_lies_on_another_or_asks_nothing(name: str) -> None:
    panels = READ[name]["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = [panel["gridPos"] for panel in panels]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    for one, other in itertools.combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        assert beside or one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"], (one, other)
    for panel in names.panels(READ[name]):
        assert panel["title"]
        assert panel["targets"]
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])


def test_grafana_finds_its_source_and_its_dashboards_where_compose_puts_them() -> None:
    def read(path: Path) -> Any:
        return yaml.safe_load(path.read_text(encoding="utf-8"))

    (source,) = read(OBSERVE / "provisioning/datasources/prometheus.yml")["datasources"]
    (provider,) = read(OBSERVE / "provisioning/dashboards/tandem.yml")["providers"]
    services = read(ROOT / "compose.yaml")["services"]
    assert source["url"] == "http://prometheus:9090"
    assert f"./docker/observe/dashboards:{provider['options']['path']}:ro" in services["grafana"]["volumes"]
    assert "./docker/observe/provisioning:/etc/grafana/provisioning:ro" in services["grafana"]["volumes"]
    home = services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert Path(home).parent == Path(provider["options"]["path"])
    assert Path(home).name in {path.name for path in DASHBOARDS}
    used = {
        target["datasource"]["uid"] for whole in READ.values() for p in names.panels(whole) for target in p["targets"]
    }
    assert used == {source["uid"]}


def test_the_recorded_vllm_is_the_one_that_is_pinned() -> None:
    pinned = (ROOT / "docker/vllm/versions.toml").read_text(encoding="utf-8")
    assert f'default = "{RECORDED.stem.removeprefix("vllm-")}"' in pinned


def test_queries_name_what_the_activator_and_vllm_give() -> None:
    there = {sample for family in known().values() for sample, _ in family.samples}
    recorded = {rule["record"] for rule in names.rules() if "record" in rule}
    used = {name for query in names.queries() for name in names.metrics(query)}
    # What the router gives is compared where it runs: tests/integration/test_observe.py.
    theirs = {name for name in used if not name.startswith("tandem_router_")}
    assert theirs - there - recorded == names.OWN
    assert recorded <= used


def test_a_query_is_read_for_its_names() -> None:
    query = 'sum by (model, le) (rate(a:b_total{model=~"$model",status="5.."}[5m])) or 0 * c > 0'
    assert names.metrics(query) == {"a:b_total", "c"}
    assert names.labels(query) == {"model", "le", "status"}


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("a 1\n", "a stands below"),
        ("# TYPE a counter\na 1\n# TYPE b counter\nb 1\n# TYPE a counter\n", "a is there twice"),
        ("# TYPE a counter\na 1\na 2\n", "twice: a 2"),
        ('# TYPE a counter\na{b="1",b="2"} 1\n', "twice"),
        ("# TYPE a count\n", "no place"),
        ("# TYPE a counter\na -1\n", "no count"),
        ("# TYPE a counter\na nan\n", "no count"),
        ('# TYPE a counter\na{b="\\x"} 1\n', "no sample"),
        ('# TYPE a counter\na{b="""} 1\n', "no sample"),
        ("# TYPE a counter\na one\n", "could not convert"),
        ('# TYPE a histogram\na_bucket{le="1"} 2\na_bucket{le="+Inf"} 1\na_sum 1\na_count 1\n', "do not add up"),
        ('# TYPE a histogram\na_bucket{le="1"} 1\na_sum 1\na_count 1\n', "do not add up"),
        ('# TYPE a histogram\na_bucket{le="+Inf"} 1\na_count 1\n', "no sum"),
    ],
)
def test_what_is_no_exposition_is_refused(said: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        text.parse(said)


def test_an_exposition_is_read_back() -> None:
    said = '# HELP a Words.\n# TYPE a counter\na{b="x\\"\\\\\\ny",c=""} 3\n# TYPE d gauge\nd -1.5e3\n'
    found = text.parse(said)
    assert text.value(found, "a", b='x"\\\ny', c="") == 3
    assert text.value(found, "d") == -1500
    assert text.value(found, "nothing") == 0
