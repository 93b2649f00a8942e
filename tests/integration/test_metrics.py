"""What the router counts and who may see it: real nginx between stand-ins."""

import contextlib
import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tests.checkout import Checkout, eventually
from tests.observe import text
from tests.observe.lab import CHAT, Lab, lab

pytestmark = pytest.mark.docker


@pytest.fixture
def here(images: Checkout) -> Iterator[Lab]:
    with lab("one", 'odd"\\name', "closed") as made:
        yield made


def said(here: Lab, path: str = "/-/metrics") -> dict[str, text.Family]:
    status, answer = here.send("GET", path)
    assert status == 200, answer
    return text.parse(answer)


def counted(here: Lab, name: str, **labels: str) -> float:
    return text.value(said(here), f"tandem_router_{name}", **labels)


def test_requests_are_counted_by_model_status_and_way(here: Lab) -> None:
    before = said(here)
    assert text.value(before, "tandem_router_requests_total", model="one", status="200", way="server") == 0
    assert before["tandem_router_requests_total"].samples, "a counter is there before its first event"
    here.server("one", 'odd"\\name')
    for _ in range(3):
        assert here.send("POST", CHAT, {"model": "one"})[0] == 200
    # An alias counts as its model's name.
    assert here.send("POST", CHAT, {"model": "org/one"})[0] == 200
    assert here.send("POST", CHAT, {"model": 'odd"\\name', "do": "fail"})[0] == 500
    assert here.send("POST", CHAT, {"model": "one", "do": "die"})[0] == 503
    here.activator()
    assert here.send("POST", CHAT, {"model": "closed"})[0] == 200

    def totals() -> dict[str, float]:
        wanted = [
            ("one", "200", "server"),
            ("one", "503", "server"),
            ('odd"\\name', "500", "server"),
            ("closed", "200", "activator"),
        ]
        return {
            f"{model} {status}": counted(here, "requests_total", model=model, status=status, way=way)
            for model, status, way in wanted
        }

    def rest() -> list[float]:
        return [
            counted(here, "request_seconds_count", model="one"),
            counted(here, "first_byte_seconds_count", model="one"),
            counted(here, "refused_total", code="model_broke_off"),
        ]

    # Workers hand their counts over once a second, one after the other: who looks meanwhile sees a part.
    expected = {"one 200": 4, "one 503": 1, 'odd"\\name 500': 1, "closed 200": 1}
    eventually(lambda: totals() == expected, what="all are counted")
    eventually(lambda: rest() == [5, 4, 1], what="all that goes with them")
    asked, answered = 5 * len('{"model": "one"}'), 4 * len('{"said": "an-answer"}')
    eventually(lambda: counted(here, "request_bytes_total", model="one") > asked, what="and what was sent")
    eventually(lambda: counted(here, "response_bytes_total", model="one") > answered, what="and what came back")
    assert counted(here, "metrics_lost_total") == 0


def test_no_word_of_a_clients_becomes_a_label(here: Lab) -> None:
    rubbish = 'rub\nb"ish-'
    for index in range(5):
        assert here.send("POST", CHAT, {"model": f"{rubbish}{index}"})[0] == 404
        assert (
            here.send("GET", f"/rubbish-{index}", User_Agent=f"rubbish-{index}", Authorization="Bearer rubbish")[0]
            == 404
        )
    here.raw(b"RUBBISH rubbish\r\n\r\n")

    def refused() -> float:
        return counted(here, "requests_total", model="", status="404", way="router")

    eventually(lambda: refused() == 10, what="they are counted")
    eventually(lambda: counted(here, "refused_total", code="model_not_found") == 5, what="and their codes")
    _, answer = here.send("GET", "/-/metrics")
    assert "ish" not in answer


def test_requests_are_counted_by_the_name_of_their_key_which_no_line_holds(images: Checkout) -> None:
    alice, bob, wrong = (f"sk-{name}-and-26-letters-more-or-less" for name in ("alices", "bobs", "nobodys"))
    with lab("one", keys=f"alice {alice}\nbob {bob} concurrent=4\n") as here:
        here.server("one")
        for key, status in ((alice, 200), (alice, 200), (bob, 200), (wrong, 401)):
            assert here.send("POST", CHAT, {"model": "one"}, Authorization=f"Bearer {key}")[0] == status
        assert here.send("POST", CHAT, {"model": "one"})[0] == 401

        def keyed() -> dict[str, float]:
            samples = said(here)["tandem_router_key_requests_total"].samples
            return {" ".join(dict(labels).values()): count for (_, labels), count in samples.items()}

        eventually(lambda: keyed() == {"alice 200": 2, "bob 200": 1}, what="both are counted")

        def refused(code: str) -> float:
            return counted(here, "refused_total", code=code)

        eventually(lambda: refused("wrong_key") == refused("no_key") == 1, what="refusals are counted")
        eventually(lambda: len(posts(here)) == 5, what="all are logged")
        assert sorted(line["key"] for line in posts(here)) == ["", "", "alice", "alice", "bob"]
        told = here.send("GET", "/-/metrics")[1] + "\n".join(here.log())
        assert not [key for key in (alice, bob, wrong) if key in told]


def posts(here: Lab) -> list[dict[str, Any]]:
    return [line for line in map(json.loads, here.log()) if line["request"].startswith("POST")]


