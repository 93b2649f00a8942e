"""The project's folder: what is read from it and what is written to it."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from orchestrator import project
from orchestrator.doctor import kept
from orchestrator.doctor.machine import Box
from orchestrator.errors import ConfigError, TandemError
from orchestrator.render import NOTICE, File
from tests.unit.values import CPU, QWEN, ROOT, in_order, profile
from tests.unit.values import project as whole

VERSIONS = (
    'default = "0.32.0"\n[versions."0.32.0"]\npython = "3.11"\npackages = []\n'
    'cuda = { build = "cu130", driver = 580, gigabytes = 20 }\ncpu = { build = "cpu", gigabytes = 7 }\n'
)
MODELS = '[models.a]\nmodel = "org/a"\ngpus = [0]\n[models.demo]\nmodel = "./demo"\nimage = "cpu"\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project's folder with all that `load` reads."""
    return in_order(tmp_path, MODELS, VERSIONS)


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
    with pytest.raises(TandemError, match=r"^servd-b: no such profile, did you mean served-b\? models\.toml has: a, b"):
        whole(A, B).profile("servd-b")


@pytest.mark.parametrize(
    ("said", "image"),
    [
        ({}, "tandem/vllm:0.32.0-cu130"),
        ({"vllm": "0.7.3"}, "tandem/vllm:0.7.3-cu124"),
        ({"image": "cpu", "gpus": []}, "tandem/vllm:0.32.0-cpu"),
    ],
)
def test_a_start_needs_our_own_images_and_that_of_the_profile(said: dict[str, object], image: str) -> None:
    found = profile(**said)
    assert whole(found).images(found) == {
        "router": "tandem/router:0.1.0",
        "engine-proxy": "tandem/router:0.1.0",
        "activator": "tandem/activator:0.1.0",
        "qwen-14b": image,
    }


def test_an_image_is_a_build_or_a_service_of_ours() -> None:
    known = whole(profile())
    assert [known.made(image) for image in ("tandem/router:0.1.0", "tandem/activator:0.1.0", CPU.image)] == [
        "router", "activator", CPU,
    ]  # fmt: skip


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


@pytest.mark.parametrize("text", ["", " \n", "two words", "one\ntwo", "schlüssel"])
def test_a_file_that_holds_no_key_is_a_fault_that_does_not_repeat_it(folder: Path, text: str) -> None:
    path = folder / "admin.key"
    path.write_text(text, encoding="utf-8")
    assert faults(folder, TANDEM_ADMIN_KEY_FILE=str(path)) == [
        f"TANDEM_ADMIN_KEY_FILE: {path} should hold a key, one word of letters, digits and signs"
    ]


def test_a_key_in_place_of_its_file_is_not_repeated(folder: Path) -> None:
    assert faults(folder, TANDEM_ADMIN_KEY_FILE="s3cret") == [
        "TANDEM_ADMIN_KEY_FILE: should be the whole path of a file that is there, beginning with /, got something else"
    ]


def test_a_key_is_its_files_one_word(folder: Path) -> None:
    (folder / "admin.key").write_text("s3cret\n")
    found = project.load(folder, [], {"TANDEM_ADMIN_KEY_FILE": str(folder / "admin.key")})
    assert project.admin_key(found.settings) == "s3cret"
    assert project.admin_key(project.load(folder, [], {}).settings) == ""


def test_compose_runs_and_builds_the_images_that_project_names() -> None:
    services = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))["services"]
    always = {name: service["image"] for name, service in services.items() if "profiles" not in service}
    assert always == project.SERVICES
    built = {name: service["image"] for name, service in services.items() if "build" in service}
    assert built == {service: image for image, service in project.OWN_IMAGES.items()}


def test_no_service_of_ours_may_do_more_than_it_must() -> None:
    services = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))["services"]
    for name, service in services.items():
        assert (service["read_only"], service["cap_drop"], service["restart"]) == (True, ["ALL"], "always"), name
        assert "cap_add" not in service
    with_socket = [name for name, service in services.items() if "docker.sock" in str(service["volumes"])]
    assert with_socket == ["engine-proxy"]
    assert [name for name, service in services.items() if "ports" in service] == ["router", "prometheus", "grafana"]
    assert services["engine-proxy"]["network_mode"] == "none"


