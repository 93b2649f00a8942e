"""A model's folder is summed up from the headers of its files; what is missing or broken is said."""

import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.fit import inside
from tests.unit.values import ROOT

LOADED = {"__metadata__": {"format": "pt"}, "a.weight": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, 12]}}


def safetensors(path: Path, entries: dict[str, Any]) -> None:
    text = json.dumps(entries).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(12))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text('{"model_type": "tiny"}')
    safetensors(tmp_path / "model.safetensors", LOADED)
    return tmp_path


def index(folder: Path, **files: str) -> None:
    (folder / inside.INDEX).write_text(json.dumps({"weight_map": files}))


def test_name_type_and_shape_of_each_tensor(folder: Path) -> None:
    tensors = [["a.weight", "BF16", [2, 3]]]
    assert inside.summary(folder) == {"config": {"model_type": "tiny"}, "tensors": tensors, "fault": ""}


def test_the_demo_of_this_repository() -> None:
    found = inside.summary(ROOT / "docker/demo/model")
    assert found["fault"] == ""
    assert ["model.embed_tokens.weight", "BF16", [1536, 128]] in found["tensors"]


def test_an_index_names_the_files_that_count(folder: Path) -> None:
    safetensors(folder / "other.safetensors", LOADED)
    index(folder, a="model.safetensors")
    assert len(inside.summary(folder)["tensors"]) == 1
    index(folder, a="model.safetensors", b="model-2.safetensors")
    assert inside.summary(folder)["fault"] == "model-2.safetensors is missing"


def test_a_second_format_beside_the_first_is_not_counted_too(folder: Path) -> None:
    safetensors(folder / "consolidated.safetensors", LOADED)
    assert len(inside.summary(folder)["tensors"]) == 1
    (folder / "model.safetensors").unlink()
    assert len(inside.summary(folder)["tensors"]) == 1


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("config.json", b"{", "config.json is no JSON"),
        ("config.json", b"[]", "config.json is no table"),
        ("config.json", b"\xff", "config.json is no JSON"),
        ("model.safetensors", bytes(1000), "model.safetensors is no safetensors file"),
        ("model.safetensors", b"\x02", "model.safetensors is no safetensors file"),
        ("model.safetensors", b"\xff" * 20, "model.safetensors is no safetensors file"),
        ("model.safetensors", b"\x02" + bytes(7) + b"[]", "model.safetensors is no safetensors file"),
        (inside.INDEX, b"{}", f"{inside.INDEX} cannot be read"),
        (inside.INDEX, b'{"weight_map": []}', f"{inside.INDEX} cannot be read"),
    ],
)
def test_what_is_broken_is_said(folder: Path, name: str, content: bytes, fault: str) -> None:
    (folder / name).write_bytes(content)
    assert inside.summary(folder)["fault"] == fault


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    assert inside.summary(tmp_path)["fault"] == "no config.json"
    (tmp_path / "config.json").write_text("{}")
    assert inside.summary(tmp_path)["fault"] == "no safetensors files"


def test_it_is_one_line_of_json_or_a_line_that_says_why_not(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert inside.main(folder.name, folder.parent) == 0
    assert json.loads(capsys.readouterr().out)["config"] == {"model_type": "tiny"}
    # A folder where the file should be cannot be opened, whoever asks.
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").mkdir()
    assert inside.main(folder.name, folder.parent) == 1
    assert capsys.readouterr().err.startswith(f"{folder.name}: ")
