"""What the Engine says of a registry, in one line whatever the daemon said."""

from pathlib import Path
from typing import Any

import pytest
from docker.errors import APIError

from orchestrator.engine import Engine


class Client:
    """The SDK's client of a daemon that refuses, in these words."""

    def __init__(self, words: str | None) -> None:
        self.words, self.api = words, self

    def inspect_distribution(self, image: str) -> None:
        raise APIError(image, explanation=self.words)

    def close(self) -> None:
        pass


class Refusing(Engine):
    """Docker whose daemon refuses."""

    def __init__(self, words: str | None) -> None:
        super().__init__(Path(), "tandem", {})
        self.words = words

    def connect(self, seconds: float) -> Any:
        return Client(self.words)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("no basic auth\nsee docs", "no basic auth"),
        ("\n", "it said nothing"),
        ("", "it said nothing"),
        (None, "it said nothing"),
    ],
)
def test_a_refusal_is_one_line_even_where_the_daemon_says_nothing(words: str | None, line: str) -> None:
    assert Refusing(words).registry_refusal("debian", 1) == f"the image registry does not answer ({line})"
