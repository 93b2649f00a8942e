"""A model is whole when its manifest says so and every file has its size; a manifest that says nothing sure says no."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from weights import hashes, manifest
from weights.manifest import File

from tests.unit.models import COMMIT, CONTENT, NAME, listing, whole


def changed(folder: Path, **said: Any) -> None:
    """Write a whole model's manifest with other values."""
    whole(folder)
    path = folder / manifest.NAME
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | said), encoding="utf-8")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        "null",
        "3",
        '"text"',
        '{"format": 2',
        "[" * 100_000,
        '{"format": 2}',
        '{"format": 2, "files": null}',
        '{"format": 2, "files": {}}',
        # As it was before there were hashes.
        '{"revision": "master", "files": {"config.json": 2}}',
        '{"format": 1, "revision": "master", "files": {"config.json": 2}}',
    ],
)
def test_a_manifest_that_vouches_for_nothing_makes_no_model_whole(tmp_path: Path, text: str) -> None:
    whole(tmp_path)
    (tmp_path / manifest.NAME).write_text(text, encoding="utf-8")
    assert manifest.read(tmp_path / manifest.NAME) is None
    assert manifest.whole(tmp_path) is None


def test_a_manifest_that_ends_anywhere_makes_no_model_whole(tmp_path: Path) -> None:
    whole(tmp_path)
    path = tmp_path / manifest.NAME
    text = path.read_bytes()
    for end in range(len(text) - 1):
        path.write_bytes(text[:end])
        assert manifest.whole(tmp_path) is None


def test_a_manifest_that_is_not_text_makes_no_model_whole(tmp_path: Path) -> None:
    whole(tmp_path)
    (tmp_path / manifest.NAME).write_bytes(b"\xff\xfe\x00")
    assert manifest.whole(tmp_path) is None


@pytest.mark.parametrize(
    "said",
    [
        {"format": 1},
        {"format": 3},
        {"format": "2"},
        {"colour": "red"},
        {"files": {"config.json": 2}},
        {"files": ["config.json"]},
        {"files": {"config.json": {"size": "2"}}},
        {"files": {"config.json": {"size": -1}}},
        {"files": {"config.json": {"size": 2, "sha256": 5}}},
        {"files": {"config.json": {"size": 2, "colour": "red"}}},
        {"files": {"config.json": {}}},
        {"checked": None},
        {"checked": 3},
        {"checked": ["config.json"]},
        {"checked": dict.fromkeys(CONTENT, 1)},
        {"revision": None},
        {"resolved": 3},
        {"pulled": None},
        {"source": ["modelscope"]},
        {"model": {}},
    ],
    ids=json.dumps,
)
def test_a_manifest_with_a_value_of_another_type_makes_no_model_whole(tmp_path: Path, said: dict[str, Any]) -> None:
    changed(tmp_path, **said)
    assert manifest.read(tmp_path / manifest.NAME) is None
    assert manifest.whole(tmp_path) is None


@pytest.mark.parametrize("checked", [{}, {"config.json": "0"}, dict.fromkeys([*CONTENT, "more"], "0")])
def test_a_model_of_which_not_every_file_was_checked_is_not_whole(tmp_path: Path, checked: dict[str, str]) -> None:
    changed(tmp_path, checked=checked)
    assert manifest.whole(tmp_path) is None


@pytest.mark.parametrize("content", [b"half", CONTENT["model.safetensors"] + b"1", b""])
def test_a_model_with_a_file_of_another_size_is_not_whole(tmp_path: Path, content: bytes) -> None:
    whole(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(content)
    assert manifest.whole(tmp_path) is None


@pytest.mark.parametrize("name", CONTENT)
def test_a_model_without_one_of_its_files_is_not_whole(tmp_path: Path, name: str) -> None:
    whole(tmp_path)
    (tmp_path / name).unlink()
    assert manifest.whole(tmp_path) is None


def test_a_folder_in_the_place_of_a_file_is_not_the_file(tmp_path: Path) -> None:
    whole(tmp_path)
    (tmp_path / "figures/a.png").unlink()
    (tmp_path / "figures/a.png").mkdir()
    assert manifest.whole(tmp_path) is None


def test_a_file_in_the_place_of_a_folder_is_not_the_folder(tmp_path: Path) -> None:
    whole(tmp_path)
    (tmp_path / "figures/a.png").unlink()
    (tmp_path / "figures").rmdir()
    (tmp_path / "figures").touch()
    assert manifest.whole(tmp_path) is None


def test_a_model_that_is_not_there_is_not_whole(tmp_path: Path) -> None:
    assert manifest.whole(tmp_path) is None
    assert manifest.whole(tmp_path / "nowhere") is None


def test_what_was_written_is_read(tmp_path: Path) -> None:
    model = whole(tmp_path)
    assert manifest.whole(tmp_path) == model
    assert model.size == sum(map(len, CONTENT.values()))


def test_files_that_came_on_top_make_no_model_less_whole(tmp_path: Path) -> None:
    model = whole(tmp_path)
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    assert manifest.whole(tmp_path) == model


def test_hashes_that_a_hub_does_not_give_stay_out_of_the_file(tmp_path: Path) -> None:
    files = {"a": File(1), "b": File(2, git="1" * 40), "c": File(3, sha256="2" * 64)}
    model = listing(files=files, checked=dict.fromkeys(files, "0" * 64))
    manifest.write(tmp_path / "m", model)
    said = json.loads((tmp_path / "m").read_text(encoding="utf-8"))["files"]
    assert said == {"a": {"size": 1}, "b": {"size": 2, "git": "1" * 40}, "c": {"size": 3, "sha256": "2" * 64}}
    assert manifest.read(tmp_path / "m") == model
    assert [file.hashed for file in model.files.values()] == [False, True, True]


def test_a_manifest_that_cannot_be_written_leaves_the_one_before(tmp_path: Path) -> None:
    model = whole(tmp_path)
    with pytest.raises(TypeError):
        manifest.write(tmp_path / manifest.NAME, replace(model, pulled=object()))  # type: ignore[arg-type]
    assert manifest.whole(tmp_path) == model


def test_what_a_write_that_was_killed_left_behind_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / f"{manifest.NAME}.new").write_text('{"form', encoding="utf-8")
    assert manifest.read(tmp_path / manifest.NAME) is None
    model = whole(tmp_path)
    assert manifest.whole(tmp_path) == model
    assert not (tmp_path / f"{manifest.NAME}.new").exists()


