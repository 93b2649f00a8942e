"""What the activator will do for an `up`, foreseen from what it says, or else from Docker."""

from textwrap import dedent
from typing import Any

from orchestrator import foresee
from orchestrator.profiles import Profile
from orchestrator.states import Container, Observed
from orchestrator.switch.world import Policy
from tests.unit.values import container, profile

GIB = 1 << 30
QWEN, OTHER, CPU = profile(), profile(name="other", gpus=[1]), profile(name="demo", gpus=[], image="cpu")


def foreseen(*listed: Container, status: dict[str, Any] | None = None, **said: Any) -> str:
    observed = Observed({found.service: found for found in listed}, frozenset(), status=status)
    profiles: tuple[Profile, ...] = said.pop("profiles", (QWEN, OTHER, CPU))
    steps = foresee.steps(profiles[0], profiles, observed, Policy(), **{"stopped": False} | said)
    return "\n".join(map(str, steps))


def test_without_an_activator_who_is_healthy_counts_as_ready_and_gives_way() -> None:
    assert foreseen(container("other"), container("demo")) == dedent("""\
        close   other               holds GPU 1, which qwen-14b needs
        drain   other               what is in flight is finished first
        stop    other               holds GPU 1, which qwen-14b needs; its sleep is off
        release qwen-14b            GPUs 0, 1 must have back what other held
        start   qwen-14b            it is stopped
        prove   qwen-14b            ready is when it lists its name and answers
        open    qwen-14b            it is ready""")


def test_what_is_healthy_for_docker_may_sleep_for_the_activator() -> None:
    status = {"models": [{"name": "qwen-14b", "state": "asleep"}]}
    assert foreseen(container("qwen-14b"), status=status).splitlines()[1] == "wake    qwen-14b            it is asleep"


def test_a_model_sleeps_where_the_activator_and_the_machine_say_that_there_is_room() -> None:
    profiles = (profile(gpu_memory_utilization=0.8), profile(name="other", gpus=[1], sleep="auto"))
    told = {
        "name": "other",
        "state": "ready",
        "open": True,
        "sleep": "auto",
        "can_sleep": True,
        "footprint": {"gpu": 3 * GIB, "host": GIB},
    }
    gpus = [{"index": index, "total": 24 * GIB, "free": 4 * GIB} for index in (0, 1)]
    status = {"models": [told, {"name": "qwen-14b", "state": "stopped", "claim": 0.8, "holds": 20 * GIB}], "gpus": gpus}
    slept = foreseen(container("other"), status=status, profiles=profiles, host_free=64 * GIB)
    assert slept.splitlines()[2] == "sleep   other               holds GPU 1, which qwen-14b needs"
    stopped = foreseen(container("other"), status=status, profiles=profiles, host_free=8 * GIB)
    assert stopped.splitlines()[2].startswith("stop    other ")


def test_what_the_activator_measured_of_the_target_counts_while_its_claim_is_the_same() -> None:
    other = {"name": "other", "state": "asleep", "can_sleep": True, "footprint": {"gpu": 3 * GIB, "host": GIB}}
    gpus = [{"index": index, "total": 28 * GIB, "free": 4 * GIB} for index in (0, 1)]
    others = profile(name="other", gpus=[1], sleep="auto")

    def stops(claim: float, *, stopped: bool = False, **told: Any) -> str:
        row = {"name": "qwen-14b", "state": "stopped", "claim": 0.8} | told
        status = {"models": [other, row], "gpus": gpus}
        profiles = (profile(gpu_memory_utilization=claim), others)
        found = foreseen(status=status, profiles=profiles, host_free=64 * GIB, stopped=stopped)
        return next((line for line in found.splitlines() if line.startswith("stop ")), "")

    room = "stop    other               asleep; GPU 1 has no room for it beside qwen-14b"
    assert stops(0.8) == ""
    assert stops(0.8, holds=26 * GIB) == f"{room}: 26.0 and 3.0 asleep, of 28.0 GiB"
    assert stops(0.8, holds=26 * GIB, stopped=True) != ""
    assert stops(0.7, holds=26 * GIB) == ""
    assert stops(0.8, starts_alone=True) == f"{room}, which needs all of it to start"
    assert stops(0.7, starts_alone=True) == ""


def test_a_model_whose_sleep_failed_before_is_stopped() -> None:
    profiles = (profile(), profile(name="other", gpus=[1], sleep="auto"))
    told = {"name": "other", "state": "ready", "open": True, "sleep": "it did not wake", "can_sleep": False}
    assert foreseen(container("other"), status={"models": [told]}, profiles=profiles).splitlines()[2] == (
        "stop    other               holds GPU 1, which qwen-14b needs; its server cannot sleep"
    )


def test_a_server_that_is_stopped_before_as_its_settings_changed_is_started() -> None:
    assert foreseen(container("qwen-14b")) == ""
    assert foreseen(container("qwen-14b"), stopped=True).splitlines()[1] == "start   qwen-14b            it is stopped"


def test_who_leaves_is_named_once() -> None:
    profiles = (QWEN, OTHER)
    observed = Observed({"other": container("other")}, frozenset())
    assert foresee.leaving(foresee.steps(QWEN, profiles, observed, Policy(), stopped=False)) == ("other",)
