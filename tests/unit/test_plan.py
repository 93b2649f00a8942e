"""What has to happen for a model to be up, compared as the text that `plan` prints."""

from collections.abc import Iterable
from dataclasses import replace
from textwrap import dedent
from typing import Any

import pytest

from orchestrator.plan import default_profile, plan
from orchestrator.states import Observed
from tests.unit.values import container, profile, profiles

ROUTER_IMAGE, SERVER_IMAGE, ACTIVATOR = "tandem/router:0.1.0", "tandem/vllm:0.32.0-cu130", "tandem/activator:0.1.0"
DIGEST = "0123456789abcdef"
SERVER = container("qwen-14b", config_hash="s1", gpus=(0, 1), image=SERVER_IMAGE, ident="sha256:1")
FRONT = {name: container(name, config_hash="f1") for name in ("router", "activator", "engine-proxy", "gpus")}
UP = {"name": "qwen-14b", "state": "ready", "open": True}
# Everything there and ready; each test says what is otherwise.
READY = Observed(
    containers={**FRONT, "qwen-14b": SERVER},
    images=frozenset({ROUTER_IMAGE, SERVER_IMAGE, ACTIVATOR}),
    wanted_hashes={**dict.fromkeys(FRONT, "f1"), "qwen-14b": "s1", "deepseek-14b": "d1"},
    routes=DIGEST,
    idents={SERVER_IMAGE: "sha256:1"},
    status={"models": [UP], "wanted": ["qwen-14b"]},
)
# What comes before a start, as it takes long or may fail: nothing has been stopped for it yet.
PREPARED = """
check   GPUs 0, 1                    Docker must be able to reserve them
pull    Qwen/Qwen2.5-14B-Instruct    a server starts with all of its weights in the volume
"""
SWITCH = """
switch  qwen-14b                     ready is when it lists its name and answers
"""


def planned(observed: Observed, others: Iterable[str] = (), untried: str = "", **said: object) -> str:
    target = profile(**said)
    images = {"router": ROUTER_IMAGE, target.name: SERVER_IMAGE}
    return "\n".join(str(operation) for operation in plan(target, observed, images, DIGEST, others, untried))


def table(*texts: str) -> str:
    return "\n".join(dedent(text).strip("\n") for text in texts)


def with_server(**said: Any) -> Observed:
    """The server otherwise, and the activator saying nothing of it being up."""
    told = {**UP, "state": "stopped", "open": False}
    containers = {**READY.containers, "qwen-14b": replace(SERVER, **said)}
    return replace(READY, containers=containers, status={"models": [told], "wanted": []})


def with_front(name: str, **said: Any) -> Observed:
    return replace(READY, containers={**READY.containers, name: replace(FRONT[name], **said)})


def without(*services: str) -> Observed:
    left = {name: found for name, found in READY.containers.items() if name not in services}
    return replace(READY, containers=left, status={"models": [], "wanted": []})


def test_nothing_has_to_happen_when_everything_is_ready() -> None:
    assert planned(READY) == ""


def test_on_a_fresh_machine_everything_is_made_and_what_stands_in_front_comes_first() -> None:
    observed = Observed({}, frozenset(), stale=("compose.models.yaml", "env/qwen-14b.env"), wanted_hashes={})
    assert planned(observed) == table("""
        render  compose.models.yaml          models.toml says otherwise
        render  env/qwen-14b.env             models.toml says otherwise
        build   tandem/router:0.1.0          no such image on this machine
        build   tandem/activator:0.1.0       no such image on this machine
        start   router                       not created yet
        start   activator                    not created yet
        start   engine-proxy                 not created yet
        check   GPUs 0, 1                    Docker must be able to reserve them
        build   tandem/vllm:0.32.0-cu130     no such image on this machine
        pull    Qwen/Qwen2.5-14B-Instruct    a server starts with all of its weights in the volume
        start   gpus                         not created yet
        create  qwen-14b                     not created yet
        switch  qwen-14b                     ready is when it lists its name and answers
        """)


def test_an_image_of_the_same_name_and_another_tag_does_not_count() -> None:
    images = frozenset({ROUTER_IMAGE, ACTIVATOR, "tandem/vllm:0.19.1-cu130", "tandem/vllm"})
    assert planned(replace(without("qwen-14b"), images=images)) == table("""
        check   GPUs 0, 1                    Docker must be able to reserve them
        build   tandem/vllm:0.32.0-cu130     no such image on this machine
        pull    Qwen/Qwen2.5-14B-Instruct    a server starts with all of its weights in the volume
        create  qwen-14b                     not created yet
        switch  qwen-14b                     ready is when it lists its name and answers
        """)


def test_a_server_that_runs_needs_its_image_no_more() -> None:
    assert planned(replace(READY, images=frozenset({ROUTER_IMAGE, ACTIVATOR}))) == ""


