"""GPU profiles on a real Docker Engine with no GPU: the reservations, the switches and the start are real, vLLM is not.

See engine.py and standins/. The tests go in their order through the life of one stack.
"""

import json
import os
import re
import signal
from typing import TYPE_CHECKING, Any

import pytest

from tests.checkout import LONG_PATIENCE, PATIENCE, ROOT, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from subprocess import CompletedProcess, Popen

    from tests.integration.engine import Inside, Machine

pytestmark = pytest.mark.docker
pytest_plugins = ("tests.integration.engine",)

ADDRESS = "http://localhost:8000"
# A server that takes its time to end, so that one that did not wait for it would be seen.
LINGERING = """
[models.qwen-14b.env]
STANDIN_LINGERS = "3"
"""
MODELS = """
[models.third-gpu]
model = "Qwen/Qwen2.5-14B-Instruct"
gpus = [2]
tensor_parallel_size = 1

[models.loads-long]
model = "Qwen/Qwen2.5-14B-Instruct"
gpus = [3]
tensor_parallel_size = 1
env = { STANDIN_HANGS = "1" }

[models.pulls-long]
model = "example/not-pulled-yet"
gpus = [3]
tensor_parallel_size = 1
"""
# What stands in front of the servers, and beside those with GPUs.
AROUND = {"router", "activator", "engine-proxy", "gpus"}
# What one process of a container was started with and as.
PROCESS = """
import json, pathlib, sys
for folder in pathlib.Path("/proc").glob("[0-9]*"):
    argv = (folder / "cmdline").read_text().split("\\0")[:-1]
    if sys.argv[1] in [pathlib.Path(word).name for word in argv[:2]]:
        status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
        environment = dict(pair.split("=", 1) for pair in (folder / "environ").read_text().split("\\0") if pair)
        print(json.dumps({"argv": argv, "environment": environment, "status": status}))
"""


@pytest.fixture(scope="module")
def tandem(gpu_machine: "Machine", tmp_path_factory: pytest.TempPathFactory) -> "Inside":
    """A checkout on a machine with four GPUs, as far as Docker can tell, and the weights in its volume."""
    checkout = gpu_machine.checkout(tmp_path_factory.mktemp("gpu-profiles"))
    checkout.extend_models(MODELS)
    gpu_machine.fill("tandem", ["Qwen/Qwen2.5-14B-Instruct", "Qwen/Qwen2.5-32B-Instruct-AWQ"])
    return checkout


@pytest.fixture(scope="module")
def started(tandem: "Inside") -> "CompletedProcess[str]":
    """What the first `up qwen-14b` said."""
    return tandem.tandem("up", "qwen-14b")


@pytest.fixture(scope="module")
def first(started: "CompletedProcess[str]", gpu_machine: "Machine") -> dict[str, Any]:
    """What the first `up qwen-14b` made."""
    assert started.returncode == 0, started.stderr
    return server(gpu_machine, "qwen-14b")


def process(machine: "Machine", container: str, program: str) -> dict[str, Any]:
    """Look at a container's process by the name of its program."""
    return dict(json.loads(machine.docker("exec", container, "python3", "-c", PROCESS, program)))


def server(machine: "Machine", profile: str) -> dict[str, Any]:
    """What a profile's container is made of, and when it ran."""
    return machine.inspect(f"tandem-{profile}")


def healthy(machine: "Machine", profile: str) -> bool:
    return bool(server(machine, profile)["State"]["Health"]["Status"] == "healthy")


def run(tandem: "Inside", *arguments: str) -> "CompletedProcess[str]":
    """Run one of the orchestrator's commands, which has to succeed."""
    done = tandem.tandem(*arguments)
    assert done.returncode == 0, done.stderr
    return done


def complete(machine: "Machine", model: str) -> tuple[int, dict[str, Any]]:
    return machine.ask(f"{ADDRESS}/v1/completions", {"model": model, "prompt": "你是谁?"})


def lines(text: str, *, begin: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(begin)]


