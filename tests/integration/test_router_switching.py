"""The router between servers and the activator: who gets a request, what is in flight, and what happens without either.

nginx is real; servers and activator are stand-ins that say back what they got (standins/upstream.py).
"""

import contextlib
import hashlib
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.checkout import PATIENCE, Checkout, eventually
from tests.integration.around_router import PATH, Routing, around, reached

pytestmark = pytest.mark.docker

PROJECT = "tandem-test-routing"
KEY = "a-key-of-25-characters..."


@pytest.fixture(scope="module")
def all_of_it(images: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Routing]:
    with around(tmp_path_factory.mktemp("routing"), PROJECT, Routing) as whole, whole.server("deaf", "8001"):
        yield whole


@pytest.fixture
def routing(all_of_it: Routing) -> Iterator[Routing]:
    """The route to `one` is open, the others' are closed; nothing may be in flight at the end."""
    yield all_of_it
    all_of_it.one("/release")
    all_of_it.activator("/release")
    all_of_it.activator("/leave")
    all_of_it.activator("/return")
    all_of_it.settles()


@pytest.fixture(autouse=True)
def _routes(all_of_it: Routing) -> None:
    for verb, model in (("open", "one"), ("close", "deaf"), ("close", "absent"), ("awake", "one")):
        all_of_it.activator(f"/{verb}/{model}")


def test_an_open_route_leads_straight_to_the_server(routing: Routing) -> None:
    status, got = routing.ask("one-too", path=f"{PATH}?a=1", X_Tandem_Model="x", X_Tandem_Unreachable="1")
    assert (status, got["by"], got["path"], got["method"]) == (200, "one", f"{PATH}?a=1", "POST")
    assert not [name for name in got["headers"] if name.startswith("x-tandem")]


def test_a_closed_route_leads_to_the_activator_with_the_same_bytes(routing: Routing) -> None:
    routing.activator("/close/one")
    before = len(routing.one("/seen"))
    body = json.dumps({"model": "one-too", "prompt": "猫" * 1_000_000}, ensure_ascii=False).encode()
    headers = {"X_Tandem_Model": "deaf", "X_Tandem_Unreachable": "1", "Authorization": "Bearer mine"}
    status, got = routing.send("POST", f"{PATH}?a=1", body, **headers)
    assert (status, got["by"], got["path"]) == (200, "activator", f"{PATH}?a=1")
    assert got["sha256"] == hashlib.sha256(body).hexdigest()
    assert got["headers"]["x-tandem-model"] == "one"
    assert "x-tandem-unreachable" not in got["headers"]
    assert got["headers"]["authorization"] == "Bearer mine"
    assert len(routing.one("/seen")) == before


@pytest.mark.parametrize("model", ["deaf", "absent"])
def test_a_server_that_cannot_be_reached_is_the_activators_matter(routing: Routing, model: str) -> None:
    routing.activator(f"/open/{model}")
    body = json.dumps({"model": model, "prompt": "x" * 3_000_000}).encode()
    status, got = routing.send("POST", PATH, body)
    assert (status, got["by"], got["sha256"]) == (200, "activator", hashlib.sha256(body).hexdigest())
    assert (got["headers"]["x-tandem-model"], got["headers"]["x-tandem-unreachable"]) == (model, "1")


def test_what_the_activator_holds_passes_as_it_comes_and_counts_as_no_servers(routing: Routing) -> None:
    routing.activator("/close/one")
    with routing.waiting("one") as answer:
        assert routing.in_flight() == {}
        routing.activator("/release")
        assert json.loads(answer.read().decode().partition("data: ")[2])["by"] == "activator"


def test_the_activators_own_errors_pass_as_they_are(routing: Routing) -> None:
    status, got = routing.ask("absent", "fail")
    assert (status, got["by"]) == (500, "activator")


@pytest.mark.parametrize("how", ["", "?stale"])
def test_without_the_activator_open_routes_serve_and_closed_ones_are_left_alone(routing: Routing, how: str) -> None:
    routing.activator("/open/one")
    routing.activator("/open/absent")
    routing.activator(f"/leave{how}")
    assert routing.ask("one")[1]["by"] == "one"
    routing.activator("/close/one")
    before = len(routing.one("/seen"))
    for model in ("one", "absent"):
        status, said = routing.ask(model)
        assert (status, said["error"]["code"]) == (503, "activator_away")
    assert len(routing.one("/seen")) == before


