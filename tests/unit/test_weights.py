"""pull.py in a container of its own: the command, its events, its end, and whose container is removed."""

import json
import os
from collections.abc import Generator, Iterable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from orchestrator import weights
from orchestrator.errors import TandemError
from orchestrator.pulls import Event
from orchestrator.weights import KILLED, Weights
from tests.unit.values import profile, project

TARGET = profile()
SECRET = "hf_s3cret"


def line(event: str, text: str, **more: Any) -> str:
    return json.dumps({"event": event, "text": text, **more})


OLD = "the image is older than this Tandem and knows no such thing: python -m orchestrator build qwen-14b"
COMPLETE = line("complete", "org/name is complete")


class Engine:
    """Docker as a test tells it: what was run, what it was given and what was discarded."""

    project = "tandem"

    def __init__(self, *says: str | BaseException, shown: tuple[str, str] = ("", "")) -> None:
        self.says = says
        self.shown = shown
        self.ran: list[list[str]] = []
        self.given: list[str | None] = []
        self.discarded: list[str] = []
        self.ended = 0

    def stream(self, argv: list[str], given: str | None = None) -> Generator[str, None, None]:
        self.ran.append(argv)
        self.given.append(given)
        try:
            for said in self.says:
                if isinstance(said, BaseException):
                    raise said
                yield said
        finally:
            self.ended += 1

    def run(self, argv: list[str], *, check: bool = True) -> "CompletedProcess[str]":
        assert not check
        self.ran.append(argv)
        return CompletedProcess(argv, 0, *self.shown)

    def discard(self, container: str) -> None:
        self.discarded.append(container)

    @property
    def container(self) -> str:
        """The name of the container that the last command ran."""
        return self.ran[-1][self.ran[-1].index("--name") + 1]


def of(engine: Engine, **values: str) -> Weights:
    return Weights(project(TARGET, values=values), engine)  # type: ignore[arg-type]


def pulled(engine: Engine, options: Iterable[str] = (), **values: str) -> list[Event]:
    return list(of(engine, **values).pull(TARGET, options))


def fails(engine: Engine) -> str:
    with pytest.raises(TandemError) as caught:
        pulled(engine)
    return str(caught.value)


RUN = "docker compose --profile qwen-14b --progress quiet run --rm -T --name"


def test_a_pull_of_a_command_is_no_part_of_a_start_and_one_of_a_start_is() -> None:
    engine = Engine(COMPLETE, "=0")
    assert [event.kind for event in pulled(engine, ["--update"])] == ["complete"]
    words = "pull-qwen-14b pull --events --source modelscope --update Qwen/Qwen2.5-14B-Instruct master"
    assert " ".join(engine.ran[-1]) == f"{RUN} {engine.container} --label tandem.alone=true {words}"
    pulled(engine, ["--for-start"])
    assert " ".join(engine.ran[-1]) == f"{RUN} {engine.container} {words.replace('--update', '--for-start')}"


def test_each_container_has_a_name_of_its_own_that_begins_with_the_projects() -> None:
    engine = Engine(COMPLETE, "=0")
    names = []
    for _ in range(3):
        pulled(engine)
        names.append(engine.container)
    assert len(set(names)) == 3
    assert all(name.startswith(f"tandem-pull-qwen-14b-{os.getpid()}-") for name in names)


def test_events_are_given_as_they_come_and_other_lines_are_not() -> None:
    engine = Engine("a warning of Compose", line("listing", "asking"), '{"of": "the client"}', COMPLETE, "=0")
    assert [event.text for event in pulled(engine)] == ["asking", "org/name is complete"]
    assert engine.discarded == []


def test_a_pull_that_fails_says_what_it_said_itself() -> None:
    engine = Engine(line("error", "could not pull a/b (master): the disk is full"), "a line after it", "=1")
    assert fails(engine) == "could not pull a/b (master): the disk is full"


def test_an_error_that_ends_well_is_an_error() -> None:
    assert fails(Engine(line("error", "damaged"), "=0")) == "damaged"


@pytest.mark.parametrize(
    ("says", "error"),
    [
        (["=137"], KILLED.format(code="exit code 137")),
        (["", " ", "=1"], "it said nothing (1)"),
        (["one", "two", "", "=1"], "two"),
        (["Error response from daemon: No such image: tandem/vllm:0.32.0-cu130", "=1"],
         "Error response from daemon: No such image: tandem/vllm:0.32.0-cu130\n"
         "  the image is missing: 'python -m orchestrator build'."),
        # Its own program, with a fault of its own.
        (["Traceback (most recent call last):", '  File "/opt/tandem/pull.py", line 1', "ValueError: odd", "=1"],
         "ValueError: odd"),
        # As pull.py was before: it took "pull" for a model, and "--events" for a revision.
        (["tandem: pulling pull (--events)", "tandem: could not pull pull (--events): HTTPError: 404", "=1"], OLD),
        (["usage: pull.py [-h] {pull,list} ...", "pull.py: error: unrecognized arguments: --new", "=2"], OLD),
        (["python3: can't open file '/opt/tandem/pull.py': [Errno 2] No such file or directory", "=2"], OLD),
    ],
)  # fmt: skip
def test_a_pull_that_says_nothing_of_its_own_is_told_by_its_last_line(says: list[str], error: str) -> None:
    assert fails(Engine(*says)) == error


