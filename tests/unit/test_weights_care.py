"""The weights that are there: listed as they are, hashed again, removed, and never touched while a pull is at them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from weights import care, manifest
from weights.meter import Teller
from weights.store import Store

from tests.unit.models import COMMIT, CONTENT, NAME, NEXT, listing, read, whole, write

SIZE = sum(map(len, CONTENT.values()))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(NAME, tmp_path)


def row(store: Store) -> dict[str, Any]:
    return dict(care.listed([NAME], store.root)["models"][NAME])


def verified(store: Store, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    """The exit code, and the last thing that was said."""
    code = care.verify(store, Teller(events=True), lambda: 0.0)
    return code, json.loads(capsys.readouterr().out.splitlines()[-1])


def removed(store: Store, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    code = care.remove(store, Teller(events=True))
    return code, json.loads(capsys.readouterr().out.splitlines()[-1])


# Listing


def test_a_model_that_is_not_there_is_missing(store: Store) -> None:
    assert row(store) == {
        "state": "missing", "bytes": 0, "total": None, "source": None, "revision": None, "resolved": None,
        "pulled": None, "used": None, "aside": 0,
    }  # fmt: skip


def test_a_whole_model_is_complete_with_what_is_known_of_it(store: Store) -> None:
    model = whole(store.final)
    store.touch()
    assert row(store) == {
        "state": "complete", "bytes": SIZE, "total": SIZE, "source": "modelscope", "revision": "master",
        "resolved": COMMIT, "pulled": model.pulled, "used": store.used(), "aside": 0,
    }  # fmt: skip


def test_a_pull_that_ended_early_is_partial_with_how_far_it_is(store: Store) -> None:
    write(store.aside, {"config.json": b"{}", "model.safetensors.incomplete": b"12345"})
    store.save(listing())
    found = row(store)
    assert (found["state"], found["bytes"], found["total"]) == ("partial", 7, SIZE)
    with store.lock():
        assert row(store)["state"] == "pulling"


def test_a_pull_that_has_nothing_yet_is_pulling(store: Store) -> None:
    with store.lock():
        assert row(store)["state"] == "pulling"


def test_an_update_that_did_not_end_leaves_the_model_complete(store: Store) -> None:
    whole(store.final)
    write(store.aside, {"config.json": b"{ }"})
    store.save(listing({**CONTENT, "config.json": b"{ }"}, resolved=NEXT))
    assert row(store)["state"] == "complete"


def test_a_folder_that_nobody_pulled_is_unchecked(store: Store) -> None:
    write(store.final)
    found = row(store)
    assert (found["state"], found["bytes"], found["total"], found["revision"]) == ("unchecked", SIZE, None, None)


def test_a_model_that_lost_a_file_is_unchecked(store: Store) -> None:
    whole(store.final)
    (store.final / "model.safetensors").unlink()
    assert row(store)["state"] == "unchecked"


def test_others_that_lie_there_are_listed_and_what_is_ours_alone_is_not(store: Store, tmp_path: Path) -> None:
    whole(store.final)
    whole(tmp_path / "org/other")
    write(tmp_path / ".tandem/pulling/org/begun", {"x": b"1"})
    write(tmp_path / ".cache/deep", {"x": b"1"})
    write(tmp_path / "org", {"file": b"1"})
    shown = care.listed([NAME], tmp_path)
    assert {name: found["state"] for name, found in shown["others"].items()} == {
        "org/begun": "unchecked",
        "org/other": "complete",
    }
    assert list(shown["models"]) == [NAME]
    assert shown["free"] > 0


def test_an_empty_volume_lists_nothing(tmp_path: Path) -> None:
    shown = care.listed([], tmp_path)
    assert (shown["models"], shown["others"]) == ({}, {})


def test_a_listing_can_be_told_as_json(store: Store) -> None:
    whole(store.final)
    assert json.loads(json.dumps(care.listed([NAME], store.root)))["models"][NAME]["state"] == "complete"


# Verifying


def test_a_model_that_is_as_it_was_pulled_stays(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    model = whole(store.final)
    code, said = verified(store, capsys)
    assert (code, said["event"]) == (0, "verified")
    assert said["text"] == "org/name is as it was pulled: 4 files, 2.1 kB"
    assert store.whole() == model


@pytest.mark.parametrize("at", [0, 1000, 2047])
def test_one_bit_is_found_and_that_file_alone_is_to_be_fetched(
    store: Store, capsys: pytest.CaptureFixture[str], at: int
) -> None:
    whole(store.final)
    content = bytearray(CONTENT["model.safetensors"])
    content[at] ^= 1
    write(store.final, {"model.safetensors": bytes(content), "notes.txt": b"mine"})
    code, said = verified(store, capsys)
    assert (code, said["event"], said["files"]) == (1, "error", ["model.safetensors"])
    assert said["text"] == (
        "org/name is damaged: model.safetensors. It is not served any more; pulling it again fetches that file alone"
    )
    assert store.whole() is None
    assert not store.final.exists()
    assert read(store.aside)["notes.txt"] == b"mine"
    state = store.state()
    assert state is not None
    assert (set(state.checked), state.resolved) == (set(CONTENT) - {"model.safetensors"}, COMMIT)


def test_damage_in_several_files_is_counted(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    whole(store.final)
    write(store.final, {"config.json": b"[]", "model.safetensors": bytes(2048)})
    code, said = verified(store, capsys)
    assert (code, said["files"]) == (1, ["config.json", "model.safetensors"])
    assert "is damaged: config.json and 1 more. " in said["text"]
    assert said["text"].endswith("pulling it again fetches those files alone")


def test_a_file_that_the_disk_cannot_read_is_damaged(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    whole(store.final)
    (store.final / "figures/a.png").unlink()
    (store.final / "figures/a.png").symlink_to("/proc/self/mem")
    code, said = verified(store, capsys)
    assert (code, said["files"]) == (1, ["figures/a.png"])


def test_what_the_hub_gave_no_hash_for_is_checked_by_its_own(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    model = whole(store.final)
    manifest.write(
        store.final / manifest.NAME,
        replace(model, files={name: replace(file, sha256="") for name, file in model.files.items()}),
    )
    assert verified(store, capsys)[0] == 0
    write(store.final, {"config.json": b"[]"})
    assert verified(store, capsys)[1]["files"] == ["config.json"]


def test_a_model_that_is_not_whole_cannot_be_verified(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    write(store.final)
    code, said = verified(store, capsys)
    assert (code, said["text"]) == (1, "org/name is not complete: pull it first, which checks every file")
    assert read(store.final) == CONTENT


def test_a_model_that_is_being_pulled_cannot_be_verified(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    whole(store.final)
    with store.lock():
        code, said = verified(store, capsys)
    assert (code, said["text"]) == (1, "a pull of org/name is under way: it checks every file itself")


def test_damage_beside_an_update_that_did_not_end_is_not_served_and_the_update_stays(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    model = whole(store.final)
    # As an update makes it: the same bytes under two names, so the damage is in both.
    after = listing({**CONTENT, "config.json": b"{ }"}, resolved=NEXT)
    store.adopt(after)
    write(store.aside, {"config.json.incomplete": b"{ "})
    store.save(replace(after, checked={name: model.checked[name] for name in CONTENT if name != "config.json"}))
    with (store.final / "model.safetensors").open("r+b") as stream:
        stream.write(b"flipped")
    code, said = verified(store, capsys)
    assert (code, said["files"]) == (1, ["model.safetensors"])
    assert store.whole() is None
    assert not store.finished()
    state = store.state()
    assert state is not None
    assert state.resolved == NEXT
    assert set(state.checked) == set(CONTENT) - {"config.json", "model.safetensors"}
    assert (store.aside / "config.json.incomplete").read_bytes() == b"{ "


# Removing


def test_a_removed_model_frees_its_bytes(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    whole(store.final)
    write(store.aside, {"x.incomplete": b"12345"})
    code, said = removed(store, capsys)
    assert (code, said["event"], said["bytes"] > SIZE) == (0, "removed", True)
    assert not store.final.exists()
    assert not store.aside.exists()


def test_half_a_model_can_be_removed(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    write(store.aside, {"x.incomplete": b"12345"})
    code, said = removed(store, capsys)
    assert (code, said["text"]) == (0, "removed org/name: 5 B are free again")


def test_a_model_that_is_not_there_cannot_be_removed(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = removed(store, capsys)
    assert (code, said["event"], said["text"]) == (1, "error", "org/name is not there")


def test_a_model_that_is_being_pulled_is_not_removed(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    write(store.aside, {"x.incomplete": b"12345"})
    with store.lock():
        code, said = removed(store, capsys)
    assert (code, said["text"]) == (1, "a pull of org/name is under way: stop it first")
    assert (store.aside / "x.incomplete").exists()
