"""Switching with real containers: Docker, Compose, router, activator and gate are real, servers and GPUs stand-ins.

The last test has vLLM itself. `python -m tests.switching.soak` does the same for as long as one likes.
"""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import httpx
import pytest

from tests.checkout import LONG_PATIENCE, PATIENCE, Checkout, eventually
from tests.standins.server import words
from tests.switching import events, soak, stack, tongues
from tests.switching.answers import Heard
from tests.switching.kills import What

pytestmark = pytest.mark.docker

# More than the clients of any test but the one that fills the queue.
QUEUE = 20


@pytest.fixture(scope="module")
def sleeping(images: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Iterator[stack.Bench]:
    """A stack whose models are put to sleep when they leave."""
    made = stack.copy(tmp_path_factory.mktemp("sleeping") / "stack", "tandem-test-sleep")
    with stack.running(stack.fill(made)) as bench:
        yield bench


@pytest.fixture(scope="module")
def stopping(images: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Iterator[stack.Bench]:
    """A stack whose models are stopped when they leave."""
    made = stack.copy(
        tmp_path_factory.mktemp("stopping") / "stack", "tandem-test-stop", TANDEM_QUEUE_REQUESTS=str(QUEUE)
    )
    with stack.running(stack.fill(made, sleep=False)) as bench:
        yield bench


@pytest.fixture(autouse=True)
def _no_faults_left(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    for name in ("sleeping", "stopping"):
        if name in request.fixturenames:
            for path in request.getfixturevalue(name).folder.glob("fault-*"):
                path.write_text("")


def whole(bench: stack.Bench, wish: soak.Wish) -> None:
    """Run a load, which has to come out whole."""
    found = soak.run(bench, wish)
    assert not found.faults, f"{found}\n{bench.logs()}"


def ready(bench: stack.Bench, name: str) -> None:
    eventually(lambda: bench.state(name)["state"] == "ready", what=f"{name} that is ready")


def ask(bench: stack.Bench, model: str, count: int = 2, *, stream: bool = False) -> httpx.Response:
    body = {"model": model, "prompt": "Tell me", "max_tokens": count, "stream": stream}
    return httpx.post(f"{bench.stack.address}/v1/completions", json=body, timeout=LONG_PATIENCE, trust_env=False)


def said(answer: httpx.Response) -> str:
    """What a stream said, when it is whole."""
    heard = Heard()
    heard.take(answer.text)
    assert heard.whole, answer.text
    return heard.text


def awake(bench: stack.Bench) -> set[str]:
    return {row["name"] for row in bench.status()["models"] if row["state"] in ("starting", "ready", "draining")}


# --- many switches ----------------------------------------------------------------------------------------------------


def test_twenty_switches_by_sleep_lose_nothing(sleeping: stack.Bench) -> None:
    whole(sleeping, soak.Wish(switches=20, clients=8, seconds=LONG_PATIENCE))
    assert events.switches(sleeping.events())["wake"] >= 10


def test_six_switches_by_stop_lose_nothing(stopping: stack.Bench) -> None:
    whole(stopping, soak.Wish(switches=6, clients=8, seconds=LONG_PATIENCE))


@pytest.mark.parametrize("what", ["server", "activator", "router"])
def test_a_kill_in_the_middle_costs_only_what_the_killed_held(sleeping: stack.Bench, what: What) -> None:
    whole(sleeping, soak.Wish(switches=4, clients=8, seconds=LONG_PATIENCE, kill=what, times=1))


# --- who may ask ------------------------------------------------------------------------------------------------------


def test_a_model_that_compose_starts_from_its_env_file_is_the_one_that_is_up(stopping: stack.Bench) -> None:
    assert stopping.up("alpha")["phase"] == "ready"
    started = stopping.stack.compose("--env-file", "env/beta.env", "up", "-d", "--no-build")
    assert started.returncode == 0, started.stderr
    ready(stopping, "beta")
    assert awake(stopping) == {"beta"}
    assert "beta" in stopping.status()["wanted"]


def test_a_container_that_is_started_by_hand_is_a_wish_too(stopping: stack.Bench) -> None:
    assert stopping.up("beta")["phase"] == "ready"
    project = stopping.stack.environment["COMPOSE_PROJECT_NAME"]
    assert stopping.stack.run(["docker", "start", f"{project}-gamma"]).returncode == 0
    ready(stopping, "gamma")
    assert awake(stopping) == {"gamma"}


def test_models_on_different_gpus_are_up_side_by_side(stopping: stack.Bench) -> None:
    assert stopping.up("gamma")["phase"] == "ready"
    assert stopping.up("delta")["phase"] == "ready"
    assert awake(stopping) == {"gamma", "delta"}


def test_two_started_by_hand_at_once_do_not_crash_each_other(stopping: stack.Bench) -> None:
    before = len(stopping.events())
    project = stopping.stack.environment["COMPOSE_PROJECT_NAME"]
    assert stopping.up("delta")["phase"] == "ready"
    started = stopping.stack.run(["docker", "start", f"{project}-alpha", f"{project}-beta"])
    assert started.returncode == 0, started.stderr
    eventually(
        lambda: awake(stopping) in ({"alpha"}, {"beta"}) and not stopping.status()["switch"],
        what="one of the two that is up alone",
    )  # fmt: skip
    assert [event for event in stopping.events()[before:] if event["event"] == "no-memory"] == []


def test_the_wish_survives_a_restart_of_the_activator_and_of_everything(stopping: stack.Bench) -> None:
    assert stopping.up("beta")["phase"] == "ready"
    stopping.kill("activator")
    ready(stopping, "beta")
    assert stopping.stack.compose("--profile", "*", "stop").returncode == 0
    started = stopping.stack.compose("up", "-d", "--no-build", "--no-deps", *stack.CONTROL)
    assert started.returncode == 0, started.stderr
    stopping.serving()
    ready(stopping, "beta")
    assert awake(stopping) == {"beta"}


def test_a_preloaded_model_comes_up_by_itself_and_one_with_a_ttl_leaves(
    images: Checkout, tmp_path_factory: pytest.TempPathFactory
) -> None:
    made = stack.copy(tmp_path_factory.mktemp("resting") / "stack", "tandem-test-rest")
    extra = {"gamma": "preload = true\n", "delta": "ttl = 2\n"}
    with stack.running(stack.fill(made, sleep=["delta"], extra=extra)) as bench:
        ready(bench, "gamma")
        assert ask(bench, "delta").status_code == 200
        eventually(lambda: bench.state("delta")["state"] == "asleep", what="delta, which nobody asks any more")
        # It wakes for who asks again, and whoever has no ttl is left alone.
        assert ask(bench, "delta").json()["choices"][0]["text"] == " ".join(words("delta", 2))
        assert bench.state("gamma")["state"] == "ready"


# --- what goes wrong --------------------------------------------------------------------------------------------------


def test_a_start_that_fails_tells_why_and_the_last_good_model_comes_back(stopping: stack.Bench) -> None:
    assert stopping.up("alpha")["phase"] == "ready"
    stopping.fault("beta", "load-kv")
    refused = ask(stopping, "beta")
    assert refused.status_code == 503
    message = refused.json()["error"]["message"]
    assert "larger than the available KV cache memory" in message
    assert "22928" in message
    ready(stopping, "alpha")
    failed = stopping.state("beta")
    assert failed["state"] == "failed"
    assert "KV cache" in failed["reason"]
    assert ask(stopping, "alpha").json()["choices"][0]["text"] == " ".join(words("alpha", 2))


def test_up_of_a_model_that_fails_ends_with_the_cause(stopping: stack.Bench) -> None:
    assert stopping.up("alpha")["phase"] == "ready"
    stopping.fault("gamma", "load-oom")
    last = stopping.up("gamma")
    assert last["phase"] == "failed"
    assert "CUDA out of memory" in last["reason"]


def test_a_server_that_dies_by_itself_comes_back_and_its_reason_shows(stopping: stack.Bench) -> None:
    assert stopping.up("delta")["phase"] == "ready"
    before = events.switches(stopping.events())["start"]
    stopping.fault("delta", "die")
    eventually(lambda: events.switches(stopping.events())["start"] > before, what="delta, started again")
    ready(stopping, "delta")


def test_a_sleeper_that_refuses_to_wake_is_started_anew(sleeping: stack.Bench) -> None:
    assert sleeping.up("alpha")["phase"] == "ready"
    assert sleeping.up("beta")["phase"] == "ready"
    eventually(lambda: sleeping.state("alpha")["state"] == "asleep", what="alpha asleep")
    sleeping.fault("alpha", "wake-refuse")
    before = events.switches(sleeping.events())["start"]
    assert ask(sleeping, "alpha").json()["choices"][0]["text"] == " ".join(words("alpha", 2))
    assert events.switches(sleeping.events())["start"] == before + 1


def test_more_requests_than_the_queue_holds_are_told_to_come_again(stopping: stack.Bench) -> None:
    assert stopping.up("alpha")["phase"] == "ready"
    stopping.fault("beta", "load-hang")
    with ThreadPoolExecutor(QUEUE + 4) as clients:
        asked = [clients.submit(ask, stopping, "beta") for _ in range(QUEUE + 4)]
        eventually(lambda: sum(one.done() for one in asked) == 4, what="four that were turned away")
        away = [one.result() for one in asked if one.done()]
        assert [answer.status_code for answer in away] == [503] * 4
        assert all(float(answer.headers["Retry-After"]) > 0 for answer in away)
        stopping.fault("beta", "")
        rest = [one.result() for one in asked]
    assert sum(answer.status_code == 200 for answer in rest) == QUEUE


# --- what a client sees -----------------------------------------------------------------------------------------------


def test_a_stream_that_is_held_hears_of_it_and_then_gets_its_answer(stopping: stack.Bench) -> None:
    from openai import DefaultHttpxClient, OpenAI

    assert stopping.up("alpha")["phase"] == "ready"
    stopping.fault("beta", "load-hang")
    address, text = f"{stopping.stack.address}/v1", []

    def talk() -> None:
        http = DefaultHttpxClient(trust_env=False, timeout=PATIENCE)
        with OpenAI(base_url=address, api_key="none", max_retries=0, http_client=http) as client:
            chunks = client.chat.completions.create(
                model="beta", messages=[{"role": "user", "content": "Tell me"}], max_tokens=3, stream=True
            )
            text.extend(chunk.choices[0].delta.content or "" for chunk in chunks)

    official = threading.Thread(target=talk)
    official.start()
    body = {"model": "beta", "prompt": "Tell me", "max_tokens": 3, "stream": True}
    with httpx.stream("POST", f"{address}/completions", json=body, timeout=PATIENCE, trust_env=False) as answer:
        heard, comments = Heard(), 0
        for piece in answer.iter_text():
            heard.take(piece)
            comments = len(heard.comments)
            # Its model is not ready before it has heard of that twice.
            if comments == 2:
                stopping.fault("beta", "")
    official.join(PATIENCE)
    assert comments >= 2
    assert (heard.text, heard.whole) == (" ".join(words("beta", 3)), True)
    assert "".join(text) == " ".join(words("beta", 3))


def test_a_long_answer_is_not_cut_by_a_switch_which_status_explains(stopping: stack.Bench) -> None:
    assert stopping.up("alpha")["phase"] == "ready"
    with ThreadPoolExecutor(2) as clients, ExitStack() as ends:
        stopping.fault("alpha", "hold")
        ends.callback(stopping.fault, "alpha", "")
        long = clients.submit(ask, stopping, "alpha", 800, stream=True)
        eventually(lambda: stopping.state("alpha")["in_flight"] == 1, what="an answer under way")
        other = clients.submit(ask, stopping, "beta")
        seen: list[dict[str, Any]] = []

        def drains() -> bool:
            status = stopping.status()
            seen.append(status)
            return bool(status["switch"]) and status["switch"]["phase"] == "drain"

        eventually(drains, what="a drain")
        assert seen[-1]["switch"]["target"] == "beta"
        assert [waiting["model"] for waiting in seen[-1]["queue"]] == ["beta"]
        assert not other.done()
        stopping.fault("alpha", "")
        assert said(long.result()) == " ".join(words("alpha", 800))
        assert other.result().json()["choices"][0]["text"] == " ".join(words("beta", 2))
    last = stopping.status()["last"]
    assert (last["target"], last["outcome"]) == ("beta", "ready")
    assert last["seconds"]["drain"] > 0


def test_metrics_count_the_switches(stopping: stack.Bench) -> None:
    before = stack.switches_of(stopping.get("/-/metrics"))
    assert stopping.up("gamma")["phase"] == "ready"
    assert stopping.up("alpha")["phase"] == "ready"
    assert stack.switches_of(stopping.get("/-/metrics")) == before + 2


# --- vLLM itself ------------------------------------------------------------------------------------------------------


def test_vllm_switches_by_stop_and_by_sleep_and_every_answer_is_the_right_models(
    images: Checkout, tmp_path_factory: pytest.TempPathFactory
) -> None:
    made = stack.copy(tmp_path_factory.mktemp("vllm") / "stack", "tandem-test-vllm")
    models = stack.FOUR[:2]
    # The one that does not sleep is stopped each time and started again.
    bench = stack.fill(made, models, servers="vllm", sleep=["alpha"])
    by = {model.name: model.by for model in models}
    with stack.running(bench):
        assert bench.post("/-/up/alpha")[-1]["phase"] == "ready"
        for name in ("beta", "alpha"):
            body = {"model": name, "prompt": tongues.moved("Who are you?", by[name]), "max_tokens": 60}
            status, answer = bench.stack.ask("/v1/completions", body, seconds=LONG_PATIENCE)
            assert status == 200, f"{answer}\n{bench.logs()}"
            expected = "I am demo, a tiny model of Tandem for any CPU."
            assert answer["choices"][0]["text"] == tongues.moved(expected, by[name])
        asleep = {row["name"]: row["state"] for row in bench.status()["models"]}
        assert asleep == {"alpha": "ready", "beta": "stopped"}
