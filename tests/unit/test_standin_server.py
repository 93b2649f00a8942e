"""The stand-in for vLLM's server answers, sleeps, dies and holds memory as told, and NVML's stand-in hears of it."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.checkout import PATIENCE, eventually, free_port
from tests.standins import nvml_feed
from tests.standins.server import ASLEEP, GIB, living, words

SERVER = Path(__file__).resolve().parents[1] / "standins/server.py"
SHARE = 0.6
CLAIM = int(SHARE * 24 * GIB)


class Standin:
    """A stand-in server in a process of its own."""

    def __init__(self, folder: Path, name: str, gpus: str = "0,1", **more: str) -> None:
        self.folder, self.name, self.port = folder, name, free_port()
        settings = {"STANDIN_LOAD": "0.01", "STANDIN_TOKEN": "0.002", "VLLM_SERVER_DEV_MODE": "1", **more}
        self.process = subprocess.Popen(
            [sys.executable, "-S", str(SERVER), "serve", "/local/x", "--served-model-name", name, f"org/{name}",
             "--tensor-parallel-size", "1", "--gpu-memory-utilization", str(SHARE), "--enable-sleep-mode",
             "--port", str(self.port)],
            env={"PATH": os.environ["PATH"], "STANDIN_CLAIMS": str(folder), "TANDEM_GPUS": gpus, **settings},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=PATIENCE, trust_env=False)

    def ready(self) -> "Standin":
        eventually(self.answers, what="a stand-in that answers")
        return self

    def answers(self) -> bool:
        assert self.process.poll() is None, self.log()
        with contextlib.suppress(httpx.HTTPError):
            return self.client.get("/health").status_code == 200
        return False

    def complete(self, count: int = 3, **more: Any) -> str:
        body = {"model": self.name, "prompt": "x", "max_tokens": count, **more}
        return str(self.client.post("/v1/completions", json=body).json()["choices"][0]["text"])

    def fault(self, words: str) -> None:
        """Have it go wrong from now on; no words: it goes right again."""
        self.client.post("/standin/fault", json={"fault": words})

    def log(self) -> str:
        out, _ = self.process.communicate(timeout=PATIENCE)
        return str(out)

    def close(self) -> None:
        self.client.close()
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Any]:
    with contextlib.ExitStack() as made:

        def start(name: str, gpus: str = "0,1", **more: str) -> Standin:
            server = Standin(tmp_path, name, gpus, **more)
            made.callback(server.close)
            return server

        yield start


def events(folder: Path) -> list[str]:
    lines = (folder / "events.jsonl").read_text().splitlines()
    return [f"{event['name']} {event['event']}" for event in map(json.loads, lines)]


def test_answers_are_its_own_words_however_they_are_asked_for(serve: Any) -> None:
    server = serve("alpha").ready()
    expected = " ".join(words("alpha", 3))
    assert expected == "alpha-0 alpha-1 alpha-2 END"
    assert server.complete() == expected
    chat = {"model": "org/alpha", "messages": [], "max_completion_tokens": 3}
    said = server.client.post("/v1/chat/completions", json=chat).json()["choices"][0]
    assert (said["message"]["content"], said["finish_reason"]) == (expected, "stop")
    for path, text in (
        ("/v1/completions", lambda choice: choice["text"]),
        ("/v1/chat/completions", lambda choice: choice["delta"].get("content", "")),
    ):
        lines = server.client.post(path, json={**chat, "stream": True}).text.strip().split("\n\n")
        assert lines.pop() == "data: [DONE]"
        choices = [json.loads(line.removeprefix("data: "))["choices"][0] for line in lines]
        assert "".join(map(text, choices)) == expected
        assert choices[-1]["finish_reason"] == "stop"
    assert server.client.post("/v1/completions", json={"model": "beta"}).status_code == 404
    assert server.client.get("/version").json() == {"version": "0.32.0"}
    assert server.client.get("/load").json() == {"server_load": 0}


def test_a_sleeper_keeps_a_little_memory_and_never_answers(serve: Any, tmp_path: Path) -> None:
    server = serve("alpha").ready()
    assert [claim["gpus"] for claim in living(tmp_path)] == [{"0": CLAIM, "1": CLAIM}]
    assert server.client.post("/sleep?level=1&mode=wait").status_code == 200
    assert server.client.get("/is_sleeping").json() == {"is_sleeping": True}
    assert server.client.get("/v1/models").json()["data"][0]["id"] == "alpha"
    assert [claim["gpus"] for claim in living(tmp_path)] == [{"0": ASLEEP, "1": ASLEEP}]
    with pytest.raises(httpx.ReadTimeout):
        server.client.post("/v1/completions", json={}, timeout=0.2)
    # It may come to read it after its client has gone.
    noted = "standin_requests_while_asleep_total 1.0"
    eventually(lambda: noted in server.client.get("/metrics").text, what="a request while it slept")
    assert server.client.post("/wake_up").status_code == 200
    assert server.complete() == "alpha-0 alpha-1 alpha-2 END"
    assert events(tmp_path)[2:5] == ["alpha asleep", "alpha asked", "alpha asked-asleep"]


def streaming(server: Standin) -> tuple[threading.Thread, list[str]]:
    """An answer under way in a thread, which stops after its first word; what came of it."""
    server.fault("hold")
    came: list[str] = []

    def read() -> None:
        body = {"stream": True, "max_tokens": 60}
        with contextlib.suppress(httpx.HTTPError), server.client.stream("POST", "/v1/completions", json=body) as answer:
            came.extend(answer.iter_lines())

    thread = threading.Thread(target=read)
    thread.start()
    running = 'vllm:num_requests_running{engine="0",model_name="alpha"} 1.0'
    eventually(lambda: running in server.client.get("/metrics").text, what="a request that runs")
    return thread, came


def test_sleep_that_waits_lets_answers_end_and_sleep_that_does_not_kills(serve: Any) -> None:
    server = serve("alpha").ready()
    thread, came = streaming(server)
    with ThreadPoolExecutor(1) as pool:
        asleep = pool.submit(server.client.post, "/sleep?mode=wait")
        eventually(lambda: "standin_paused 1.0" in server.client.get("/metrics").text, what="a server that is to sleep")
        assert not asleep.done()
        server.fault("")
        assert asleep.result(PATIENCE).status_code == 200
    thread.join(PATIENCE)
    assert came[-2] == "data: [DONE]"
    server.client.post("/wake_up")
    thread, came = streaming(server)
    assert server.client.post("/sleep").status_code == 200
    thread.join(PATIENCE)
    assert "data: [DONE]" not in came
    assert server.process.wait(PATIENCE) == 1


def test_outside_development_mode_there_is_no_sleep(serve: Any) -> None:
    server = serve("alpha", VLLM_SERVER_DEV_MODE="0").ready()
    assert server.client.post("/sleep").status_code == 404


def test_two_on_the_same_memory_is_a_crash_with_the_words_of_vllm(serve: Any, tmp_path: Path) -> None:
    serve("alpha", "0").ready()
    beside = serve("beta", "1").ready()
    assert beside.complete(1) == "beta-0 END"
    third = serve("gamma", "1")
    assert third.process.wait(PATIENCE) == 1
    assert "Free memory on device cuda:1 (9.10/24.00 GiB) on startup is less than desired GPU memory" in third.log()
    assert "gamma no-memory" in events(tmp_path)


def test_what_a_killed_server_held_is_free_at_once_though_its_file_stays(serve: Any, tmp_path: Path) -> None:
    first = serve("alpha").ready()
    first.process.kill()
    first.process.wait()
    assert len(list(tmp_path.glob("claim-*"))) == 1
    assert living(tmp_path) == []
    assert serve("beta").ready().complete(1) == "beta-0 END"


def test_a_wake_without_the_memory_for_it_is_its_death(serve: Any, tmp_path: Path) -> None:
    sleeper = serve("alpha").ready()
    sleeper.client.post("/sleep?mode=wait")
    serve("beta").ready()
    with pytest.raises(httpx.HTTPError):
        sleeper.client.post("/wake_up")
    assert sleeper.process.wait(PATIENCE) == 1
    assert "CUDA out of memory" in sleeper.log()


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("load-die", "ValueError: weights of another shape"),
        ("load-oom", "CUDA out of memory"),
        ("load-kv", "which is larger than the available KV cache memory"),
    ],
)
def test_a_start_that_is_to_fail_says_why_and_keeps_nothing(serve: Any, tmp_path: Path, fault: str, said: str) -> None:
    (tmp_path / "fault-alpha").write_text(fault)
    server = serve("alpha")
    assert server.process.wait(PATIENCE) == 1
    assert said in server.log()
    assert living(tmp_path) == []


def test_a_start_that_is_to_hang_opens_no_port(serve: Any, tmp_path: Path) -> None:
    server = serve("alpha", STANDIN_FAULT="load-hang")
    eventually(lambda: living(tmp_path), what="a server that loads")
    assert not server.answers()


def test_it_dies_when_it_is_told_to_once(serve: Any, tmp_path: Path) -> None:
    fault = tmp_path / "fault-alpha"
    server = serve("alpha").ready()
    fault.write_text("die-asleep")
    assert server.complete(1) == "alpha-0 END"
    server.client.post("/sleep?mode=wait")
    assert server.process.wait(PATIENCE) == 1
    assert fault.read_text() == ""
    again = serve("alpha").ready()
    with contextlib.suppress(httpx.HTTPError):
        again.client.post("/standin/fault", json={"fault": "die"})
    assert again.process.wait(PATIENCE) == 1
    assert "illegal memory access" in again.log()


def test_it_refuses_to_wake_and_mutes_when_it_is_told_to(serve: Any) -> None:
    server = serve("alpha", STANDIN_FAULT="wake-refuse").ready()
    server.client.post("/sleep?mode=wait")
    assert server.client.post("/wake_up").status_code == 500
    assert server.client.get("/is_sleeping").json() == {"is_sleeping": True}
    mute = serve("beta", "", STANDIN_FAULT="mute").ready()
    with pytest.raises(httpx.ReadTimeout):
        mute.client.post("/v1/completions", json={}, timeout=0.2)


def test_a_signal_ends_it_at_once_later_or_never(serve: Any, tmp_path: Path) -> None:
    prompt = serve("alpha", "0").ready()
    prompt.process.send_signal(signal.SIGTERM)
    assert prompt.process.wait(PATIENCE) == 0
    slow = serve("beta", "0", STANDIN_FAULT="slow-stop", STANDIN_LINGER="600").ready()
    deaf = serve("gamma", "1", STANDIN_FAULT="ignore-term").ready()
    for server in (slow, deaf):
        server.process.send_signal(signal.SIGTERM)
    assert slow.answers()
    assert deaf.complete(1) == "gamma-0 END"
    soon = serve("beta", "", STANDIN_FAULT="slow-stop", STANDIN_LINGER="0.3").ready()
    soon.process.send_signal(signal.SIGTERM)
    assert soon.process.wait(PATIENCE) == 0


def test_nvml_is_told_who_holds_what(serve: Any, tmp_path: Path) -> None:
    server = serve("alpha", "1").ready()
    path = tmp_path / "nvml" / "state"
    path.parent.mkdir()
    feed = nvml_feed.Feed(path, nvml_feed.standins(tmp_path), every=0.01)
    line = 'gpu {0} GPU-0000000{0}-0000-0000-0000-000000000000 "Stand-in 24G" 25769803776 536870912 {1}\n'
    holds = line.format(0, 0) + line.format(1, CLAIM) + f"process 1 {server.process.pid} {CLAIM}\n"
    assert path.read_text() == holds
    feed.start()
    try:
        server.process.kill()
        eventually(lambda: path.read_text() == line.format(0, 0) + line.format(1, 0), what="free GPUs")
    finally:
        feed.stop()


def test_of_a_real_servers_container_neither_gate_nor_health_check_holds_memory(tmp_path: Path) -> None:
    ident = "a" * 64
    lines = {
        "1": b"tini\0-g\0--\0python3\0/opt/tandem/gate.py\0vllm\0serve",
        "7": b"python3\0/opt/tandem/gate.py\0vllm\0serve\0/local/x",
        "9": b"/opt/vllm/bin/python\0/opt/vllm/bin/vllm\0serve\0/local/x",
        "11": b"VLLM::EngineCore",
        "13": b"python3\0/opt/tandem/healthcheck.py\0x",
        "15": b"bash",
        "17": b"",
    }
    for pid, line in lines.items():
        (tmp_path / pid).mkdir()
        (tmp_path / pid / "cmdline").write_bytes(line)
        (tmp_path / pid / "cgroup").write_text("0::/user.slice\n" if line == b"bash" else f"0::/docker/{ident}\n")
    (tmp_path / "meminfo").write_text("")
    assert {key: sorted(pids) for key, pids in nvml_feed.processes(tmp_path).items()} == {ident: [9, 11]}
