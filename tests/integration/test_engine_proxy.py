"""The engine-proxy in front of the real Docker socket: what the activator has of Docker, and nothing else."""

import contextlib
import http.client
import json
import re
import socket
import struct
import urllib.parse
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

from orchestrator.project import ROUTER_IMAGE
from tests.checkout import PATIENCE, Checkout, eventually
from tests.integration.conftest import SERVER_IMAGE, Stack, stack

pytestmark = pytest.mark.docker

PROJECT = "tandem-test-engine"
LABEL = "com.docker.compose"
# Brings the socket of the volume to a port: the test may not be allowed to look into Docker's volumes.
RELAY = """
import socket, threading
def pump(source, target):
    try:
        while chunk := source.recv(65536):
            target.sendall(chunk)
    except OSError:
        pass
    for end in (source, target):
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
listener = socket.create_server(("0.0.0.0", 9000))
while True:
    client, _ = listener.accept()
    docker = socket.socket(socket.AF_UNIX)
    try:
        docker.connect("/run/engine/docker.sock")
    except OSError:
        client.close()
        continue
    for one, other in ((client, docker), (docker, client)):
        threading.Thread(target=pump, args=(one, other), daemon=True).start()
"""


@dataclass
class Proxy:
    """The engine-proxy, by the relay's port, and the containers around it by what they are."""

    stack: Stack
    port: int
    ids: dict[str, str]

    @property
    def project(self) -> str:
        return self.stack.environment["COMPOSE_PROJECT_NAME"]

    def name(self, what: str) -> str:
        return f"{self.project}-{what}"

    def ask(self, method: str, path: str, body: str | None = None, **headers: str) -> tuple[int, Any]:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)) as connection:
            connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            answer = connection.getresponse()
            text = answer.read()
            return answer.status, json.loads(text) if text[:1] in (b"{", b"[") else text

    def raw(self, sent: bytes) -> bytes:
        """Send bytes as they are; everything that comes back until the other side closes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE) as client:
            client.sendall(sent)
            got = b""
            while more := client.recv(65536):
                got += more
            return got

    def started(self, what: str) -> str:
        return str(self.docker("inspect", "--format", "{{.State.StartedAt}} {{.State.Running}}", self.name(what)))

    def docker(self, *words: str) -> str:
        done = self.stack.run(["docker", *words])
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


@pytest.fixture(scope="module")
def proxy(images: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    with contextlib.ExitStack() as ends:
        made = ends.enter_context(contextlib.contextmanager(stack)(tmp_path_factory.mktemp("engine"), PROJECT))
        up = made.compose("up", "-d", "--no-build", "--no-deps", "engine-proxy")
        assert up.returncode == 0, up.stderr
        whole = Proxy(made, 0, {})
        project = whole.project
        volume = ("--volume", f"{project}_engine:/run/engine", "--publish", "127.0.0.1::9000")
        for what, image, words, command in (
            ("relay", SERVER_IMAGE, volume, ("python3", "-c", RELAY)),
            ("server", ROUTER_IMAGE, labels(project, "server", profile="server"), ()),
            ("gpus", ROUTER_IMAGE, labels(project, "gpus"), ()),
            ("pull", ROUTER_IMAGE, labels(project, "pull-server"), ()),
            ("other", ROUTER_IMAGE, labels(f"{project}2", "gpus", profile="server"), ()),
            ("bare", ROUTER_IMAGE, ("--label", "tandem.profile=server"), ()),
        ):
            made.run(["docker", "rm", "--force", whole.name(what)])
            entry, *rest = command or ("/usr/bin/busybox", "sh", "-c", "echo it runs; exec /usr/bin/busybox sleep 600")
            ends.callback(made.run, ["docker", "rm", "--force", whole.name(what)])
            whole.ids[what] = whole.docker(
                "run", "--detach", "--init", "--name", whole.name(what), *words, "--entrypoint", entry, image, *rest
            )
        whole.port = int(whole.docker("port", whole.name("relay"), "9000").rpartition(":")[2])
        eventually(lambda: reached(whole), what="Docker answers through the engine-proxy")
        yield whole


def labels(project: str, service: str, profile: str = "") -> tuple[str, ...]:
    found = {f"{LABEL}.project": project, f"{LABEL}.service": service}
    if profile:
        found["tandem.profile"] = profile
    return tuple(word for key, value in found.items() for word in ("--label", f"{key}={value}"))


def reached(whole: Proxy) -> bool:
    with contextlib.suppress(OSError, http.client.HTTPException):
        return whole.ask("GET", "/_ping") == (200, b"OK")
    return False


def refused(answer: tuple[int, Any]) -> bool:
    status, said = answer
    return status == 403 and list(said) == ["message"] and said["message"].startswith("the engine-proxy refuses this: ")


def test_it_has_no_network_no_capability_and_a_file_system_that_it_cannot_write(proxy: Proxy) -> None:
    host = proxy.stack.inspect("engine-proxy")["HostConfig"]
    assert (host["NetworkMode"], host["ReadonlyRootfs"]) == ("none", True)
    assert (host["CapDrop"], host["CapAdd"]) == (["ALL"], None)
    assert "no-new-privileges:true" in host["SecurityOpt"]


@pytest.mark.parametrize("version", ["", "/v1.44"])
def test_the_activators_looks_at_docker_pass(proxy: Proxy, version: str) -> None:
    assert proxy.ask("GET", f"{version}/_ping") == (200, b"OK")
    status, said = proxy.ask("GET", f"{version}/version")
    assert (status, "ApiVersion" in said) == (200, True)
    status, said = proxy.ask("GET", f"{version}/containers/{proxy.name('pull')}/json")
    assert (status, said["Id"]) == (200, proxy.ids["pull"])
    status, said = proxy.ask("GET", f"{version}/containers/{proxy.name('server')}/top")
    assert (status, "PID" in said["Titles"]) == (200, True)
    status, said = proxy.ask("GET", f"{version}/containers/{proxy.name('server')}/logs?stdout=1&tail=5&timestamps=0")
    assert (status, said[8:]) == (200, b"it runs\n")


SENT_FILTERS = [
    None,
    {"label": [f"{LABEL}.service=gpus"]},
    {"label": [f"{LABEL}.project={PROJECT}2"]},
    {"status": ["running"]},
]


@pytest.mark.parametrize("sent", SENT_FILTERS)
def test_a_list_holds_the_projects_containers_whatever_is_asked(proxy: Proxy, sent: Any) -> None:
    query = "" if sent is None else f"&filters={urllib.parse.quote_plus(json.dumps(sent))}"
    status, said = proxy.ask("GET", f"/containers/json?all=1{query}")
    expected = {"engine-proxy", "server", "gpus", "pull"}
    if sent and "label" in sent:
        expected = {"gpus"} if "service" in sent["label"][0] else set()
    assert (status, {entry["Names"][0] for entry in said}) == (200, {f"/{proxy.name(what)}" for what in expected})


@pytest.mark.parametrize(
    "query",
    [
        'filters={"name":["x"]}', 'filters={"label":{"a":true}}', "filters=[]", "filters=null", "filters=%",
        "filters=1", "filters={}&filters={}", "Filters={}", "all=1&all=0", "all=1;filters={}", "all=%31", "before=x",
        "name=x", "__proto__=1", "constructor=1", "all=1#x", "all[]=1", "limit=1e9",
    ],
)  # fmt: skip
def test_arguments_that_are_not_known_are_refused(proxy: Proxy, query: str) -> None:
    assert refused(proxy.ask("GET", f"/containers/json?{query.replace(' ', '+')}"))


def test_servers_are_started_stopped_and_ended(proxy: Proxy) -> None:
    for what in ("server", "gpus"):
        path = f"/containers/{proxy.name(what)}"
        assert proxy.ask("POST", f"{path}/stop?t=0")[0] == 204
        assert proxy.started(what).endswith("false")
        assert proxy.ask("POST", f"/v1.44{path}/stop?t=0")[0] == 304
        assert proxy.ask("POST", f"{path}/start")[0] == 204
        assert proxy.started(what).endswith("true")
    assert proxy.ask("POST", f"/containers/{proxy.ids['server'][:12]}/kill?signal=KILL")[0] == 204
    eventually(lambda: proxy.started("server").endswith("false"), what="a server that was ended")
    assert proxy.ask("POST", f"/containers/{proxy.name('server')}/start")[0] == 204


@pytest.mark.parametrize("what", ["pull", "engine-proxy", "relay", "other", "bare"])
def test_what_is_no_server_of_the_project_is_left_alone(proxy: Proxy, what: str) -> None:
    before = proxy.started(what)
    ident = proxy.docker("inspect", "--format", "{{.Id}}", proxy.name(what))
    for name in (proxy.name(what), ident, ident[:12], ident[:5]):
        for verb in ("start", "stop?t=0", "kill", "kill?signal=HUP"):
            assert refused(proxy.ask("POST", f"/containers/{name}/{verb}")), (name, verb)
    assert proxy.started(what) == before


@pytest.mark.parametrize("what", ["relay", "other", "bare"])
def test_nothing_is_told_of_what_is_not_the_projects(proxy: Proxy, what: str) -> None:
    for name in (proxy.name(what), proxy.ids[what], proxy.ids[what][:12]):
        for verb in ("json", "top", "logs?stdout=1"):
            assert refused(proxy.ask("GET", f"/containers/{name}/{verb}")), (name, verb)


def test_a_container_that_is_not_there_is_dockers_own_word(proxy: Proxy) -> None:
    status, said = proxy.ask("POST", "/containers/nobody/start")
    assert (status, said) == (404, {"message": "No such container: nobody"})


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/containers/create"), ("POST", "/containers/create?name=NAME"), ("POST", "/containers/NAME/exec"),
        ("POST", "/exec/0123456789ab/start"), ("POST", "/containers/NAME/attach?stream=1&stdin=1"),
        ("GET", "/containers/NAME/attach/ws"), ("GET", "/containers/NAME/archive?path=/"),
        ("PUT", "/containers/NAME/archive?path=/"),
        ("POST", "/containers/NAME/update"), ("POST", "/containers/NAME/rename?name=x"),
        ("POST", "/containers/NAME/restart"), ("POST", "/containers/NAME/pause"), ("POST", "/containers/NAME/wait"),
        ("POST", "/containers/NAME/resize"), ("DELETE", "/containers/NAME"), ("DELETE", "/containers/NAME?force=1"),
        ("GET", "/containers/NAME/export"), ("GET", "/containers/NAME/changes"), ("GET", "/containers/NAME/stats"),
        ("GET", "/containers/NAME"), ("GET", "/containers/NAME/json/x"), ("POST", "/containers/NAME/json"),
        ("GET", "/containers/NAME/start"), ("PUT", "/containers/NAME/start"), ("POST", "/containers/prune"),
        ("POST", "/commit?container=NAME"), ("GET", "/images/json"), ("POST", "/images/create?fromImage=x"),
        ("POST", "/build"), ("POST", "/images/load"), ("DELETE", "/images/x"), ("GET", "/volumes"),
        ("POST", "/volumes/create"), ("GET", "/networks"), ("POST", "/networks/create"), ("GET", "/info"),
        ("GET", "/system/df"), ("POST", "/auth"), ("GET", "/secrets"), ("GET", "/plugins"), ("POST", "/session"),
        ("POST", "/grpc"), ("POST", "/swarm/init"), ("OPTIONS", "/_ping"), ("PATCH", "/_ping"), ("TRACE", "/_ping"),
        ("GET", "/"), ("GET", "/v1.44"), ("GET", "/v2.0/_ping"), ("GET", "/v1.44/v1.44/_ping"), ("GET", "/v1/_ping"),
        ("POST", "/_ping"), ("POST", "/events"), ("GET", "/-look"), ("GET", "/-refused"), ("GET", "/-broken"),
        # Another spelling of what may be, and what may be as a way to what may not.
        ("POST", "/containers/NAME/START"), ("POST", "/CONTAINERS/NAME/start"), ("POST", "/containers//NAME/start"),
        ("POST", "//containers/NAME/start"), ("POST", "/containers/NAME/start/"), ("POST", "/containers/NAME//start"),
        ("POST", "/containers/./NAME/start"), ("POST", "/x/../containers/NAME/start"),
        ("POST", "/containers/NAME/start/../../create"), ("GET", "/containers/../images/json"),
        ("GET", "/containers/NAME/../../images/json"), ("GET", "/containers/%2e%2e/images/json"),
        ("POST", "/containers/%4eAME/start"), ("POST", "/containers/NAME%2fstart"),
        ("POST", "/containers/NAME/st%61rt"), ("POST", "/containers/NAME/start%00"),
        ("POST", "/containers/NAME/start%0d%0aX:%201"),
        ("POST", "/containers/NAME/start%20HTTP/1.1"), ("POST", "/containers\\NAME\\start"),
        ("POST", "/containers/NAME;x/start"), ("POST", "/containers/../containers/NAME/start"),
        ("GET", "/containers/json/../NAME/json"), ("GET", "/containers/a*b/json"),
        ("POST", "/containers/NAME/start?detachKeys=x"), ("POST", "/containers/NAME/start?x=1"),
        ("POST", "/containers/NAME/stop?t=0&t=1"), ("POST", "/containers/NAME/kill?signal=KILL%26x"),
        ("POST", "/containers/NAME/kill?name=x"), ("GET", "/containers/NAME/json?name=x"),
        ("GET", "/containers/NAME/top?ps_args=-ef"), ("GET", "/containers/NAME/logs?details=1"),
        ("GET", "/containers/constructor/constructor"), ("GET", "/_ping?x=1"), ("GET", "/_ping?x"),
    ],
)  # fmt: skip
def test_everything_else_is_refused(proxy: Proxy, method: str, path: str) -> None:
    before = proxy.started("server") if method != "GET" else ""
    assert refused(proxy.ask(method, path.replace("NAME", proxy.name("server"))))
    assert before == (proxy.started("server") if method != "GET" else "")


def test_an_answer_without_a_body_is_refused_as_well(proxy: Proxy) -> None:
    assert proxy.ask("HEAD", f"/containers/{proxy.name('server')}/archive?path=/") == (403, b"")


def request(proxy: Proxy, line: str, *headers: str, body: str = "", host: str = "Host: d") -> bytes:
    lines = [line.replace("NAME", proxy.name("server")), host, "Connection: close", *headers]
    return ("\r\n".join(filter(None, lines)) + "\r\n\r\n" + body).encode()


@pytest.mark.parametrize(
    ("line", "headers", "body"),
    [
        ("GET http://d/_ping HTTP/1.1", (), ""),
        ("GET http://d/../_ping HTTP/1.1", (), ""),
        ("GET /_ping HTTP/1.0", (), ""),
        ("POST /containers/NAME/stop HTTP/1.0", (), ""),
        ("get /_ping HTTP/1.1", (), ""),
        ("GET  /_ping HTTP/1.1", (), ""),
        ("GET /_ping  HTTP/1.1", (), ""),
        ("GET _ping HTTP/1.1", (), ""),
        ("GET * HTTP/1.1", (), ""),
        ("CONNECT d:80 HTTP/1.1", (), ""),
        ("GET /_ping HTTP/2.0", (), ""),
        ("GET /_ping?\tx HTTP/1.1", (), ""),
        ("POST /containers/NAME/stop HTTP/1.1", ("Transfer-Encoding: chunked",), "2\r\n{}\r\n0\r\n\r\n"),
        ("POST /containers/NAME/stop HTTP/1.1", ("Transfer-Encoding: chunked", "Content-Length: 2"), "0\r\n\r\n"),
        ("POST /containers/NAME/stop HTTP/1.1", ("Transfer-Encoding: gzip, chunked",), "0\r\n\r\n"),
        ("POST /containers/NAME/stop HTTP/1.1", ("Content-Length: 2",), "{}"),
        ("POST /containers/NAME/stop HTTP/1.1", ("Content-Length: 5000",), "x" * 5000),
        ("POST /containers/NAME/stop HTTP/1.1", ("Content-Length: 0", "Content-Length: 2"), "{}"),
        ("POST /containers/NAME/stop HTTP/1.1", ("Content-Length: -1",), ""),
        ("POST /containers/NAME/stop HTTP/1.1", ("Content-Length : 0",), ""),
        ("POST /containers/NAME/stop HTTP/1.1", ("Upgrade: tcp",), ""),
        ("GET /containers/NAME/logs?stdout=1 HTTP/1.1", ("Upgrade: h2c",), ""),
        ("POST /containers/NAME/stop HTTP/1.1", ("X: " + "x" * 70000,), ""),
        ("POST /containers/" + "x" * 70000 + "/stop HTTP/1.1", (), ""),
    ],
)
def test_a_request_of_another_form_is_refused(proxy: Proxy, line: str, headers: tuple[str, ...], body: str) -> None:
    before = proxy.started("server")
    got = proxy.raw(request(proxy, line, *headers, body=body))
    head, _, said = got.partition(b"\r\n\r\n")
    assert head.split()[1:2] == [b"403"], got[:300]
    assert json.loads(said)["message"].startswith("the engine-proxy refuses this: ")
    assert proxy.started("server") == before


def test_a_connection_that_was_to_be_kept_for_something_else_is_an_ordinary_one(proxy: Proxy) -> None:
    """Docker's attach takes the connection over; nothing that follows a request may reach Docker as it is."""
    smuggled = request(proxy, "GET /images/json HTTP/1.1")
    sent = request(proxy, "GET /_ping HTTP/1.1").replace(b"Connection: close\r\n", b"") + smuggled
    got = proxy.raw(sent)
    assert re.findall(rb"HTTP/1\.1 ([0-9]+)", got) == [b"200", b"403"]
    # A body is refused, and what it holds is no request of its own.
    body = smuggled.decode()
    got = proxy.raw(request(proxy, "GET /_ping HTTP/1.1", f"Content-Length: {len(body)}", body=body))
    assert got.count(b"HTTP/1.1 ") == 1
    assert got.startswith(b"HTTP/1.1 403 ")


