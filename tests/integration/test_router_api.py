"""What clients may ask of the router besides a model's answer, and how it finds the model that they mean.

nginx is real; servers and activator are stand-ins that say back what they got (standins/upstream.py).
"""

import contextlib
import gzip
import json
import socket
import urllib.parse
from collections.abc import Iterator

import pytest

from tests.checkout import PATIENCE, eventually
from tests.integration.around_router import PATH, Routing, code
from tests.integration.test_router_switching import all_of_it  # noqa: F401 (a fixture)

pytestmark = pytest.mark.docker

FORM = "multipart/form-data; boundary=mark"
AUDIO = "/v1/audio/transcriptions"


@pytest.fixture
def routing(all_of_it: Routing) -> Iterator[Routing]:  # noqa: F811 (pytest's way)
    for verb, model in (("open", "one"), ("close", "deaf"), ("close", "absent")):
        all_of_it.activator(f"/{verb}/{model}")
    yield all_of_it
    all_of_it.settles()


def form(*fields: tuple[str, str]) -> bytes:
    parts = [f'--mark\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n' for name, value in fields]
    return ("".join(parts) + "--mark--\r\n").encode()


@pytest.mark.parametrize(
    "body",
    [
        b'{"model": "one"}',
        b' \n{\t"model"\r:\n"one-too" , "messages": [{"role": "user", "content": "\\"model\\": \\u4f60"}]}\n',
        b'{"messages": [{"model": "deaf", "content": "}{][\\\\"}], "x": [[1, -2.5e3, true, null]], "model": "one"}',
        b'{"a": {"model": "deaf"}, "model": "one", "b": ["model"]}',
        b'{"model": "deaf", "model": "one"}',
        b'{"\\u006dodel": "one"}',
        b'{"model": "\\u006fne"}',
        b'{"a": "\\u006d", "model": "one"}',
        b'\xef\xbb\xbf{"a": 1, "model": "one"}',
        b'{"x": "say \\"model", "model": "one"}',
        b'{"model": "one", "x": "' + "猫".encode() * 2_000_000 + b'"}',
        b'{"x": "' + b"y\\n" * 2_000_000 + b'", "model": "one"}',
    ],
)
def test_a_json_body_names_its_model_wherever_it_stands(routing: Routing, body: bytes) -> None:
    status, got = routing.send("POST", PATH, body)
    assert (status, got["by"]) == (200, "one"), got


@pytest.mark.parametrize("body", [b'{"do": ""}', b'{"model": null}', b'{"model": ""}', b'{"a": {"model": "deaf"}}'])
def test_no_model_means_the_one_that_is_ready(routing: Routing, body: bytes) -> None:
    assert routing.send("POST", PATH, body)[1]["by"] == "one"
    routing.activator("/close/one")
    status, said = routing.send("POST", PATH, body)
    assert (status, said["error"]["code"], said["error"]["param"]) == (400, "model_required", "model")
    assert "those that can be are one, deaf, absent." in said["error"]["message"]
    routing.activator("/open/one")
    routing.activator("/open/deaf")
    assert "More than one model is ready: one, deaf." in routing.send("POST", PATH, body)[1]["error"]["message"]


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (b"", "found the end at character 1"),
        (b"[1]", "should be an object"),
        (b'"model"', "should be an object"),
        (b'{"model": 7}', "should be a string"),
        (b'{"model": ["one"]}', "should be a string"),
        (b"{'model': 'one'}", "at character 2"),
        ('{"model": "one"}'.encode("utf-16"), "UTF-8"),
        ('{"model": "one"}'.encode("utf-32-le"), "UTF-8"),
        (b'{"a":' * 20_000 + b"1", "nested too deep"),
        (b'{"a":' * 20_000 + b"1" + b"}" * 20_000, "nested too deep"),
        (b'{"a":' * 2000 + b"1" + b"}" * 2000 + b'"model"', "nested"),
        (
            b'{"model": "one", "model": "one", "a": [' + b"1," * 40_000 + b'{"b": [2, {"c": tru;}]}]}',
            "character 80050 is",
        ),
        (b'{"a": [' + b"1," * 40_000 + b'"]}', "What begins at character 80008 is no JSON"),
        (b"[" + b"1," * 40_000 + b"1]", "should be an object"),
        (b'{"model": "on\\x65"}', "should be a string"),
    ],
)
def test_a_body_that_names_no_model_is_refused_and_told_why(routing: Routing, body: bytes, fault: str) -> None:
    status, said = routing.send("POST", PATH, body)
    assert (status, said["error"]["code"]) == (400, "invalid_json")
    assert fault in said["error"]["message"]


