"""What a pull is asked and what it says, and the rows of weights that are there."""

import json
from typing import Any

import pytest

from orchestrator import inventory_models, pulls
from orchestrator.errors import TandemError
from orchestrator.pulls import Event
from tests.unit.models import COMMIT, NEXT
from tests.unit.values import container, profile

QWEN = "Qwen/Qwen2.5-14B-Instruct"


@pytest.mark.parametrize(
    ("said", "options", "words"),
    [
        ({}, [], ["--source", "modelscope", QWEN, "master"]),
        ({}, ["--update"], ["--source", "modelscope", "--update", QWEN, "master"]),
        ({"source": "huggingface"}, [], ["--source", "huggingface", QWEN, "main"]),
        ({"revision": "v1"}, ["--for-start"], ["--source", "modelscope", "--for-start", QWEN, "v1"]),
    ],
)
def test_a_profile_is_what_a_pull_is_asked(said: dict[str, Any], options: list[str], words: list[str]) -> None:
    assert pulls.wish(profile(**said), options) == ["pull", "--events", *words]


def test_what_a_pull_is_asked_is_what_the_image_reads() -> None:
    import pull

    given = pull.arguments(pulls.wish(profile(revision="v1"), ["--update", "--limit-rate", "5M", "--token-on-stdin"]))
    assert (given.model, given.revision, given.source, given.events) == (QWEN, "v1", "modelscope", True)
    assert (given.update, given.limit_rate, given.token_on_stdin, given.for_start) == (True, 5_000_000, True, False)


@pytest.mark.parametrize(
    "line",
    [
        "", "=0", "tandem: pulling", "{", "{}", "[]", "null", '{"event": "file"}', '{"text": "x"}',
        '["event", "text"]', '{"level": "info", "msg": "of the client"}', ' {"event": "a", "text": "b"}',
    ],
)  # fmt: skip
def test_a_line_of_another_program_is_no_event(line: str) -> None:
    assert pulls.event(line) is None


def test_an_event_is_read_and_told_again_as_it_was() -> None:
    line = '{"event": "progress", "text": "pulling 千问", "bytes": 5, "files": [{"name": "a"}]}'
    found = pulls.event(line)
    assert found == Event("progress", "pulling 千问", {"bytes": 5, "files": [{"name": "a"}]})
    assert found is not None
    assert found.json == line


@pytest.mark.parametrize(("kind", "small"), [("file", True), ("listing", False), ("progress", False), ("error", False)])
def test_what_progress_tells_as_well_is_small(kind: str, small: bool) -> None:
    assert Event(kind, "", {}).small is small


# Which are wanted


def test_a_model_of_several_profiles_is_pulled_once() -> None:
    first, second = profile(), profile(name="other")
    assert pulls.wanted([first, second, profile(name="local", model="./x"), profile(name="by-id", pull=False)]) == [
        first
    ]


@pytest.mark.parametrize(
    "said", [{"revision": "v1"}, {"source": "huggingface"}, {"source": "huggingface", "revision": "master"}]
)
def test_a_model_of_two_places_or_revisions_is_refused(said: dict[str, Any]) -> None:
    with pytest.raises(TandemError, match=rf"^qwen-14b and other want {QWEN} from different places or revisions \(mod"):
        pulls.wanted([profile(), profile(name="other", **said)])


def test_a_revision_that_is_said_and_is_the_usual_one_is_no_other() -> None:
    assert len(pulls.wanted([profile(), profile(name="other", revision="master")])) == 1


# What is there


def there(**said: Any) -> dict[str, Any]:
    usual = {
        "state": "complete", "bytes": 29_600_000_000, "total": 29_600_000_000, "source": "modelscope",
        "revision": "master", "resolved": COMMIT, "pulled": "2026-11-23T00:00:00+00:00", "used": None,
    }  # fmt: skip
    return usual | said


def row(found: Any = None, seen: dict[str, Any] | None = None, **containers: Any) -> inventory_models.Row:
    found = found or profile()
    looked = {"models": {QWEN: seen}} if seen is not None else {}
    return inventory_models.rows([found], looked, containers, {"qwen-14b": 5})[0]


