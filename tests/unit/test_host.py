"""What this machine says of itself."""

from pathlib import Path

import pytest

from orchestrator import host


@pytest.mark.parametrize(
    ("name", "text", "mirror"),
    [
        ("sources.list", "deb http://deb.example.org/debian bookworm main\n", "http://deb.example.org/debian"),
        ("sources.list", "deb https://deb.example.org/debian/ bookworm main\n", "https://deb.example.org/debian"),
        (
            "sources.list",
            "# deb http://old.example.org/debian bookworm main\n"
            "deb [signed-by=/usr/share/keyrings/a.gpg] http://new.example.org/debian bookworm main\n",
            "http://new.example.org/debian",
        ),
        (
            "sources.list.d/debian.sources",
            "Types: deb\nURIs: http://deb.example.org/debian\nSuites: bookworm\n",
            "http://deb.example.org/debian",
        ),
        ("sources.list", "deb http://security.example.org/debian-security bookworm-security main\n", ""),
        ("sources.list", "deb http://archive.example.org/ubuntu noble main\n", ""),
        ("sources.list.d/debian.sources.bak", "URIs: http://deb.example.org/debian\n", ""),
        ("sources.list", "", ""),
        ("mirrors/debian.list", "https://deb.example.org/debian\n", "https://deb.example.org/debian"),
    ],
)
def test_the_debian_mirror_is_the_one_that_apt_uses(tmp_path: Path, name: str, text: str, mirror: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    assert host.debian_mirror(tmp_path) == mirror


def test_sources_list_comes_before_the_folder_and_the_folder_in_its_order(tmp_path: Path) -> None:
    (tmp_path / "sources.list.d").mkdir()
    for name in ("b.list", "a.list"):
        (tmp_path / "sources.list.d" / name).write_text(f"deb http://{name}.example.org/debian bookworm main\n")
    assert host.debian_mirror(tmp_path) == "http://a.list.example.org/debian"
    (tmp_path / "sources.list").write_text("deb http://first.example.org/debian bookworm main\n")
    assert host.debian_mirror(tmp_path) == "http://first.example.org/debian"


def test_a_machine_without_apt_has_no_debian_mirror(tmp_path: Path) -> None:
    assert host.debian_mirror(tmp_path / "nowhere") == ""


def test_the_bundle_of_certificates_is_the_one_that_the_environment_names(tmp_path: Path) -> None:
    bundle = tmp_path / "ca.crt"
    assert host.certificates({"SSL_CERT_FILE": str(bundle)}) == ""
    bundle.touch()
    assert host.certificates({"SSL_CERT_FILE": str(bundle)}) == str(bundle)


def nvidia_smi(folder: Path, monkeypatch: pytest.MonkeyPatch, *lines: str, code: int = 0) -> None:
    """Put a stand-in for nvidia-smi on the PATH, that prints these lines when it is asked for compute capabilities."""
    program = folder / "nvidia-smi"
    printed = "".join(f"echo '{line}'\n" for line in lines)
    program.write_text(
        f'#!/bin/sh\n[ "$*" = "--query-gpu=compute_cap --format=csv,noheader" ] || exit 9\n{printed}exit {code}\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


@pytest.mark.parametrize(
    ("lines", "code", "found"),
    [
        (["8.9", "8.9"], 0, ["8.9"]),
        (["12.0", "8.9"], 0, ["8.9", "12.0"]),
        (['Field "compute_cap" is not a valid field to query.'], 2, []),
        (["No devices were found"], 0, []),
        (["[N/A]"], 0, []),
    ],
)
def test_each_compute_capability_is_named_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: list[str], code: int, found: list[str]
) -> None:
    nvidia_smi(tmp_path, monkeypatch, *lines, code=code)
    assert host.compute_capabilities() == found


def test_a_machine_without_nvidia_has_no_compute_capability(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert host.compute_capabilities() == []
