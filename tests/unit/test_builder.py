"""A build gets this machine's mirrors, and never a password with them."""

from pathlib import Path

import pytest

from orchestrator import builder
from orchestrator.errors import TandemError
from tests.unit.values import profile, project


class Engine:
    """Docker with the base image on it; whatever it is asked to run is in ran."""

    environment: dict[str, str]

    def __init__(self, *says: str) -> None:
        self.says = says
        self.ran: list[str] = []
        self.environment = {}

    def images(self) -> frozenset[str]:
        return frozenset({"debian:bookworm-slim"})

    def stream(self, argv: list[str]) -> tuple[str, ...]:
        self.ran.append(" ".join(argv))
        return self.says


def test_an_index_with_a_password_that_pip_knows_is_refused_and_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "https://me:secret@mirror.example.org/simple")
    engine = Engine("=0")
    with pytest.raises(TandemError, match="TANDEM_PYPI_INDEX holds a password") as caught:
        builder.build(project(profile(), folder=tmp_path), engine, ["router"], print)  # type: ignore[arg-type]
    assert "secret" not in str(caught.value)
    assert engine.ran == []


def test_the_index_that_pip_knows_reaches_the_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "https://mirror.example.org/simple")
    engine, said = Engine("#1 DONE", "=0"), list[str]()
    builder.build(project(profile(), folder=tmp_path), engine, ["router"], said.append)  # type: ignore[arg-type]
    assert engine.ran == ["docker compose --profile * --progress plain build router"]
    assert engine.environment["TANDEM_PYPI_INDEX"] == "https://mirror.example.org/simple"
    assert said == ["base image: debian:bookworm-slim, as it is on this machine", "#1 DONE"]


def test_a_build_that_fails_says_what_its_step_said(tmp_path: Path) -> None:
    engine = Engine("#6 ERROR: no", "------", " > [2/2] RUN x:", "0.2 E: Unable to locate package y", "------", "=1")
    with pytest.raises(TandemError) as caught:
        builder.build(project(profile(), folder=tmp_path), engine, ["router"], lambda _: None)  # type: ignore[arg-type]
    assert str(caught.value).startswith("the build failed: E: Unable to locate package y\n  the Debian mirror ")
