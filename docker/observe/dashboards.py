#!/usr/bin/env python3
"""Writes the dashboards for Grafana, which are too long to be written by hand. Run it after a change of it."""

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "dashboards"
SOURCE = {"type": "prometheus", "uid": "prometheus"}
# Grafana's grid is 24 wide.
WIDE, HIGH = 12, 8
ROW = 1

Panel = dict[str, Any]


def panel(title: str, unit: str, *queries: tuple[str, str], words: str = "", kind: str = "timeseries") -> Panel:
    """Make a panel of queries, each an expression and the legend of its lines."""
    targets = [
        {"refId": chr(ord("A") + index), "datasource": SOURCE, "expr": expression, "legendFormat": legend}
        for index, (expression, legend) in enumerate(queries)
    ]
    defaults: dict[str, Any] = {"unit": unit}
    options: dict[str, Any] = {}
    if kind == "timeseries":
        defaults |= {"min": 0, "custom": {"fillOpacity": 10, "showPoints": "never", "spanNulls": 60_000}}
        options = {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}}
    return {
        "title": title, "description": words, "type": kind, "datasource": SOURCE, "targets": targets,
        "fieldConfig": {"defaults": defaults, "overrides": []}, "options": options,
    }  # fmt: skip


def stacked(found: Panel) -> Panel:
    """Lay its lines upon one another: together they are all of something."""
    found["fieldConfig"]["defaults"]["custom"] |= {"stacking": {"mode": "normal"}, "fillOpacity": 60}
    return found


def stat(title: str, unit: str, expression: str, legend: str, words: str = "", *, bad: float | None = None) -> Panel:
    """Make a panel of numbers, red from `bad` on."""
    found = panel(title, unit, (expression, legend), words=words, kind="stat")
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if bad is not None:
        steps.append({"color": "red", "value": bad})
    found["fieldConfig"]["defaults"]["thresholds"] = {"mode": "absolute", "steps": steps}
    found["options"] = {"reduceOptions": {"calcs": ["lastNotNull"]}, "textMode": "value_and_name"}
    return found


def states(title: str, expression: str, words: str) -> Panel:
    """Make a panel that shows, model by model, which state it was in when; a query gives 1 for each."""
    found = panel(title, "none", (expression, "{{model}}: {{state}}"), words=words, kind="state-timeline")
    found["options"] = {"showValue": "never", "mergeValues": True, "legend": {"displayMode": "hidden"}}
    return found


