"""Who may use the router, and from where: keys and their limits, pages in browsers, TLS, and clients that are slow.

nginx is real; the server and the activator are stand-ins that say back what they got (standins/upstream.py).
"""

import contextlib
import hashlib
import http.client
import json
import select
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from orchestrator.http import routes_digest
from tests.checkout import PATIENCE, Checkout, eventually
from tests.integration.around_router import PATH, Alone, Answer, Routing, around, send

pytestmark = pytest.mark.docker

PROJECT = "tandem-test-keys"
ALICE, BOB = "alices-key-of-27-characters", "bobs-key-of-25-characters"
WEB = "https://web.chatboxai.app"
BODY = json.dumps({"model": "one"}).encode()
HELD = f"# ours\nbob {BOB}\r\n\nalice {ALICE}\n"


def ask(port: int, body: bytes = BODY, **headers: str) -> Answer:
    return send(port, "POST", PATH, body, **headers)


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@dataclass
class Keyed(Routing):
    """The router with what is around it, and the file of its keys."""

    held: str = ""

    @property
    def file(self) -> Path:
        return self.stack.folder / "docker/router/keys/keys"

    def hold(self, text: str) -> None:
        """Put the file there, as the command does; "" takes it away."""
        self.held = text
        new = self.file.with_name("keys.new")
        new.write_text(text, encoding="utf-8")
        new.chmod(0o644)
        new.replace(self.file)
        if not text:
            self.file.unlink()

    def log(self) -> str:
        done = subprocess.run(
            ["docker", "logs", self.name], capture_output=True, text=True, check=True, errors="replace"
        )
        return done.stdout + done.stderr

    def requests(self) -> list[str]:
        """The access log."""
        return self.busybox("cat", "/var/log/tandem/access.log").splitlines()

    def statuses(self, **headers: str) -> set[int]:
        """What requests are answered by whichever worker takes them."""
        return {ask(self.port, **headers).status for _ in range(4)}

    def becomes(self, status: int, **headers: str) -> None:
        eventually(lambda: self.statuses(**headers) == {status}, what=f"{status} for {headers}")


@pytest.fixture(scope="module")
def all_of_it(images: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyed]:
    with around(tmp_path_factory.mktemp("keys"), PROJECT, Keyed) as whole:
        whole.activator("/open/one")
        yield whole


@pytest.fixture
def router(all_of_it: Keyed) -> Iterator[Keyed]:
    """With no keys, and nothing in flight at the end."""
    if all_of_it.held or all_of_it.file.exists():
        all_of_it.hold("")
        all_of_it.becomes(200)
    yield all_of_it
    all_of_it.one("/release")
    all_of_it.settles()


@pytest.fixture
def locked(all_of_it: Keyed) -> Iterator[Keyed]:
    """With the keys of alice and bob."""
    if all_of_it.held != HELD:
        all_of_it.hold(HELD)
        all_of_it.becomes(401)
    yield all_of_it
    all_of_it.settles()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("certificates")
    for name in ("cert", "other"):
        argv = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1",
                "-addext", "subjectAltName=IP:127.0.0.1",
                "-keyout", f"{where}/{name}.key", "-out", f"{where}/{name}.pem"]  # fmt: skip
        subprocess.run(argv, check=True, capture_output=True)
        (where / f"{name}.key").chmod(0o644)
    (where / "nonsense.pem").write_text("nonsense")
    (where / "locked.key").write_text((where / "cert.key").read_text())
    (where / "locked.key").chmod(0o000)
    return where


def as_secrets(cert: Path, key: Path) -> tuple[str, str]:
    return f"{cert}:/run/secrets/tls-cert:ro", f"{key}:/run/secrets/tls-key:ro"


# --- keys


def test_with_no_keys_nobody_needs_one_and_what_a_client_sends_is_the_servers(router: Keyed) -> None:
    got = ask(router.port, Authorization="Bearer of-the-server", X_Api_Key="of-the-server")
    assert got.status == 200
    assert got.seen["headers"]["authorization"] == "Bearer of-the-server"
    assert got.seen["headers"]["x-api-key"] == "of-the-server"


