"""What a person reads and what a script gets about the state of things."""

import json
from textwrap import dedent

import pytest

from orchestrator import report
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

        address http://localhost:8000/v1 (router ready)""")


def test_the_table_of_the_usual_profiles_fits_80_columns_in_every_state() -> None:
    whole = project(*profiles(FIVE).values())
    for status, health in (("running", "starting"), ("running", "unhealthy"), ("removing", ""), ("exited", "")):
        containers = seen(*(container(name, status, health, started_at=SINCE) for name in whole.profiles))
        assert max(map(len, report.status(whole, containers).splitlines())) <= 80


def test_with_nothing_running_the_table_says_so_of_each() -> None:
    assert report.status(project(profile()), {}) == dedent("""\
        PROFILE   STATE    GPUS  SINCE  MODEL
        qwen-14b  stopped  0,1   -      qwen-14b

        address http://localhost:8000/v1 (router stopped)""")


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
        "profiles": [
            {
                "profile": "qwen-14b",
                "state": "ready",
                "gpus": [0, 1],
                "since": "2026-01-02T03:04:05Z",
                "model": "qwen-14b",
                "address": "http://localhost:9000/v1",
            },
            *(
                {
                    "profile": name,
                    "state": "stopped",
                    "gpus": gpus,
                    "since": None,
                    "model": name,
                    "address": "http://localhost:9000/v1",
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
