"""pull.py's command line: what it takes, where a token comes from, and how each end looks."""

import argparse
import io
import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import pull
import pytest
from weights import care
from weights.store import Store

from tests.unit.models import CONTENT, NAME, Hub, listing, read, whole, write
from tests.unit.values import ROOT

SECRET = "hf_s3cret"


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("", 0), ("0", 0), ("1", 1), ("800k", 800_000), ("800K", 800_000), ("5M", 5_000_000), ("1.5M", 1_500_000),
        ("1G", 10**9), ("0.5M", 500_000), (".5M", 500_000), ("007", 7), ("1.5", 1), ("0.0000001k", 1),
    ],
)  # fmt: skip
def test_a_rate_is_bytes_a_second(text: str, rate: int) -> None:
    assert pull.rate(text) == rate


@pytest.mark.parametrize(
    "text", ["5 M", "5MB", "fast", "-5M", "0M", "0.0k", "1e6", "M", ".", "5m", "1_000", "５M", "5,5M"]
)
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=r"^should be bytes a second such as 5M or 800k, got "):
        pull.rate(text)


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        *[(text, True) for text in ("", "0", "1", "800k", "5M", "1.5M", ".5M", "0.5M", "1G", "007", "1.5")],
        *[(text, False) for text in ("5 M", "5MB", "fast", "-5M", "0M", "M", ".", "5m", "1e6", "1_000", "５M")],
    ],
)
def test_a_rate_that_the_orchestrator_takes_is_one_for_the_image_too(text: str, fits: bool) -> None:
    from orchestrator.settings import rate_fault

    assert (rate_fault(text) is None) is fits
    if fits:
        assert pull.rate(text) >= 0