def test_what_watches_is_there_when_asked_for_and_on_this_machine_alone() -> None:
    services = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))["services"]
    watching = {name: service for name, service in services.items() if "profiles" in service}
    assert {name: service["profiles"] for name, service in watching.items()} == {
        "prometheus": ["observe"],
        "grafana": ["observe"],
    }
    for service in watching.values():
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
        assert re.fullmatch(
            r"\$\{TANDEM_REGISTRY:\+\$\{TANDEM_REGISTRY:-\}/\}[a-z/]+:v?\d+\.\d+\.\d+", service["image"]
        )
    # What Tandem itself needs is in none of their volumes and networks.
    assert "run:" not in str(watching)
    assert services["grafana"]["networks"] == ["observe"]


# --- what follows from the machine ------------------------------------------------------------------------------------

BOX = Box(True, "581.42", {0: "NVIDIA GeForce RTX 4090", 1: "NVIDIA GeForce RTX 4090"}, ((0, 1, "NS"),))


def boxes(folder: Path) -> list[str]:
    loaded = project.load(folder, [], {})
    return [file.path for file in project.stale(folder, loaded.rendered()) if file.path.startswith("box/")]


def test_a_machine_that_nobody_looked_at_has_no_settings(folder: Path) -> None:
    (folder / "models.toml").write_text(QWEN)
    assert boxes(folder) == []


def test_what_was_kept_of_the_machine_is_rendered_and_goes_with_it(folder: Path) -> None:
    (folder / "models.toml").write_text(QWEN)
    kept.keep_box(folder, BOX)
    assert boxes(folder) == ["box/qwen-14b.env"]
    loaded = project.load(folder, [], {})
    project.write(folder, project.stale(folder, loaded.rendered()))
    assert boxes(folder) == []
    assert (
        (folder / "box/qwen-14b.env")
        .read_text()
        .endswith("\nNCCL_P2P_DISABLE=1\nTANDEM_FLAGS=--disable-custom-all-reduce\n")
    )
    (folder / kept.MACHINE).unlink()
    assert boxes(folder) == ["box/qwen-14b.env"]
    project.write(folder, project.stale(folder, project.load(folder, [], {}).rendered()))
    assert not (folder / "box/qwen-14b.env").exists()


def test_it_follows_from_the_driver_that_was_seen_and_asks_none(folder: Path) -> None:
    (folder / "models.toml").write_text(QWEN + 'sleep = "auto"\n')
    kept.keep_box(folder, BOX)

    def asked() -> str:
        raise AssertionError("nvidia-smi was asked")

    loaded = replace(project.load(folder, [], {}), driver=asked)
    (qwen,) = loaded.profiles.values()
    assert [setting.name for setting in loaded.derived(qwen)] == [
        "disable-custom-all-reduce", "NCCL_P2P_DISABLE", "VLLM_WSL2_ENABLE_PIN_MEMORY",
    ]  # fmt: skip
    assert "box/qwen-14b.env" in [file.path for file in loaded.rendered()]


def test_what_is_turned_off_is_not_rendered(folder: Path) -> None:
    (folder / "models.toml").write_text(QWEN)
    kept.keep_box(folder, BOX)
    off = "disable-custom-all-reduce,NCCL_P2P_DISABLE"
    loaded = project.load(folder, [], {"TANDEM_WITHOUT": off})
    assert not [file for file in loaded.rendered() if file.path.startswith("box/")]
    with pytest.raises(ConfigError, match="TANDEM_WITHOUT: should be some of"):
        project.load(folder, [], {"TANDEM_WITHOUT": "p2p"})


def test_what_was_kept_and_makes_no_sense_is_a_fault(folder: Path) -> None:
    (folder / "box").mkdir()
    (folder / kept.MACHINE).write_text("{")
    assert len(faults(folder)) == 1
    assert "remove it, and the next up writes it anew" in faults(folder)[0]