@pytest.mark.parametrize(("route", "asked"), [("open", "one"), ("close", "activator")])
def test_a_request_that_somebody_took_is_never_sent_twice(routing: Routing, route: str, asked: str) -> None:
    routing.activator(f"/{route}/one")
    before = len(routing.one("/seen")), len(routing.activator("/seen"))
    status, said = routing.ask("one", "die")
    assert (status, said["error"]["code"]) == (503, "model_broke_off")
    assert (f"logs {asked}'") in said["error"]["message"]
    after = len(routing.one("/seen")), len(routing.activator("/seen"))
    assert sum(after) == sum(before) + 1


def test_a_request_counts_until_its_end_however_it_ends(routing: Routing) -> None:
    with routing.waiting("one") as answer, routing.waiting("one"):
        assert routing.in_flight() == {"one": 2}
        routing.one("/release")
        answer.read()
    # The other client went away in the middle of its answer; both are over.
    routing.settles()
    with routing.waiting("one"):
        assert routing.in_flight() == {"one": 1}
    routing.settles()
    for do in ("die", "fail", ""):
        routing.ask("one", do)
        routing.settles()
    assert routing.send("POST", PATH, b"{")[0] == 400
    assert routing.ask("nobody")[0] == 404
    routing.settles()


def test_a_client_that_goes_before_any_answer_is_counted_off(routing: Routing) -> None:
    before = len(routing.activator("/seen"))
    routing.activator("/close/one")
    with contextlib.closing(routing.connection()) as connection:
        connection.request("POST", PATH, json.dumps({"model": "one", "do": "wait"}))
        eventually(lambda: len(routing.activator("/seen")) > before, what="the activator has it")
    routing.activator("/open/one")
    body = json.dumps({"model": "one", "do": "wait"}).encode()
    for whole in (body, body[:-5]):
        # The length that is promised is that of all of it: one ends before the router has a request to count.
        with socket.create_connection(("127.0.0.1", routing.port), timeout=PATIENCE) as client:
            head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
            client.sendall(head.encode() + whole)
            # It says no more, which is to go as far as the router can tell; and then it sees it closed from there.
            client.shutdown(socket.SHUT_WR)
            while client.recv(65536):
                pass
    routing.settles()


def test_requests_of_one_connection_are_counted_each(routing: Routing) -> None:
    body = json.dumps({"model": "one"})
    one = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    with socket.create_connection(("127.0.0.1", routing.port), timeout=PATIENCE) as client:
        client.sendall(one.encode() * 5)
        got = b""
        while got.count(b"HTTP/1.1 200 OK") < 5:
            more = client.recv(65536)
            assert more, got
            got += more
        routing.settles()
    with contextlib.closing(routing.connection()) as connection:
        for _ in range(5):
            connection.request("POST", PATH, body)
            assert connection.getresponse().read()
        routing.settles()


