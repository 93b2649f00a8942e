"""The router's certificate: which files are one with its key, and whom the command line trusts."""

import json
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from orchestrator import http, project, trust
from orchestrator.errors import ConfigError
from orchestrator.trust import Shown
from tests.checkout import PATIENCE
from tests.standins.mirrors import dead
from tests.unit.test_cli_keys import folder, tandem

__all__ = ["folder"]


def run(*argv: str) -> None:
    subprocess.run(["openssl", *argv], check=True, capture_output=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two authorities' certificates that are their own, and one that the first has signed."""
    where = tmp_path_factory.mktemp("certificates")
    for name in ("one", "two"):
        run(
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}",
            "-keyout", f"{where}/{name}.key", "-out", f"{where}/{name}.pem",
        )  # fmt: skip
    run(
        "req", "-new", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=tandem.example.org",
        "-keyout", f"{where}/signed.key", "-out", f"{where}/signed.csr",
    )  # fmt: skip
    run(
        "x509", "-req", "-in", f"{where}/signed.csr", "-CA", f"{where}/one.pem", "-CAkey", f"{where}/one.key",
        "-CAcreateserial", "-days", "2", "-out", f"{where}/signed.pem",
    )  # fmt: skip
    run("rsa", "-aes128", "-passout", "pass:secret", "-in", f"{where}/one.key", "-out", f"{where}/locked.key")
    (where / "nonsense.pem").write_text("nonsense")
    return where