def test_with_keys_every_path_needs_one_but_those_that_ask_how_it_is(locked: Keyed) -> None:
    asked = [("POST", PATH), ("POST", "/v1/messages"), ("POST", "/tokenize"), ("POST", "/v1/audio/transcriptions"),
             ("GET", "/v1/models"), ("GET", "/v1/models/one"), ("GET", "/v1/responses/resp_1"), ("GET", "/version"),
             ("GET", "/v1/realtime?model=one"), ("OPTIONS", PATH)]  # fmt: skip
    for method, path in asked:
        for headers, code in (({}, "no_key"), (bearer("wrong"), "wrong_key"), ({"X_Api_Key": ALICE[:-1]}, "wrong_key")):
            got = send(locked.port, method, path, BODY if method == "POST" else None, **headers)
            assert (got.status, got.code) == (401, code), (method, path)
            assert got.headers["WWW-Authenticate"].startswith('Bearer realm="tandem"')
    for path, status in (("/health", 200), ("/ready", 200)):
        assert send(locked.port, "GET", path).status == status


@pytest.mark.parametrize(
    "headers", [bearer(ALICE), {"Authorization": f"bearer  {ALICE} "}, {"X_Api_Key": ALICE}], ids=str
)
def test_a_key_opens_and_goes_no_further(locked: Keyed, headers: dict[str, str]) -> None:
    name = f"by-alice-{time.monotonic_ns()}"
    got = ask(locked.port, X_Request_Id=name, **headers)
    assert got.status == 200, got.text
    assert not {"authorization", "x-api-key"} & set(got.seen["headers"])

    # Each worker writes its lines when it has some: they are not in the order of the requests.
    def logged() -> list[str]:
        return [json.loads(line)["key"] for line in locked.requests() if name in line]

    eventually(lambda: logged() == ["alice"], what="the log names the key")
    assert ALICE not in locked.log()
    assert BOB not in locked.log()


def test_what_is_no_key_of_ours_passes_beside_one_that_is(locked: Keyed) -> None:
    got = ask(locked.port, Authorization="Bearer of-the-server", X_Api_Key=ALICE)
    assert (got.status, got.seen["headers"]["authorization"]) == (200, "Bearer of-the-server")
    assert "x-api-key" not in got.seen["headers"]


def test_a_browser_that_asks_beforehand_needs_no_key_and_hears_all(locked: Keyed) -> None:
    asks = {
        "Origin": WEB, "Access_Control_Request_Method": "POST",
        "Access_Control_Request_Headers": "authorization,content-type,x-stainless-os",
        "Access_Control_Request_Private_Network": "true",
    }  # fmt: skip
    for path in (PATH, "/v1/models", "/no/such/path"):
        got = send(locked.port, "OPTIONS", path, **asks)
        assert (got.status, got.text, got.allowed()) == (204, b"", [WEB]), path
        assert got.headers["Access-Control-Allow-Methods"] == "GET, HEAD, POST"
        assert got.headers["Access-Control-Allow-Headers"] == asks["Access_Control_Request_Headers"]
        assert got.headers["Access-Control-Allow-Private-Network"] == "true"
        assert int(got.headers["Access-Control-Max-Age"]) > 0
        assert "Origin" in got.headers.get_all("Vary", [])
    assert ask(locked.port, Origin=WEB).allowed() == [WEB]
    del asks["Access_Control_Request_Private_Network"]
    got = send(locked.port, "OPTIONS", PATH, **asks)
    assert "Access-Control-Allow-Private-Network" not in got.headers


def test_a_key_that_the_command_made_works_at_once_and_until_it_is_removed(router: Keyed) -> None:
    made = router.stack.tandem("keys", "add", "carol")
    assert made.returncode == 0, made.stderr
    key = made.stdout.strip()
    router.becomes(401)
    assert router.statuses(**bearer(key)) == {200}
    assert router.stack.tandem("keys", "add", "dave").returncode == 0
    assert router.stack.tandem("keys", "remove", "carol").returncode == 0
    router.becomes(401, **bearer(key))
    # The last one: a file that is being written anew holds none for a moment, too.
    began = time.monotonic()
    assert router.stack.tandem("keys", "remove", "dave").returncode == 0
    router.becomes(200)
    assert time.monotonic() - began >= 1


def test_a_file_with_a_wrong_line_leaves_the_last_good_one_in_force(locked: Keyed) -> None:
    carol = "carols-key-of-27-characters"
    for wrong in ("alice short\n", f"carol {carol}\nbob {BOB}\nbob {ALICE}\n", f"carol {carol} rate=60\n"):
        before = locked.log().count("are not taken")
        locked.hold(wrong)
        eventually(
            lambda: locked.statuses() and locked.log().count("are not taken") > before,  # noqa: B023 (called here)
            what="the log says so",
        )  # fmt: skip
        assert locked.statuses(**bearer(BOB)) == {200}
        assert locked.statuses(**bearer(carol)) == {401}
        assert carol not in locked.log()


