"""The project's files go into a bundle without a secret, with git and without."""

import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from orchestrator.bundle import guide, sources
from orchestrator.errors import TandemError
from tests.unit.values import ROOT

FILES = ("models.toml", "compose.yaml", "scripts/up", "env/demo.env", "docker/demo/model/config.json")
LEFT_BEHIND = (
    ".env",
    ".env.local",
    "docker/.env",
    ".venv/bin/python",
    "orchestrator/__pycache__/a.pyc",
    ".pytest_cache/a",
    "tandem.egg-info/a",
    "models.toml.new",
    "carried/manifest.json",
    "my.env",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in (*FILES, *LEFT_BEHIND):
        path = tmp_path / "project" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (tmp_path / "project/scripts/up").chmod(0o755)
    return tmp_path / "project"


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


def left_out(folder: Path) -> list[Path]:
    """The bundle itself, and an env file in use."""
    return [folder / "carried", folder / "my.env"]


def test_without_git_all_but_what_a_run_leaves_behind(folder: Path) -> None:
    assert sources.project_files(folder, left_out(folder)) == sorted(FILES)
    assert sources.revision(folder) == ""


def test_with_git_what_it_tracks_and_still_no_env_file(folder: Path) -> None:
    git(folder, "init")
    (folder / "notes.txt").touch()
    git(folder, "add", "--force", *FILES, ".env", "docker/.env", "my.env", "carried")
    git(folder, "commit", "-m", "one")
    assert sources.project_files(folder, left_out(folder)) == sorted(FILES)
    assert len(sources.revision(folder)) == 40
    (folder / "scripts/up").unlink()
    assert "scripts/up" not in sources.project_files(folder, left_out(folder))


def test_a_git_that_refuses_is_no_reason_to_take_everything(folder: Path) -> None:
    (folder / ".git").write_text("gitdir: nowhere\n")
    with pytest.raises(TandemError, match=r"git does not say which files are the project's: fatal: not a git repo"):
        sources.project_files(folder, [])


def test_the_tar_unpacks_into_one_folder_and_says_nothing_of_this_user(folder: Path, tmp_path: Path) -> None:
    (folder / "compose.yaml").chmod(0o600)
    sources.pack(folder, sorted(FILES), tmp_path / "a.tar")
    with tarfile.open(tmp_path / "a.tar") as packed:
        members = packed.getmembers()
        content = packed.extractfile("tandem/models.toml")
        assert content is not None
        assert content.read() == b"models.toml"
    assert [member.name for member in members] == [f"tandem/{name}" for name in sorted(FILES)]
    assert {(member.uid, member.gid, member.uname, member.gname) for member in members} == {(0, 0, "", "")}
    modes = {member.name: member.mode for member in members}
    assert (modes["tandem/scripts/up"], modes["tandem/compose.yaml"]) == (0o755, 0o644)


def test_an_index_that_does_not_answer_is_one_line_without_its_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_RETRIES", "0")
    # Nobody listens on port 1; pip's own line for it names the address.
    fault = sources.download(ROOT, sources.own_python(), tmp_path, "http://me:secret@127.0.0.1:1/simple")
    assert fault is not None
    assert "\n" not in fault
    assert "secret" not in fault


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        ("", "it said nothing"),
        ("Killed\n", "Killed"),
        ("WARNING: a\nERROR: b\nERROR: c\nNOTE: d\n", "c"),
        ("ERROR: no answer from https://me:secret@example.org/simple", "no answer from https://***@example.org/simple"),
    ],
)
def test_why_pip_failed_is_its_last_error_without_a_password(said: str, fault: str) -> None:
    assert sources.pip_fault(said) == fault


def test_the_guide_names_the_first_profile_and_fits_80_columns() -> None:
    text = guide.text(["qwen-14b", "demo"], ["3.11", "3.12", "3.13"])
    assert "up qwen-14b\n" in text
    assert "one of these Pythons: 3.11, 3.12, 3.13." in text
    assert "This bundle holds: qwen-14b, demo." in text
    assert max(map(len, text.splitlines())) <= 80
