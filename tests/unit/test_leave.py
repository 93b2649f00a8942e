"""One model is taken away: the activator drains it first, wherever it can be asked."""

from pathlib import Path

import pytest

from orchestrator.ask import Told
from orchestrator.errors import TandemError
from orchestrator.leave import take_away
from orchestrator.states import Container
from tests.unit.values import container

REMOVE = "docker compose --env-file my.env --profile * --progress plain rm -s -f"


class Stage:
    """Docker and the activator in one; did is what was asked of them, in order."""

    def __init__(self, *listed: Container) -> None:
        self.did: list[str] = []
        self.listed = {found.service: found for found in listed}
        self.away = ""
        self.refusal = ""

    def containers(self) -> dict[str, Container]:
        return self.listed

    def run(self, argv: list[str]) -> None:
        self.did.append(" ".join(argv))

    def status(self) -> dict[str, object] | None:
        return None if self.away else {}

    def do(self, verb: str, model: str, show: object) -> Told:
        self.did.append(f"ask {verb} {model}")
        if self.refusal:
            raise TandemError(self.refusal)
        show(Told(model, "drain", "2 in flight"))  # type: ignore[operator]
        return Told(model, "stopped")

    def go(self) -> list[str]:
        def show(told: Told) -> None:
            self.did.append(f"show {told.phase}: {told.line}")

        take_away("qwen-14b", self, self, [Path("my.env")], show)  # type: ignore[arg-type]
        return self.did


SERVER, ACTIVATOR = container("qwen-14b"), container("activator", health="")
PULL = container("pull-qwen-14b", "exited", "")


def test_with_an_activator_its_requests_end_before_its_containers_go() -> None:
    assert Stage(ACTIVATOR, SERVER, PULL).go() == [
        "ask down qwen-14b",
        "show drain: 2 in flight",
        f"{REMOVE} qwen-14b pull-qwen-14b",
    ]


@pytest.mark.parametrize("listed", [[], [container("activator", "exited", "")]])
def test_without_an_activator_the_containers_are_removed_at_once(listed: list[Container]) -> None:
    assert Stage(SERVER, *listed).go() == [f"{REMOVE} qwen-14b"]


def test_a_model_that_is_only_pulled_has_nothing_to_drain() -> None:
    assert Stage(ACTIVATOR, PULL).go() == [f"{REMOVE} pull-qwen-14b"]


def test_of_a_model_that_is_not_there_nothing_is_done() -> None:
    assert Stage(ACTIVATOR).go() == []


def test_an_activator_that_runs_and_cannot_be_asked_is_not_passed_over() -> None:
    stage = Stage(ACTIVATOR, SERVER)
    stage.away = "at http://localhost:9000: connection refused"
    with pytest.raises(TandemError) as caught:
        stage.go()
    assert str(caught.value) == (
        "the activator does not answer: at http://localhost:9000: connection refused\n"
        "  Its log: python -m orchestrator logs activator"
    )
    assert stage.did == []


def test_what_the_activator_does_not_stop_is_not_removed() -> None:
    stage = Stage(ACTIVATOR, SERVER)
    stage.refusal = "qwen-14b: it could not be stopped"
    with pytest.raises(TandemError, match="it could not be stopped"):
        stage.go()
    assert stage.did == ["ask down qwen-14b"]