@pytest.mark.parametrize(
    ("source", "revision", "fits"),
    [
        ("modelscope", "master", True),
        ("modelscope", COMMIT, True),
        ("modelscope", "main", False),
        ("modelscope", COMMIT[:12], False),
        ("huggingface", "master", False),
        ("huggingface", COMMIT, False),
    ],
)
def test_a_model_is_what_is_asked_for_by_its_branch_or_by_the_commit_that_it_was(
    source: str, revision: str, fits: bool
) -> None:
    assert listing().is_what(source, revision) is fits


PLACE, CONTROL = "is no plain path inside the model's folder", "holds a character that is none of a file's name"
NEEDED = "is a name that a pull needs for itself"


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("", PLACE),
        ("/etc/passwd", PLACE),
        ("../x", PLACE),
        ("a/../../x", PLACE),
        ("a/..", PLACE),
        ("./a", PLACE),
        ("a/./b", PLACE),
        ("a//b", PLACE),
        ("a/", PLACE),
        ("a\\b", PLACE),
        ("a\nb", CONTROL),
        ("a\x00b", CONTROL),
        ("\x1b[31ma", CONTROL),
        ("a\x7fb", CONTROL),
        ("a\x9b31mb", CONTROL),
        ("a\ud800b", CONTROL),
        (".tandem-manifest.json", NEEDED),
        (".tandem-manifest.json.new", NEEDED),
        (".tandem-pull.json", NEEDED),
        ("deep/.tandem-pull.json", NEEDED),
        ("model.safetensors.incomplete", NEEDED),
    ],
)
def test_a_name_that_may_not_be_used_inside_a_folder_is_refused(name: str, fault: str) -> None:
    assert manifest.unsafe(name) == fault


@pytest.mark.parametrize(
    "name",
    [
        *CONTENT, ".gitattributes", "..a/b..c", "a b", "a\u3000b", "-rf", "$HOME", "~", "a:b", "*", "incomplete",
        "deep/er/and/deeper/x", "a.incomplete.bin",
    ],
)  # fmt: skip
def test_every_other_name_may_be_used(name: str) -> None:
    assert manifest.unsafe(name) is None


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"what is up, doc?")
    return path


SHA256 = hashlib.sha256(b"what is up, doc?").hexdigest()
# As git's own book has it.
GIT = "bd9dbf5aae1a3862dd1526723246b20206e5fc37"


@pytest.mark.parametrize(
    "listed",
    [File(16), File(16, sha256=SHA256), File(16, git=GIT), File(16, sha256=SHA256, git=GIT)],
)
def test_a_file_that_is_what_the_hub_lists_has_a_sha256(file: Path, listed: File) -> None:
    assert hashes.sha256(file, listed) == SHA256


@pytest.mark.parametrize(
    "listed",
    [
        File(15),
        File(17),
        File(0),
        File(15, sha256=SHA256),
        File(16, sha256="0" * 64),
        File(16, git="0" * 40),
        File(16, sha256="0" * 64, git=GIT),
        File(16, sha256=SHA256, git="0" * 40),
    ],
)
def test_a_file_that_is_not_what_the_hub_lists_has_none(file: Path, listed: File) -> None:
    assert hashes.sha256(file, listed) is None


def test_an_empty_file_has_a_hash_as_well(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    digest = hashlib.sha256(b"").hexdigest()
    assert hashes.sha256(tmp_path / "empty", File(0, sha256=digest)) == digest
    assert hashes.sha256(tmp_path / "empty", File(0, git="e69de29bb2d1d6434b8b29ae775ad8c2e48c5391")) == digest


def test_how_far_the_hashing_is_is_told_by_block(tmp_path: Path) -> None:
    content = bytes(2 * hashes.BLOCK + 5)
    (tmp_path / "large").write_bytes(content)
    told: list[int] = []
    assert hashes.sha256(tmp_path / "large", File(len(content)), told.append) is not None
    assert sum(told) == len(content)
    assert len(told) >= 3


def test_a_file_that_is_gone_is_an_error_of_the_disk(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        hashes.sha256(tmp_path / NAME, File(1))