def test_a_pull_takes_what_it_is_not_told_as_usual(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TANDEM_LIMIT_RATE", raising=False)
    given = pull.arguments(["pull", NAME, "master"])
    assert vars(given) == {
        "action": "pull", "model": NAME, "revision": "master", "source": "modelscope", "for_start": False,
        "update": False, "unhashed": False, "limit_rate": 0, "token_on_stdin": False, "events": False,
    }  # fmt: skip


def test_the_rate_is_that_of_the_machine_unless_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TANDEM_LIMIT_RATE", "5M")
    assert pull.arguments(["pull", NAME, "master"]).limit_rate == 5_000_000
    assert pull.arguments(["pull", "--limit-rate", "1k", NAME, "master"]).limit_rate == 1000
    assert pull.arguments(["pull", "--limit-rate", "0", NAME, "master"]).limit_rate == 0


@pytest.mark.parametrize(
    ("argv", "fault"),
    [
        ([], "required: action"),
        (["fetch"], "invalid choice: 'fetch'"),
        (["pull"], "required: model, revision"),
        (["pull", NAME], "required: revision"),
        # As an orchestrator from before calls it.
        ([NAME, "master"], f"invalid choice: '{NAME}'"),
        (["pull", "--source", "path", NAME, "x"], "invalid choice: 'path'"),
        (["pull", "--limit-rate", "fast", NAME, "x"], 'should be bytes a second such as 5M or 800k, got "fast"'),
        (["verify"], "required: model"),
    ],
)
def test_a_wrong_command_line_ends_with_what_is_wrong(
    argv: list[str], fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        pull.arguments(argv)
    assert caught.value.code == 2
    assert fault in capsys.readouterr().err.splitlines()[-1]


def test_a_wrong_rate_of_the_machine_is_told_and_hides_nothing_else(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TANDEM_LIMIT_RATE", "fast")
    assert pull.arguments(["list"]).action == "list"
    with pytest.raises(SystemExit):
        pull.arguments(["pull", NAME, "master"])
    assert 'should be bytes a second such as 5M or 800k, got "fast"' in capsys.readouterr().err


class Place:
    """pull.py over a folder in the place of its volume, with a hub and secret files that are here."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = folder / "models"
        self.root.mkdir()
        self.hub: Hub | Exception = Hub()
        # The tokens that hubs were opened with.
        self.tokens: list[str] = []
        self.secret = folder / "modelscope-token"
        monkeypatch.setattr(pull, "Store", lambda model: Store(model, self.root))
        monkeypatch.setattr(care, "listed", partial(care.listed, root=self.root))
        monkeypatch.setattr(pull, "hub", self._hub)
        monkeypatch.setitem(pull.SECRETS, "modelscope", self.secret)
        monkeypatch.delenv("TANDEM_LIMIT_RATE", raising=False)

    def _hub(self, source: str, secret: str, scratch: Path) -> Hub:
        assert source == "modelscope"
        assert scratch.is_dir()
        self.tokens.append(secret)
        if isinstance(self.hub, Exception):
            raise self.hub
        return self.hub


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    return Place(tmp_path, monkeypatch)


def test_a_pull_ends_with_0_and_a_model(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert pull.main(["pull", NAME, "master"]) == 0
    seen = capsys.readouterr()
    assert seen.err == ""
    assert seen.out.splitlines()[-1].startswith("tandem: org/name is complete: 2.1 kB, master, commit ")
    assert read(place.root / NAME) == CONTENT
    assert Store(NAME, place.root).used() is None


def test_with_events_each_line_is_one(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert pull.main(["pull", "--events", NAME, "master"]) == 0
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["event"] for line in said][-1] == "complete"
    assert all(line["text"] for line in said)


def test_only_a_start_is_a_use(place: Place) -> None:
    assert pull.main(["pull", "--for-start", NAME, "master"]) == 0
    assert Store(NAME, place.root).used() is not None


def fails(place: Place, error: Exception, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line that a pull ends with."""
    place.hub = error
    assert pull.main(["pull", *words, NAME, "master"]) == 1
    seen = capsys.readouterr()
    if "--events" in words:
        said = json.loads(seen.out.splitlines()[-1])
        assert said["event"] == "error"
        return str(said["text"])
    assert len(seen.err.splitlines()) == 1
    return seen.err


@pytest.mark.parametrize(
    "error",
    [
        ConnectionError("refused"),
        KeyError("Data"),
        OSError(28, "No space left on device"),
        RuntimeError(),
        SyntaxError(),
    ],
)
@pytest.mark.parametrize("words", [[], ["--events"]])
def test_whatever_a_client_raises_is_one_line(
    place: Place, error: Exception, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert "could not pull org/name (master): " in fails(place, error, capsys, *words)


def test_a_token_of_standard_input_reaches_the_client_alone(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{SECRET}\n"))
    assert pull.main(["pull", "--token-on-stdin", NAME, "master"]) == 0
    assert place.tokens == [SECRET]
    seen = capsys.readouterr()
    assert SECRET not in seen.out + seen.err
    assert not [path for path in place.root.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]


@pytest.mark.parametrize(
    "text", [SECRET, f"{SECRET}\n", f"  {SECRET}  \r\n", f"{SECRET}\nsecond line\n", f"\n{SECRET}\n"]
)
def test_a_token_of_the_secret_file_is_its_first_word_that_is_there(place: Place, text: str) -> None:
    place.secret.write_text(text, encoding="utf-8")
    assert pull.main(["pull", NAME, "master"]) == 0
    assert place.tokens == [SECRET]


@pytest.mark.parametrize("text", [None, "", "\n"])
def test_without_a_token_there_is_none(place: Place, text: str | None) -> None:
    if text is not None:
        place.secret.write_text(text, encoding="utf-8")
    assert pull.main(["pull", NAME, "master"]) == 0
    assert place.tokens == [""]


def test_a_token_that_is_in_an_error_is_not_told(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    place.secret.write_text(SECRET, encoding="utf-8")
    for words in ([], ["--events"]):
        line = fails(place, ValueError(f"{SECRET!r} is no token, and {SECRET} neither"), capsys, *words)
        assert SECRET not in line
        assert "'***' is no token, and *** neither" in line


@pytest.mark.parametrize("unreadable", ["a folder", "not text"])
def test_a_secret_file_that_cannot_be_read_is_told_as_that(
    place: Place, unreadable: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if unreadable == "a folder":
        place.secret.mkdir()
    else:
        place.secret.write_bytes(b"\xff\xfe")
    assert pull.main(["pull", NAME, "master"]) == 1
    assert "the file of TANDEM_MODELSCOPE_TOKEN_FILE cannot be read by user 1000" in capsys.readouterr().err


def test_a_start_of_a_whole_model_needs_no_token(place: Place) -> None:
    whole(place.root / NAME)
    place.secret.mkdir()
    assert pull.main(["pull", "--for-start", NAME, "master"]) == 0
    assert place.tokens == []


def test_authorities_are_those_of_the_secret_file(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authorities = tmp_path / "ca"
    monkeypatch.setattr(pull, "AUTHORITIES", authorities)
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    # What is set here must not outlive the test.
    monkeypatch.setenv("SSL_CERT_FILE", "/mine")
    authorities.write_text("", encoding="utf-8")
    assert pull.main(["pull", NAME, "master"]) == 0
    assert "REQUESTS_CA_BUNDLE" not in pull.os.environ
    authorities.write_text("a certificate", encoding="utf-8")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/mine-too")
    assert pull.main(["pull", NAME, "master"]) == 0
    assert (pull.os.environ["REQUESTS_CA_BUNDLE"], pull.os.environ["SSL_CERT_FILE"]) == ("/mine-too", "/mine")


def test_a_list_is_one_object(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    whole(place.root / NAME)
    assert pull.main(["list", NAME, "org/none"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [found["state"] for found in shown["models"].values()] == ["complete", "missing"]


def test_verify_and_remove_end_as_what_they_found(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    whole(place.root / NAME)
    assert pull.main(["verify", "--events", NAME]) == 0
    write(place.root / NAME, {"config.json": b"[]"})
    assert pull.main(["verify", "--events", NAME]) == 1
    assert pull.main(["remove", "--events", NAME]) == 0
    assert pull.main(["remove", "--events", NAME]) == 1
    said = [json.loads(line)["event"] for line in capsys.readouterr().out.splitlines()]
    assert said == ["verified", "error", "removed", "error"]


def unusable(place: Place) -> None:
    """A volume that cannot be written: what should be a folder is a file."""
    (place.root / ".tandem").write_text("", encoding="utf-8")


@pytest.mark.parametrize("argv", [["verify", NAME], ["remove", NAME]])
@pytest.mark.parametrize("events", [[], ["--events"]])
def test_a_place_that_cannot_be_used_is_one_line(
    place: Place, argv: list[str], events: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    unusable(place)
    whole(place.root / NAME)
    # A look needs to write nothing.
    assert pull.main(["list", NAME, *events]) == 0
    assert json.loads(capsys.readouterr().out)["models"][NAME]["state"] == "complete"
    assert pull.main([*argv, *events]) == 1
    seen = capsys.readouterr()
    assert len((seen.out + seen.err).splitlines()) == 1
    assert "pull.py" not in seen.err


def test_the_script_runs_where_it_lies(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "docker/vllm/pull.py"), "--help"], env={}, cwd=tmp_path,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_a_pull_in_the_middle_is_listed_as_far_as_it_is(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store(NAME, place.root)
    write(store.aside, {"config.json": b"{}"})
    store.save(listing())
    assert pull.main(["list", NAME]) == 0
    found = json.loads(capsys.readouterr().out)["models"][NAME]
    assert (found["state"], found["bytes"]) == ("partial", 2)
