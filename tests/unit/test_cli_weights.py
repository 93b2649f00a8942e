"""pull, verify --weights and models: what is asked for, what is refused before Docker is, and what is shown."""

from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from orchestrator import cli_weights, pulls
from orchestrator.errors import TandemError
from orchestrator.pulls import Event
from orchestrator.weights import PullError
from tests.unit.test_main import folder, tandem
from tests.unit.values import profile, project

__all__ = ["folder"]

WHOLE = project(
    profile(), profile(name="other", model="a/b"), profile(name="local", model="./x"), profile(name="by-id", pull=False)
)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({}, []),
        ({"limit_rate": "5M"}, ["--limit-rate", "5M"]),
        ({"limit_rate": "0"}, ["--limit-rate", "0"]),
        ({"update": True, "unhashed": True}, ["--update", "--unhashed"]),
    ],
)
def test_options_are_what_the_image_reads(said: dict[str, Any], words: list[str]) -> None:
    assert cli_weights._options(**({"limit_rate": None, "update": False, "unhashed": False} | said)) == words


def test_a_rate_that_is_none_is_refused_before_anything_runs() -> None:
    with pytest.raises(TandemError, match=r'^--limit-rate: should be bytes a second such as 5M or 800k, got "fast"$'):
        cli_weights._options("fast", update=False, unhashed=False)


@pytest.mark.parametrize(("names", "everything"), [([], False), (["qwen-14b"], True)])
def test_either_names_or_all_are_asked_for(names: list[str], everything: bool) -> None:
    with pytest.raises(TandemError) as caught:
        cli_weights._asked(WHOLE, names, everything=everything)
    assert str(caught.value) == "Which profiles? --all, or some of: qwen-14b, other, local, by-id"


def test_of_profiles_that_have_nothing_to_pull_it_is_said_why(capsys: pytest.CaptureFixture[str]) -> None:
    found = cli_weights._asked(WHOLE, [], everything=True)
    assert [each.name for each in pulls.wanted(found)] == ["qwen-14b", "other"]
    assert capsys.readouterr().err.splitlines() == [
        "local: ./x is a folder here: nothing to pull",
        "by-id: its server fetches Qwen/Qwen2.5-14B-Instruct itself, as pull is false: nothing to pull",
    ]


def test_a_folder_is_counted_and_what_cannot_be_read_of_it_is_not(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/a").write_bytes(b"12345")
    (tmp_path / "b").write_bytes(b"123")
    (tmp_path / "broken").symlink_to(tmp_path / "nowhere")
    (tmp_path / "round").symlink_to("round")
    assert cli_weights._bytes_in(tmp_path) == 8
    assert cli_weights._bytes_in(tmp_path / "nowhere") == 0
    assert cli_weights._bytes_in(tmp_path / "b") == 0


DOWN = {"DOCKER_HOST": "unix:///nobody"}


@pytest.mark.parametrize(
    ("argv", "error"),
    [
        (["pull"], "Which profiles? --all, or some of: demo"),
        (["pull", "--all", "demo"], "Which profiles? --all, or some of: demo"),
        (["pull", "nobody"], "nobody: no such profile; models.toml has: demo"),
        (["pull", "demo", "--limit-rate", "fast"],
         '--limit-rate: should be bytes a second such as 5M or 800k, got "fast"'),
        (["verify", "--weights", "nobody"], "nobody: no such profile; models.toml has: demo"),
        (["verify", "demo", "--weights"], "demo: ./demo is not pulled, so nothing is known to check it by"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_an_error_line_and_needs_no_docker(folder: Path, argv: list[str], error: str) -> None:
    done = tandem(folder, *argv, **DOWN)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"error: {error}\n"


@pytest.mark.parametrize("argv", [["pull", "--all"], ["models"], ["models", "--json"], ["models", "remove", "demo"]])
def test_without_docker_each_is_an_error_line(folder: Path, argv: list[str]) -> None:
    done = tandem(folder, *argv, **DOWN)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1].startswith("error: Docker does not answer. ")


def test_a_name_without_its_organisation_is_caught_by_check(folder: Path) -> None:
    path = folder / "models.toml"
    path.write_text('[models.a]\nmodel = "Qwen2.5-32B-Instruct-AWQ"\nimage = "cpu"\n', encoding="utf-8")
    done = tandem(folder, "check")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.endswith('got "Qwen2.5-32B-Instruct-AWQ", did you mean "Qwen/Qwen2.5-32B-Instruct-AWQ"?\n')


@pytest.mark.parametrize("name", ["TANDEM_MODELSCOPE_TOKEN_FILE", "TANDEM_HF_TOKEN_FILE"])
def test_a_token_file_that_is_not_there_is_caught_by_check(folder: Path, name: str) -> None:
    done = tandem(folder, "check", **{name: "/no/such/file"})
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f'error: {name}: should be the whole path of a file that is there, beginning with /, got "/no/such/file"\n'
    )


def test_what_a_script_asked_for_and_failed_is_an_event_and_an_error() -> None:
    def events() -> Generator[Event, None, None]:
        yield Event("progress", "checking", {})
        raise PullError(Event("error", "a/b is damaged: x", {"files": ["x"]}))

    for as_json, kinds in ((True, ["progress", "error"]), (False, ["progress"])):
        told: list[Event] = []
        with pytest.raises(PullError, match=r"^a/b is damaged: x$"):
            cli_weights._tell(events(), told.append, as_json=as_json)
        assert [event.kind for event in told] == kinds


def test_folders_of_the_user_s_own_are_known_where_models_are_pulled_to(tmp_path: Path) -> None:
    mine, link = profile(model=str(tmp_path / "weights/Mine/own")), profile(name="by-link", model="./link")
    (tmp_path / "weights/Mine/own").mkdir(parents=True)
    (tmp_path / "weights/Mine/other").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "weights/Mine/other")
    elsewhere = profile(name="elsewhere", model=str(tmp_path / "elsewhere"))
    for place, owned in (
        (str(tmp_path / "weights"), {"Mine/own": "qwen-14b", "Mine/other": "by-link"}),
        ("models", {}),
    ):
        whole = project(mine, link, elsewhere, folder=tmp_path, values={"TANDEM_MODELS": place})
        assert cli_weights._owned(whole) == owned
