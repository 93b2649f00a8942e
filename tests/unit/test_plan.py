"""What has to happen for a model to be up, compared as the text that `plan` prints."""

from dataclasses import replace
from textwrap import dedent

import pytest

from orchestrator.plan import default_profile, overlaps, plan
from orchestrator.states import Container, Observed
from tests.unit.values import container, profile, profiles

ROUTER_IMAGE, SERVER_IMAGE = "tandem/router:0.1.0", "tandem/vllm:0.32.0-cu130"
DIGEST = "0123456789abcdef"
ROUTER = container("router", config_hash="r1")
SERVER = container("qwen-14b", config_hash="s1", gpus=(0, 1))
# Everything there and ready; each test says what is otherwise.
READY = Observed(
    containers={"router": ROUTER, "qwen-14b": SERVER},
    images=frozenset({ROUTER_IMAGE, SERVER_IMAGE}),
    wanted_hashes={"router": "r1", "qwen-14b": "s1", "deepseek-14b": "d1"},
    routes=DIGEST,
)
# What comes before a start, as it takes long or may fail: nothing has been stopped for it yet.
PREPARED = """
check   GPUs 0, 1                    Docker must be able to reserve them
pull    Qwen/Qwen2.5-14B-Instruct    a server starts with all of its weights in the volume
"""


def planned(observed: Observed, **said: object) -> str:
    target = profile(**said)
    images = {"router": ROUTER_IMAGE, target.name: SERVER_IMAGE}
    return "\n".join(str(operation) for operation in plan(target, observed, images, DIGEST))


def table(*texts: str) -> str:
    return "\n".join(dedent(text).strip("\n") for text in texts)


def with_server(**said: object) -> Observed:
    return replace(READY, containers={"router": ROUTER, "qwen-14b": replace(SERVER, **said)})


def with_router(**said: object) -> Observed:
    return replace(READY, containers={"router": replace(ROUTER, **said), "qwen-14b": SERVER})


def beside(*others: Container) -> Observed:
    """Nothing of the target yet, but these servers."""
    return replace(READY, containers={"router": ROUTER} | {other.service: other for other in others})


def test_nothing_has_to_happen_when_everything_is_ready() -> None:
    assert planned(READY) == ""


def test_on_a_fresh_machine_everything_is_made_and_the_router_comes_first() -> None:
    observed = Observed({}, frozenset(), stale=("compose.models.yaml", "env/qwen-14b.env"), wanted_hashes={})
    assert planned(observed) == table("""
        render  compose.models.yaml          models.toml says otherwise
        render  env/qwen-14b.env             models.toml says otherwise
        build   tandem/router:0.1.0          no such image on this machine
        start   router                       not created yet
        check   GPUs 0, 1                    Docker must be able to reserve them
        build   tandem/vllm:0.32.0-cu130     no such image on this machine
        pull    Qwen/Qwen2.5-14B-Instruct    a server starts with all of its weights in the volume
        start   qwen-14b                     not created yet
        wait    qwen-14b                     ready is when it lists its name and answers
        """)


def test_an_image_of_the_same_name_and_another_tag_does_not_count() -> None:
    images = frozenset({ROUTER_IMAGE, "tandem/vllm:0.19.1-cu130", "tandem/vllm"})
    assert planned(replace(beside(), images=images)) == table("""
        check   GPUs 0, 1                    Docker must be able to reserve them
        build   tandem/vllm:0.32.0-cu130     no such image on this machine
        pull    Qwen/Qwen2.5-14B-Instruct    a server starts with all of its weights in the volume
        start   qwen-14b                     not created yet
        wait    qwen-14b                     ready is when it lists its name and answers
        """)


def test_a_server_that_runs_needs_its_image_no_more() -> None:
    assert planned(replace(READY, images=frozenset({ROUTER_IMAGE}))) == ""


@pytest.mark.parametrize("said", [{"model": "./mine"}, {"pull": False}])
def test_nothing_is_pulled_for_a_folder_or_for_a_server_that_fetches_by_id(said: dict[str, object]) -> None:
    assert planned(beside(), **said) == table("""
        check   GPUs 0, 1                    Docker must be able to reserve them
        start   qwen-14b                     not created yet
        wait    qwen-14b                     ready is when it lists its name and answers
        """)


def test_a_single_gpu_is_called_so() -> None:
    assert planned(beside(), gpus=[1], pull=False) == table("""
        check   GPU 1                        Docker must be able to reserve them
        start   qwen-14b                     not created yet
        wait    qwen-14b                     ready is when it lists its name and answers
        """)


