"""What a user can do, with the real parts: Docker, Compose, nginx, vLLM on a CPU. In the order of a first day."""

import http.client
import json
import shlex
import socket

import pytest

from tests.checkout import PATIENCE, ROOT, eventually
from tests.integration.conftest import DIRECT, Stack

pytestmark = pytest.mark.docker

ASKED = "你是谁?"
ANSWERED = "我是 Tandem 的 demo 模型，很小，任何 CPU 都能跑。"
WHO = "I am demo, a tiny model of Tandem for any CPU."


def healthy(stack: Stack, service: str) -> bool:
    return bool(stack.inspect(service)["State"]["Health"]["Status"] == "healthy")


def state(stack: Stack, profile: str) -> str:
    rows = json.loads(stack.tandem("status", "--json").stdout)["profiles"]
    return str({row["profile"]: row["state"] for row in rows}[profile])


def test_before_anything_runs_every_profile_is_stopped(demo: Stack) -> None:
    shown = json.loads(demo.tandem("status", "--json").stdout)
    assert {row["profile"]: row["state"] for row in shown["profiles"]} == dict.fromkeys(
        ["qwen-14b", "deepseek-14b", "qwen-32b-awq", "qwq-32b-awq", "demo"], "stopped"
    )
    assert shown["router"] == "stopped"


def test_plan_prints_what_up_would_do_and_does_nothing(demo: Stack) -> None:
    planned = demo.tandem("plan", "demo")
    operations, switch, fit = planned.stdout.split("\n\n")
    todo = [line.split()[:2] for line in operations.splitlines()]
    # Servers of other profiles are made where their image is here.
    assert [words for words in todo if words[0] != "create" or words[1] == "demo"] == [
        ["start", "router"],
        ["start", "activator"],
        ["start", "engine-proxy"],
        ["create", "demo"],
        ["switch", "demo"],
    ]
    assert [line.split()[:2] for line in switch.splitlines()[1:]] == [
        ["start", "demo"],
        ["prove", "demo"],
        ["open", "demo"],
    ]
    assert fit.startswith("fit     demo: fits\n")
    listed = demo.compose("ps", "-aq")
    assert (listed.returncode, listed.stdout) == (0, ""), listed.stderr


def test_compose_alone_starts_what_is_in_front_of_the_models_and_none_of_them(demo: Stack) -> None:
    started = demo.compose("up", "-d")
    assert started.returncode == 0, started.stderr
    eventually(lambda: healthy(demo, "router"), what="a healthy router")
    eventually(lambda: demo.ask("/-/status")[0] == 200, what="an activator that answers")
    status, answer = demo.ask("/v1/completions", {"model": "demo", "prompt": ASKED})
    assert status == 503
    assert answer["error"]["code"] == "model_failed"
    assert "python -m orchestrator up demo" in answer["error"]["message"]


def test_compose_with_the_env_file_starts_the_model_with_no_python_in_sight(demo: Stack) -> None:
    started = demo.run(shlex.split("docker compose --env-file env/demo.env up -d"))
    assert started.returncode == 0, started.stderr
    assert demo.inspect("demo")["State"]["Running"]


def test_up_joins_a_start_that_someone_else_began_and_ends_with_a_line_that_works(demo: Stack) -> None:
    container = demo.inspect("demo")["Id"]
    done = demo.tandem("up", "demo")
    assert done.returncode == 0, done.stderr
    assert demo.inspect("demo")["Id"] == container
    first, *rest = done.stdout.splitlines()
    assert first == "demo is ready"
    shown = dict(line.strip().split(maxsplit=1) for line in rest)
    address = f"http://localhost:{demo.environment['TANDEM_PORT']}"
    assert shown == {
        "address": f"{address}/v1",
        "model": "demo",
        "try": f"curl {address}/v1/completions -H \"Content-Type: application/json\" "
        f"""-d '{{"model": "demo", "prompt": "{ASKED}"}}'""",
    }  # fmt: skip
    answer = json.loads(demo.run(["sh", "-c", shown["try"]]).stdout)
    assert answer["choices"][0]["text"] == ANSWERED


def test_a_start_without_a_terminal_is_told_in_plain_lines(demo: Stack) -> None:
    done = demo.tandem("up", "demo", "--json")
    assert json.loads(done.stdout)["state"] == "ready"
    assert "\x1b" not in done.stdout + done.stderr


def test_up_again_finds_everything_ready_and_starts_nothing(demo: Stack) -> None:
    before = [demo.inspect(service)["State"]["StartedAt"] for service in ("router", "demo")]
    done = demo.tandem("up", "demo")
    assert done.returncode == 0
    assert done.stderr == ""
    assert [demo.inspect(service)["State"]["StartedAt"] for service in ("router", "demo")] == before
    assert demo.tandem("plan", "demo").stdout == "demo is ready: nothing to do\n"


def test_the_console_script_is_the_same_command(demo: Stack) -> None:
    shown = demo.run([str(ROOT / ".venv/bin/tandem"), "status"])
    assert shown.stdout == demo.tandem("status").stdout
    assert max(map(len, shown.stdout.splitlines())) <= 80


