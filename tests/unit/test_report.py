"""What a person reads and what a script gets about the state of things."""

import json
from dataclasses import replace
from textwrap import dedent

import pytest

from orchestrator import report
from orchestrator.keys import Key
from orchestrator.states import Container
from tests.unit.values import container, profile, profiles, project

FIVE = """
[defaults]
gpus = [0, 1]
[models.qwen-14b]
model = "Qwen/Qwen2.5-14B-Instruct"
[models.deepseek-14b]
model = "deepseek-ai/DeepSeek-R1-Distill-Qwen-14B"
[models.qwen-32b-awq]
model = "Qwen/Qwen2.5-32B-Instruct-AWQ"
[models.qwq-32b-awq]
model = "Qwen/QwQ-32B-AWQ"
[models.demo]
model = "./docker/demo/model"
image = "cpu"
gpus = []
"""
# What only the activator knows of a model.
UNKNOWN = {"reason": None, "in_flight": None, "waiting": None, "sleep": None}
SINCE = "2026-01-02T03:04:05.678901234Z"


def seen(*containers: Container) -> dict[str, Container]:
    return {found.service: found for found in containers}


@pytest.mark.parametrize(
    ("address", "model", "line"),
    [
        (
            "http://localhost:8000",
            "qwen-14b",
            'curl http://localhost:8000/v1/completions -H "Content-Type: application/json" '
            '-d \'{"model": "qwen-14b", "prompt": "你是谁?"}\'',
        ),
        (
            "http://192.168.1.5:9000",
            "千问",
            'curl http://192.168.1.5:9000/v1/completions -H "Content-Type: application/json" '
            '-d \'{"model": "千问", "prompt": "你是谁?"}\'',
        ),
        (
            "http://localhost:8000",
            "it's",
            'curl http://localhost:8000/v1/completions -H "Content-Type: application/json" '
            '-d \'{"model": "it\'\\\'\'s", "prompt": "你是谁?"}\'',
        ),
    ],
)
def test_the_curl_line_can_be_pasted_into_a_shell(address: str, model: str, line: str) -> None:
    assert report.curl(address, model) == line


def test_the_curl_line_has_a_place_for_the_key_and_takes_the_routers_own_certificate() -> None:
    found = profile(served_model_name="qwen")
    whole = project(found, values={"TANDEM_TLS_CERT_FILE": "/cert.pem", "TANDEM_TLS_KEY_FILE": "/key.pem"})
    keyed = replace(whole, client_keys=(Key("alice", "a-key-of-alice-and-of-no-other"),))
    line = (
        'curl -k -H "Authorization: Bearer KEY" https://localhost:8000/v1/completions '
        '-H "Content-Type: application/json" -d \'{"model": "qwen", "prompt": "你是谁?"}\''
    )
    assert report.ready(keyed, found).splitlines()[-1] == f"  try      {line}"
    assert report.ready_json(keyed, found)["curl"] == line


def test_ready_says_where_with_which_name_and_how_to_try() -> None:
    found = profile(served_model_name="qwen")
    assert report.ready(project(found, values={"TANDEM_PORT": "9000"}), found).splitlines() == [
        "qwen-14b is ready",
        "  address  http://localhost:9000/v1",
        "  model    qwen",
        '  try      curl http://localhost:9000/v1/completions -H "Content-Type: application/json" '
        '-d \'{"model": "qwen", "prompt": "你是谁?"}\'',
    ]


def test_ready_says_the_same_to_scripts() -> None:
    found = profile(served_model_name="qwen")
    assert report.ready_json(project(found), found) == {
        "profile": "qwen-14b",
        "state": "ready",
        "model": "qwen",
        "address": "http://localhost:8000/v1",
        "curl": report.curl("http://localhost:8000", "qwen"),
    }


def test_the_table_shows_every_profile_in_its_order() -> None:
    whole = project(*profiles(FIVE).values())
    containers = seen(
        container("router", started_at=SINCE),
        container("qwen-14b", started_at=SINCE, gpus=(0, 1)),
        container("deepseek-14b", "exited", "", exit_code=1, started_at=SINCE),
        container("qwq-32b-awq", "running", "starting", started_at=SINCE),
        container("pull-qwen-14b", "exited", ""),
    )
    assert report.status(whole, containers) == dedent("""\
        PROFILE       STATE     GPUS  SINCE                 MODEL
        qwen-14b      ready     0,1   2026-01-02T03:04:05Z  qwen-14b
        deepseek-14b  failed    0,1   -                     deepseek-14b
        qwen-32b-awq  stopped   0,1   -                     qwen-32b-awq
        qwq-32b-awq   starting  0,1   2026-01-02T03:04:05Z  qwq-32b-awq
        demo          stopped   none  -                     demo

        address http://localhost:8000/v1 (router ready)
        the activator is not up: these states are what Docker says""")


