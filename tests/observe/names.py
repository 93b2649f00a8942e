"""What rules and dashboards ask for: every query, and the metrics and labels that it names."""

import json
import re
from collections.abc import Iterator
from typing import Any

import yaml

from tests.checkout import ROOT
from tests.observe.text import NAME

OBSERVE = ROOT / "docker/observe"
RULES = OBSERVE / "prometheus/rules.yml"
DASHBOARDS = sorted((OBSERVE / "dashboards").glob("*.json"))
# Prometheus' own, and the words of its language that stand where a name could.
OWN = {"up", "ALERTS"}
_WORDS = {"by", "without", "or", "and", "unless", "on", "ignoring", "bool", "offset"}


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"] for rule in group["rules"]]


def panels(dashboard: dict[str, Any]) -> Iterator[dict[str, Any]]:
    return (panel for panel in dashboard["panels"] if panel["type"] != "row")


def queries() -> list[str]:
    """Every expression of the rules and the dashboards."""
    found = [rule["expr"] for rule in rules()]
    for path in DASHBOARDS:
        whole = json.loads(path.read_text(encoding="utf-8"))
        found += [target["expr"] for panel in panels(whole) for target in panel["targets"]]
        asked = [variable["query"]["query"] for variable in whole["templating"]["list"]]
        found += [re.sub(r"^label_values\((.+), (\w+)\)$", r"sum by (\2) (\1)", query) for query in asked]
    return found


def metrics(query: str) -> set[str]:
    """The names of metrics in a query."""
    bare = re.sub(r'"[^"]*"', "", query)
    bare = re.sub(r"\{[^}]*\}|\[[^]]*\]|\b(?:by|without|on|ignoring) *\([^)]*\)", " ", bare)
    words = re.findall(rf"(?<![\w:.])({NAME})(?! *\()(?![\w:])", bare)
    return {word for word in words if word not in _WORDS}


def labels(query: str) -> set[str]:
    """The names of labels in a query."""
    bare = re.sub(r'"[^"]*"', '""', query)
    grouped = re.findall(r"\b(?:by|without|on|ignoring) *\(([^)]*)\)", bare)
    return {word for group in grouped for word in re.findall(r"\w+", group)} | set(re.findall(r'(\w+)[=!]~?""', bare))