def test_many_at_once_leave_no_count_behind(routing: Routing) -> None:
    failed: list[object] = []

    def client(number: int) -> None:
        for turn in range(10):
            do = ("", "fail", "die", "")[(number + turn) % 4]
            status, _ = routing.ask("one", do)
            if status != {"": 200, "fail": 500, "die": 503}[do]:
                failed.append((number, do, status))

    threads = [threading.Thread(target=client, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    routing.settles()


def test_a_reload_keeps_what_is_in_flight_and_its_count(routing: Routing) -> None:
    before = routing.workers()
    with routing.waiting("one") as answer:
        assert routing.stack.run(["docker", "kill", "--signal", "HUP", routing.name]).returncode == 0
        eventually(lambda: (now := routing.workers()) and not now & before, what="new workers")
        assert routing.in_flight() == {"one": 1}
        assert routing.ask("one")[0] == 200
        routing.one("/release")
        assert json.loads(answer.read().decode().partition("data: ")[2])["by"] == "one"
    routing.settles()


def test_a_worker_that_is_killed_takes_its_counts_with_it(routing: Routing) -> None:
    with routing.waiting("one"):
        assert routing.in_flight() == {"one": 1}
        routing.busybox("kill", "-9", *map(str, routing.workers()))
        routing.settles()
    eventually(lambda: reached(routing), what="the router answers")
    assert routing.ask("one")[1]["by"] == "one"


def test_a_router_that_is_killed_comes_back(routing: Routing) -> None:
    assert routing.stack.run(["docker", "kill", routing.name]).returncode == 0
    assert routing.stack.run(["docker", "start", routing.name]).returncode == 0
    eventually(lambda: reached(routing), what="the router answers")
    routing.settles()
    assert routing.ask("one")[1]["by"] == "one"


def test_the_activators_paths_are_for_this_machine(routing: Routing) -> None:
    status, got = routing.send(
        "POST", "/-/up/one?bound=1", Authorization="Bearer x", X_Tandem_Model="one", X_Api_Key="x"
    )
    assert (status, got["by"], got["path"], got["method"]) == (200, "activator", "/-/up/one?bound=1", "POST")
    assert not {"x-tandem-model", "authorization", "x-api-key"} & set(got["headers"])
    # The router's own stays its own.
    assert set(routing.send("GET", "/-/routes")[1]) == {"digest"}
    assert routing.send("GET", "/-/error")[0] == 404
    assert routing.send("GET", "/-/up/%0d%0aX:1")[0] == 404
    for headers in (
        # A page that a browser of this machine shows, and one whose name was made to lead here.
        {"Origin": "https://example.org"},
        {"Origin": "null"},
        {"Host": "example.org"},
        {"Host": f"example.org:{routing.port}"},
        # What a proxy of this machine passes on.
        {"X_Forwarded_For": "192.0.2.1"},
        {"Forwarded": "for=192.0.2.1"},
        {"Via": "1.1 proxy"},
    ):
        status, said = routing.send("POST", "/-/down/one", **headers)
        assert (status, said["error"]["code"]) == (403, "admin_only"), headers
    own = f"127.0.0.1:{routing.port}"
    assert routing.send("POST", "/-/down/one", Host=own, Origin=f"http://{own}")[0] == 200
    routing.activator("/leave")
    status, said = routing.send("GET", "/-/status")
    assert (status, said["error"]["code"]) == (503, "activator_away")


def test_on_another_address_they_take_the_key(routing: Routing, tmp_path: Path) -> None:
    path = tmp_path / "key"
    for folder in (tmp_path, *list(tmp_path.parents)[:2]):
        folder.chmod(0o755)
    path.write_text(f"{KEY}\n")
    path.chmod(0o644)
    up = ("up", "-d", "--no-build", "router")
    elsewhere = {"TANDEM_BIND": "0.0.0.0", "TANDEM_BIND_WITHOUT_KEY": "yes"}
    try:
        done = routing.stack.compose(*up, **elsewhere, TANDEM_ADMIN_KEY_FILE=str(path))
        assert done.returncode == 0, done.stderr
        eventually(lambda: reached(routing), what="the router answers")
        for sent in (None, "", "Bearer", f"Bearer {KEY}x", f"Bearer {KEY[:-1]}", f"Basic {KEY}", KEY):
            status, said = routing.send("GET", "/-/status", **({} if sent is None else {"Authorization": sent}))
            assert (status, said["error"]["code"]) == (403, "admin_only"), sent
        status, got = routing.send("GET", "/-/status", Authorization=f"Bearer {KEY}", Host="example.org")
        assert (status, got["by"]) == (200, "activator")
        assert "authorization" not in got["headers"]
        assert KEY not in routing.stack.run(["docker", "logs", routing.name]).stdout
        assert KEY not in routing.busybox("cat", "/var/log/tandem/access.log")
        # A key that the router may not read opens nothing, and says what is wrong.
        path.chmod(0o000)
        status, said = routing.send("GET", "/-/status", Authorization=f"Bearer {KEY}")
        assert status == 403
        assert said["error"]["message"].startswith("The router cannot read ")
        done = routing.stack.compose(*up, **elsewhere)
        assert done.returncode == 0, done.stderr
        eventually(lambda: reached(routing), what="the router answers")
        # No key is no key that matches.
        for sent in ("", "Bearer", "Bearer "):
            assert routing.send("GET", "/-/status", Authorization=sent)[0] == 403
    finally:
        assert routing.stack.compose(*up).returncode == 0
        eventually(lambda: reached(routing), what="the router answers")
