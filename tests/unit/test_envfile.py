"""A change of .env touches the one setting and nothing else."""

import os
from pathlib import Path

import pytest

from orchestrator import envfile, settings
from orchestrator.errors import TandemError

NAME = "TANDEM_PYPI_INDEX"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "X=new\n"),
        ("A=1", "A=1\nX=new\n"),
        ("A=1\n", "A=1\nX=new\n"),
        ("A=1\r\n", "A=1\r\nX=new\r\n"),
        ("# mine\n\nA=1\nX=old\nB=2\n", "# mine\n\nA=1\nX=new\nB=2\n"),
        ("A=1\r\nX=old\r\n# c\r\n", "A=1\r\nX=new\r\n# c\r\n"),
        ("X=old", "X=new"),
        ("X=\nB=2\n", "X=new\nB=2\n"),
        ("X\nB=2\n", "X=new\nB=2\n"),
        ("#X=old\nA=1\n", "#X=old\nA=1\nX=new\n"),
        ("X=old # why\n", "X=new # why\n"),
        ("X=a#b\n", "X=new\n"),
        ("X='o # l' # why\n", "X=new # why\n"),
        ('X="o \\" # l" # why\n', "X=new # why\n"),
        ('A="x\nX=inside\n"\nX=old\n', 'A="x\nX=inside\n"\nX=new\n'),
        ("export X=old\n", "export X=new\n"),
        ("  X = old  \n", "  X = new  \n"),
        ("X=one\nA=1\nX=two\n", "X=one\nA=1\nX=new\n"),
        ("\n\nX=old\n\nA=1\n", "\n\nX=new\n\nA=1\n"),
        ("\ufeffX=old\r\nA=模型\r\n", "\ufeffX=new\r\nA=模型\r\n"),
        ("XX=1\nX_X=2\n", "XX=1\nX_X=2\nX=new\n"),
    ],
)
def test_a_setting_is_set_where_it_is_or_at_the_end(before: str, after: str) -> None:
    assert envfile.edit(before, {"X": "new"}) == after


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("A=1\n", "A=1\n"),
        ("A=1\nX=old # why\nB=2\n", "A=1\nB=2\n"),
        ("X=one\nA=1\nX=two\n", "A=1\n"),
        ("#X=old\nX=old\n", "#X=old\n"),
        ("A=1\r\nX=old\r\n\r\n# c\r\n", "A=1\r\n\r\n# c\r\n"),
        ("A=1\n\nX=old\n", "A=1\n\n"),
    ],
)
def test_a_setting_that_needs_no_value_is_taken_out_wherever_it_stands(before: str, after: str) -> None:
    assert envfile.edit(before, {"X": None}) == after


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_bytes(b"# mine\r\nA=1\r\nTANDEM_REGISTRY='old'\r\n")
    envfile.write(path, {"TANDEM_REGISTRY": "mirror.example.org", NAME: "https://mirror.example.org/simple"})
    assert path.read_bytes() == (
        b"# mine\r\nA=1\r\nTANDEM_REGISTRY=mirror.example.org\r\n"
        b"TANDEM_PYPI_INDEX=https://mirror.example.org/simple\r\n"
    )
    assert settings.load(tmp_path, [], {}).values == {
        "A": "1",
        "TANDEM_REGISTRY": "mirror.example.org",
        NAME: "https://mirror.example.org/simple",
    }


def test_a_file_that_is_not_there_is_made(tmp_path: Path) -> None:
    envfile.write(tmp_path / ".env", {NAME: "x"})
    assert (tmp_path / ".env").read_text() == f"{NAME}=x\n"
    assert [path.name for path in tmp_path.iterdir()] == [".env"]


def test_a_setting_that_is_taken_out_of_no_file_makes_none(tmp_path: Path) -> None:
    envfile.write(tmp_path / ".env", {NAME: None})
    assert list(tmp_path.iterdir()) == []


def test_mode_and_owner_stay_and_a_link_stays_a_link(tmp_path: Path) -> None:
    real, link = tmp_path / "real.env", tmp_path / ".env"
    real.write_text("A=1\n")
    real.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(real, 1234, 5678)
    before = real.stat()
    link.symlink_to("real.env")
    envfile.write(link, {NAME: "x"})
    after = real.stat()
    assert link.is_symlink()
    assert real.read_text() == f"A=1\n{NAME}=x\n"
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)


def test_a_file_that_needs_no_change_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text(f"{NAME}=x\n")
    before = path.stat()
    envfile.write(path, {NAME: "x", "OTHER": None})
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_file_that_is_no_text_is_left_and_named(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_bytes("A=1\n".encode("utf-16"))
    with pytest.raises(TandemError, match=r"\.env: cannot be written: it is not UTF-8"):
        envfile.write(path, {NAME: "x"})
    assert path.read_bytes() == "A=1\n".encode("utf-16")


def test_a_folder_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(TandemError, match="cannot be written: No such file or directory"):
        envfile.write(tmp_path / "none" / ".env", {NAME: "x"})
