"""Docker as a test tells it: what a registry says, which containers count, and how a command's lines come."""

import os
import signal
import sys
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from docker.errors import APIError, NotFound

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


def listed(service: str, **labels: str) -> dict[str, Any]:
    return {"Id": f"id-{service}-{len(labels)}", "Labels": {"com.docker.compose.service": service, **labels}}


class Containers:
    """The SDK's client of a daemon with these containers; those that were removed are in removed."""

    def __init__(self, *entries: dict[str, Any]) -> None:
        self.entries = entries
        self.removed: list[tuple[str, bool]] = []
        self.api = self

    def containers(self, **filters: Any) -> list[dict[str, Any]]:
        return list(self.entries)

    def inspect_container(self, container: str) -> dict[str, Any]:
        found = next(entry for entry in self.entries if entry["Id"] == container)
        return {
            "Name": f"/{container}",
            "Config": {"Labels": found["Labels"]},
            "State": {
                "Status": "running", "ExitCode": 0, "StartedAt": "2026-11-25T00:00:00Z", "OOMKilled": False,
            },
            "RestartCount": 0,
            "HostConfig": {"RestartPolicy": {"Name": "no"}},
        }  # fmt: skip

    def remove_container(self, container: str, *, force: bool) -> None:
        if container == "gone":
            raise NotFound("No such container")
        if container == "going":
            raise APIError("removal is already in progress", response=SimpleNamespace(status_code=409))  # type: ignore[arg-type]
        self.removed.append((container, force))

    def wait(self, container: str, *, timeout: int, condition: str) -> None:
        assert timeout > 0
        assert condition == "removed"
        self.removed.append((container, False))


class Having(Engine):
    """Docker with these containers."""

    def __init__(self, *entries: dict[str, Any]) -> None:
        super().__init__(Path(), "tandem", {})
        self.having = Containers(*entries)

    def connect(self, seconds: float) -> Any:
        return self.having


def test_a_pull_that_runs_beside_what_is_up_is_no_part_of_that() -> None:
    engine = Having(
        listed("qwen-14b"), listed("pull-qwen-14b", **{"tandem.alone": "true"}), listed("pull-other"),
    )  # fmt: skip
    assert sorted(engine.containers()) == ["pull-other", "qwen-14b"]


def test_one_container_is_discarded_by_its_name_and_one_that_is_gone_is_no_error() -> None:
    engine = Having(listed("pull-qwen-14b"))
    engine.discard("tandem-pull-qwen-14b-7-1")
    engine.discard("gone")
    assert engine.having.removed == [("tandem-pull-qwen-14b-7-1", True)]


def test_one_that_another_removes_at_this_moment_is_waited_for() -> None:
    engine = Having()
    engine.discard("going")
    assert engine.having.removed == [("going", False)]


def ran(tmp_path: Path) -> Engine:
    return Engine(tmp_path, "tandem", dict(os.environ))


def test_lines_come_with_the_exit_code_last(tmp_path: Path) -> None:
    program = "import sys; print('out', flush=True); print('err', file=sys.stderr); sys.exit(3)"
    assert list(ran(tmp_path).stream([sys.executable, "-c", program])) == ["out", "err", "=3"]


@pytest.mark.parametrize("given", ["", "hf_s3cret", "two\nlines", "x" * 1_000_000])
def test_what_is_given_is_read_whole_and_then_ends(tmp_path: Path, given: str) -> None:
    program = "import sys; said = sys.stdin.read(); print(len(said), said[:5])"
    lines = list(ran(tmp_path).stream([sys.executable, "-c", program], given))
    assert "\n".join(lines[:-1]) == f"{len(given)} {given[:5]}"
    assert lines[-1] == "=0"


def test_a_command_that_reads_nothing_of_what_is_given_ends_as_it_ends(tmp_path: Path) -> None:
    program = "import os; os.close(0); print('done')"
    assert list(ran(tmp_path).stream([sys.executable, "-c", program], "x" * 1_000_000)) == ["done", "=0"]


def test_a_command_ends_with_who_reads_it(tmp_path: Path) -> None:
    program = "import os, signal; print(os.getpid(), flush=True); signal.pause()"
    with closing(ran(tmp_path).stream([sys.executable, "-c", program])) as lines:
        # By its number it might be taken for another that has it since.
        process = os.pidfd_open(int(next(lines)))
        signal.pidfd_send_signal(process, 0)
    with pytest.raises(ProcessLookupError):
        signal.pidfd_send_signal(process, 0)
    os.close(process)