def test_a_server_does_not_tell_the_router_what_to_do(routing: Routing) -> None:
    status, got = routing.ask("one", "steer")
    assert (status, got["by"], got["path"]) == (200, "one", PATH)
    routing.settles()


def test_http_1_0_without_a_host_has_one_behind_the_router(routing: Routing) -> None:
    for model, by in (("one", "one"), ("absent", "activator")):
        body = json.dumps({"model": model}).encode()
        with socket.create_connection(("127.0.0.1", routing.port), timeout=PATIENCE) as client:
            client.sendall(f"POST {PATH} HTTP/1.0\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
            got = b""
            while more := client.recv(65536):
                got += more
        said = json.loads(got.partition(b"\r\n\r\n")[2])
        assert (said["by"], said["headers"]["host"]) == (by, "localhost")


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/one", "/health", "/ready"])
@pytest.mark.parametrize(
    "header", [{"If_Match": '"x"'}, {"If_Unmodified_Since": "Mon, 01 Jan 2001 00:00:00 GMT"}], ids=["tag", "time"]
)
def test_what_has_no_version_says_so_in_openais_shape(routing: Routing, path: str, header: dict[str, str]) -> None:
    assert code(routing.send("GET", path, **header)) == (412, "precondition_failed")


def test_the_digest_is_read_and_nothing_else(routing: Routing) -> None:
    assert routing.send("GET", "/-/routes")[0] == 200
    for method in ("POST", "PUT", "DELETE"):
        assert code(routing.send(method, "/-/routes")) == (405, "method_not_allowed")


def test_what_is_no_text_is_repeated_in_words_that_are(routing: Routing) -> None:
    for answer in (routing.send("POST", PATH, b'{"model": "a\xff"}'), routing.send("GET", "/v1/models/a%ff")):
        assert code(answer) == (404, "model_not_found")
        assert answer[1]["error"]["message"].startswith("The model 'a?' does not exist.")
    assert code(routing.send("POST", "/v1/models/%ff")) == (405, "method_not_allowed")


def test_a_compressed_body_is_refused(routing: Routing) -> None:
    packed = gzip.compress(b'{"model": "one"}')
    assert code(routing.send("POST", PATH, packed, Content_Encoding="gzip")) == (415, "unsupported_encoding")
    assert code(routing.send("POST", PATH, packed)) == (400, "invalid_json")
    assert routing.send("POST", PATH, b'{"model": "one"}', Content_Encoding="identity")[0] == 200


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("One", " Did you mean 'one'?"),
        ("absnt", " Did you mean 'absent'?"),
        ("gpt-4", ""),
        ("constructor", ""),
        ("one\0", " Did you mean 'one'?"),
        ("猫" * 300, ""),
    ],
)
def test_an_unknown_model_is_told_what_there_is(routing: Routing, name: str, hint: str) -> None:
    status, said = routing.ask(name)
    assert (status, said["error"]["code"], said["error"]["param"]) == (404, "model_not_found", "model")
    assert said["error"]["message"].endswith(f" does not exist.{hint} Models here: one, deaf, absent.")
    assert len(said["error"]["message"]) < 400


