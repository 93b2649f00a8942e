"""LoRA adapters are asked for by their own names: those of models.toml, and those that a server loaded since.

nginx is real; servers and activator are stand-ins that say back what they got (standins/upstream.py).
"""

import contextlib
import functools
import json
import socket
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.checkout import PATIENCE, Checkout, eventually
from tests.integration.around_router import PATH, Routing, Standin, around, code, send

pytestmark = pytest.mark.docker

PROJECT = "tandem-test-adapters"
# `one` and `two` have servers, `absent` has none.
MODELS = """
[defaults]
image = "cpu"
[models.one]
model = "./docker/demo/model"
aliases = ["one-too"]
max_model_len = 512
args = { enable-lora = true, lora-modules = ["sql=/local/one/sql"] }
[models.two]
model = "./docker/demo/model"
[models.absent]
model = "./docker/demo/model"
args = { enable-lora = true, lora-modules = { name = "org/poet", path = "/models/poet" } }
"""
UPGRADE = "HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
UNKNOWN = " does not exist. Models here: one, two, absent. Adapters: sql, org/poet."


@dataclass
class Adapting(Routing):
    """The router with what is around it, and a second server."""

    two: Standin = field(init=False)

    def has(self, standin: Standin, *entries: Any) -> None:
        """Let a server answer GET /v1/models with these entries."""
        self.says(standin, json.dumps({"object": "list", "data": entries}))

    def says(self, standin: Standin, answer: str) -> None:
        standin(f"/lists?{urllib.parse.quote(answer)}")

    def looks(self, standin: Standin) -> list[dict[str, Any]]:
        """How a server was asked for its models, in order."""
        return [got for got in standin("/seen") if got["path"] == "/v1/models"]

    def finds(self, name: str, by: str, **headers: str) -> None:
        """Wait until a loaded adapter is found: a server has 3 s for its answer, and this machine may be busy."""
        eventually(lambda: self.ask(name, **headers)[1].get("by") == by, what=f"{name} at {by}")

    def listed(self) -> list[tuple[str, str | None, str]]:
        status, said = self.send("GET", "/v1/models")
        assert status == 200
        return [(model["id"], model.get("parent"), model["state"]) for model in said["data"]]


def adapter(name: str, **more: Any) -> dict[str, Any]:
    """As vLLM lists one."""
    return {"id": name, "object": "model", "root": f"/{name}", "parent": "two", "max_model_len": None} | more


@pytest.fixture(scope="module")
def all_of_it(images: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Adapting]:
    folder, settings = tmp_path_factory.mktemp("adapters"), {"TANDEM_LORA_LOADING": "yes"}
    with around(folder, PROJECT, Adapting, MODELS, settings) as whole, whole.server("two", "8000") as two:
        whole.two = two
        yield whole


@pytest.fixture
def router(all_of_it: Adapting) -> Iterator[Adapting]:
    """The servers are ready and have their models alone; nothing may be in flight at the end."""
    for verb, model in (("open", "one"), ("open", "two"), ("close", "absent")):
        all_of_it.activator(f"/{verb}/{model}")
    all_of_it.activator("/states?" + urllib.parse.quote(json.dumps({"absent": "stopped"})))
    for standin, name in ((all_of_it.one, "one"), (all_of_it.two, "two")):
        all_of_it.has(standin, adapter(name, parent=None))
    yield all_of_it
    for standin in (all_of_it.one, all_of_it.two):
        standin("/release")
    all_of_it.settles()


# --- declared in models.toml


def test_an_adapter_is_asked_for_at_its_models_server(router: Adapting) -> None:
    before = len(router.looks(router.one))
    status, got = router.ask("sql")
    assert (status, got["by"]) == (200, "one")
    with router.waiting("sql"):
        router.settles(one=1)
        router.one("/release")
    # Whoever is known is found without a look.
    assert len(router.looks(router.one)) == before


def test_an_adapter_brings_its_model_up(router: Adapting) -> None:
    status, got = router.ask("org/poet")
    assert (status, got["by"], got["headers"]["x-tandem-model"]) == (200, "activator", "absent")
    router.activator("/close/one")
    assert router.ask("sql")[1]["headers"]["x-tandem-model"] == "one"


