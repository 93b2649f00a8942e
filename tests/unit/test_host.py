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


def test_debootstraps_own_mirror_is_read_where_apt_has_none(tmp_path: Path) -> None:
    program = tmp_path / "debootstrap"
    assert host.debootstrap_mirror(program) == ""
    program.write_text('#!/bin/sh\nDEF_MIRROR="http://deb.example.org/debian/"\nDEF_HTTPS_MIRROR="x"\n')
    assert host.debootstrap_mirror(program) == "http://deb.example.org/debian"
    program.write_text("#!/bin/sh\n")
    assert host.debootstrap_mirror(program) == ""


def test_pip_says_which_index_it_takes_when_it_is_told_none() -> None:
    assert host.default_index().startswith("https://")


@pytest.mark.parametrize(
    ("said", "version"),
    [("580.95.05\n580.95.05", "580.95.05"), ("551.61", "551.61"), ("No devices were found", ""), ("", "")],
)
def test_the_driver_is_asked_for_its_version(
    said: str, version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n[ \"$1\" = --query-gpu=driver_version ] && echo '{said}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert host.driver() == version


def test_a_driver_that_fails_counts_as_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 9 processes; exit 9\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert host.driver() == ""


def test_room_is_known_for_folders_of_this_machine_alone(tmp_path: Path) -> None:
    assert (host.free_bytes(tmp_path) or 0) > 0
    assert host.free_bytes(tmp_path / "nowhere") is None


def test_a_folder_without_a_repository_is_at_no_commit(tmp_path: Path) -> None:
    assert host.commit(tmp_path) == ""
    assert len(host.commit(Path(__file__).parent).removesuffix("-dirty")) == 40


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


def test_the_processor_is_named_where_the_kernel_names_it(tmp_path: Path) -> None:
    told = tmp_path / "cpuinfo"
    told.write_text("processor\t: 0\nmodel name\t: AMD Ryzen 9 7950X\nmodel\t\t: 97\n")
    assert host.cpu(told)[0] == "AMD Ryzen 9 7950X"
    told.write_text("processor\t: 0\nBogoMIPS\t: 50.00\n")
    assert host.cpu(told)[0] == "unknown"
    assert host.cpu(tmp_path / "none")[0] == "unknown"
    assert host.cpu()[1] >= 1