@contextlib.contextmanager
def unanswered(here: Lab, model: str) -> Iterator[socket.socket]:
    """A client's connection with a request that its server has and does not answer."""
    with socket.create_server((here.gateway, 0)) as silent:
        (here.folder / "open" / model).symlink_to(f"{here.gateway}:{silent.getsockname()[1]}")
        body = json.dumps({"model": model}).encode()
        sent = b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (CHAT.encode(), len(body), body)
        with contextlib.closing(socket.create_connection(("127.0.0.1", here.port))) as client:
            client.sendall(sent)
            eventually(lambda: counted(here, "in_flight", model=model) == 1, what="it is in flight")
            yield client


def left(here: Lab) -> float:
    return counted(here, "requests_total", model="one", status="499", way="server")


def test_requests_in_flight_are_a_gauge_and_one_whose_client_left_is_counted(here: Lab) -> None:
    with unanswered(here, "one") as client:
        client.close()
        eventually(lambda: counted(here, "in_flight", model="one") == 0, what="it is not")
    eventually(lambda: left(here) == 1, what="who left is counted")


def test_the_activators_metrics_follow_while_it_is_there(here: Lab) -> None:
    found = said(here)
    assert text.value(found, "tandem_router_activator_up") == 0
    assert "tandem_state" not in found
    server = here.activator()
    found = said(here)
    assert text.value(found, "tandem_router_activator_up") == 1
    assert text.value(found, "tandem_state", model="one", state="ready") == 1
    # Nothing of who asks is passed on.
    here.send("GET", "/-/metrics", Authorization="Bearer a-key", X_Other="x")
    assert here.heard[-1].keys() <= {"path", "host", "connection"}
    server.shutdown()
    server.server_close()
    assert counted(here, "activator_up") == 0
    # That nobody answered there is no request's error.
    assert counted(here, "refused_total", code="activator_away") == 0


def test_an_activator_that_says_nothing_is_away_and_holds_no_scrape(here: Lab) -> None:
    path = here.folder / "activator.sock"
    path.unlink(missing_ok=True)
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as silent:
        silent.bind(str(path))
        path.chmod(0o666)
        silent.listen()
        assert counted(here, "activator_up") == 0


def test_a_servers_own_metrics_are_there_while_its_route_is_open(here: Lab) -> None:
    status, answer = here.send("GET", "/-/metrics/one")
    assert (status, json.loads(answer)["error"]["code"]) == (503, "model_not_ready")
    here.server("one")
    for name in ("one", "org/one"):
        assert "vllm:kv_cache_usage_perc" in said(here, f"/-/metrics/{name}")
    here.send("GET", "/-/metrics/one", Authorization="Bearer a-key")
    assert here.heard[-1]["path"] == "/metrics"
    assert "authorization" not in here.heard[-1]
    status, answer = here.send("GET", "/-/metrics/none")
    assert (status, json.loads(answer)["error"]["code"]) == (404, "model_not_found")
    # Its server is gone and its route is open still.
    (here.folder / "open/closed").symlink_to(f"{here.gateway}:1")
    status, answer = here.send("GET", "/-/metrics/closed")
    assert (status, json.loads(answer)["error"]["code"]) == (503, "model_not_ready")


@pytest.mark.parametrize("path", ["/-/metrics", "/-/metrics/one"])
def test_a_page_of_somebody_elses_does_not_see_them(here: Lab, path: str) -> None:
    here.server("one")
    assert here.send("GET", path, Host="evil.example")[0] == 403
    assert here.send("GET", path, Origin="http://evil.example")[0] == 403
    assert here.send("POST", path)[0] == 405
    assert here.heard == []
    for within in ("/-/activator/metrics", "/metrics", "/targets"):
        assert here.send("GET", within)[0] == 404


def test_prometheus_has_a_port_in_the_network_that_is_not_published(here: Lab) -> None:
    port = here.server("one")
    here.activator()

    def get(path: str) -> str:
        return here.inside("wget", "-Y", "off", "-q", "-O", "-", f"http://127.0.0.1:9400{path}")

    found = text.parse(get("/metrics"))
    assert text.value(found, "tandem_router_activator_up") == 1
    assert json.loads(get("/targets")) == [{"targets": [f"one:{port}"], "labels": {"model": "one"}}]
    (here.folder / "open/one").unlink()
    assert json.loads(get("/targets")) == []
    for other in ("/", "/health", "/v1/models", "/-/metrics", "/-/status", "/-/activator/metrics", "/metrics/one"):
        with pytest.raises(AssertionError, match="404"):
            get(other)
    # Scrapes are nobody's requests.
    assert not [line for line in here.log() if "/targets" in line]


def test_counts_outlive_a_reload_and_the_workers_that_made_them(here: Lab) -> None:
    old = set(here.inside("pidof", "nginx").split()) - {"1"}

    def gone() -> set[str]:
        return old - set(here.inside("pidof", "nginx").split())

    with unanswered(here, "one") as client:
        here.inside("kill", "-HUP", "1")
        # The one with the request stays until it is over, and counts nothing by the clock any more.
        eventually(lambda: len(gone()) == len(old) - 1, what="the others leave")
        assert left(here) == 0
        client.close()
        eventually(lambda: gone() == old, what="it leaves")
    assert left(here) == 1


def test_a_full_dictionary_fails_nothing_and_says_what_it_lost(images: Checkout) -> None:
    names = [f"a-model-with-a-name-that-is-rather-long-{index}" for index in range(1500)]
    with lab(*names) as here:
        here.server(names[-1])
        lost = counted(here, "metrics_lost_total")
        assert lost > 0
        for _ in range(5):
            assert here.send("POST", CHAT, {"model": names[-1]})[0] == 200
        assert here.send("POST", CHAT, {"model": "none"})[0] == 404
        eventually(lambda: counted(here, "metrics_lost_total") > lost, what="what was lost is counted")