def test_events_are_the_projects_and_come_as_they_happen(proxy: Proxy) -> None:
    query = urllib.parse.quote(json.dumps({"event": ["kill"], "type": ["image", "container", "network"]}))
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=PATIENCE)) as connection:
        connection.request("GET", f"/events?filters={query}")
        answer = connection.getresponse()
        assert answer.status == 200
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(answer.readline)

            def heard() -> bool:
                # Docker answers before it listens: what happens in between is told to nobody.
                for what in ("other", "bare", "server"):
                    proxy.docker("kill", "--signal", "WINCH", proxy.name(what))
                return first.done()

            eventually(heard, what="an event")
        event = json.loads(first.result())
        assert (event["Type"], event["Action"], event["id"]) == ("container", "kill", proxy.ids["server"])


def test_a_log_is_followed_as_it_grows(proxy: Proxy) -> None:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=PATIENCE)) as connection:
        connection.request("GET", f"/containers/{proxy.name('server')}/logs?stdout=1&stderr=1&follow=1&tail=1")
        answer = connection.getresponse()
        assert read_line(answer) == b"it runs\n"
        # By another start: what it prints then comes while this is followed.
        proxy.docker("exec", proxy.name("server"), "/usr/bin/busybox", "sh", "-c", "echo more >/proc/1/fd/1")
        assert read_line(answer) == b"more\n"


def read_line(answer: http.client.HTTPResponse) -> bytes:
    """One frame of Docker's log stream."""
    _, size = struct.unpack(">BxxxL", answer.read(8))
    return answer.read(size)


def test_what_changes_something_or_is_refused_is_in_its_log(proxy: Proxy) -> None:
    proxy.ask("POST", "/containers/create?name=noticed")
    eventually(
        lambda: "/containers/create?name=noticed" in proxy.docker("logs", proxy.name("engine-proxy")),
        what="the refusal in the log",
    )
    assert 'GET /_ping HTTP/1.1","status":200' not in proxy.docker("logs", proxy.name("engine-proxy"))


def test_one_that_was_killed_comes_back(proxy: Proxy) -> None:
    proxy.docker("kill", proxy.name("engine-proxy"))
    assert not reached(proxy)
    proxy.docker("start", proxy.name("engine-proxy"))
    eventually(lambda: reached(proxy), what="Docker answers through the engine-proxy")