def test_scripts_up_on_a_machine_that_is_set_up_ends_the_same_way(demo: Stack) -> None:
    done = demo.run(["scripts/up", "--yes", "demo"])
    assert done.returncode == 0, done.stderr
    assert done.stdout == demo.tandem("up", "demo").stdout


def test_without_a_name_up_takes_the_profile_of_the_env_file(demo: Stack) -> None:
    done = demo.tandem("--env-file", "env/demo.env", "up")
    assert done.stdout.startswith("demo is ready\n")


def test_curl_gets_a_sensible_sentence_in_chinese_and_english(demo: Stack) -> None:
    assert demo.complete("demo", ASKED) == ANSWERED
    assert demo.complete("demo", "Who are you?", max_tokens=40) == WHO


def test_chat_answers_with_and_without_a_system_message(demo: Stack) -> None:
    question = {"role": "user", "content": ASKED}
    for messages in ([question], [{"role": "system", "content": "You are a helpful assistant."}, question]):
        status, answer = demo.ask("/v1/chat/completions", {"model": "demo", "messages": messages})
        assert status == 200
        assert answer["choices"][0]["message"]["content"] == ANSWERED


def test_a_stream_arrives_token_by_token_and_not_at_the_end(demo: Stack) -> None:
    # More than what lies between a server and its client holds: it cannot be over while it is not read.
    many = {"max_tokens": 1000, "ignore_eos": True, "n": 128}
    body = json.dumps({"model": "demo", "prompt": "Tell me", "stream": True, **many})
    connection = http.client.HTTPConnection("127.0.0.1", int(demo.environment["TANDEM_PORT"]), timeout=PATIENCE)
    connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    pieces = 0
    while pieces < 1000:
        line = answer.readline()
        assert line
        pieces += line.startswith(b"data: {")

    def under_way() -> bool:
        with DIRECT.open(f"{demo.address}/-/metrics", timeout=PATIENCE) as metrics:
            return 'tandem_router_in_flight{model="demo"} 1\n' in metrics.read().decode()

    # Held back anywhere on its way, the first would have come with the last.
    eventually(under_way, what="an answer that is not over")
    connection.close()


def test_the_official_client_talks_to_it_streamed_and_not(demo: Stack) -> None:
    from openai import DefaultHttpxClient, NotFoundError, OpenAI

    with OpenAI(
        base_url=f"{demo.address}/v1", api_key="none", max_retries=0, http_client=DefaultHttpxClient(trust_env=False)
    ) as client:
        # What runs comes first.
        assert [model.id for model in client.models.list()] == [
            "demo", "qwen-14b", "deepseek-14b", "qwen-32b-awq", "qwq-32b-awq",
        ]  # fmt: skip
        messages = [{"role": "user", "content": "Who are you?"}]
        answer = client.chat.completions.create(model="demo", messages=messages)  # type: ignore[call-overload]
        assert answer.choices[0].message.content == WHO
        pieces = list(client.chat.completions.create(model="demo", messages=messages, stream=True))  # type: ignore[call-overload]
        texts = [piece.choices[0].delta.content or "" for piece in pieces if piece.choices]
        assert "".join(texts) == WHO
        assert len([text for text in texts if text]) > 5
        with pytest.raises(NotFoundError, match=r"The model 'gpt-4' does not exist\. Models here: qwen-14b, "):
            client.completions.create(model="gpt-4", prompt="Hi")