def test_a_row_tells_what_was_seen() -> None:
    assert row(seen=there(used=5.0)).json() == {
        "profile": "qwen-14b", "model": QWEN, "source": "modelscope", "state": "complete", "bytes": 29_600_000_000,
        "total": 29_600_000_000, "revision": "master", "resolved": COMMIT, "used": 5.0, "serving": False,
        "aside": 0,
    }  # fmt: skip


def test_where_nothing_could_be_looked_at_nothing_is_known() -> None:
    found = row()
    assert (found.state, found.bytes, found.revision, found.resolved) == ("unknown", None, "master", None)


def test_a_folder_and_a_server_that_fetches_itself_are_told_as_that() -> None:
    local = row(profile(model="./mine"))
    assert (local.state, local.source, local.bytes, local.total, local.revision) == ("folder", "path", 5, 5, "")
    assert row(profile(pull=False), there()).state == "by-id"


@pytest.mark.parametrize(
    ("said", "seen", "state"),
    [
        ({}, {}, "complete"),
        ({"revision": COMMIT}, {}, "complete"),
        ({"revision": "v1"}, {"revision": "v1"}, "complete"),
        ({"revision": "v1"}, {}, "other revision"),
        ({"revision": NEXT}, {}, "other revision"),
        # The profile no longer says the revision that it was pulled in.
        ({}, {"revision": "v1"}, "other revision"),
        ({"source": "huggingface", "revision": "master"}, {}, "other revision"),
        ({"revision": "v1"}, {"state": "partial"}, "partial"),
    ],
)
def test_complete_is_only_what_a_start_would_take(said: dict[str, Any], seen: dict[str, Any], state: str) -> None:
    assert row(profile(**said), there(**seen)).state == state


@pytest.mark.parametrize(
    ("status", "serving"), [("running", True), ("restarting", True), ("exited", False), ("created", False)]
)
def test_a_model_is_served_while_its_container_may_hold_it(status: str, serving: bool) -> None:
    assert row(seen=there(), **{"qwen-14b": container("qwen-14b", status)}).serving is serving


def test_the_table_fits_into_80_columns() -> None:
    listed = [
        profile(), profile(name="qwen-32b-awq", model="a/b", revision="a-very-long-name-of-a-branch-upstream"),
        profile(name="local", model="./mine"), profile(name="by-id", pull=False), profile(name="half", model="a/c"),
        profile(name="a-profile-with-a-long-one", model="a/d"),
    ]  # fmt: skip
    seen = {
        "models": {
            QWEN: there(used=1000.0 - 7200),
            "a/b": there(revision="a-very-long-name-of-a-branch-upstream", used=990.0),
            "a/c": there(state="partial", bytes=29_599_999_999),
            "a/d": there(state="missing", bytes=0, total=None, revision=None, resolved=None),
        },
        "others": {f"organisation/model-{number}": {"bytes": 5_000_000_000, "aside": 0} for number in range(6)},
        "free": 100_000_000_000,
    }
    running = {"qwen-32b-awq": container("qwen-32b-awq")}
    found = inventory_models.rows(listed, seen, running, {"local": 4_000_000})
    text = inventory_models.table(found, seen, 1000.0)
    lines = text.splitlines()
    assert [line for line in lines if len(line) > 80] == []
    assert lines[0].split() == ["PROFILE", "SIZE", "STATE", "REVISION", "LAST", "USED"]
    assert lines[1].split() == ["qwen-14b", "29.6", "GB", "complete", "master", "(cccccccc)", "2", "hours", "ago"]
    assert lines[2].endswith("now")
    assert lines[3].split() == ["local", "4.0", "MB", "folder", "-", "-"]
    assert lines[4].split() == ["by-id", "-", "by-id", "master", "-"]
    assert lines[5].split() == ["half", "29.6", "GB", "partial", "99%", "master", "(cccccccc)", "-"]
    assert lines[6].split()[1:] == ["-", "missing", "master", "-"]
    assert "in the volume and in no profile:" in text
    assert all(f"organisation/model-{number} (5.0 GB)" in text for number in range(6))
    assert lines[-1] == "free where the weights are: 100.0 GB"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "just now"), (59, "just now"), (60, "1 minute ago"), (90_000, "1 day ago")]
)
def test_a_use_is_told_by_its_age(seconds: float, text: str) -> None:
    found = row(seen=there(used=1000.0))
    assert inventory_models.table([found], {}, 1000.0 + seconds).endswith(text)


