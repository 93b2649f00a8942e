"""What tests of several files share, and is started once."""

from collections.abc import Callable, Iterator

import pytest

from orchestrator.activator.holding import Signs
from tests.unit.activating import Stage, Theatre


@pytest.fixture(scope="session")
def theatre() -> Iterator[Theatre]:
    with Theatre() as running:
        yield running


@pytest.fixture
def stage(theatre: Theatre) -> Callable[[Signs], Stage]:
    """Set up the activator with a fake driver and a stand-in server, for this test alone."""
    return theatre.stage