def test_a_form_names_its_model_in_a_field(routing: Routing) -> None:
    # A first part with nothing in it.
    body = form(("language", ""), ("model", "one-too"), ("prompt", "\r\n--mar\r\n"))
    status, got = routing.send("POST", AUDIO, body, Content_Type=FORM)
    assert (status, got["by"], got["path"]) == (200, "one", AUDIO)
    assert routing.send("POST", AUDIO, form(("prompt", "x")), Content_Type=FORM)[1]["by"] == "one"
    assert code(routing.send("POST", AUDIO, form(("model", "gpt-4")), Content_Type=FORM)) == (404, "model_not_found")


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (FORM, form(("model", "one"), ("model", "one"))),
        (FORM, form(("model", "one"))[:-10]),
        (FORM, b""),
        (FORM, form(('model"; name="x', "one"))),
        (FORM, form(('model"; filename="x', "one"))),
        (FORM, form(("mo\\del", "one"))),
        (FORM, form(("a", "\r\n--mark \r\n"), ("model", "one"))),
        ("multipart/form-data", form(("model", "one"))),
        ("multipart/form-data; boundary=mark; boundary=x", form(("model", "one"))),
        ("application/json", b'{"model": "one"}'),
    ],
)
def test_a_form_that_can_be_read_in_two_ways_is_refused(routing: Routing, kind: str, body: bytes) -> None:
    assert code(routing.send("POST", AUDIO, body, Content_Type=kind)) == (400, "invalid_form")


def test_what_names_no_model_is_for_the_one_that_is_ready(routing: Routing) -> None:
    asked = [("GET", "/version"), ("GET", "/v1/responses/resp_1.a:b"), ("POST", "/v1/responses/resp_1/cancel")]
    for method, path in asked:
        status, got = routing.send(method, path)
        assert (status, got["by"], got["path"], got["method"]) == (200, "one", path, method)
    for method, path in (("POST", "/version"), ("DELETE", "/v1/responses/resp_1"), ("GET", "/v1/responses/x/cancel")):
        assert code(routing.send(method, path)) == (405, "method_not_allowed")
    routing.activator("/close/one")
    for method, path in asked:
        assert code(routing.send(method, path)) == (400, "model_required")


def test_whether_the_router_lives_and_whether_a_model_is_ready(routing: Routing) -> None:
    assert routing.send("GET", "/health") == (200, {"status": "ok"})
    assert routing.send("GET", "/ready") == (200, {"status": "ready", "models": ["one"]})
    assert routing.send("HEAD", "/ready") == (200, None)
    routing.activator("/close/one")
    assert code(routing.send("GET", "/ready")) == (503, "no_model_ready")
    assert routing.send("GET", "/health")[0] == 200


def test_models_are_listed_with_their_states_and_what_runs_first(routing: Routing) -> None:
    states = {"one": "ready", "deaf": "asleep", "absent": "starting"}
    routing.activator(f"/states?{urllib.parse.quote(json.dumps(states))}")

    def listed() -> dict[str, str]:
        status, said = routing.send("GET", "/v1/models")
        assert (status, said["object"]) == (200, "list")
        return {model["id"]: model["state"] for model in said["data"]}

    routing.activator("/open/deaf")
    routing.activator("/close/one")
    # The activator has not said yet that a model whose route it closed is no longer ready.
    assert list(listed().items()) == [("deaf", "ready"), ("one", "draining"), ("absent", "starting")]
    status, model = routing.send("GET", "/v1/models/absent-too")
    assert status == 200
    assert model == {
        "id": "absent", "object": "model", "created": 0, "owned_by": "tandem", "root": "./docker/demo/model",
        "max_model_len": model["max_model_len"], "aliases": ["absent-too"], "state": "starting",
    }  # fmt: skip
    assert code(routing.send("GET", "/v1/models/gpt-4")) == (404, "model_not_found")
    routing.activator("/states?no%20JSON")
    assert listed() == {"deaf": "ready", "one": "unknown", "absent": "unknown"}