def test_a_file_that_was_never_read_lets_nobody_in(router: Keyed, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"alice {ALICE}\n")
    file.chmod(0o000)
    with router.alone(f"{tmp_path}:/run/keys:ro") as other:
        tmp_path.chmod(0o755)
        other.starts()
        got = send(other.port, "GET", "/v1/models", **bearer(ALICE))
        assert (got.status, got.code, got.headers["Retry-After"]) == (503, "keys_unreadable", "5")
        file.chmod(0o644)
        eventually(lambda: send(other.port, "GET", "/v1/models", **bearer(ALICE)).status == 200, what="it is read")
        # It stays in force through a reload, though the file is wrong by then.
        file.write_text("nonsense\n")
        assert subprocess.run(["docker", "kill", "--signal", "HUP", other.name], check=True, capture_output=True)
        for _ in range(8):
            assert send(other.port, "GET", "/v1/models").status == 401
            assert send(other.port, "GET", "/v1/models", **bearer(ALICE)).status == 200


# --- limits


def test_a_keys_rate_is_its_own(router: Keyed) -> None:
    # The next hour has room again. Should one begin meanwhile, it is asked by another name, which has all of it.
    for name in ("alice", "alicia"):
        router.hold(f"{name} {ALICE} rate=3/h\nbob {BOB}\n")
        router.becomes(401)
        hour = hour_of_the_clock()
        answers = [ask(router.port, **bearer(ALICE)) for _ in range(5)]
        # What was refused is not counted.
        router.hold(f"{name} {ALICE} rate=4/h\nbob {BOB}\n")
        eventually(lambda: ask(router.port, **bearer(ALICE)).status == 200, what="there is room for one more")
        full = ask(router.port, **bearer(ALICE))
        if hour_of_the_clock() == hour:
            break
    assert [answer.status for answer in answers] == [200, 200, 200, 429, 429]
    for answer in (*answers[3:], full):
        assert (answer.status, answer.code) == (429, "rate_limit_exceeded")
        assert 1 <= int(answer.headers["Retry-After"]) <= 3600
    assert router.statuses(**bearer(BOB)) == {200}
    # Another limit counts anew in its own stretch of time.
    router.hold(f"{name} {ALICE} rate=2/s\n")
    router.becomes(401, **bearer(BOB))
    eventually(lambda: ask(router.port, **bearer(ALICE)).status == 200, what="the next second has room")
    eventually(lambda: b"HTTP/1.1 429 " in at_once(router.port, 20), what="a second is full")
    eventually(lambda: ask(router.port, **bearer(ALICE)).status == 200, what="the next second has room")