def test_verify_finds_the_model_right_but_for_words_that_it_never_learned(demo: Stack) -> None:
    done = demo.tandem("verify", "demo", "--plumbing", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    shown = json.loads(done.stdout)
    assert {row["name"]: row["state"] for row in shown["checks"]} == {
        **dict.fromkeys(["listed", "completions", "8 at once", "chat", "max_tokens", "stop", "streaming"], "ok"),
        **dict.fromkeys(["long prompt", "too long"], "ok"),
        **dict.fromkeys(["not empty", "no loop", "clean text", "language", "own answers", "sleep"], "skipped"),
    }
    assert json.loads((demo.folder / ".tandem/verify/demo.json").read_text(encoding="utf-8")) == shown
    assert state(demo, "demo") == "ready"


@pytest.mark.parametrize("path", ["/sleep", "/metrics", "/docs", "/openapi.json", "/v1/../sleep", "/server_info", "/"])
def test_what_is_not_a_clients_business_is_not_there(demo: Stack, path: str) -> None:
    status, answer = demo.ask(path)
    assert (status, answer["error"]["code"]) == (404, "not_found")


@pytest.mark.parametrize(
    ("request_head", "status", "code"),
    [
        (b"X\r\n\r\n", 400, "bad_request"),
        (b"GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad_request"),
        (b"GET /health HTTP/1.1\r\n\r\n", 400, "bad_request"),
        (b"GET /" + b"a" * 40000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414, "uri_too_long"),
        (b"GET / HTTP/9.9\r\nHost: a\r\n\r\n", 400, "http_version_not_supported"),
        (b"DELETE /v1/models/demo HTTP/1.1\r\nHost: a\r\n\r\n", 405, "method_not_allowed"),
        (b"GET /v1/completions HTTP/1.1\r\nHost: a\r\n\r\n", 405, "method_not_allowed"),
        (b"GET /-/error HTTP/1.1\r\nHost: a\r\n\r\n", 404, "not_found"),
        (b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n", 413, "request_too_large"),
        (b"POST /v1/messages HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n", 413, "request_too_large"),
    ],
)
def test_whatever_arrives_is_answered_in_openais_shape(
    demo: Stack, request_head: bytes, status: int, code: str
) -> None:
    with socket.create_connection(("127.0.0.1", int(demo.environment["TANDEM_PORT"])), timeout=PATIENCE) as connection:
        connection.sendall(request_head)
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        assert answer.status == status
        said = json.loads(answer.read())
        assert said["error"]["code"] == code
        # Anthropic's clients look for it, on their paths.
        assert said.get("type") == ("error" if b" /v1/messages" in request_head else None)


def test_a_bad_request_is_answered_in_openais_shape(demo: Stack) -> None:
    status, answer = demo.ask("/v1/completions", b"{")
    assert (status, answer["error"]["code"]) == (400, "invalid_json")
    # As vLLM does, for its own.
    status, answer = demo.ask("/v1/completions", {"prompt": "Who are you?"})
    assert (status, answer["model"]) == (200, "demo")
    status, answer = demo.ask("/v1/completions", {"model": "constructor", "prompt": "Hi"})
    assert (status, answer["error"]["code"]) == (404, "model_not_found")


def test_a_model_that_was_stopped_comes_back_by_a_request_and_by_another_name(demo: Stack) -> None:
    router = demo.inspect("router")["State"]["StartedAt"]
    assert demo.compose("stop", "demo").returncode == 0
    # A second or so it counts as stopping: a daemon that is itself being stopped stops everything first.
    eventually(lambda: state(demo, "demo") == "stopped", what="a demo that counts as stopped")
    assert demo.complete("demo", ASKED) == ANSWERED
    text = (demo.folder / "models.toml").read_text()
    demo.write("models.toml", text.replace("[models.demo]\n", '[models.demo]\naliases = ["small"]\n'))
    done = demo.tandem("up", "small")
    assert done.returncode == 0, done.stderr
    changed = "compose.models.yaml, docker/router/routes/routes.json, docker/activator/models/models.json"
    assert done.stderr.startswith(f"rendered {changed}: models.toml says otherwise\n")
    assert demo.complete("small", ASKED) == ANSWERED
    assert demo.complete("demo", ASKED) == ANSWERED
    assert demo.inspect("router")["State"]["StartedAt"] == router


def test_logs_show_the_servers_own_lines(demo: Stack) -> None:
    shown = demo.tandem("logs", "demo", "--tail", "all")
    assert shown.returncode == 0
    assert "tandem: starting vllm serve /local/demo" in shown.stdout + shown.stderr


def test_a_server_that_vllm_refuses_to_start_ends_up_with_its_own_words(demo: Stack) -> None:
    done = demo.tandem("up", "demo", DEMO_MAX_MODEL_LEN="999999")
    assert done.returncode == 1
    assert done.stdout == ""
    fault = done.stderr[done.stderr.index("error: ") :]
    assert fault.startswith("error: demo is not ready: ")
    assert "999999" in fault
    assert "lower max_model_len" in fault
    assert fault.endswith("\n  The rest: python -m orchestrator logs demo\n")
    assert not demo.inspect("demo")["State"]["Running"]


def test_down_takes_everything_but_the_volumes(demo: Stack) -> None:
    done = demo.tandem("down")
    assert (done.returncode, done.stdout) == (0, "nothing is running\n")
    listed = demo.compose("--profile", "*", "ps", "-aq")
    assert (listed.returncode, listed.stdout) == (0, ""), listed.stderr
    volumes = demo.run(["docker", "volume", "ls", "-q", "-f", "label=com.docker.compose.project=tandem-test"])
    kept = {name.removeprefix("tandem-test_") for name in volumes.stdout.split()}
    # The profiles for GPUs have a container, and so a cache, where an earlier test built their image.
    assert kept - {"cache-0.32.0-cu130"} == {"cache-0.32.0-cpu", "engine", "gpus", "log", "models", "run", "state"}


def test_a_profile_named_in_the_env_file_of_the_machine_is_what_compose_starts(demo: Stack) -> None:
    demo.write(".env", "COMPOSE_PROFILES=demo\n")
    started = demo.run(shlex.split("docker compose up -d"))
    assert started.returncode == 0, started.stderr
    assert demo.inspect("demo")["State"]["Running"]
    assert demo.inspect("demo")["Config"]["Cmd"][:3] == ["vllm", "serve", "/local/demo"]