@contextmanager
def speaking(certificate: Path, key: Path) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            text = json.dumps({"digest": "0123"}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"https://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize("name", ["one", "signed"])
def test_the_routers_own_certificate_is_trusted_whoever_signed_it_and_whatever_name_it_has(
    made: Path, name: str
) -> None:
    with speaking(made / f"{name}.pem", made / f"{name}.key") as address:
        assert http.routes_digest(address, certificate=str(made / f"{name}.pem")) == "0123"
        assert list(http.lines(address, certificate=str(made / f"{name}.pem"))) == ['{"digest": "0123"}']


def test_another_certificate_is_not(made: Path) -> None:
    with speaking(made / "one.pem", made / "one.key") as address:
        assert http.routes_digest(address, certificate=str(made / "two.pem")) is None
        with pytest.raises(http.SilentError, match=r"the router's certificate is not the one in .*two\.pem \("):
            list(http.lines(address, certificate=str(made / "two.pem")))


@pytest.mark.parametrize("name", ["one", "signed"])
def test_a_certificate_with_its_key_has_no_fault(made: Path, name: str) -> None:
    assert trust.certificate_fault(f"{made}/{name}.pem", f"{made}/{name}.key") is None


@pytest.mark.parametrize(
    ("certificate", "key", "fact"),
    [
        ("one.pem", "two.key", "the key in {key} is not that of the certificate in {certificate}"),
        ("one.key", "one.pem", "{both}"),
        ("nonsense.pem", "one.key", "{both}"),
        ("one.pem", "nonsense.pem", "{both}"),
        ("one.pem", "locked.key", "{both}"),
    ],
)
def test_files_that_are_no_certificate_and_its_key_are_a_fault_of_the_project(
    made: Path, folder: Path, certificate: str, key: str, fact: str
) -> None:
    named = {"certificate": f"{made}/{certificate}", "key": f"{made}/{key}"}
    both = "{certificate} and {key} should be a certificate and its key, both PEM, the key without a passphrase"
    with pytest.raises(ConfigError) as caught:
        project.load(folder, [], {"TANDEM_TLS_CERT_FILE": named["certificate"], "TANDEM_TLS_KEY_FILE": named["key"]})
    said = fact.format(**named, both=both.format(**named))
    assert caught.value.problems == [f"TANDEM_TLS_CERT_FILE: {said}"]


def test_a_file_that_is_not_there_is_told_by_its_setting(made: Path, folder: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        project.load(folder, [], {"TANDEM_TLS_CERT_FILE": "/none.pem", "TANDEM_TLS_KEY_FILE": str(made / "one.key")})
    assert caught.value.problems == [
        'TANDEM_TLS_CERT_FILE: should be the whole path of a file that is there, beginning with /, got "/none.pem"'
    ]


def test_a_folder_holds_both_under_their_names(made: Path, folder: Path, tmp_path: Path) -> None:
    values = {"TANDEM_TLS_FOLDER": str(tmp_path)}
    # Who renews them is not done yet, say: only what starts a router minds.
    for missing in ("cert.pem", "key.pem"):
        assert project.load(folder, [], values).uncertified == (
            f"TANDEM_TLS_FOLDER: should hold cert.pem and key.pem, and {tmp_path}/{missing} is not there"
        )
        (tmp_path / missing).write_bytes((made / ("one.pem" if missing == "cert.pem" else "one.key")).read_bytes())
    found = project.load(folder, [], values)
    assert (found.settings.certificate, found.uncertified) == (f"{tmp_path}/cert.pem", "")
    (tmp_path / "key.pem").write_bytes((made / "two.key").read_bytes())
    assert project.load(folder, [], values).uncertified == (
        f"TANDEM_TLS_FOLDER: the key in {tmp_path}/key.pem is not that of the certificate in {tmp_path}/cert.pem"
    )


def test_a_renewal_that_is_not_done_is_told_by_check_and_keeps_no_other_command_from_its_work(
    folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "tls").mkdir()
    values = {"TANDEM_TLS_FOLDER": str(tmp_path / "tls")}
    said = f"TANDEM_TLS_FOLDER: should hold cert.pem and key.pem, and {tmp_path}/tls/cert.pem is not there"
    done = tandem(folder, "check", "--json", **values)
    assert (done.returncode, json.loads(done.stdout)["problems"]) == (2, [said])
    done = tandem(folder, "up", "demo", **values)
    assert (done.returncode, done.stderr) == (2, f"error: {said}\n")
    assert tandem(folder, "render", **values).returncode == 0


def test_what_the_router_shows_is_compared_with_its_file(made: Path, tmp_path: Path) -> None:
    with speaking(made / "one.pem", made / "one.key") as address:
        shown = http.certificate_shown(address, str(made / "one.pem"), seconds=PATIENCE)
        assert (shown.same, shown.expired, shown.fault) == (True, False, "")
        assert shown.ends is not None
        assert time.time() + 86400 < shown.ends < time.time() + 3 * 86400
        assert http.certificate_shown(address, str(made / "two.pem"), seconds=PATIENCE) == Shown(same=False)
        # One whose authority is in the file too.
        chain = tmp_path / "chain.pem"
        chain.write_bytes((made / "signed.pem").read_bytes() + (made / "one.pem").read_bytes())
        assert http.certificate_shown(address, str(chain), seconds=PATIENCE) == Shown(same=False)
    assert http.certificate_shown(f"https://{dead()}", str(made / "one.pem"), seconds=PATIENCE) == Shown(
        fault="connection refused"
    )
    assert http.certificate_shown(address, "/none.pem", seconds=PATIENCE) == Shown(fault="No such file or directory")


def test_one_that_has_expired_is_told_as_that(made: Path, tmp_path: Path) -> None:
    run(
        "x509", "-in", f"{made}/one.pem", "-signkey", f"{made}/one.key", "-days", "-1", "-out", f"{tmp_path}/old.pem"
    )  # fmt: skip
    with speaking(tmp_path / "old.pem", made / "one.key") as address:
        assert http.certificate_shown(address, f"{tmp_path}/old.pem", seconds=PATIENCE) == Shown(expired=True)


def test_one_that_has_expired_and_was_renewed_since_is_another_than_its_file(made: Path, tmp_path: Path) -> None:
    # As from a public authority: its certificate is in the file, and the one before was signed by it too.
    for name, days in (("before", "-1"), ("renewed", "2")):
        run(
            "x509", "-req", "-in", f"{made}/signed.csr", "-CA", f"{made}/one.pem", "-CAkey", f"{made}/one.key",
            "-CAcreateserial", "-days", days, "-out", f"{tmp_path}/{name}.pem",
        )  # fmt: skip
    chain = tmp_path / "chain.pem"
    chain.write_bytes((tmp_path / "renewed.pem").read_bytes() + (made / "one.pem").read_bytes())
    with speaking(tmp_path / "before.pem", made / "signed.key") as address:
        assert http.certificate_shown(address, str(chain), seconds=PATIENCE) == Shown(same=False)


def test_a_file_that_holds_no_certificate_is_told_as_that(made: Path) -> None:
    with speaking(made / "one.pem", made / "one.key") as address:
        shown = http.certificate_shown(address, str(made / "nonsense.pem"), seconds=PATIENCE)
    assert shown == Shown(fault="it holds no certificate (PEM)")