@pytest.mark.parametrize(
    ("said", "lines"),
    [
        (
            {"status": "exited", "health": "", "exit_code": 0},
            """
            start   qwen-14b                     is exited
            wait    qwen-14b                     ready is when it lists its name and answers
            """,
        ),
        (
            {"status": "exited", "health": "unhealthy", "exit_code": 137},
            """
            start   qwen-14b                     is exited
            wait    qwen-14b                     ready is when it lists its name and answers
            """,
        ),
        (
            {"status": "exited", "health": "unhealthy", "exit_code": 1},
            """
            start   qwen-14b                     exited with exit code 1
            wait    qwen-14b                     ready is when it lists its name and answers
            """,
        ),
        (
            {"status": "created", "health": ""},
            """
            start   qwen-14b                     is created
            wait    qwen-14b                     ready is when it lists its name and answers
            """,
        ),
        # It runs and is not well: Compose would leave it alone, so it is stopped first.
        (
            {"status": "running", "health": "unhealthy"},
            """
            stop    qwen-14b                     runs but no longer answers its health check
            start   qwen-14b                     runs but no longer answers its health check
            wait    qwen-14b                     ready is when it lists its name and answers
            """,
        ),
        # It dies again and again; Docker would start it again in the middle of everything.
        (
            {"status": "restarting", "health": "", "exit_code": 1},
            """
            stop    qwen-14b                     restarting with exit code 1
            start   qwen-14b                     restarting with exit code 1
            wait    qwen-14b                     ready is when it lists its name and answers
            """,
        ),
        (
            {"status": "dead", "health": "", "exit_code": 1},
            """
            start   qwen-14b                     dead with exit code 1
            wait    qwen-14b                     ready is when it lists its name and answers
            """,
        ),
        (
            {"status": "running", "health": "healthy", "config_hash": "s0"},
            """
            start   qwen-14b                     its settings changed since it was created
            wait    qwen-14b                     ready is when it lists its name and answers
            """,
        ),
        (
            {"status": "running", "health": "starting", "config_hash": "s0"},
            """
            start   qwen-14b                     its settings changed since it was created
            wait    qwen-14b                     ready is when it lists its name and answers
            """,
        ),
    ],
)
def test_a_server_that_is_not_as_it_should_be_is_started(said: dict[str, object], lines: str) -> None:
    assert planned(with_server(**said)) == table(PREPARED, lines)


def test_a_server_that_someone_else_starts_is_waited_for() -> None:
    assert planned(with_server(health="starting")) == table("""
        wait    qwen-14b                     ready is when it lists its name and answers
        """)


def test_a_paused_server_is_stopped_and_started_as_docker_starts_no_paused_container() -> None:
    assert planned(with_server(status="paused")) == table(
        PREPARED,
        """
        stop    qwen-14b                     is paused
        start   qwen-14b                     is paused
        wait    qwen-14b                     ready is when it lists its name and answers
        """,
    )


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ({"status": "exited", "health": "", "exit_code": 0}, "start   router                       is exited"),
        (
            {"status": "exited", "health": "", "exit_code": 1},
            "start   router                       exited with exit code 1",
        ),
        ({"config_hash": "r0"}, "start   router                       its settings changed since it was created"),
        ({"health": "starting"}, ""),
    ],
)
def test_a_router_that_is_not_as_it_should_be_is_started(said: dict[str, object], line: str) -> None:
    assert planned(with_router(**said)) == line


def test_a_router_that_is_unwell_is_stopped_first_as_compose_leaves_it_alone() -> None:
    assert planned(with_router(health="unhealthy")) == table("""
        stop    router                       runs but no longer answers its health check
        start   router                       runs but no longer answers its health check
        """)


def test_a_router_with_older_routes_reads_them_again_and_is_not_started_anew() -> None:
    assert planned(replace(READY, routes="ffffffffffffffff")) == table("""
        reload  router                       it runs with older routes
        """)


def test_a_router_that_is_started_reads_its_routes_anyway() -> None:
    observed = replace(with_router(status="exited", health="", exit_code=0), routes="ffffffffffffffff")
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


@pytest.mark.parametrize(
    ("gpus", "holds"),
    [((0, 1), "GPUs 0, 1"), ((0,), "GPU 0"), ((1, 2), "GPU 1"), ((2, 1, 0), "GPUs 0, 1")],
)
def test_a_server_that_holds_a_gpu_of_the_target_is_stopped_just_before_the_start(
    gpus: tuple[int, ...], holds: str
) -> None:
    assert planned(beside(container("deepseek-14b", gpus=gpus))) == table(
        PREPARED,
        f"""
        stop    deepseek-14b                 holds {holds}, which qwen-14b needs
        start   qwen-14b                     not created yet
        wait    qwen-14b                     ready is when it lists its name and answers
        """,
    )


