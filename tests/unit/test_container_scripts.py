"""What runs in the containers beside vLLM: the entrypoint, and the pull with its manifest."""

import json
from pathlib import Path

import pytest

from tests.unit.values import script

gate, pull = script("docker/vllm/gate.py"), script("docker/vllm/pull.py")


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["bash"],
        ["vllm", "--version"],
        ["vllm", "serve"],
        ["python3", "/opt/tandem/healthcheck.py", "/models/no-such/model"],
        # By its id: vLLM fetches the model itself.
        ["vllm", "serve", "Qwen/Qwen2.5-14B-Instruct", "--served-model-name", "qwen-14b"],
        ["vllm", "serve", "/models-of-someone-else/model"],
    ],
)
def test_the_gate_lets_through_what_serves_no_folder(argv: list[str]) -> None:
    assert gate.missing_weights(argv) is None


@pytest.mark.parametrize("folder", ["/models/no-such-org/no-such-model", "/local/no-such-profile"])
def test_the_gate_says_which_folder_holds_no_model_and_starts_nothing(
    folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["vllm", "serve", folder, "--served-model-name", "x"]
    assert gate.missing_weights(argv) == f"weights missing: {folder} holds no config.json"
    assert gate.main(argv) == 1
    assert capsys.readouterr() == ("", f"tandem: weights missing: {folder} holds no config.json\n")


@pytest.fixture
def pulled(tmp_path: Path) -> Path:
    """A model that was pulled whole."""
    folder = tmp_path / "Qwen/Qwen2.5-14B-Instruct"
    (folder / "figures").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model-00001-of-00001.safetensors").write_bytes(b"12345")
    (folder / "figures/a.png").write_bytes(b"")
    pull.write_manifest(folder, "master")
    return folder


@pytest.mark.parametrize(
    ("version", "flags", "more"),
    [
        ("0.7.3", ["--reasoning-parser", "deepseek_r1"], ["--enable-reasoning"]),
        ("0.7.3", [], []),
        ("0.10.0", ["--reasoning-parser", "deepseek_r1"], []),
        ("0.32.0+cpu", ["--reasoning-parser", "deepseek_r1"], []),
    ],
)
def test_a_reasoning_parser_is_turned_on_in_the_words_of_the_version_that_serves(
    version: str, flags: list[str], more: list[str]
) -> None:
    argv = ["vllm", "serve", "/models/a/b", *flags]
    assert gate.fitting(argv, version) == argv + more


def test_the_manifest_names_every_file_with_its_size(pulled: Path) -> None:
    assert json.loads((pulled / ".tandem-manifest.json").read_text()) == {
        "revision": "master",
        "files": {"config.json": 2, "figures/a.png": 0, "model-00001-of-00001.safetensors": 5},
    }
    assert sorted(path.name for path in pulled.iterdir()) == [
        ".tandem-manifest.json",
        "config.json",
        "figures",
        "model-00001-of-00001.safetensors",
    ]


def test_a_manifest_that_is_written_again_does_not_name_itself(pulled: Path) -> None:
    before = (pulled / ".tandem-manifest.json").read_text()
    pull.write_manifest(pulled, "master")
    assert (pulled / ".tandem-manifest.json").read_text() == before


@pytest.mark.parametrize("left", ["._____temp/model.safetensors", ".tmp/x", ".tandem-manifest.json.new"])
def test_what_an_interrupted_pull_left_behind_is_not_part_of_the_model(pulled: Path, left: str) -> None:
    (pulled / left).parent.mkdir(exist_ok=True)
    (pulled / left).write_text("half")
    pull.write_manifest(pulled, "master")
    assert left not in json.loads((pulled / ".tandem-manifest.json").read_text())["files"]
    assert pull.complete(pulled, "master") is True


def test_a_model_is_complete_when_every_file_has_its_size(pulled: Path) -> None:
    assert pull.complete(pulled, "master") is True


def test_a_file_that_came_on_top_makes_no_model_incomplete(pulled: Path) -> None:
    (pulled / "notes.txt").write_text("mine")
    assert pull.complete(pulled, "master") is True


def test_another_revision_is_another_model(pulled: Path) -> None:
    assert pull.complete(pulled, "v1.0") is False


def test_a_model_without_one_of_its_files_is_not_complete(pulled: Path) -> None:
    (pulled / "figures/a.png").unlink()
    assert pull.complete(pulled, "master") is False


@pytest.mark.parametrize("content", [b"1234", b"123456", b""])
def test_a_model_with_a_file_of_another_size_is_not_complete(pulled: Path, content: bytes) -> None:
    (pulled / "model-00001-of-00001.safetensors").write_bytes(content)
    assert pull.complete(pulled, "master") is False


def test_a_folder_in_the_place_of_a_file_is_not_the_file(pulled: Path) -> None:
    (pulled / "figures/a.png").unlink()
    (pulled / "figures/a.png").mkdir()
    assert pull.complete(pulled, "master") is False


def test_a_model_that_was_never_pulled_is_not_complete(tmp_path: Path) -> None:
    assert pull.complete(tmp_path, "master") is False
    assert pull.complete(tmp_path / "nowhere", "master") is False


@pytest.mark.parametrize(
    "text",
    [
        "",
        '{"revision": "master", "fil',
        "{}",
        "[]",
        "null",
        '{"revision": "master"}',
        '{"revision": "master", "files": null}',
        # Nothing was fetched, so nothing is there to serve.
        '{"revision": "master", "files": {}}',
    ],
)
def test_a_manifest_that_vouches_for_nothing_makes_no_model_complete(pulled: Path, text: str) -> None:
    (pulled / ".tandem-manifest.json").write_text(text)
    assert pull.complete(pulled, "master") is False