def test_adapters_are_listed_after_their_model_and_in_its_state(router: Adapting) -> None:
    assert router.listed() == [
        ("one", None, "ready"), ("sql", "one", "ready"), ("two", None, "ready"),
        ("absent", None, "stopped"), ("org/poet", "absent", "stopped"),
    ]  # fmt: skip
    assert router.send("GET", "/v1/models/sql") == (
        200,
        {"id": "sql", "object": "model", "created": 0, "owned_by": "tandem", "root": "/local/one/sql", "parent": "one",
         "max_model_len": 512, "aliases": [], "state": "ready"},
    )  # fmt: skip
    assert router.send("GET", "/v1/models/org/poet")[1]["root"] == "/models/poet"
    assert router.send("GET", "/v1/models/one-too")[1]["id"] == "one"


def test_an_adapter_is_found_in_a_form_and_in_an_address(router: Adapting) -> None:
    form = b'--mark\r\nContent-Disposition: form-data; name="model"\r\n\r\nsql\r\n--mark--\r\n'
    kind = "multipart/form-data; boundary=mark"
    assert router.send("POST", "/v1/audio/transcriptions", form, Content_Type=kind)[1]["by"] == "one"
    assert echoes(router, "sql")
    answer = router.send("GET", "/v1/realtime?model=org/poet")
    assert code(answer) == (503, "model_not_ready")
    assert "'python -m orchestrator up absent'" in answer[1]["error"]["message"]


def echoes(router: Adapting, name: str) -> bool:
    """Whether a WebSocket finds its server."""
    with socket.create_connection(("127.0.0.1", router.port), timeout=PATIENCE) as client:
        client.sendall(f"GET /v1/realtime?model={name} {UPGRADE}".encode())
        if not client.recv(4000).startswith(b"HTTP/1.1 101 "):
            return False
        client.sendall(b"said")
        return client.recv(4000) == b"said"


def test_an_unknown_name_is_told_the_adapters_too(router: Adapting) -> None:
    status, said = router.ask("nobody")
    assert (status, said["error"]["code"]) == (404, "model_not_found")
    assert said["error"]["message"] == f"The model 'nobody'{UNKNOWN}"


# --- loaded since


def test_what_a_server_loaded_is_asked_for_there(router: Adapting) -> None:
    router.has(router.two, adapter("two", parent=None), adapter("new"))
    before = len(router.looks(router.two))
    router.finds("new", "two", Authorization="Bearer of-a-client", X_Api_Key="of-a-client", Cookie="a=b")
    # Nothing of the client's is in what the server was asked first.
    looks = router.looks(router.two)[before:]
    assert looks
    assert all(look["headers"] == {"host": "tandem"} for look in looks)
    eventually(lambda: echoes(router, "new"), what="a WebSocket")
    assert code(router.ask("other")) == (404, "model_not_found")


def test_what_a_server_loaded_is_listed_while_it_is_there(router: Adapting) -> None:
    router.has(router.two, adapter("new"))
    expected = [("two", None, "ready"), ("new", "two", "ready")]
    eventually(lambda: router.listed()[2:4] == expected, what="a list with it")
    one = {"root": "/new", "parent": "two", "state": "ready"}
    eventually(lambda: one.items() <= router.send("GET", "/v1/models/new")[1].items(), what="its entry")
    router.has(router.two)
    assert "new" not in [name for name, _, _ in router.listed()]
    assert code(router.send("GET", "/v1/models/new")) == code(router.ask("new")) == (404, "model_not_found")


def test_only_servers_that_are_ready_are_asked(router: Adapting) -> None:
    router.has(router.two, adapter("new"))
    router.activator("/close/two")
    before = len(router.looks(router.two))
    assert code(router.ask("new")) == (404, "model_not_found")
    assert "new" not in [name for name, _, _ in router.listed()]
    assert len(router.looks(router.two)) == before
    router.activator("/close/one")
    assert code(router.ask("new")) == (404, "model_not_found")


