"""The project's files go into a bundle without a secret, with git and without."""

import os
import ssl
import subprocess
import tarfile
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import ClassVar

import pytest

from orchestrator.bundle import guide, sources
from orchestrator.errors import TandemError
from orchestrator.settings import Settings
from tests.unit.values import ROOT

FILES = ("models.toml", "compose.yaml", "scripts/up", "env/demo.env", "docker/demo/model/config.json")
LEFT_BEHIND = (
    ".env",
    ".tandem/verify/demo.json",
    ".env.local",
    "docker/.env",
    ".venv/bin/python",
    "orchestrator/__pycache__/a.pyc",
    ".pytest_cache/a",
    "tandem.egg-info/a",
    "models.toml.new",
    "carried/manifest.json",
    "my.env",
    "box/machine.json",
    "box/qwen-14b.env",
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


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch) -> None:
    """What this machine's pip and proxies are set up with is not the test's."""
    for name in [name for name in os.environ if name.startswith("PIP_") or name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_RETRIES", "0")


def settings(**values: str) -> Settings:
    return Settings(values, ())


@pytest.mark.usefixtures("pip")
def test_an_index_that_does_not_answer_is_one_line_without_its_password(tmp_path: Path) -> None:
    # Nobody listens on port 1; pip's own line for it names the address.
    wanted = settings(TANDEM_PYPI_INDEX="http://me:secret@127.0.0.1:1/simple")
    fault = sources.download(ROOT, sources.own_python(), tmp_path, wanted)
    assert fault is not None
    assert "\n" not in fault
    assert "secret" not in fault


def test_pip_is_told_of_proxies_and_authorities_by_its_environment() -> None:
    assert sources.pip_environment(settings()) == {}
    assert sources.pip_environment(
        settings(
            HTTPS_PROXY="http://me:secret@host.docker.internal:7890",
            HTTP_PROXY="http://proxy.example.org",
            NO_PROXY="localhost",
            TANDEM_CA_BUNDLE="/etc/company.crt",
        )
    ) == {
        "https_proxy": "http://me:secret@127.0.0.1:7890",
        "http_proxy": "http://proxy.example.org",
        "no_proxy": "localhost",
        "PIP_CERT": "/etc/company.crt",
        "REQUESTS_CA_BUNDLE": "/etc/company.crt",
    }


class Stranger(BaseHTTPRequestHandler):
    """A proxy that lets nobody through, or an index that has no package; keeps what it was asked for."""

    asked: ClassVar[list[str]] = []

    def do_CONNECT(self) -> None:
        self.asked.append(f"{self.path} {self.headers['Proxy-Authorization']}")
        self.send_error(403)

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_error(404)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serve(certificate: Path | None = None) -> Iterator[str]:
    """Where a stranger answers on this machine."""
    Stranger.asked.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Stranger) as server:
        if certificate is not None:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        Thread(target=server.serve_forever).start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


@pytest.mark.usefixtures("pip")
def test_pip_goes_through_the_proxy_of_the_settings(tmp_path: Path) -> None:
    with serve() as proxy:
        wanted = settings(TANDEM_PYPI_INDEX="https://index.example.org/simple", HTTPS_PROXY=f"http://me:secret@{proxy}")
        fault = sources.download(ROOT, sources.own_python(), tmp_path, wanted)
    credentials = b64encode(b"me:secret").decode()
    assert set(Stranger.asked) == {f"index.example.org:443 Basic {credentials}"}
    assert fault is not None
    assert "secret" not in fault


@pytest.mark.usefixtures("pip")
def test_pip_trusts_the_authorities_of_the_settings(tmp_path: Path) -> None:
    certificate = tmp_path / "server.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", certificate, "-out", tmp_path / "ca.crt"],
        check=True, capture_output=True,
    )  # fmt: skip
    certificate.write_bytes(certificate.read_bytes() + (tmp_path / "ca.crt").read_bytes())
    for trusted in (False, True):
        with serve(certificate) as index:
            wanted = settings(
                TANDEM_PYPI_INDEX=f"https://{index}/simple",
                TANDEM_CA_BUNDLE=str(tmp_path / "ca.crt") if trusted else "",
            )
            sources.download(ROOT, sources.own_python(), tmp_path, wanted)
        assert bool(Stranger.asked) == trusted


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
