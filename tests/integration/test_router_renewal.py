"""A certificate that is renewed while the router runs: taken up without a restart, or told, and no connection notices.

nginx and TLS are real; the server is a stand-in (standins/upstream.py).
"""

import contextlib
import http.client
import json
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.checkout import PATIENCE, Checkout, eventually
from tests.integration.around_router import PATH, Alone, Routing, around

pytestmark = pytest.mark.docker

PROJECT = "tandem-test-renewal"
BODY = json.dumps({"model": "one"}).encode()
STREAM = json.dumps({"model": "one", "do": "wait"}).encode()
NOT_TAKEN = "the renewed certificate is not taken: "
TAKEN = "the certificate was renewed"


def openssl(*words: str) -> None:
    subprocess.run(["openssl", *words], check=True, capture_output=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs with their names: old, new, one with another kind of key, one that OpenSSL refuses; and what is no pair."""
    where = tmp_path_factory.mktemp("certificates")
    kinds = {"old": ["rsa:2048"], "new": ["rsa:2048"], "curve": ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"]}
    kinds["weak"] = ["rsa:1024"]
    for name, kind in kinds.items():
        openssl(
            "req", "-x509", "-newkey", *kind, "-nodes", "-days", "30", "-subj", f"/CN={name}",
            "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", f"{where}/{name}.key", "-out", f"{where}/{name}.pem",
        )  # fmt: skip
    new = (where / "new.pem").read_text()
    openssl(
        "x509", "-in", f"{where}/new.pem", "-signkey", f"{where}/new.key", "-days", "-1", "-out", f"{where}/ended.pem"
    )
    openssl("rsa", "-aes128", "-passout", "pass:secret", "-in", f"{where}/new.key", "-out", f"{where}/locked.key")
    (where / "nonsense.pem").write_text("nonsense")
    (where / "empty.pem").write_text("")
    (where / "half.pem").write_text(new[: len(new) // 2])
    # The certificate whole, and the one of its authority only begun.
    (where / "begun.pem").write_text(new + new[: len(new) // 2])
    (where / "chained.pem").write_text(new + (where / "weak.pem").read_text())
    (where / "half.key").write_text((where / "new.key").read_text()[:400])
    for path in where.iterdir():
        path.chmod(0o644)
    return where


@pytest.fixture(scope="module")
def routing(images: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Routing]:
    with around(tmp_path_factory.mktemp("renewal"), PROJECT, Routing) as whole:
        yield whole


class Renewed:
    """A router with a certificate in a folder, and who renews it."""

    def __init__(self, router: Alone, folder: Path, made: Path) -> None:
        self.router, self.folder, self._made = router, folder, made
        self.port = router.port

    def put(self, cert: str = "", key: str = "") -> None:
        """Put files of these names there, each in one step."""
        for name, source in (("key.pem", key), ("cert.pem", cert)):
            if source:
                shutil.copy(self._made / source, self.folder / "next")
                (self.folder / "next").replace(self.folder / name)

    def connect(self, **options: str) -> ssl.SSLSocket:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if options:
            context.maximum_version = ssl.TLSVersion.TLSv1_2
            context.set_ciphers(options["ciphers"])
        return context.wrap_socket(socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE))

    def shows(self, name: str) -> bool:
        """Whether a new connection gets this certificate."""
        expected = ssl.PEM_cert_to_DER_cert((self._made / f"{name}.pem").read_text())
        with self.connect() as router:
            return router.getpeercert(binary_form=True) == expected

    def becomes(self, name: str) -> None:
        eventually(lambda: self.shows(name), what=f"new connections get {name}")

    def keeps(self, name: str) -> None:
        # Whichever worker takes them.
        assert all(self.shows(name) for _ in range(8))

    def says(self, *words: str) -> None:
        eventually(lambda: all(word in self.router.log() for word in words), what=f"{words} in the log")

    def workers(self) -> set[str]:
        listed = self.router.sh("ps", "-o", "pid,args").stdout.splitlines()
        return {line.split()[0] for line in listed if line.split()[1:] == ["nginx:", "worker", "process"]}

    def reload(self) -> None:
        before = self.workers()
        subprocess.run(["docker", "kill", "--signal", "HUP", self.router.name], check=True, capture_output=True)
        eventually(lambda: self.workers() and not self.workers() & before, what="there are new workers")


@pytest.fixture
def renewed(routing: Routing, made: Path, tmp_path: Path) -> Iterator[Renewed]:
    with in_folder(routing, made, tmp_path) as found:
        yield found


@pytest.fixture
def watched(
    routing: Routing, made: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Renewed]:
    """A router that looks often: what is put there one after the other does not wait for it."""
    text = (routing.stack.folder / "docker/router/certificate.lua").read_text(encoding="utf-8")
    assert text.count("local OFTEN = 2\n") == 1
    path = tmp_path_factory.mktemp("often") / "certificate.lua"
    path.write_text(text.replace("local OFTEN = 2\n", "local OFTEN = 0.1\n"), encoding="utf-8")
    path.chmod(0o644)
    with in_folder(routing, made, tmp_path, f"{path}:/etc/nginx/tandem/certificate.lua:ro") as found:
        yield found


@contextlib.contextmanager
def in_folder(routing: Routing, made: Path, folder: Path, *mounts: str) -> Iterator[Renewed]:
    folder.chmod(0o755)
    shutil.copy(made / "old.pem", folder / "cert.pem")
    shutil.copy(made / "old.key", folder / "key.pem")
    with routing.alone(f"{folder}:/run/tls:ro", *mounts, TANDEM_TLS_FOLDER="/set") as router:
        router.starts().open("one", routing.address)
        yield Renewed(router, folder, made)


def request(router: ssl.SSLSocket, body: bytes) -> http.client.HTTPResponse:
    """Send a request over a connection that is kept; its answer, of which the head is read."""
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    router.sendall(head.encode() + body)
    answer = http.client.HTTPResponse(router, method="POST")
    answer.begin()
    assert answer.status == 200
    return answer


def test_new_connections_get_a_renewed_certificate_and_open_ones_go_on(routing: Routing, renewed: Renewed) -> None:
    renewed.keeps("old")
    workers = renewed.workers()
    with contextlib.ExitStack() as ends:
        kept, streaming = ends.enter_context(renewed.connect()), ends.enter_context(renewed.connect())
        request(kept, BODY).read()
        stream = request(streaming, STREAM)
        assert stream.readline() == b"data: first\n"
        both = ends.enter_context(
            httpx.Client(http1=False, http2=True, verify=False, trust_env=False, timeout=PATIENCE)
        )
        address = f"https://127.0.0.1:{renewed.port}{PATH}"
        second = ends.enter_context(both.stream("POST", address, content=STREAM))
        lines = second.iter_lines()
        assert next(lines) == "data: first"

        renewed.put("new.pem", "new.key")
        renewed.becomes("new")
        renewed.keeps("new")
        renewed.says(TAKEN)

        # The same connections, over which the old one was shown.
        assert json.loads(request(kept, BODY).read())["by"] == "one"
        routing.one("/release")
        assert json.loads(stream.read().decode().partition("data: ")[2])["by"] == "one"
        assert json.loads(list(lines)[-2].removeprefix("data: "))["by"] == "one"
        assert both.post(address, content=BODY).json()["by"] == "one"
    assert renewed.workers() == workers


def test_a_certificate_whose_key_has_not_come_yet_changes_nothing(renewed: Renewed) -> None:
    renewed.put(cert="new.pem")
    renewed.says(NOT_TAKEN, "the key in /run/tls/key.pem is not that of the certificate", "TANDEM_TLS_FOLDER")
    renewed.keeps("old")
    # Not even when nginx reads its configuration meanwhile, as it does for new routes.
    renewed.reload()
    renewed.keeps("old")
    renewed.put(key="new.key")
    renewed.becomes("new")
    renewed.says(TAKEN)
    assert renewed.router.log().count(TAKEN) == 1
    # What was taken up stays through a reload too.
    renewed.reload()
    renewed.keeps("new")


def test_a_pair_that_is_no_good_is_told_and_the_one_before_stays(watched: Renewed) -> None:
    # In an order in which no pair on the way to the next is good, or told of in its words: the key comes first.
    facts = {
        ("nonsense.pem", "new.key"): "cert.pem is no certificate (PEM)",
        ("empty.pem", "new.key"): "cert.pem is no certificate (PEM)",
        ("half.pem", "new.key"): "cert.pem is no certificate (PEM)",
        ("ended.pem", "new.key"): "cert.pem has expired",
        ("begun.pem", "new.key"): "cert.pem is no certificate (PEM), or not a whole one",
        ("new.pem", "half.key"): "key.pem is no key (PEM), or not a whole one",
        ("new.pem", "locked.key"): "key.pem has a passphrase",
        ("weak.pem", "weak.key"): "OpenSSL refuses the certificate in /run/tls/cert.pem: ee key too small",
        ("chained.pem", "new.key"): "OpenSSL refuses the certificate in /run/tls/cert.pem: ca key too small",
    }
    for (cert, key), fact in facts.items():
        before = watched.router.log().count(fact)
        watched.put(cert, key)
        told = f"{fact} is told of {cert} and {key}"
        eventually(lambda: watched.router.log().count(fact) > before, what=told)  # noqa: B023 (called here)
        watched.keeps("old")
    (watched.folder / "key.pem").unlink()
    watched.says("/run/tls/key.pem: No such file or directory")
    watched.put(cert="new.pem")
    watched.keeps("old")
    assert TAKEN not in watched.router.log()
    watched.put("new.pem", "new.key")
    watched.becomes("new")


def test_a_file_that_the_router_may_not_read_is_told(renewed: Renewed) -> None:
    renewed.put("new.pem", "new.key")
    renewed.becomes("new")
    (renewed.folder / "key.pem").chmod(0o000)
    renewed.says(NOT_TAKEN, "/run/tls/key.pem: Permission denied")
    renewed.keeps("new")


def test_one_with_another_kind_of_key_is_not_offered_beside_the_one_before(renewed: Renewed) -> None:
    with renewed.connect(ciphers="ECDHE-RSA-AES128-GCM-SHA256"):
        pass
    renewed.put("curve.pem", "curve.key")
    renewed.becomes("curve")
    with pytest.raises(OSError, match="handshake failure"):
        renewed.connect(ciphers="ECDHE-RSA-AES128-GCM-SHA256")
    with renewed.connect(ciphers="ECDHE-ECDSA-AES128-GCM-SHA256"):
        pass


def test_files_that_are_mounted_alone_are_taken_up_when_they_are_written_anew(
    routing: Routing, made: Path, tmp_path: Path
) -> None:
    tmp_path.chmod(0o755)
    for name, source in (("cert.pem", "old.pem"), ("key.pem", "old.key")):
        shutil.copy(made / source, tmp_path / name)
    mounts = (f"{tmp_path}/cert.pem:/run/secrets/tls-cert:ro", f"{tmp_path}/key.pem:/run/secrets/tls-key:ro")
    with routing.alone(*mounts) as router:
        found = Renewed(router.starts(), tmp_path, made)
        found.keeps("old")
        for name, source in (("cert.pem", "new.pem"), ("key.pem", "new.key")):
            (tmp_path / name).write_bytes((made / source).read_bytes())
        found.becomes("new")
        # A container sees no other file that takes the name of a mounted one.
        found.put("curve.pem", "curve.key")
        found.says(NOT_TAKEN, "another file took the name", "docker compose restart router", "TANDEM_TLS_KEY_FILE")
        found.keeps("new")


def test_a_folder_without_the_two_or_beside_two_files_is_refused_at_the_start(
    routing: Routing, made: Path, tmp_path: Path
) -> None:
    tmp_path.chmod(0o755)
    folder = f"{tmp_path}:/run/tls:ro"
    shutil.copy(made / "old.pem", tmp_path / "cert.pem")
    with routing.alone(folder, TANDEM_TLS_FOLDER="/set") as router:
        code, said = router.ended()
    assert code == 1
    assert "go together, and /run/tls/key.pem is not there or holds nothing" in said
    shutil.copy(made / "new.key", tmp_path / "key.pem")
    with routing.alone(folder, TANDEM_TLS_FOLDER="/set") as router:
        code, said = router.ended()
    assert code == 1
    assert "nginx does not start with this certificate and key:" in said
    assert "in the folder of TANDEM_TLS_FOLDER" in said
    one = f"{made}/old.pem:/run/secrets/tls-cert:ro"
    with routing.alone(folder, one, TANDEM_TLS_FOLDER="/set") as router:
        code, said = router.ended()
    assert code == 1
    assert "name a certificate twice" in said