def test_the_stand_in_starts_as_the_real_image_does() -> None:
    wanted = (ROOT / "docker/vllm/Dockerfile").read_text()
    standin = (ROOT / "tests/integration/standins/Dockerfile").read_text()
    last = wanted[wanted.index("FROM ${VARIANT}") :]
    for begin in ("USER", "ENTRYPOINT", "COPY --chmod"):
        assert lines(standin, begin=begin) == lines(last, begin=begin)
    assert set(lines(standin, begin="WORKDIR")) == set(lines(wanted, begin="WORKDIR"))


def test_up_ends_when_the_model_is_ready_and_prints_the_address_the_model_and_a_line_to_try(
    started: "CompletedProcess[str]",
) -> None:
    assert started.returncode == 0, started.stderr
    shown = dict(re.findall(r"^  (\w+) +(.+)$", started.stdout, re.MULTILINE))
    assert started.stdout.startswith("qwen-14b is ready\n")
    assert shown["address"] == f"{ADDRESS}/v1"
    assert shown["model"] == "qwen-14b"
    assert shown["try"].startswith(f"curl {ADDRESS}/v1/completions ")


@pytest.mark.usefixtures("first")
class TestServing:
    """With qwen-14b up."""

    def test_the_engine_reserved_the_profiles_gpus_for_its_container(self, gpu_machine: "Machine") -> None:
        (request,) = server(gpu_machine, "qwen-14b")["HostConfig"]["DeviceRequests"]
        assert request["Driver"] == "nvidia"
        assert request["DeviceIDs"] == ["0", "1"]
        assert request["Capabilities"] == [["gpu"]]

    def test_the_servers_process_is_told_its_gpus(self, gpu_machine: "Machine") -> None:
        assert process(gpu_machine, "tandem-qwen-14b", "vllm")["environment"]["NVIDIA_VISIBLE_DEVICES"] == "0,1"

    @pytest.mark.parametrize("name", ["qwen-14b", "Qwen/Qwen2.5-14B-Instruct"])
    def test_the_router_passes_a_request_on_by_served_model_name_and_by_alias(
        self, gpu_machine: "Machine", name: str
    ) -> None:
        status, answer = complete(gpu_machine, name)
        assert (status, answer["choices"][0]["text"]) == (200, "This is qwen-14b.")

    def test_chat_reaches_the_server_too(self, gpu_machine: "Machine") -> None:
        body = {"model": "qwen-14b", "messages": [{"role": "user", "content": "你是谁?"}]}
        status, answer = gpu_machine.ask(f"{ADDRESS}/v1/chat/completions", body)
        assert (status, answer["choices"][0]["message"]["content"]) == (200, "This is qwen-14b.")

    def test_the_server_runs_as_a_user_with_no_capabilities(self, gpu_machine: "Machine") -> None:
        status = process(gpu_machine, "tandem-qwen-14b", "vllm")["status"]
        assert set(status["Uid"].split()) == {"1000"}
        assert {int(status[name], 16) for name in ("CapEff", "CapPrm", "CapBnd")} == {0}
        assert status["NoNewPrivs"].strip() == "1"

    def test_the_router_runs_as_a_user_with_no_capabilities_on_a_read_only_root(self, gpu_machine: "Machine") -> None:
        busybox = ["exec", "tandem-router", "/usr/bin/busybox"]
        status = gpu_machine.docker(*busybox, "cat", "/proc/1/status")
        found = dict(re.findall(r"^(\w+):\s*(.*)$", status, re.MULTILINE))
        assert set(found["Uid"].split()) == {"1000"}
        assert {int(found[name], 16) for name in ("CapEff", "CapPrm", "CapBnd")} == {0}
        assert found["NoNewPrivs"] == "1"
        assert server(gpu_machine, "router")["HostConfig"]["ReadonlyRootfs"]
        with pytest.raises(AssertionError, match="Read-only file system"):
            gpu_machine.docker(*busybox, "touch", "/etc/nginx/nginx.conf")

    @pytest.mark.parametrize(
        ("service", "policy"),
        # The activator alone starts servers, whatever ended them; Docker starts it and what it needs.
        [("qwen-14b", "no"), *((service, "always") for service in sorted(AROUND))],
    )
    def test_who_starts_a_container_again_is_settled_and_their_logs_are_bounded(
        self, gpu_machine: "Machine", service: str, policy: str
    ) -> None:
        settings = server(gpu_machine, service)["HostConfig"]
        assert settings["RestartPolicy"]["Name"] == policy
        assert settings["LogConfig"] == {"Type": "json-file", "Config": {"max-size": "20m", "max-file": "3"}}
        assert settings["CapDrop"] == ["ALL"]
        assert not settings["Privileged"]

    def test_the_server_has_the_shared_memory_that_tensor_parallelism_needs(self, gpu_machine: "Machine") -> None:
        assert server(gpu_machine, "qwen-14b")["HostConfig"]["ShmSize"] == 8 * 2**30

    def test_the_router_alone_is_published_and_on_this_machine_only(self, gpu_machine: "Machine") -> None:
        published = {
            service: server(gpu_machine, service)["HostConfig"]["PortBindings"] for service in ("router", "qwen-14b")
        }
        assert published == {"router": {"8000/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8000"}]}, "qwen-14b": {}}

    def test_a_second_up_does_nothing(self, gpu_machine: "Machine", tandem: "Inside") -> None:
        before = {service: server(gpu_machine, service) for service in ("router", "qwen-14b")}
        assert tandem.tandem("plan", "qwen-14b").stdout == "qwen-14b is ready: nothing to do\n"
        assert "qwen-14b is ready" in run(tandem, "up", "qwen-14b").stdout
        for service, was in before.items():
            now = server(gpu_machine, service)
            assert (now["Id"], now["State"]["StartedAt"]) == (was["Id"], was["State"]["StartedAt"])

    def test_a_value_that_cannot_be_is_refused_before_anything_is_touched(
        self, gpu_machine: "Machine", tandem: "Inside"
    ) -> None:
        before = gpu_machine.ids("tandem")
        done = tandem.tandem("up", "qwen-32b-awq", QWEN_14B_MAX_MODEL_LEN="lots")
        assert done.returncode == 2
        (line,) = done.stderr.splitlines()
        assert line.startswith("error: QWEN_14B_MAX_MODEL_LEN: should be a number of tokens of at least 1, ")
        assert '"lots"' in line
        assert gpu_machine.ids("tandem") == before
        assert gpu_machine.running("tandem") == {*AROUND, "qwen-14b"}

    def test_an_override_in_an_env_file_makes_the_container_anew_with_it_on_the_command_line(
        self, gpu_machine: "Machine", tandem: "Inside"
    ) -> None:
        before = server(gpu_machine, "qwen-14b")["Id"]
        router = server(gpu_machine, "router")["Id"]
        tandem.write("short.env", "QWEN_14B_MAX_MODEL_LEN=8192\n")
        planned = run(tandem, "--env-file", "short.env", "plan", "qwen-14b").stdout
        assert re.search(r"^create +qwen-14b +its settings changed since it was created$", planned, re.MULTILINE)
        run(tandem, "--env-file", "short.env", "up", "qwen-14b")
        argv = process(gpu_machine, "tandem-qwen-14b", "vllm")["argv"]
        assert argv[argv.index("--max-model-len") + 1] == "8192"
        assert server(gpu_machine, "qwen-14b")["Id"] != before
        assert server(gpu_machine, "router")["Id"] == router