@pytest.mark.parametrize(
    ("status", "health"),
    [("running", "starting"), ("running", "unhealthy"), ("restarting", ""), ("paused", "healthy"), ("removing", "")],
)
def test_whatever_may_hold_a_gpu_is_stopped_not_only_what_is_ready(status: str, health: str) -> None:
    assert planned(beside(container("deepseek-14b", status, health, gpus=(1,)))) == table(
        PREPARED,
        """
        stop    deepseek-14b                 holds GPU 1, which qwen-14b needs
        start   qwen-14b                     not created yet
        wait    qwen-14b                     ready is when it lists its name and answers
        """,
    )


@pytest.mark.parametrize(
    "other",
    [
        container("deepseek-14b", gpus=(2, 3)),
        container("demo", gpus=()),
        container("deepseek-14b", "exited", "", gpus=(0, 1)),
        container("deepseek-14b", "exited", "", gpus=(0, 1), exit_code=1),
        container("deepseek-14b", "created", "", gpus=(0, 1)),
        container("deepseek-14b", "dead", "", gpus=(0, 1)),
    ],
)
def test_who_holds_no_gpu_of_the_target_is_left_alone(other: Container) -> None:
    assert planned(beside(other)) == table(
        PREPARED,
        """
        start   qwen-14b                     not created yet
        wait    qwen-14b                     ready is when it lists its name and answers
        """,
    )


def test_a_profile_that_needs_no_gpu_reserves_none_and_evicts_nobody() -> None:
    observed = beside(container("deepseek-14b", gpus=(0, 1)))
    assert planned(observed, name="demo", model="./demo", gpus=[], image="cpu") == table("""
        start   demo                         not created yet
        wait    demo                         ready is when it lists its name and answers
        """)


def test_several_servers_in_the_way_are_all_stopped() -> None:
    observed = beside(container("a", gpus=(0,)), container("b", gpus=(2,)), container("c", gpus=(1,)))
    assert planned(observed) == table(
        PREPARED,
        """
        stop    a                            holds GPU 0, which qwen-14b needs
        stop    c                            holds GPU 1, which qwen-14b needs
        start   qwen-14b                     not created yet
        wait    qwen-14b                     ready is when it lists its name and answers
        """,
    )


def test_a_model_that_is_ready_stops_nobody() -> None:
    observed = replace(READY, containers={**READY.containers, "deepseek-14b": container("deepseek-14b", gpus=(0,))})
    assert planned(observed) == ""


def test_a_model_that_someone_starts_by_hand_gets_the_gpus_that_it_waits_for() -> None:
    observed = with_server(health="starting")
    observed = replace(observed, containers={**observed.containers, "b": container("b", gpus=(0, 1))})
    assert planned(observed) == table("""
        stop    b                            holds GPUs 0, 1, which qwen-14b needs
        wait    qwen-14b                     ready is when it lists its name and answers
        """)


def test_a_server_that_docker_would_not_start_again_is_kept_once_it_is_ready() -> None:
    assert planned(with_server(restarts_itself=False)) == table("""
        keep    qwen-14b                     Docker would not start it again with the machine
        """)
    assert planned(with_server(restarts_itself=False, health="starting")) == table("""
        wait    qwen-14b                     ready is when it lists its name and answers
        """)


def test_everything_at_once_comes_in_an_order_that_works() -> None:
    observed = Observed(
        containers={
            "router": replace(ROUTER, config_hash="r0"),
            "qwen-14b": replace(SERVER, health="unhealthy"),
            "deepseek-14b": container("deepseek-14b", gpus=(1,)),
        },
        images=frozenset(),
        stale=("compose.models.yaml",),
        wanted_hashes={"router": "r1", "qwen-14b": "s1"},
        routes="ffffffffffffffff",
    )
    assert planned(observed) == table("""
        render  compose.models.yaml          models.toml says otherwise
        build   tandem/router:0.1.0          no such image on this machine
        start   router                       its settings changed since it was created
        check   GPUs 0, 1                    Docker must be able to reserve them
        build   tandem/vllm:0.32.0-cu130     no such image on this machine
        pull    Qwen/Qwen2.5-14B-Instruct    a server starts with all of its weights in the volume
        stop    deepseek-14b                 holds GPU 1, which qwen-14b needs
        stop    qwen-14b                     runs but no longer answers its health check
        start   qwen-14b                     runs but no longer answers its health check
        wait    qwen-14b                     ready is when it lists its name and answers
        """)


@pytest.mark.parametrize(
    ("needs", "holds", "shared"),
    [([0, 1], (0, 1), [0, 1]), ([1, 0], (0,), [0]), ([0], (1,), []), ([], (0, 1), []), ([0, 1], (), [])],
)
def test_overlaps_are_the_gpus_of_both(needs: list[int], holds: tuple[int, ...], shared: list[int]) -> None:
    assert overlaps(profile(gpus=needs), holds) == shared


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