def test_the_table_of_the_usual_profiles_fits_80_columns_in_every_state() -> None:
    whole = project(*profiles(FIVE).values())
    for status, health in (("running", "starting"), ("running", "unhealthy"), ("removing", ""), ("exited", "")):
        containers = seen(*(container(name, status, health, started_at=SINCE) for name in whole.profiles))
        assert max(map(len, report.status(whole, containers).splitlines())) <= 80


def test_with_nothing_running_the_table_says_so_of_each() -> None:
    assert report.status(project(profile()), {}) == dedent("""\
        PROFILE   STATE    GPUS  SINCE  MODEL
        qwen-14b  stopped  0,1   -      qwen-14b

        address http://localhost:8000/v1 (router stopped)
        the activator is not up: these states are what Docker says""")


def test_the_state_for_scripts_is_json_with_every_profile() -> None:
    whole = project(*profiles(FIVE).values(), values={"TANDEM_PORT": "9000"})
    containers = seen(
        container("router", "running", "starting"),
        container("qwen-14b", started_at=SINCE),
        container("demo", "exited", "", started_at=SINCE),
    )
    given = report.status_json(whole, containers)
    assert json.loads(json.dumps(given)) == given
    assert given == {
        "address": "http://localhost:9000/v1",
        "router": "starting",
        "activator": False,
        "unlisted": [],
        "wanted": None,
        "switch": None,
        "queue": None,
        "last": None,
        "gpus": None,
        "profiles": [
            {
                "profile": "qwen-14b",
                "state": "ready",
                "gpus": [0, 1],
                "since": "2026-01-02T03:04:05Z",
                "model": "qwen-14b",
                "address": "http://localhost:9000/v1",
                **UNKNOWN,
            },
            *(
                {
                    "profile": name,
                    "state": "stopped",
                    "gpus": gpus,
                    "since": None,
                    "model": name,
                    "address": "http://localhost:9000/v1",
                    **UNKNOWN,
                }
                for name, gpus in (
                    ("deepseek-14b", [0, 1]),
                    ("qwen-32b-awq", [0, 1]),
                    ("qwq-32b-awq", [0, 1]),
                    ("demo", []),
                )
            ),
        ],
    }


def test_a_server_that_runs_and_is_in_models_toml_no_more_is_told_with_what_ends_it() -> None:
    whole = project(profile())
    containers = seen(
        container("router"),
        container("qwen-14b", serves="/models/qwen"),
        container("pull-old", "running", ""),
        container("renamed", serves="/local/renamed"),
        container("gone", "created", "", serves="/local/gone"),
    )
    assert report.status_json(whole, containers)["unlisted"] == ["renamed"]
    assert report.status(whole, containers).splitlines()[3:5] == [
        "renamed runs, and models.toml does not list it any more: 'python -m orchestrator",
        "  down renamed' ends it",
    ]


@pytest.mark.parametrize(
    ("containers", "state"),
    [
        ([container("pull-qwen-14b", "running", "")], "starting"),
        ([container("pull-qwen-14b", "running", ""), container("qwen-14b", "created", "")], "starting"),
        ([container("pull-qwen-14b", "exited", "")], "stopped"),
        ([container("pull-qwen-14b", "exited", ""), container("qwen-14b")], "ready"),
        ([container("pull-deepseek-14b", "running", "")], "stopped"),
    ],
)
def test_a_server_starts_as_soon_as_its_weights_are_pulled(containers: list[Container], state: str) -> None:
    row = report.status_json(project(profile()), seen(*containers))["profiles"][0]
    assert (row["profile"], row["state"]) == ("qwen-14b", state)


def test_the_model_is_the_name_that_clients_send() -> None:
    whole = project(profile(served_model_name="qwen"))
    assert report.status_json(whole, {})["profiles"][0]["model"] == "qwen"


@pytest.mark.parametrize(
    ("containers", "line"),
    [
        ([], "nothing is running"),
        ([container("qwen-14b", "exited", ""), container("demo", "created", "")], "nothing is running"),
        (
            [
                container("router"),
                container("qwen-14b", "running", "starting"),
                container("demo", "exited", ""),
                container("deepseek-14b", "restarting", ""),
            ],
            "running now: router (ready), qwen-14b (starting), deepseek-14b (failed)",
        ),
    ],
)
def test_what_runs_is_named_with_its_state(containers: list[Container], line: str) -> None:
    assert report.running(seen(*containers)) == line