@pytest.fixture(scope="module")
def switched(tandem: "Inside", gpu_machine: "Machine") -> dict[str, Any]:
    """Switches to qwen-32b-awq while qwen-14b is up on the same GPUs, and third-gpu on another."""
    models = (tandem.folder / "models.toml").read_text(encoding="utf-8")
    tandem.extend_models(LINGERING)
    run(tandem, "render")
    beside = tandem.compose("--env-file", "env/third-gpu.env", "up", "-d", "--no-build", "third-gpu")
    assert beside.returncode == 0, beside.stderr
    run(tandem, "up", "qwen-14b")
    eventually(lambda: healthy(gpu_machine, "third-gpu"), what="a healthy server on the third GPU")
    assert gpu_machine.running("tandem") == {*AROUND, "qwen-14b", "third-gpu"}
    before = server(gpu_machine, "third-gpu")
    planned = run(tandem, "plan", "qwen-32b-awq")
    done = run(tandem, "up", "qwen-32b-awq")
    tandem.write("models.toml", models)
    return {"plan": planned.stdout, "up": done, "beside": before}


def test_plan_says_which_server_stops_for_another_and_why_before_the_other_starts(switched: dict[str, Any]) -> None:
    planned = [line.split(maxsplit=2) for line in switched["plan"].splitlines()]
    assert ["stop", "qwen-14b", "holds GPUs 0, 1, which qwen-32b-awq needs; its sleep is off"] in planned
    steps = [line[:2] for line in planned]
    wanted = [["close", "qwen-14b"], ["drain", "qwen-14b"], ["stop", "qwen-14b"], ["start", "qwen-32b-awq"],
              ["prove", "qwen-32b-awq"], ["open", "qwen-32b-awq"]]  # fmt: skip
    assert [step for step in steps if step in wanted] == wanted
    assert "third-gpu" not in switched["plan"]