@pytest.mark.parametrize(
    "answer",
    [
        "", "no JSON", "[]", "5", "null", "{}", '{"data": 5}', '{"data": {"id": "new", "parent": "two"}}',
        '{"data": [5, null, "new", [], {"id": "new"}, {"id": "new", "parent": null}, {"id": 5, "parent": "two"}]}',
        '{"data": [{"id": "new", "parent": 5}, {"id": "New", "parent": "two"}, {"parent": "two"}]}',
    ],
)  # fmt: skip
def test_what_is_no_adapter_is_not_asked_for(router: Adapting, answer: str) -> None:
    router.says(router.two, answer)
    assert code(router.ask("new")) == (404, "model_not_found")


def test_a_name_of_models_toml_is_what_it_says_there(router: Adapting) -> None:
    router.has(router.two, adapter("org/poet"), adapter("one"), adapter("absent"))
    assert router.ask("org/poet")[1]["by"] == "activator"
    assert router.ask("one")[1]["by"] == "one"
    assert [name for name, _, _ in router.listed()] == ["one", "sql", "two", "absent", "org/poet"]


def test_of_two_with_one_name_the_first_in_models_toml_is_asked(router: Adapting) -> None:
    for standin in (router.one, router.two):
        router.has(standin, adapter("new"))
    router.finds("new", "one")
    router.activator("/close/one")
    router.finds("new", "two")


def test_a_server_that_does_not_answer_keeps_nobody_from_another(router: Adapting) -> None:
    router.says(router.one, "wait")
    router.has(router.two, adapter("new"))
    router.finds("new", "two")
    assert code(router.ask("nobody")) == (404, "model_not_found")
    router.one("/release")
    router.one("/leave")
    try:
        router.finds("new", "two")
        assert code(router.ask("nobody")) == (404, "model_not_found")
        eventually(lambda: router.listed()[3][0] == "new", what="a list with it")
    finally:
        router.one("/return")


def test_a_client_that_leaves_while_servers_are_asked_is_counted_off(router: Adapting) -> None:
    router.says(router.two, "wait")
    with contextlib.ExitStack() as ends:

        def counted() -> bool:
            connection = ends.enter_context(contextlib.closing(router.connection()))
            connection.request("POST", PATH, b'{"model": "nobody"}')
            return router.in_flight().get("two", 0) > 0

        # So that whoever closes the route waits for the look.
        eventually(counted, what="a look that is counted")
    router.has(router.two)
    router.two("/release")
    router.settles()


def test_counts_of_loaded_adapters_are_their_models(router: Adapting) -> None:
    router.has(router.two, adapter("new"))

    def fails(name: str) -> bool:
        return router.ask(name, "fail")[0] == 500

    # No other test has a server fail. Workers hand their counts over within a second.
    for name in ("new", "sql"):
        eventually(functools.partial(fails, name), what=f"{name} that fails")

    def counted() -> set[str]:
        lines = send(router.port, "GET", "/-/metrics").text.decode().splitlines()
        return {line for line in lines if "_requests_total" in line and 'status="500"' in line}

    begin, end = "tandem_router_requests_total{model=", ',status="500",way="server"} 1'
    eventually(lambda: counted() == {f'{begin}"one"{end}', f'{begin}"two"{end}'}, what="their counts")


def test_the_way_to_servers_is_for_no_client(router: Adapting) -> None:
    for path in ("/-/loaded", f"/-/loaded?at={router.address}"):
        assert code(router.send("GET", path)) == (404, "not_found")


def test_without_the_setting_no_server_is_asked(router: Adapting) -> None:
    router.has(router.one, adapter("new", parent="one"))
    before = len(router.looks(router.one))
    for words in ({}, {"TANDEM_LORA_LOADING": "no"}):
        with router.alone(**words) as other:
            other.starts().open("one", router.address)
            assert send(other.port, "POST", PATH, b'{"model": "sql"}').status == 200
            assert send(other.port, "POST", PATH, b'{"model": "new"}').code == "model_not_found"
            assert send(other.port, "GET", "/v1/models/new").code == "model_not_found"
            listed = json.loads(send(other.port, "GET", "/v1/models").text)["data"]
            assert [model["id"] for model in listed] == ["one", "sql", "two", "absent", "org/poet"]
    assert len(router.looks(router.one)) == before