def test_a_table_of_nothing_is_its_head() -> None:
    assert inventory_models.table([], {}, 0.0).split() == ["PROFILE", "SIZE", "STATE", "REVISION", "LAST", "USED"]


# What may be removed

LISTED = {
    found.name: found
    for found in (
        profile(aliases=["gpt"]),
        profile(name="local", model="/data/x"),
        profile(name="by-id", model="a/b", pull=False),
    )
}


@pytest.mark.parametrize(
    ("name", "model"), [("qwen-14b", QWEN), ("gpt", QWEN), (QWEN, QWEN), ("org/other", "org/other")]
)
def test_a_model_is_named_by_a_profile_or_by_itself(name: str, model: str) -> None:
    assert inventory_models.removable(name, LISTED, {}, {}) == model


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("local", "local: /data/x is a folder of yours; nothing of it is removed"),
        ("by-id", "by-id: its server fetches a/b itself, so there is nothing to remove"),
        ("/data/x", "/data/x: should be the org/name of a model, or a profile: qwen-14b, local, by-id"),
        ("../../etc", "../../etc: should be the org/name of a model, or a profile: qwen-14b, local, by-id"),
        (".tandem/locks", ".tandem/locks: should be the org/name of a model, or a profile: qwen-14b, local, by-id"),
        ("nobody", "nobody: should be the org/name of a model, or a profile: qwen-14b, local, by-id"),
        ("", ": should be the org/name of a model, or a profile: qwen-14b, local, by-id"),
    ],
)
def test_what_is_not_ours_to_remove_is_refused(name: str, fault: str) -> None:
    with pytest.raises(TandemError) as caught:
        inventory_models.removable(name, LISTED, {}, {})
    assert str(caught.value) == fault


@pytest.mark.parametrize("name", ["qwen-14b", "gpt", QWEN])
def test_a_model_is_not_removed_while_any_profile_serves_it(name: str) -> None:
    listed = LISTED | {"second": profile(name="second")}
    serves = f"/models/{QWEN}"
    running = {"second": container("second", "running", "starting", serves=serves)}
    with pytest.raises(TandemError) as caught:
        inventory_models.removable(name, listed, running, {})
    assert str(caught.value) == f"{QWEN} is served by second: python -m orchestrator down second"
    gone = {"second": container("second", "exited", serves=serves)}
    assert inventory_models.removable(name, listed, gone, {}) == QWEN
    # What models.toml says by now does not count: this one was started when it said something else.
    other = {
        "qwen-14b": container("qwen-14b", serves="/models/a/other"),
        "old": container("old", serves="/models/a/old"),
    }
    assert inventory_models.removable(name, listed, other, {}) == QWEN
    with pytest.raises(TandemError, match=r"^a/old is served by old: "):
        inventory_models.removable("a/old", listed, other, {})


def test_a_folder_of_the_user_s_own_is_not_removed_where_models_are_pulled_to_either() -> None:
    with pytest.raises(TandemError) as caught:
        inventory_models.removable("Mine/own", LISTED, {}, {"Mine/own": "own"})
    assert str(caught.value) == "Mine/own is the folder of own, and yours; nothing of it is removed"


def test_a_server_that_was_started_with_another_model_does_not_serve_this_one() -> None:
    running = {"qwen-14b": container("qwen-14b", serves="/models/a/other")}
    (found,) = inventory_models.rows([profile()], there(), running, {})
    assert not found.serving


def test_an_update_that_is_not_whole_is_told_beside_the_model_that_is() -> None:
    found = row(seen=there(aside=3_000_000))
    assert "complete, 3.0 MB aside" in inventory_models.table([found], {}, 0.0)


def test_rows_are_json() -> None:
    assert json.loads(json.dumps(row(seen=there()).json()))["state"] == "complete"