@pytest.mark.parametrize("said", [{"model": "./mine"}, {"pull": False}])
def test_nothing_is_pulled_for_a_folder_or_for_a_server_that_fetches_by_id(said: dict[str, object]) -> None:
    assert planned(without("qwen-14b"), **said) == table("""
        check   GPUs 0, 1                    Docker must be able to reserve them
        create  qwen-14b                     not created yet
        switch  qwen-14b                     ready is when it lists its name and answers
        """)


def test_a_single_gpu_is_called_so() -> None:
    assert planned(without("qwen-14b"), gpus=[1], pull=False).splitlines()[0] == (
        "check   GPU 1                        Docker must be able to reserve them"
    )


def test_a_profile_that_needs_no_gpu_reserves_none_and_needs_no_reader_of_them() -> None:
    observed = without("gpus", "qwen-14b")
    assert planned(observed, name="demo", model="./demo", gpus=[], image="cpu") == table("""
        create  demo                         not created yet
        switch  demo                         ready is when it lists its name and answers
        """)


@pytest.mark.parametrize(
    "said",
    [
        {"status": "exited", "health": "", "exit_code": 0},
        {"status": "exited", "health": "unhealthy", "exit_code": 1},
        {"status": "created", "health": ""},
        {"status": "dead", "health": "", "exit_code": 1},
    ],
)
def test_a_server_that_does_not_run_is_prepared_and_its_container_is_taken_as_it_is(said: dict[str, object]) -> None:
    assert planned(with_server(**said)) == table(PREPARED, SWITCH)


@pytest.mark.parametrize(
    "said", [{"health": "starting"}, {"health": "unhealthy"}, {"status": "restarting"}, {"status": "removing"}, {}]
)
def test_a_server_that_runs_is_the_activators_to_bring_up_whatever_its_state(said: dict[str, object]) -> None:
    assert planned(with_server(**said)) == table(SWITCH)


@pytest.mark.parametrize("health", ["healthy", "starting"])
def test_a_server_with_other_settings_ends_its_requests_before_its_container_is_made_anew(health: str) -> None:
    assert planned(with_server(health=health, config_hash="s0")) == table(
        PREPARED,
        """
        stop    qwen-14b                     its settings changed since it was created
        create  qwen-14b                     its settings changed since it was created
        """,
        SWITCH,
    )


def test_a_container_of_other_settings_that_does_not_run_is_made_anew_with_nothing_to_stop() -> None:
    assert planned(with_server(status="exited", health="", config_hash="s0")) == table(
        PREPARED, "create  qwen-14b                     its settings changed since it was created", SWITCH
    )


def test_a_container_of_an_older_image_is_made_anew_once_it_does_not_run() -> None:
    assert planned(with_server(status="exited", health="", ident="sha256:0")) == table(
        PREPARED, "create  qwen-14b                     its image was built anew since it was created", SWITCH
    )
    assert planned(with_server(ident="sha256:0")) == table(SWITCH)


def test_a_paused_server_is_stopped_as_docker_starts_no_paused_container() -> None:
    assert planned(with_server(status="paused")) == table("stop    qwen-14b                     is paused", SWITCH)


@pytest.mark.parametrize(
    "status",
    [
        None,
        {"models": [], "wanted": ["qwen-14b"]},
        {"models": [{**UP, "state": "asleep"}], "wanted": ["qwen-14b"]},
        {"models": [{**UP, "open": False}], "wanted": ["qwen-14b"]},
        # A request brought it up, and the next may send it away.
        {"models": [UP], "wanted": []},
    ],
)
def test_only_what_the_activator_calls_ready_and_wanted_is_up(status: dict[str, Any] | None) -> None:
    assert planned(replace(READY, status=status)) == table(SWITCH)


@pytest.mark.parametrize("service", ["router", "activator", "engine-proxy", "gpus"])
@pytest.mark.parametrize(
    ("said", "line"),
    [
        ({"status": "exited", "health": "", "exit_code": 0}, "start   {:<28} is exited"),
        ({"status": "exited", "health": "", "exit_code": 1}, "start   {:<28} exited with exit code 1"),
        ({"config_hash": "f0"}, "start   {:<28} its settings changed since it was created"),
        ({"health": "unhealthy"}, "restart {:<28} runs but no longer answers its health check"),
        ({"status": "paused"}, "restart {:<28} is paused"),
        ({"health": "starting"}, ""),
    ],
)
def test_what_stands_in_front_and_is_not_as_it_should_be_is_started(
    service: str, said: dict[str, object], line: str
) -> None:
    assert planned(with_front(service, **said)) == line.format(service)


