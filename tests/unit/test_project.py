"""The project's folder: what is read from it and what is written to it."""

from pathlib import Path

import pytest

from orchestrator import project
from orchestrator.errors import ConfigError, TandemError
from orchestrator.render import NOTICE, File
from tests.unit.values import profile
from tests.unit.values import project as whole

VERSIONS = (
    'default = "0.32.0"\n[versions."0.32.0"]\npython = "3.11"\npackages = []\n'
    'cuda = { build = "cu130", driver = 580, gigabytes = 20 }\ncpu = { build = "cpu", gigabytes = 7 }\n'
)
MODELS = '[models.a]\nmodel = "org/a"\ngpus = [0]\n[models.demo]\nmodel = "./demo"\nimage = "cpu"\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project's folder with all that `load` reads."""
    for name, text in (
        ("models.toml", MODELS),
        ("compose.yaml", "name: tandem\n"),
        ("docker/vllm/versions.toml", VERSIONS),
        ("demo/config.json", "{}"),
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path


def faults(folder: Path, **shell: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        project.load(folder, [], shell)
    return caught.value.problems


def test_the_project_is_found_from_its_folder_and_from_any_folder_below(folder: Path) -> None:
    below = folder / "docker/vllm"
    assert project.find(folder) == folder
    assert project.find(below) == folder


def test_the_nearest_project_is_the_one(folder: Path) -> None:
    inner = folder / "inner"
    inner.mkdir()
    (inner / "models.toml").touch()
    assert project.find(inner) == folder
    (inner / "compose.yaml").touch()
    assert project.find(inner) == inner


def test_a_folder_that_is_right_is_read(folder: Path) -> None:
    (folder / ".env").write_text("TANDEM_PORT=9000\n")
    found = project.load(folder, [], {"COMPOSE_PROFILES": "a"})
    assert list(found.profiles) == ["a", "demo"]
    assert (found.folder, found.versions.default, found.settings.project) == (folder, "0.32.0", "tandem")
    assert (found.settings.address, found.settings.profiles) == ("http://localhost:9000", ["a"])


def test_a_models_toml_with_a_byte_order_mark_is_read(folder: Path) -> None:
    (folder / "models.toml").write_bytes(b"\xef\xbb\xbf" + MODELS.replace("\n", "\r\n").encode())
    assert list(project.load(folder, [], {}).profiles) == ["a", "demo"]


def test_a_models_toml_that_is_not_utf_8_is_told_so(folder: Path) -> None:
    (folder / "models.toml").write_bytes("# 模型\n".encode("gbk") + MODELS.encode())
    assert faults(folder) == [f"{folder}/models.toml: cannot be read: it is not UTF-8"]


def test_a_folder_that_holds_no_model_is_a_fault(folder: Path) -> None:
    (folder / "demo/config.json").unlink()
    assert faults(folder) == [
        f"models.toml: models.demo.model: the folder {folder}/demo holds no config.json",
    ]


def test_faults_of_models_toml_and_of_the_settings_come_together(folder: Path) -> None:
    (folder / "models.toml").write_text("[models.a]\nmodel = 1\ngpus = [0]\n")
    assert faults(folder, TANDEM_PORT="x") == [
        "models.toml: models.a.model: should be a string, got 1",
        'TANDEM_PORT: should be a port from 1 to 65535, got "x"',
    ]


def test_an_env_file_that_cannot_be_read_hides_no_fault_of_models_toml(folder: Path) -> None:
    (folder / "models.toml").write_text("[models.a]\nmodel = 1\ngpus = [0]\n")
    (folder / ".env").write_text("hello world\n")
    assert sorted(faults(folder)) == [
        f"{folder}/.env: line 1: should be NAME=value",
        "models.toml: models.a.model: should be a string, got 1",
    ]


def test_a_bundle_is_a_file_and_wheels_are_a_folder_by_their_whole_paths(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    here = {"TANDEM_CA_BUNDLE": str(folder / "models.toml"), "TANDEM_WHEELS": str(folder / "demo")}
    assert project.load(folder, [], here).settings.get("TANDEM_WHEELS") == str(folder / "demo")
    should = "should be the whole path of a {} that is there, beginning with /, got"
    long = f"/{'x' * 300}"
    wrong = (("models.toml", "demo"), (folder / "demo", folder / "models.toml"), ("/nothere", "/nothere"), (long, long))
    for file, wheels in wrong:
        assert faults(folder, TANDEM_CA_BUNDLE=str(file), TANDEM_WHEELS=str(wheels)) == [
            f'TANDEM_CA_BUNDLE: {should.format("file")} "{file}"',
            f'TANDEM_WHEELS: {should.format("folder")} "{wheels}"',
        ]


A = profile(name="a", served_model_name="served-a", aliases=["gpt-4"])
B = profile(name="b", served_model_name="served-b")


@pytest.mark.parametrize(
    ("name", "found"),
    [("a", "a"), ("b", "b"), ("served-a", "a"), ("gpt-4", "a"), ("served-b", "b")],
)
def test_a_profile_is_found_by_its_own_name_and_by_each_that_clients_send(name: str, found: str) -> None:
    assert whole(A, B).profile(name).name == found


def test_a_name_that_nobody_has_is_answered_with_those_there_are() -> None:
    with pytest.raises(TandemError, match=r"^c: no such profile; models\.toml has: a, b$"):
        whole(A, B).profile("c")


@pytest.mark.parametrize(
    ("said", "image"),
    [
        ({}, "tandem/vllm:0.32.0-cu130"),
        ({"vllm": "0.7.3"}, "tandem/vllm:0.7.3-cu124"),
        ({"image": "cpu", "gpus": []}, "tandem/vllm:0.32.0-cpu"),
    ],
)
def test_a_start_needs_the_image_of_the_router_and_that_of_the_profile(said: dict[str, object], image: str) -> None:
    found = profile(**said)
    assert whole(found).images(found) == {"router": "tandem/router:0.1.0", "qwen-14b": image}


FILES = [File("compose.models.yaml", "one\n"), File("env/a.env", f"# {NOTICE}\ntwo\n")]


def test_what_was_written_is_not_stale(tmp_path: Path) -> None:
    assert project.stale(tmp_path, FILES) == FILES
    project.write(tmp_path, FILES)
    assert project.stale(tmp_path, FILES) == []
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()) == [
        "compose.models.yaml",
        "env/a.env",
    ]


def test_only_the_files_that_differ_are_stale(tmp_path: Path) -> None:
    project.write(tmp_path, FILES)
    (tmp_path / "env/a.env").write_text(f"# {NOTICE}\nchanged\n")
    assert project.stale(tmp_path, FILES) == [FILES[1]]


def test_an_env_file_of_a_profile_that_is_gone_is_stale_and_is_removed(tmp_path: Path) -> None:
    project.write(tmp_path, [*FILES, File("env/gone.env", f"# {NOTICE}\n")])
    assert project.stale(tmp_path, FILES) == [File("env/gone.env", "")]
    project.write(tmp_path, project.stale(tmp_path, FILES))
    assert not (tmp_path / "env/gone.env").exists()
    project.write(tmp_path, [File("env/gone.env", "")])


def test_an_env_file_of_the_user_is_nobodys_business(tmp_path: Path) -> None:
    project.write(tmp_path, FILES)
    (tmp_path / "env/mine.env").write_text("TANDEM_PORT=9000\n")
    assert project.stale(tmp_path, FILES) == []


def test_a_difference_is_shown_from_the_disk_to_what_would_be_rendered(tmp_path: Path) -> None:
    project.write(tmp_path, [File("a", "one\ntwo\n")])
    assert "".join(project.diff(tmp_path, File("a", "one\nthree\n"))) == (
        "--- a\n+++ a (rendered)\n@@ -1,2 +1,2 @@\n one\n-two\n+three\n"
    )
    assert "".join(project.diff(tmp_path, File("new", "one\n"))) == (
        "--- new\n+++ new (rendered)\n@@ -0,0 +1 @@\n+one\n"
    )