def hour_of_the_clock() -> int:
    # The router's clock may be a moment behind.
    return int((time.time() - 1) // 3600)


def at_once(port: int, count: int) -> bytes:
    """Ask so often in one breath that the answers take no time; all of them."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as client:
        one = f"GET /v1/models HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ALICE}\r\n"
        client.sendall((f"{one}\r\n" * (count - 1) + f"{one}Connection: close\r\n\r\n").encode())
        got = b""
        while more := client.recv(65536):
            got += more
        return got


@contextlib.contextmanager
def waiting(router: Keyed, key: str) -> Iterator[http.client.HTTPResponse]:
    """A request under way, as soon as there is room for it: others give theirs up a moment after their answers."""
    with contextlib.ExitStack() as ends:
        taken: list[http.client.HTTPResponse] = []

        def room() -> bool:
            connection = ends.enter_context(contextlib.closing(router.connection()))
            connection.request("POST", PATH, json.dumps({"model": "one", "do": "wait"}), bearer(key))
            answer = connection.getresponse()
            if answer.status == 429:
                answer.read()
                return False
            assert answer.status == 200, answer.read()
            taken.append(answer)
            return True

        eventually(room, what="room for a request")
        assert taken[0].readline() == b"data: first\n"
        yield taken[0]


def test_a_key_has_so_many_requests_at_once_however_the_others_end(router: Keyed) -> None:
    router.hold(f"alice {ALICE} concurrent=2\nbob {BOB}\n")
    router.becomes(401)
    for end in ("answered", "client gone", "workers killed"):
        with waiting(router, ALICE) as one, waiting(router, ALICE):
            for _ in range(2):
                got = ask(router.port, **bearer(ALICE))
                assert (got.status, got.code, got.headers["Retry-After"]) == (429, "too_many_requests", "1"), end
            assert ask(router.port, **bearer(BOB)).status == 200
            if end == "answered":
                router.one("/release")
                one.read()
            elif end == "workers killed":
                router.busybox("kill", "-9", *map(str, router.workers()))
                router.settles()
        eventually(lambda: ended_well(router), what=f"there is room again, after {end}")
    # What the router itself answers takes a place for as long as that, and no longer.
    for body in (b"{", json.dumps({"model": "nobody"}).encode(), b'{"model": "one", "do": "fail"}'):
        for _ in range(3):
            eventually(
                lambda body=body: ask(router.port, body, **bearer(ALICE)).status in (400, 404, 500),
                what=f"room for {body!r}",
            )
    with router.alone(f"{router.file.parent}:/run/keys:ro", TANDEM_BODY_LIMIT="1k") as other:
        other.starts()
        for _ in range(6):
            got = b""

            def too_large() -> bool:
                nonlocal got
                got = chunked(other.port, b"x" * 2000, **bearer(ALICE))
                return not got.startswith(b"HTTP/1.1 429 ")

            eventually(too_large, what="room for a large one")
            assert got.startswith(b"HTTP/1.1 413 "), got
            assert b"larger than 1k" in got


def ended_well(router: Keyed) -> bool:
    with contextlib.suppress(OSError, http.client.HTTPException):
        return ask(router.port, **bearer(ALICE)).status == 200
    return False


def chunked(port: int, body: bytes, **headers: str) -> bytes:
    """Send a body without saying how long it is; the whole answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as client:
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n{lines}\r\n"
        client.sendall(head.encode() + f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n")
        got = b""
        while more := client.recv(65536):
            got += more
        return got


# --- pages in browsers


def test_every_answer_says_that_the_page_may_read_it(router: Keyed) -> None:
    long = b'{"model": "' + b"x" * 70_000_000 + b'"}'
    asked = {
        200: ("POST", PATH, BODY), 404: ("POST", PATH, b'{"model": "nobody"}'), 400: ("POST", PATH, b"{"),
        405: ("GET", PATH, None), 500: ("POST", PATH, b'{"model": "one", "do": "fail"}'), 413: ("POST", PATH, long),
    }  # fmt: skip
    for status, (method, path, body) in asked.items():
        with contextlib.suppress(ConnectionError):
            got = send(router.port, method, path, body, Origin=WEB)
            assert (got.status, got.allowed()) == (status, [WEB])
            assert got.headers["Access-Control-Expose-Headers"] == "X-Request-Id, Retry-After"
            assert "Origin" in got.headers.get_all("Vary", [])
            assert "Access-Control-Allow-Credentials" not in got.headers
    for path in ("/v1/models", "/health", "/ready", "/no/such/path", "/v1/models/nobody"):
        assert send(router.port, "GET", path, Origin=WEB).allowed() == [WEB], path


@pytest.mark.parametrize(
    ("origin", "may"),
    [
        (WEB, True),
        ("http://localhost:5173", True),
        ("http://localhost", True),
        ("http://127.0.0.1:3000", True),
        ("https://example.org", False),
        ("http://web.chatboxai.app", False),
        ("https://web.chatboxai.app.example.org", False),
        ("http://localhost:5173.example.org", False),
        ("http://127x0.0.1:3000", False),
        ("null", False),
    ],
)
def test_pages_of_the_origins_that_are_set_may_ask_and_no_others(router: Keyed, origin: str, may: bool) -> None:
    got = ask(router.port, Origin=origin, Content_Type="application/json")
    assert (got.status, got.allowed()) == (200, [origin] if may else [])
    asks = {"Origin": origin, "Access_Control_Request_Method": "POST"}
    got = send(router.port, "OPTIONS", PATH, **asks)
    assert (got.status, got.allowed()) == ((204, [origin]) if may else (403, []))
    if not may:
        assert got.code == "origin_not_allowed"


def test_a_page_of_elsewhere_cannot_send_what_browsers_send_unasked(router: Keyed) -> None:
    before = len(router.one("/seen"))
    other = {"Origin": "https://example.org"}
    for kind in ({}, {"Content_Type": "text/plain"}, {"Content_Type": "application/x-www-form-urlencoded"}):
        got = ask(router.port, **other, **kind)
        assert (got.status, got.code, got.allowed()) == (403, "origin_not_allowed", [])
    upgrade = {"Upgrade": "websocket", "Connection": "Upgrade"}
    got = send(router.port, "GET", "/v1/realtime?model=one", **other, **upgrade)
    assert (got.status, got.code) == (403, "origin_not_allowed")
    assert len(router.one("/seen")) == before
    # Programs that are pages of their own, and say so or not, send JSON as JSON.
    for origin in ("null", "file://", "https://example.org"):
        assert ask(router.port, Origin=origin, Content_Type="application/json").status == 200
    for origin in (WEB, "http://localhost:3000"):
        assert ask(router.port, Origin=origin, Content_Type="text/plain").status == 200
    # Nor a page whose name was made to lead here: it has this very address, and its browser does not ask first.
    for host in ("example.org:8000", "Example.org:8000"):
        got = ask(router.port, Origin="http://example.org:8000", Host=host, Content_Type="application/json")
        assert (got.status, got.code) == (403, "origin_not_allowed")
    assert (
        ask(router.port, Origin="http://localhost:8000", Host="localhost:8000", Content_Type="application/json").status
        == 200
    )
    got = send(router.port, "POST", "/v1/responses/an-id/cancel", **other)
    assert (got.status, got.code) == (403, "origin_not_allowed")


def test_no_page_may_ask_for_what_is_the_owners(router: Keyed) -> None:
    for path in ("/-/status", "/-/routes", "/-/up/one", "/%2d/status", "/-/no:such", "/-/metrics", "/.%2f-/metrics"):
        got = send(router.port, "GET", path, Origin=WEB)
        assert got.allowed() == [], path
        got = send(router.port, "OPTIONS", path, Origin=WEB, Access_Control_Request_Method="POST")
        assert got.status == 403, path
        if "%2f" not in path:
            assert got.allowed() == [], path


@pytest.mark.parametrize(
    ("origins", "origin", "said"),
    [
        ("*", "https://example.org", ["*"]),
        ("none", WEB, []),
        ("https://a.example.org, app://b:*", "app://b:1", ["app://b:1"]),
        ("https://a.example.org, app://b:*", WEB, []),
        ("https://a.example.org,https://a.example.org", "https://a.example.org", ["https://a.example.org"]),
    ],
)
def test_which_origins_may_is_a_setting(router: Keyed, origins: str, origin: str, said: list[str]) -> None:
    with router.alone(TANDEM_CORS_ORIGINS=origins) as other:
        other.starts()
        assert send(other.port, "GET", "/v1/models", Origin=origin).allowed() == said
        assert send(other.port, "GET", "/-/routes", Origin=origin).allowed() == []


def test_what_is_no_origin_lets_no_page_in(router: Keyed) -> None:
    # To nginx it is a word of its own, by which every page may.
    with router.alone(TANDEM_CORS_ORIGINS="https://a.example.org,default") as other:
        code, said = other.ended()
    assert (code, said) == (1, "tandem: TANDEM_CORS_ORIGINS: default is no origin, such as http://localhost:3000.\n")


@pytest.mark.parametrize("limit", ["1g", "999999999G", "100"])
def test_a_limit_for_bodies_is_one_for_nginx_in_each_form(router: Keyed, limit: str) -> None:
    with router.alone(TANDEM_BODY_LIMIT=limit) as other:
        other.starts().open("one", router.address)
        assert ask(other.port).status == 200
        if limit == "100":
            got = send(other.port, "POST", PATH, b" " * 101)
            assert (got.status, got.code) == (413, "request_too_large")


@pytest.mark.parametrize("limit", ["1234567890m", "1.5g"])
def test_a_limit_for_bodies_that_nginx_could_not_count_is_refused(router: Keyed, limit: str) -> None:
    with router.alone(TANDEM_BODY_LIMIT=limit) as other:
        code, said = other.ended()
    wanted = f"tandem: TANDEM_BODY_LIMIT={limit} should be a size such as 64m or 1g, of up to nine digits.\n"
    assert (code, said) == (1, wanted)


# --- TLS


def test_over_tls_http_2_routes_as_http_1_does_with_and_without_a_length(router: Keyed, certificates: Path) -> None:
    context = ssl.create_default_context(cafile=str(certificates / "cert.pem"))
    with router.alone(*as_secrets(certificates / "cert.pem", certificates / "cert.key")) as other:
        other.starts().open("one", router.address)
        # One frame, some, and more than HTTP/2's windows hold.
        bodies = [json.dumps({"model": "one", "prompt": "猫" * size}).encode() for size in (1, 30_000, 1_500_000)]
        for http2, version in ((True, "HTTP/2"), (False, "HTTP/1.1")):
            with httpx.Client(
                http1=not http2, http2=http2, verify=context, trust_env=False, timeout=PATIENCE,
                base_url=f"https://127.0.0.1:{other.port}",
            ) as client:  # fmt: skip
                for body in bodies:
                    pieces = [body[at : at + 100_000] for at in range(0, len(body), 100_000)]
                    for content in (body, iter([*pieces, b""])):
                        got = client.post(PATH, content=content)
                        assert (got.status_code, got.http_version) == (200, version), got.text
                        assert got.json()["sha256"] == hashlib.sha256(body).hexdigest()
                        assert got.json()["headers"]["content-length"] == str(len(body))
                assert client.post(PATH, content=b"{").json()["error"]["code"] == "invalid_json"
                assert client.post(PATH, content=iter([b"{"])).json()["error"]["code"] == "invalid_json"
                assert client.post(PATH, content=b"").status_code == 400
                assert client.get("/v1/models").json()["object"] == "list"
                assert client.get(PATH).status_code == 405
                # What a server says passes as it comes.
                with client.stream("POST", PATH, content=json.dumps({"model": "one", "do": "wait"})) as answer:
                    lines = answer.iter_lines()
                    assert next(lines) == "data: first"
                    router.one("/release")
                    assert json.loads(list(lines)[-2].removeprefix("data: "))["by"] == "one"
        # As the command line asks, which trusts this certificate and no other.
        own = f"https://localhost:{other.port}"
        assert routes_digest(own, certificate=str(certificates / "cert.pem"))
        assert routes_digest(own, certificate=str(certificates / "other.pem")) is None
        plain = send(other.port, "GET", "/v1/models", Origin=WEB)
        assert (plain.status, plain.code) == (400, "plain_on_tls_port")
        assert "https://" in plain.text.decode()
        # The health check of compose.yaml, from within.
        assert other.sh("wget", "-q", "-O", "-", "http://127.0.0.1:8000/health").stdout == '{"status":"ok"}\n'
        assert send(other.port, "GET", "/health").code == "plain_on_tls_port"


def test_tls_that_meets_plain_http_is_told_so_in_words_and_in_the_log(router: Keyed) -> None:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    hello = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        hello.do_handshake()
    with socket.create_connection(("127.0.0.1", router.port), timeout=PATIENCE) as client:
        client.sendall(outgoing.read())
        got = b""
        with contextlib.suppress(ConnectionError):
            while more := client.recv(65536):
                got += more
    assert b" 400 " in got.splitlines()[0]
    assert json.loads(got.partition(b"\r\n\r\n")[2])["error"]["code"] == "tls_on_plain_port"
    eventually(lambda: "a client spoke TLS (https://)" in router.log(), what="the log says so")


@pytest.mark.parametrize(
    ("cert", "key", "fact"),
    [
        ("cert.pem", "other.key", "nginx does not start with this certificate and key:"),
        ("nonsense.pem", "cert.key", "nginx does not start with this certificate and key:"),
        ("cert.pem", "locked.key", "tls-key cannot be read: user 1000, the router's, must be able to read the file"),
        ("cert.pem", "/dev/null", "TANDEM_TLS_CERT_FILE and TANDEM_TLS_KEY_FILE go together"),
    ],
)
def test_what_is_no_certificate_and_its_key_is_refused_at_the_start(
    router: Keyed, certificates: Path, cert: str, key: str, fact: str
) -> None:
    with router.alone(*as_secrets(certificates / cert, certificates / key)) as other:
        code, said = other.ended()
    assert code == 1
    assert fact in said
    assert "TANDEM_TLS_" in said


# --- who is let in


def test_compose_alone_does_not_let_other_machines_in_without_a_key(router: Keyed, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    file = tmp_path / "keys"
    keys = f"{tmp_path}:/run/keys:ro"
    for text in (None, "# none yet\n  # nor here\n"):
        if text is not None:
            file.write_text(text)
        with router.alone(keys, TANDEM_BIND="0.0.0.0") as other:
            code, said = other.ended()
            assert code == 1
            assert "Make a key:  python -m orchestrator keys add NAME" in said
    with router.alone(keys, TANDEM_BIND="0.0.0.0", TANDEM_BIND_WITHOUT_KEY="yes") as other:
        assert send(other.starts().port, "GET", "/v1/models").status == 200
    file.write_text(f"alice {ALICE}\n")
    with router.alone(keys, TANDEM_BIND="0.0.0.0") as other:
        assert send(other.starts().port, "GET", "/v1/models").status == 401
        # Without the file there would be no key to ask for: the last good one stays in force.
        file.unlink()
        eventually(lambda: send(other.port, "GET", "/v1/models").status and told(other), what="the log says")
        assert send(other.port, "GET", "/v1/models").status == 401
        assert send(other.port, "GET", "/v1/models", **bearer(ALICE)).status == 200


def test_adapters_are_loaded_when_that_is_enabled_and_by_the_model_that_is_ready(router: Keyed) -> None:
    body = b'{"lora_name": "a", "lora_path": "/models/a"}'
    for path in ("/v1/load_lora_adapter", "/v1/unload_lora_adapter"):
        assert send(router.port, "POST", path, body).code == "not_found"
    with router.alone(TANDEM_LORA_LOADING="yes") as other:
        for path in ("/v1/load_lora_adapter", "/v1/unload_lora_adapter"):
            assert send(other.starts().port, "POST", path, body).code == "model_required"
            assert send(other.port, "POST", path, b'{"model": "nobody"}').code == "model_not_found"


def told(other: Alone) -> bool:
    return "it holds no key, and TANDEM_BIND lets other machines in" in other.log()


# --- slow clients


@contextlib.contextmanager
def changed(whole: Keyed, folder: Path, files: dict[str, dict[str, str]]) -> Iterator[Alone]:
    """A router with other words in its files, and an open route."""
    mounts = []
    for name, words in files.items():
        text = (whole.stack.folder / "docker/router" / name).read_text(encoding="utf-8")
        for usual, other in words.items():
            assert text.count(usual) == 1, usual
            text = text.replace(usual, other)
        (folder / name).write_text(text, encoding="utf-8")
        (folder / name).chmod(0o644)
        mounts.append(f"{folder / name}:/etc/nginx/{'tandem/' if name.endswith('.lua') else ''}{name}:ro")
    with whole.alone(*mounts) as router:
        router.starts().open("one", whole.address)
        yield router


def hurried(**usual: str) -> dict[str, dict[str, str]]:
    """Waiting for nobody for long, in these of the limits, as words for changed()."""
    return {"nginx.conf": {f"    {word} {limit};\n": f"    {word} 700ms;\n" for word, limit in usual.items()}}


@pytest.fixture(scope="module")
def hasty(all_of_it: Keyed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alone]:
    """A router that waits for no request for long."""
    words = hurried(client_header_timeout="15s", client_body_timeout="30s")
    with changed(all_of_it, tmp_path_factory.mktemp("hasty"), words) as other:
        yield other


def cut_off(client: socket.socket, drip: bytes) -> bytes:
    """Send a byte now and then until the router ends it; what it said."""
    got, over = b"", threading.Event()

    def send_slowly() -> None:
        with contextlib.suppress(OSError):
            while not over.wait(0.1):
                client.sendall(drip)

    sender = threading.Thread(target=send_slowly)
    if drip:
        sender.start()
    try:
        with contextlib.suppress(ConnectionError):
            while more := client.recv(65536):
                got += more
    finally:
        over.set()
        if drip:
            sender.join()
    return got


@pytest.mark.parametrize("drip", [b"", b"X"], ids=["silent", "dripping"])
def test_who_is_slow_with_the_headers_is_let_go(hasty: Alone, drip: bytes) -> None:
    with socket.create_connection(("127.0.0.1", hasty.port), timeout=PATIENCE) as client:
        client.sendall(f"POST {PATH} HTTP/1.1\r\nHost: x\r\nX-Slow: ".encode())
        got = cut_off(client, drip)
    assert got == b"" or got.startswith(b"HTTP/1.1 408 ")


def test_who_stops_within_a_body_is_let_go(hasty: Alone) -> None:
    with socket.create_connection(("127.0.0.1", hasty.port), timeout=PATIENCE) as client:
        client.sendall(f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n".encode() + BODY)
        got = cut_off(client, b"")
    assert got == b"" or got.startswith(b"HTTP/1.1 408 ")


class Drip:
    """A request whose body comes a byte now and then, as blanks, until it is finished or given up."""

    def __init__(self, port: int, size: int, *, length: bool = True, asked: str = f"POST {PATH}") -> None:
        self.client = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        said = f"Content-Length: {size}\r\n\r\n" if length else f"Transfer-Encoding: chunked\r\n\r\n{size:x}\r\n"
        self.client.sendall(f"{asked} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{said}".encode())
        self._left, self._end = size, b"" if length else b"\r\n0\r\n\r\n"
        self._over = threading.Event()
        self._sender = threading.Thread(target=self._drip)
        self._sender.start()

    def _drip(self) -> None:
        with contextlib.suppress(OSError):
            while not self._over.wait(0.1) and self._left > len(BODY):
                self.client.sendall(b" ")
                self._left -= 1

    def finish(self) -> bytes:
        """Send what is left of the body; the whole answer."""
        self._stop()
        self.client.sendall(BODY.rjust(self._left) + self._end)
        return self.answer()

    def answer(self) -> bytes:
        """What the router says until it closes the connection."""
        got = b""
        with contextlib.suppress(ConnectionError):
            while more := self.client.recv(65536):
                got += more
        return got

    def close(self) -> None:
        self._stop()
        self.client.close()

    def _stop(self) -> None:
        self._over.set()
        self._sender.join()


@pytest.fixture(scope="module")
def brief(all_of_it: Keyed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alone]:
    """A router of one worker that bounds the second body that holds much, and the fourth of any, to a second."""
    with changed(all_of_it, tmp_path_factory.mktemp("brief"), {
        "nginx.conf": {"worker_processes auto;": "worker_processes 1;"},
        "slow.lua": {"ANY, FEW, LARGE = 4, 64, ": "ANY, FEW, LARGE = 1, 3, ",
                     "GRACE, RATE = 30, 16 * 1024\n": "GRACE, RATE = 1, 1024 ^ 3\n"},
    }) as other:  # fmt: skip
        yield other


def test_who_drips_a_body_where_none_belongs_is_in_no_servers_count(brief: Alone) -> None:
    for asked in (
        "GET /version",
        "GET /v1/responses/an-id",
        "POST /v1/responses/an-id/cancel",
        "GET /v1/realtime?model=one",
    ):
        drips = [Drip(brief.port, 2_000_000, asked=asked) for _ in range(2)]
        try:
            readable, _, _ = select.select([each.client for each in drips], [], [], PATIENCE)
            (one,) = [each for each in drips if each.client in readable]
            assert one.answer().startswith(b"HTTP/1.1 408 "), asked
        finally:
            for each in drips:
                each.close()


@pytest.mark.parametrize(
    ("size", "length", "few"),
    [(1000, True, 3), (2_000_000, True, 1), (1000, False, 1)],
    ids=["small", "large", "of no length"],
)
def test_a_few_who_drip_a_body_hold_nothing_up_and_who_comes_beyond_them_is_let_go(
    brief: Alone, size: int, length: bool, few: int
) -> None:
    # Also those who went away in the middle of a body, or were let go, do not count any more.
    for end in ("finished", "given up", "finished"):
        before = logged(brief).count('"status":')
        with contextlib.ExitStack() as ends:
            drips = [Drip(brief.port, size, length=length) for _ in range(few + 1)]
            for each in drips:
                ends.callback(each.close)
            # Whichever of them the router saw last.
            readable, _, _ = select.select([each.client for each in drips], [], [], PATIENCE)
            (one,) = [each for each in drips if each.client in readable]
            got = one.answer()
            assert got.startswith(b"HTTP/1.1 408 "), got
            assert json.loads(got.partition(b"\r\n\r\n")[2])["error"]["code"] == "request_timeout"
            if end == "finished":
                for each in drips:
                    assert each is one or each.finish().startswith(b"HTTP/1.1 200 ")
        over = before + few + 1
        eventually(lambda: logged(brief).count('"status":') == over, what="all are over")  # noqa: B023


def test_who_takes_no_answer_is_let_go_and_so_is_the_server(all_of_it: Keyed, tmp_path: Path) -> None:
    body = json.dumps({"model": "one", "do": "flood"}).encode()
    # This client may be slow to ask; it is to be let go for what it does not take.
    tmp_path.chmod(0o755)
    with changed(all_of_it, tmp_path, hurried(send_timeout="60s")) as hasty, socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(PATIENCE)
        client.connect(("127.0.0.1", hasty.port))
        head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        client.sendall(head.encode() + body)
        assert client.recv(10) == b"HTTP/1.1 2"
        eventually(lambda: '"status":200' in logged(hasty), what="the request is over")


def logged(other: Alone) -> str:
    return "".join(line for line in other.log().splitlines(keepends=True) if f"POST {PATH}" in line)


@pytest.mark.parametrize(
    "headers",
    [f"X: {'x' * 20_000}\r\n", "".join(f"X-{number}: x\r\n" for number in range(300))],
    ids=["long", "many"],
)
def test_headers_have_limits(router: Keyed, headers: str) -> None:
    with socket.create_connection(("127.0.0.1", router.port), timeout=PATIENCE) as client:
        client.sendall(f"GET /v1/models HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode())
        got = client.recv(65536)
    assert got.startswith(b"HTTP/1.1 431 "), got
    assert b'"code":"headers_too_large"' in got