def test_the_reader_of_the_gpus_runs_before_a_model_that_has_any_is_switched_to() -> None:
    observed = replace(with_server(status="exited", health=""), containers={
        **{name: found for name, found in FRONT.items() if name != "gpus"},
        "qwen-14b": replace(SERVER, status="exited", health=""),
    })  # fmt: skip
    assert planned(observed) == table(PREPARED, "start   gpus                         not created yet", SWITCH)


def test_a_router_with_older_routes_reads_them_again_and_is_not_started_anew() -> None:
    assert planned(replace(READY, routes="ffffffffffffffff")) == table("""
        reload  router                       it runs with older routes
        """)


def test_a_router_that_is_started_reads_its_routes_anyway() -> None:
    observed = replace(with_front("router", status="exited", health="", exit_code=0), routes="ffffffffffffffff")
    assert planned(observed) == "start   router                       is exited"


def test_routes_that_nobody_could_ask_for_are_left_alone() -> None:
    assert planned(replace(READY, routes=None)) == ""


def test_stale_files_are_rendered_first_and_nothing_else_follows_from_them() -> None:
    assert planned(replace(READY, stale=("env/old.env", "models.schema.json"))) == table("""
        render  env/old.env                  models.toml says otherwise
        render  models.schema.json           models.toml says otherwise
        """)


def test_with_no_wanted_hashes_no_settings_are_taken_for_changed() -> None:
    assert planned(replace(READY, wanted_hashes=None)) == ""
    assert planned(replace(READY, wanted_hashes={})) == ""


def test_others_get_a_container_so_that_a_request_can_start_them() -> None:
    assert planned(READY, ["deepseek-14b", "demo"]) == table("""
        create  deepseek-14b                 so that a request can start it
        create  demo                         so that a request can start it
        """)


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ({"status": "exited", "health": ""}, ""),
        (
            {"status": "exited", "health": "", "config_hash": "d0"},
            "create  deepseek-14b                 its settings changed since it was created",
        ),
        # It serves; it is made anew when it is wanted, or when it has stopped.
        ({"config_hash": "d0"}, ""),
    ],
)
def test_others_that_have_a_container_keep_it_unless_it_is_out_of_date_and_stopped(
    said: dict[str, Any], line: str
) -> None:
    other = replace(container("deepseek-14b", config_hash="d1"), **said)
    observed = replace(READY, containers={**READY.containers, "deepseek-14b": other})
    assert planned(observed, ["deepseek-14b"]) == line


MODELS = """
[models.demo]
model = "./demo"
image = "cpu"
[models.big]
model = "org/big"
gpus = [0, 1, 2, 3]
[models.pair]
model = "org/pair"
gpus = [0, 1]
[models.second]
model = "org/second"
gpus = [1]
[models.single]
model = "org/single"
gpus = [0]
"""


@pytest.mark.parametrize(
    ("named", "gpus", "chosen"),
    [
        ([], 0, "demo"),
        ([], 1, "single"),
        ([], 2, "pair"),
        ([], 3, "pair"),
        ([], 4, "big"),
        (["second"], 0, "second"),
        (["second"], 8, "second"),
        (["nobody"], 0, "nobody"),
        (["second", "single"], 4, None),
    ],
)
def test_an_up_without_a_name_takes_what_is_named_or_the_first_that_fits(
    named: list[str], gpus: int, chosen: str | None
) -> None:
    assert default_profile(profiles(MODELS), named, gpus) == chosen


def test_no_profile_is_chosen_where_none_fits() -> None:
    only_gpus = {name: found for name, found in profiles(MODELS).items() if found.gpus}
    assert default_profile(only_gpus, [], 0) is None
    assert default_profile({}, [], 2) is None


def test_gpus_that_were_never_tried_together_are_tried_before_the_weights_are_pulled() -> None:
    observed = replace(without("qwen-14b"), images=READY.images - {SERVER_IMAGE})
    assert planned(observed, untried="none was tried with this image and driver") == table("""
        check   GPUs 0, 1                    Docker must be able to reserve them
        build   tandem/vllm:0.32.0-cu130     no such image on this machine
        try     NCCL on GPUs 0, 1            none was tried with this image and driver
        pull    Qwen/Qwen2.5-14B-Instruct    a server starts with all of its weights in the volume
        create  qwen-14b                     not created yet
        switch  qwen-14b                     ready is when it lists its name and answers
        """)


def test_a_model_that_is_up_needs_no_trial() -> None:
    assert planned(READY, untried="none was tried with this image and driver") == ""


def test_a_file_that_follows_from_the_machine_is_said_to() -> None:
    observed = replace(READY, stale=("compose.models.yaml", "box/qwen-14b.env"))
    assert planned(observed) == table("""
        render  compose.models.yaml          models.toml says otherwise
        render  box/qwen-14b.env             this machine says otherwise
        """)