TOLD = {
    "models": [
        {"name": "qwen-14b", "state": "draining", "since": "2026-01-02T03:04:05Z", "in_flight": 2, "waiting": 0},
        {"name": "deepseek-14b", "state": "failed", "since": "2026-01-02T03:04:05Z", "in_flight": 0, "waiting": 0,
         "reason": "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB\n  lower max_model_len."},
        {"name": "qwq-32b-awq", "state": "asleep", "since": "2026-01-02T03:04:05Z", "in_flight": 0, "waiting": 3},
    ],
    "wanted": ["qwq-32b-awq"],
    "switch": {"target": "qwq-32b-awq", "cause": "3 requests wait for it", "phase": "drain", "seconds": 3.2,
               "text": "2 requests in flight", "left": 41.7, "steps": []},
    "queue": [{"model": "qwq-32b-awq", "seconds": 3.4, "stream": True}],
    "last": {"target": "qwen-14b", "outcome": "ready", "reason": "", "kind": "wake", "total": 0.81, "at": 1,
             "seconds": {"drain": 0.04, "sleep": 0.3, "stop": 0, "wake": 0.41}},
    "gpus": None,
}  # fmt: skip


def test_the_activator_knows_more_than_docker_and_what_it_says_counts() -> None:
    whole = project(*profiles(FIVE).values())
    containers = seen(container("router"), container("qwen-14b"), container("qwq-32b-awq", started_at=SINCE))
    shown = report.status(whole, containers, TOLD)
    assert shown == dedent("""\
        PROFILE       STATE     GPUS  SINCE                 MODEL
        qwen-14b      draining  0,1   2026-01-02T03:04:05Z  qwen-14b
        deepseek-14b  failed    0,1   2026-01-02T03:04:05Z  deepseek-14b
        qwen-32b-awq  stopped   0,1   -                     qwen-32b-awq
        qwq-32b-awq   asleep    0,1   2026-01-02T03:04:05Z  qwq-32b-awq
        demo          stopped   none  -                     demo

        deepseek-14b failed: torch.OutOfMemoryError: CUDA out of memory. Tried to
          allocate 2.00 GiB
          lower max_model_len.
        in flight: 2 at qwen-14b
        waiting: 3 for qwq-32b-awq, the longest since 3 s
        switching to qwq-32b-awq (3 requests wait for it), since 3 s, about 42 s left:
          drain, 2 requests in flight
        last switch: qwen-14b ready by wake in 0.8 s (drain 0.0, sleep 0.3, wake 0.4)
        address http://localhost:8000/v1 (router ready)""")
    assert max(map(len, shown.splitlines())) <= 80


def test_scripts_get_what_the_activator_says_as_it_says_it() -> None:
    given = report.status_json(project(profile()), {}, TOLD)
    assert given["activator"]
    assert {key: given[key] for key in ("wanted", "switch", "queue", "last", "gpus")} == {
        key: TOLD[key] for key in ("wanted", "switch", "queue", "last", "gpus")
    }
    assert given["profiles"][0]["in_flight"] == 2


def test_a_last_switch_that_failed_says_why() -> None:
    last = {"target": "qwen-14b", "outcome": "failed", "reason": "it died", "kind": "cold", "seconds": {}, "total": 5}
    shown = report.status(project(profile()), {}, {**TOLD, "last": last, "switch": None})
    assert "last switch: qwen-14b failed by cold in 5.0 s: it died" in shown


def test_what_runs_is_named_with_the_state_that_the_activator_gives_it() -> None:
    containers = seen(container("router"), container("qwq-32b-awq"))
    assert report.running(containers, TOLD) == "running now: router (ready), qwq-32b-awq (asleep)"


def test_an_activator_that_runs_and_does_not_answer_is_told_with_what_keeps_it() -> None:
    containers = seen(container("router"), container("activator", health=""))
    away = (
        "TANDEM_BIND=0.0.0.0 lets other machines in, and without a key the router switches for nobody then.\n  Make one"
    )
    assert report.status(project(profile()), containers, away=away).splitlines()[-4:] == [
        "the activator does not answer: these states are what Docker says",
        "  TANDEM_BIND=0.0.0.0 lets other machines in, and without a key the router",
        "  switches for nobody then.",
        "  Make one",
    ]


@pytest.mark.parametrize(
    ("sleep", "lines"),
    [
        ("auto", []),
        ("off", []),
        (
            "it did not wake: /wake_up answered 500",
            [
                "qwen-14b does not sleep any more: it did not wake: /wake_up answered 500;",
                "  'python -m orchestrator sleep-test qwen-14b' tries it again",
            ],
        ),
    ],
)
def test_a_model_that_was_to_sleep_and_does_not_is_told_with_the_reason(sleep: str, lines: list[str]) -> None:
    told = {"models": [{"name": "qwen-14b", "state": "ready", "sleep": sleep}]}
    assert report.status(project(profile()), seen(container("router")), told).splitlines()[3:-1] == lines