def dashboard(uid: str, title: str, words: str, variable: str, rows: list[tuple[str, list[Panel]]]) -> str:
    """Lay panels out in rows, two abreast, and give the whole as Grafana reads it."""
    panels: list[Panel] = []
    top = 0
    for name, found in rows:
        place = {"x": 0, "y": top, "w": 2 * WIDE, "h": ROW}
        panels.append(
            {"id": len(panels) + 1, "type": "row", "title": name, "collapsed": False, "panels": [], "gridPos": place}
        )
        top += ROW
        for index, each in enumerate(found):
            place = {"x": index % 2 * WIDE, "y": top + index // 2 * HIGH, "w": WIDE, "h": HIGH}
            panels.append({"id": len(panels) + 1, **each, "gridPos": place})
        top += (len(found) + 1) // 2 * HIGH
    model = {
        "name": "model", "label": "Model", "type": "query", "datasource": SOURCE,
        "query": {"query": variable, "refId": "model"}, "definition": variable, "refresh": 2,
        "includeAll": True, "multi": True, "allValue": ".*", "current": {"text": "All", "value": "$__all"}, "sort": 1,
    }  # fmt: skip
    whole = {
        "uid": uid, "title": title, "description": words, "tags": ["tandem"], "timezone": "browser", "editable": False,
        "schemaVersion": 39, "refresh": "15s", "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [model]}, "annotations": {"list": []}, "panels": panels,
    }  # fmt: skip
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


def quantiles(record: str, *, of: tuple[str, ...] = ("p50", "p95", "p99")) -> list[tuple[str, str]]:
    """Query what rules.yml has worked out already."""
    return [(f'{record}:{each}{{model=~"$model"}}', f"{each} {{{{model}}}}") for each in of]


def quantile(share: float, name: str) -> str:
    """Query a quantile of one of vLLM's histograms."""
    return f'histogram_quantile({share}, sum by (model, le) (rate(vllm:{name}_bucket{{model=~"$model"}}[5m])))'


def both(name: str) -> list[tuple[str, str]]:
    """Query the median and the 95th percentile of one of vLLM's histograms."""
    return [(quantile(0.5, name), "p50 {{model}}"), (quantile(0.95, name), "p95 {{model}}")]


def rate(name: str, by: str, labels: str = "") -> str:
    """Query how fast a counter grows."""
    return f'sum by ({by}) (rate({name}{{model=~"$model"{labels}}}[1m]))'


def of_now() -> list[Panel]:
    """Who is up, who waits, and what is wrong."""
    alerts = 'ALERTS{alertstate="firing"}'
    return [
        states("Models", "tandem_state == 1", "The state of each model profile, over time."),
        stat("Alerts", "none", alerts, "{{alertname}} {{model}}", "Their rules are in rules.yml.", bad=1),
        panel("In flight", "none", ('tandem_router_in_flight{model=~"$model"}', "{{model}}")),
        panel("Waiting for their model", "none", ("tandem_queue_length", "waiting")),
    ]


def of_requests() -> list[Panel]:
    """Who asks, how it ends, how long it takes."""
    total = "tandem_router_requests_total"
    ways = "server: the model was up. activator: it had to come up first. router: neither was needed."
    errors = 'model:tandem_router_errors:ratio5m{model=~"$model"}'
    refused = "sum by (code) (rate(tandem_router_refused_total[1m]))"
    keys = "sum by (key, status) (rate(tandem_router_key_requests_total[1m]))"
    received, sent = (rate(f"tandem_router_{name}_bytes_total", "model") for name in ("request", "response"))
    return [
        stacked(panel("Requests", "reqps", (rate(total, "model, status"), "{{model}} {{status}}"))),
        stacked(panel("Who was asked", "reqps", (rate(total, "way"), "{{way}}"), words=ways)),
        panel("Errors", "percentunit", (errors, "{{model}}"), words="The share of requests that end with a 5xx."),
        panel("Refused by the router", "reqps", (refused, "{{code}}")),
        panel("Until the first byte", "s", *quantiles("model:tandem_router_first_byte_seconds")),
        panel("Until the last byte", "s", *quantiles("model:tandem_router_request_seconds")),
        panel("Bytes", "Bps", (received, "in {{model}}"), (sent, "out {{model}}")),
        panel("Requests by key", "reqps", (keys, "{{key}} {{status}}")),
    ]


def of_switching() -> list[Panel]:
    """What the activator does, and what waiting for it costs."""
    switches = "sum by (kind, outcome) (increase(tandem_switches_total[10m]))"
    phases = "histogram_quantile(0.9, sum by (phase, le) (rate(tandem_switch_seconds_bucket[30m])))"
    waits = "sum by (le) (rate(tandem_queue_wait_seconds_bucket[30m]))"
    refused = "sum by (code) (increase(tandem_refused_total[10m]))"
    return [
        panel("Switches in ten minutes", "none", (switches, "{{kind}} {{outcome}}")),
        panel("Phases of switches, the slow tenth", "s", (phases, "{{phase}}")),
        panel(
            "Wait for a model", "s",
            (f"histogram_quantile(0.5, {waits})", "p50"), (f"histogram_quantile(0.95, {waits})", "p95"),
        ),
        panel(
            "Unserved in ten minutes", "none",
            ("increase(tandem_holds_given_up_total[10m])", "given up"), (refused, "{{code}}"),
        ),
        panel("Kept by sleepers of each GPU", "bytes", ("tandem_asleep_gpu_bytes", "{{model}}")),
        panel("Counts that were lost", "none", ("tandem_router_metrics_lost_total", "lost")),
    ]  # fmt: skip


def of_throughput() -> list[Panel]:
    """How much the servers do."""
    written, read = (f'model:vllm_{name}_tokens:rate1m{{model=~"$model"}}' for name in ("generation", "prompt"))
    cached = rate("vllm:prompt_tokens_cached_total", "model")
    running, waiting = (
        f'sum by (model) (vllm:num_requests_{is_}{{model=~"$model"}})' for is_ in ("running", "waiting")
    )
    ended = rate("vllm:request_success_total", "finished_reason")
    return [
        panel("Tokens written", "short", (written, "{{model}}"), words="Tokens a second."),
        panel(
            "Tokens read", "short", (read, "{{model}}"), (cached, "from the cache {{model}}"), words="Tokens a second."
        ),
        panel("Requests", "none", (running, "running {{model}}"), (waiting, "waiting {{model}}")),
        panel("How they ended", "reqps", (ended, "{{finished_reason}}")),
    ]


def of_latency() -> list[Panel]:
    """How long the servers take."""
    recorded = ("p50", "p95")
    return [
        panel("Until the first token", "s", *quantiles("model:vllm_time_to_first_token_seconds", of=recorded)),
        panel("Between tokens", "s", *quantiles("model:vllm_inter_token_latency_seconds", of=recorded)),
        panel("Whole requests", "s", *both("e2e_request_latency_seconds")),
        panel("In the queue", "s", *both("request_queue_time_seconds")),
        panel("Prefill", "s", *both("request_prefill_time_seconds")),
        panel("Decoding", "s", *both("request_decode_time_seconds")),
    ]


def of_memory() -> list[Panel]:
    """What the servers have room for."""
    used = 'max by (model) (vllm:kv_cache_usage_perc{model=~"$model"})'
    again = rate("vllm:num_preemptions_total", "model")
    found = f"{rate('vllm:prefix_cache_hits_total', 'model')} / {rate('vllm:prefix_cache_queries_total', 'model')}"
    prompt, answer = (quantile(0.95, f"request_{name}_tokens") for name in ("prompt", "generation"))
    return [
        panel("KV cache", "percentunit", (used, "{{model}}"), words="The share of it that is in use."),
        panel("Begun anew for want of memory", "reqps", (again, "{{model}}")),
        panel(
            "Found in the prefix cache", "percentunit", (found, "{{model}}"),
            words="The share of prompts' tokens that need no prefill.",
        ),
        panel(
            "Length of requests", "short", (prompt, "prompt p95 {{model}}"), (answer, "answer p95 {{model}}"),
            words="Tokens.",
        ),
    ]  # fmt: skip


def texts() -> dict[str, str]:
    """All of them, by the names of their files."""
    ours = [("Now", of_now()), ("Requests", of_requests()), ("Switching", of_switching())]
    theirs = [("Throughput", of_throughput()), ("Latency", of_latency()), ("Memory", of_memory())]
    models = "label_values(tandem_router_requests_total, model)"
    running = "label_values(vllm:num_requests_running, model)"
    return {
        "tandem.json": dashboard("tandem", "Tandem", "The router and the activator", models, ours),
        "vllm.json": dashboard("tandem-vllm", "vLLM", "What the servers say of themselves", running, theirs),
    }


if __name__ == "__main__":
    for name, text in texts().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