def test_a_websocket_finds_its_model_in_its_address(routing: Routing) -> None:
    head = "HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
    with socket.create_connection(("127.0.0.1", routing.port), timeout=PATIENCE) as client:
        client.sendall(f"GET /v1/realtime?model=one-too&x=1 {head}".encode())
        assert client.recv(4000).startswith(b"HTTP/1.1 101 ")
        client.sendall(b"said")
        assert client.recv(4000) == b"said"
    last = "?model=one" + "".join(f"&a{n}" for n in range(200)) + "&model=deaf"
    for query in ("", "?model=", "?model=one&model=one", last):
        assert code(routing.send("GET", f"/v1/realtime{query}")) == (400, "model_required")


def test_a_websocket_brings_no_model_up_and_nor_does_an_image_of_its_address(routing: Routing) -> None:
    upgrade = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec_WebSocket_Version": "13",
        "Sec_WebSocket_Key": "eA==",
    }
    # No route, and one that leads to nobody.
    routing.activator("/open/deaf")
    for name in ("absent", "absent-too", "deaf"):
        for headers in ({}, upgrade):
            answer = routing.send("GET", f"/v1/realtime?model={name}", **headers)
            assert code(answer) == (503, "model_not_ready"), name
            assert "orchestrator up" in answer[1]["error"]["message"]
    # The stand-in of an activator would have answered.
    assert not any(routing.in_flight().values())


def test_a_request_has_one_id_from_end_to_end(routing: Routing) -> None:
    def answered(**headers: str) -> tuple[str | None, str]:
        with contextlib.closing(routing.connection()) as connection:
            connection.request("POST", PATH, b'{"model": "one"}', headers)
            answer = connection.getresponse()
            return answer.headers["X-Request-Id"], json.loads(answer.read())["headers"]["x-request-id"]

    assert answered(**{"X-Request-Id": "mine-1.a:b_c"}) == ("mine-1.a:b_c", "mine-1.a:b_c")
    ids = set()
    for odd in ("", "a b", '"', "x" * 129):
        own, sent = answered(**{"X-Request-Id": odd})
        assert own == sent != odd
        assert own is not None
        ids.add(own)
    assert len(ids) == 4
    eventually(lambda: '"id":"mine-1.a:b_c"' in requests(routing), what="the id in the log")


def requests(routing: Routing) -> str:
    """What the command shows."""
    shown = routing.stack.tandem("requests", "--tail", "all")
    assert shown.returncode == 0, shown.stderr
    return str(shown.stdout)


def test_a_log_that_is_full_becomes_the_one_before_and_another_begins(routing: Routing) -> None:
    def asked(name: str) -> None:
        assert routing.ask("one", X_Request_Id=name)[0] == 200
        eventually(lambda: f'"id":"{name}"' in requests(routing), what=f"{name} in the log")

    asked("before")
    log = "/var/log/tandem/access.log"
    routing.busybox("sh", "-c", f"/usr/bin/busybox yes x | /usr/bin/busybox head -c 21000000 >>{log}")
    eventually(lambda: len(requests(routing)) < 1_000_000, what="another log")
    asked("after")
    assert '"id":"before"' in routing.busybox("grep", "before", f"{log}.1")
    assert '"id":"before"' not in requests(routing)


# What vLLM has and clients may not ask, and other spellings of that and of what they may.
ELSEWHERE = """
/sleep /wake_up /is_sleeping /reset_prefix_cache /start_profile /server_info /docs /openapi.json /metrics
/collective_rpc /v1/load_lora_adapter /load /ping /invocations /v1/responses/render /v1/chat/completions/batch
//sleep /%73leep /v1/../sleep /v1/%2e%2e/sleep /SLEEP /sleep/ /sleep? /V1/chat/completions /v1/chat/completions/
/v1/chat/completions%0a /version/ /v1/models/one%0a/x /-/ /-
"""


@pytest.mark.parametrize("path", ELSEWHERE.split())
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_every_other_path_is_not_there_however_it_is_spelt(routing: Routing, method: str, path: str) -> None:
    before = len(routing.one("/seen"))
    status, said = routing.send(method, path, b'{"model": "one"}' if method == "POST" else None)
    assert code((status, said)) == (404, "not_found")
    assert len(routing.one("/seen")) == before