def test_up_says_which_server_it_stops_and_why(switched: dict[str, Any]) -> None:
    assert "stopping qwen-14b: it holds GPUs 0, 1, which qwen-32b-awq needs" in switched["up"].stderr


@pytest.mark.usefixtures("switched")
def test_a_server_starts_only_after_the_one_on_its_gpus_is_gone(gpu_machine: "Machine") -> None:
    # qwen-14b takes 3 s to end. Docker's times are RFC 3339 in UTC with nine digits, less trailing zeros.
    old, new = server(gpu_machine, "qwen-14b")["State"], server(gpu_machine, "qwen-32b-awq")["State"]
    assert (old["Status"], old["ExitCode"]) == ("exited", 0)
    assert old["FinishedAt"].rstrip("Z") <= new["StartedAt"].rstrip("Z")


@pytest.mark.usefixtures("switched")
def test_after_a_switch_the_new_model_answers(gpu_machine: "Machine") -> None:
    status, answer = complete(gpu_machine, "qwen-32b-awq")
    assert (status, answer["choices"][0]["text"]) == (200, "This is qwen-32b-awq.")


def test_a_server_on_another_gpu_is_left_running(switched: dict[str, Any], gpu_machine: "Machine") -> None:
    was, now = switched["beside"], server(gpu_machine, "third-gpu")
    assert (now["Id"], now["State"]["StartedAt"]) == (was["Id"], was["State"]["StartedAt"])
    assert now["State"]["Running"]
    status, answer = complete(gpu_machine, "third-gpu")
    assert (status, answer["choices"][0]["text"]) == (200, "This is third-gpu.")


@pytest.mark.usefixtures("switched")
def test_status_tells_the_state_of_each_profile(tandem: "Inside", gpu_machine: "Machine") -> None:
    shown = json.loads(run(tandem, "status", "--json").stdout)
    assert (shown["router"], shown["address"]) == ("ready", f"{ADDRESS}/v1")
    rows = {row["profile"]: row for row in shown["profiles"]}
    ready = {name for name, row in rows.items() if row["state"] == "ready"}
    assert ready == {"qwen-32b-awq", "third-gpu"}
    assert {row["state"] for name, row in rows.items() if name not in ready} == {"stopped"}
    assert rows["qwen-32b-awq"]["gpus"] == [0, 1]
    # Since it is ready, and not since it was started.
    assert rows["qwen-32b-awq"]["since"][:19] >= server(gpu_machine, "qwen-32b-awq")["State"]["StartedAt"][:19]
    assert rows["qwen-14b"]["since"] is None


@pytest.mark.usefixtures("switched")
def test_who_names_the_old_one_by_an_alias_gets_it_back(gpu_machine: "Machine") -> None:
    status, answer = complete(gpu_machine, "Qwen/Qwen2.5-14B-Instruct")
    assert (status, answer["choices"][0]["text"]) == (200, "This is qwen-14b.")
    assert gpu_machine.running("tandem") == {*AROUND, "qwen-14b", "third-gpu"}