@pytest.mark.parametrize("before", [[], [line("listing", "asking")], ["=====", line("listing", "asking")]])
def test_an_interrupted_pull_has_its_own_container_removed_and_no_other(before: list[str]) -> None:
    engine = Engine(*before, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        pulled(engine)
    assert (engine.discarded, engine.ended) == ([engine.container], 1)


def test_a_pull_that_nobody_follows_any_more_ends_and_its_container_is_removed() -> None:
    engine = Engine(line("listing", "asking"), "=====", line("progress", "1%"), COMPLETE, "=0")

    def tell(event: Event) -> None:
        if event.kind == "progress":
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        weights.follow(of(engine).pull(TARGET), tell)
    assert (engine.discarded, engine.ended) == ([engine.container], 1)


def test_a_pull_that_was_never_begun_removes_nothing() -> None:
    engine = Engine(COMPLETE, "=0")
    of(engine).pull(TARGET).close()
    assert (engine.ran, engine.discarded) == ([], [])


# Tokens


def test_a_token_goes_by_standard_input_alone(tmp_path: Path) -> None:
    engine = Engine(COMPLETE, "=0")
    pulled(engine, MODELSCOPE_API_TOKEN=SECRET)
    assert engine.given == [SECRET]
    assert "--token-on-stdin" in engine.ran[-1]
    assert SECRET not in " ".join(engine.ran[-1])


def test_a_token_of_a_file_is_read_here_where_the_user_may(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(f"\n {SECRET} \n", encoding="utf-8")
    engine = Engine(COMPLETE, "=0")
    pulled(engine, TANDEM_MODELSCOPE_TOKEN_FILE=str(path))
    assert engine.given == [SECRET]
    assert SECRET not in " ".join(engine.ran[-1])


@pytest.mark.parametrize("values", [{}, {"MODELSCOPE_API_TOKEN": ""}, {"HF_TOKEN": SECRET}])
def test_without_a_token_of_the_hub_none_is_given(values: dict[str, str]) -> None:
    engine = Engine(COMPLETE, "=0")
    pulled(engine, **values)
    assert engine.given == [None]
    assert "--token-on-stdin" not in engine.ran[-1]


def test_an_empty_token_file_gives_none(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.touch()
    engine = Engine(COMPLETE, "=0")
    pulled(engine, TANDEM_MODELSCOPE_TOKEN_FILE=str(path))
    assert engine.given == [None]


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_token_file_that_cannot_be_read_is_told_before_anything_runs(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "token"
    if content is not None:
        path.write_bytes(content)
    engine = Engine(COMPLETE, "=0")
    with pytest.raises(TandemError, match=rf"^TANDEM_MODELSCOPE_TOKEN_FILE: {path} cannot be read: "):
        pulled(engine, TANDEM_MODELSCOPE_TOKEN_FILE=str(path))
    assert engine.ran == []


def test_the_token_is_that_of_the_profiles_hub() -> None:
    engine = Engine(COMPLETE, "=0")
    target = profile(source="huggingface")
    whole = project(target, values={"HF_TOKEN": SECRET, "MODELSCOPE_API_TOKEN": "another"})
    assert list(Weights(whole, engine).pull(target)) != []  # type: ignore[arg-type]
    assert engine.given == [SECRET]


# Looking, verifying, removing


def test_what_is_there_is_looked_at_beside_what_is_up() -> None:
    engine = Engine(shown=('{"models": {}, "others": {}, "free": 5}', "a warning"))
    assert of(engine).listing(TARGET, ["a/b", "c/d"]) == {"models": {}, "others": {}, "free": 5}
    assert " ".join(engine.ran[-1]) == f"{RUN} {engine.container} --label tandem.alone=true pull-qwen-14b list a/b c/d"


@pytest.mark.parametrize(
    ("shown", "error"),
    [
        (("", ""), "the weights cannot be looked at: it said nothing"),
        (("", "one\ntandem: the weights: Permission denied\n"),
         "the weights cannot be looked at: tandem: the weights: Permission denied"),
        (("tandem: pulling list (a/b)", "Traceback\n  File \"/opt/tandem/pull.py\", line 1\nIndexError: list index"),
         f"the weights cannot be looked at: IndexError: list index {OLD}"),
        (("[]", "said"), "the weights cannot be looked at: said"),
        (("3", ""), "the weights cannot be looked at: 3"),
        (("null", ""), "the weights cannot be looked at: null"),
        (("{}{}", ""), "the weights cannot be looked at: {}{}"),
    ],
)  # fmt: skip
def test_what_cannot_be_looked_at_is_one_line(shown: tuple[str, str], error: str) -> None:
    with pytest.raises(TandemError) as caught:
        of(Engine(shown=shown)).listing(TARGET, ["a/b"])
    assert str(caught.value) == error


def test_verify_and_remove_run_beside_what_is_up_and_need_no_token() -> None:
    engine = Engine(line("verified", "as it was pulled"), "=0")
    assert [event.kind for event in of(engine, MODELSCOPE_API_TOKEN=SECRET).verify(TARGET)] == ["verified"]
    assert engine.ran[-1][-4:] == ["pull-qwen-14b", "verify", "--events", "Qwen/Qwen2.5-14B-Instruct"]
    assert list(of(engine, MODELSCOPE_API_TOKEN=SECRET).remove(TARGET, "org/other")) != []
    assert engine.ran[-1][-4:] == ["pull-qwen-14b", "remove", "--events", "org/other"]
    assert engine.given == [None, None]
    assert all("tandem.alone=true" in argv for argv in engine.ran)


def test_a_damaged_model_is_an_error() -> None:
    with pytest.raises(TandemError, match=r"^a/b is damaged: x$"):
        list(of(Engine(line("error", "a/b is damaged: x"), "=1")).verify(TARGET))