def test_compose_alone_starts_the_container_that_up_would_start(
    first: dict[str, Any], tandem: "Inside", gpu_machine: "Machine"
) -> None:
    run(tandem, "render")
    run(tandem, "down")
    assert gpu_machine.ids("tandem") == {}
    done = tandem.compose("--env-file", "env/qwen-14b.env", "up", "-d", "--no-build")
    assert done.returncode == 0, done.stderr
    now = server(gpu_machine, "qwen-14b")
    assert now["Config"]["Cmd"] == first["Config"]["Cmd"]
    for made in (first, now):
        # Their order is Go's of a map.
        made["HostConfig"]["Binds"].sort()
    assert now["HostConfig"] == first["HostConfig"]
    eventually(lambda: healthy(gpu_machine, "qwen-14b"), what="a healthy server that Compose started")
    # Not even its labels differ, so `up` leaves it as it is, and makes the containers that a request could start.
    planned = [line.split()[:2] for line in tandem.tandem("plan", "qwen-14b").stdout.splitlines()]
    assert planned
    assert [words for words in planned if words[0] != "create" or words[1] == "qwen-14b"] == []


def says(machine: "Machine", service: str, words: str) -> bool:
    """Whether a service's container is there, and these words are in its log."""
    ident = machine.ids("tandem").get(service)
    return ident is not None and words in machine.docker("logs", ident)


def interrupt(process: "Popen[str]") -> None:
    """Do what Ctrl-C in a terminal does: SIGINT to every process of the group."""
    os.killpg(process.pid, signal.SIGINT)


def terminate(process: "Popen[str]") -> None:
    """Do what `kill` does, or a service manager: SIGTERM to the command alone."""
    process.terminate()


@pytest.fixture
def serving(tandem: "Inside", gpu_machine: "Machine") -> "Iterator[dict[str, str]]":
    """Has qwen-14b up; gives the containers that there are, and takes away what a failed test adds to them."""
    run(tandem, "up", "qwen-14b")
    before = gpu_machine.ids("tandem")
    yield before
    for ident in set(gpu_machine.ids("tandem").values()) - set(before.values()):
        gpu_machine.docker("rm", "--force", ident)


@pytest.mark.parametrize(
    ("profile", "busy", "words", "end"),
    [
        pytest.param("loads-long", "loads-long", "Starting to load model", interrupt, id="ctrl-c-while-it-loads"),
        pytest.param("pulls-long", "pull-pulls-long", '"event": "begin"', interrupt, id="ctrl-c-while-it-pulls"),
        pytest.param("pulls-long", "pull-pulls-long", '"event": "begin"', terminate, id="terminated-while-it-pulls"),
    ],
)
def test_an_interrupted_up_takes_the_half_started_server_away_and_leaves_the_rest(
    tandem: "Inside",
    gpu_machine: "Machine",
    serving: dict[str, str],
    profile: str,
    busy: str,
    words: str,
    end: "Callable[[Popen[str]], None]",
) -> None:
    running = gpu_machine.running("tandem")
    process = tandem.start(tandem.argv("up", profile), MODELSCOPE_ENDPOINT="http://silent")
    eventually(lambda: says(gpu_machine, busy, words), seconds=LONG_PATIENCE, what=f"{busy} under way")
    end(process)
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    (last,) = lines(said, begin="running now: ")
    assert set(last.removeprefix("running now: ").split(", ")) == {f"{service} (ready)" for service in running}
    assert serving.items() <= gpu_machine.ids("tandem").items()
    assert gpu_machine.running("tandem") == running


@pytest.mark.usefixtures("serving")
def test_a_server_whose_profile_has_another_name_now_leaves_its_gpus_to_it(
    tandem: "Inside", gpu_machine: "Machine"
) -> None:
    models = (tandem.folder / "models.toml").read_text(encoding="utf-8")
    tandem.write("models.toml", models.replace("[models.qwen-14b", "[models.renamed"))
    try:
        done = run(tandem, "up", "renamed")
        assert "stopping qwen-14b, which models.toml does not list any more" in done.stderr
        assert gpu_machine.running("tandem") >= {"renamed"}
        assert server(gpu_machine, "qwen-14b")["State"]["Status"] == "exited"
        status, answer = complete(gpu_machine, "renamed")
        assert (status, answer["choices"][0]["text"]) == (200, "This is renamed.")
    finally:
        tandem.write("models.toml", models)
        run(tandem, "render")
