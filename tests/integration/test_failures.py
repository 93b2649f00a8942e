"""What goes wrong on a real Docker Engine ends with one line that says what to do: see engine.py and standins/."""

import contextlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.checkout import Checkout, free_port

if TYPE_CHECKING:
    from subprocess import CompletedProcess

    from tests.integration.engine import Inside, Machine

pytestmark = pytest.mark.docker
pytest_plugins = ("tests.integration.engine",)

PROJECT = "failures"
MODELS = """
[models.good]
model = "Qwen/Qwen2.5-14B-Instruct"
gpu_memory_utilization = 0.9

[models.runs-out-of-memory]
model = "Qwen/Qwen2.5-14B-Instruct"
env = { STANDIN_DIES = "out-of-memory" }

[models.hangs]
model = "Qwen/Qwen2.5-14B-Instruct"
ready_timeout = 5
env = { STANDIN_HANGS = "1" }

[models.not-pulled]
model = "example/not-pulled-yet"
"""


@pytest.fixture(scope="module")
def tandem(gpu_machine: "Machine", tmp_path_factory: pytest.TempPathFactory) -> "Inside":
    """A checkout on a machine with GPUs, as far as Docker can tell, and the weights of one model in its volume."""
    checkout = gpu_machine.checkout(
        tmp_path_factory.mktemp("failures"), COMPOSE_PROJECT_NAME=PROJECT, TANDEM_PORT=str(free_port())
    )
    checkout.extend_models(MODELS)
    gpu_machine.fill(PROJECT, ["Qwen/Qwen2.5-14B-Instruct"])
    return checkout


@pytest.fixture
def elsewhere(tmp_path: Path) -> Checkout:
    """A checkout that needs no Docker Engine."""
    return Checkout.copy(tmp_path / "tandem")


def fault(done: "CompletedProcess[str]", code: int) -> str:
    """Check that a command failed as a user should see it; give its one line, with the remedy below it."""
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    said = done.stderr.splitlines()
    assert not [line for line in said if "Traceback" in line]
    begins = [number for number, line in enumerate(said) if line.startswith("error: ")]
    assert len(begins) == 1, done.stderr
    below = said[begins[0] + 1 :]
    assert all(line.startswith("  ") for line in below), done.stderr
    return "\n".join([said[begins[0]].removeprefix("error: "), *below])


def test_a_gpu_profile_where_docker_knows_nothing_of_nvidia_names_the_toolkit(
    plain_machine: "Machine", tmp_path: Path
) -> None:
    plain_machine.fill("tandem", ["Qwen/Qwen2.5-14B-Instruct"])
    tandem = plain_machine.checkout(tmp_path / "tandem")
    said = fault(tandem.tandem("up", "qwen-14b"), 1)
    assert said.startswith("qwen-14b ")
    assert 'could not select device driver "nvidia"' in said
    assert "install the NVIDIA Container Toolkit" in said
    assert "python -m orchestrator up demo" in said
    # Nor is one left half made, whatever it is called.
    left = plain_machine.docker("ps", "--all", "--format={{.Names}}").split()
    assert sorted(left) == ["tandem-activator", "tandem-engine-proxy", "tandem-router"]


def test_a_machine_with_docker_stopped_says_how_to_start_it(elsewhere: Checkout, tmp_path: Path) -> None:
    for command in (["up", "qwen-14b"], ["plan", "qwen-14b"], ["status"], ["down"]):
        done = elsewhere.tandem(*command, DOCKER_HOST=f"unix://{tmp_path}/docker.sock")
        assert fault(done, 1).startswith("Docker does not answer. Start it ")


def test_a_machine_without_the_docker_command_says_what_installs_it(elsewhere: Checkout, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    done = elsewhere.tandem("up", "qwen-14b", PATH=str(tmp_path / "bin"))
    assert fault(done, 1) == "There is no docker command. Run scripts/up, which installs it."


def test_an_engine_that_answers_is_no_help_without_the_docker_command(tandem: "Inside", tmp_path: Path) -> None:
    done = tandem.tandem("up", "good", PATH=str(tmp_path))
    assert fault(done, 1) == "There is no docker command. Run scripts/up, which installs it."


@contextlib.contextmanager
def held_by_a_process(tandem: "Inside", port: int) -> Iterator[None]:
    script = "import socket, sys; s = socket.create_server(('127.0.0.1', int(sys.argv[1]))); print('held'); s.accept()"
    with tandem.start([sys.executable, "-uc", script, str(port)]) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield
        finally:
            process.kill()


@contextlib.contextmanager
def held_by_a_container(machine: "Machine", port: int) -> Iterator[None]:
    published = f"--publish=127.0.0.1:{port}:8000"
    serves = ["--entrypoint=python3", "tandem/stand-in", "-m", "http.server", "8000"]
    container = machine.docker("run", "--detach", published, *serves)
    try:
        yield
    finally:
        machine.docker("rm", "--force", container)


@pytest.mark.parametrize("holder", ["process", "container"])
def test_a_taken_port_is_named_with_the_setting_that_changes_it(
    tandem: "Inside", gpu_machine: "Machine", holder: str
) -> None:
    port = free_port()
    held = held_by_a_process(tandem, port) if holder == "process" else held_by_a_container(gpu_machine, port)
    with held:
        done = tandem.tandem("up", "good", COMPOSE_PROJECT_NAME=f"port-{holder}", TANDEM_PORT=str(port))
    said = fault(done, 1)
    # Nobody here sees into the private Engine's data folder, so that only Docker can tell of its machine's processes.
    told_by = {"process": "router, activator, engine-proxy could not be started: ", "container": "port: 127.0.0.1:"}
    assert said.startswith(told_by[holder])
    assert str(port) in said
    assert "Set TANDEM_PORT in .env to a free one" in said
    assert gpu_machine.running(f"port-{holder}") == set()


@pytest.fixture(scope="module")
def died(tandem: "Inside") -> "CompletedProcess[str]":
    """What `up` said of a server that dies while it loads, well below its ready_timeout of 900 s."""
    return tandem.tandem("up", "runs-out-of-memory")


def test_a_server_that_dies_while_starting_ends_up_with_the_line_of_its_log_that_says_why(
    died: "CompletedProcess[str]",
) -> None:
    said = fault(died, 1)
    assert said.startswith(
        "runs-out-of-memory is not ready: torch.OutOfMemoryError: CUDA out of memory. "
        "Tried to allocate 270.00 MiB. GPU 1 has a total capacity of 23.52 GiB"
    )
    assert "lower max_model_len or gpu_memory_utilization" in said
    assert "python -m orchestrator logs runs-out-of-memory" in said


@pytest.mark.usefixtures("died")
def test_a_server_that_died_is_not_left_restarting_and_logs_shows_the_rest(
    tandem: "Inside", gpu_machine: "Machine"
) -> None:
    state = gpu_machine.inspect(f"{PROJECT}-runs-out-of-memory")["State"]
    assert (state["Status"], state["Restarting"]) == ("exited", False)
    shown = tandem.tandem("logs", "runs-out-of-memory")
    assert "(Worker_TP1 pid=92) ERROR" in shown.stdout + shown.stderr


@pytest.mark.usefixtures("died")
def test_a_server_that_died_while_starting_is_failed_in_status(tandem: "Inside") -> None:
    rows = json.loads(tandem.tandem("status", "--json").stdout)["profiles"]
    assert {row["profile"]: row["state"] for row in rows}["runs-out-of-memory"] == "failed"


def test_a_server_that_is_not_ready_in_time_is_stopped_and_up_says_so(tandem: "Inside", gpu_machine: "Machine") -> None:
    said = fault(tandem.tandem("up", "hangs"), 1)
    assert said.startswith("hangs is not ready: it was not ready after 5 s")
    assert "python -m orchestrator logs hangs" in said
    assert gpu_machine.inspect(f"{PROJECT}-hangs")["State"]["Status"] == "exited"


def test_weights_that_are_not_there_and_a_hub_that_does_not_answer_are_one_line_and_the_model_that_serves_goes_on(
    tandem: "Inside", gpu_machine: "Machine"
) -> None:
    # After the failed starts above, too.
    served = tandem.tandem("up", "good")
    assert served.returncode == 0, served.stderr
    before = gpu_machine.inspect(f"{PROJECT}-good")
    said = fault(tandem.tandem("up", "not-pulled"), 1)
    assert said.startswith("not-pulled ")
    assert "could not pull example/not-pulled-yet" in said
    assert "ModelScope does not answer, or the line breaks: " in said
    assert "Run it again, and it goes on: what was fetched is kept" in said
    now = gpu_machine.inspect(f"{PROJECT}-good")
    assert (now["Id"], now["State"]["StartedAt"]) == (before["Id"], before["State"]["StartedAt"])
    assert gpu_machine.running(PROJECT) == {"router", "activator", "engine-proxy", "gpus", "good"}


def test_a_model_folder_that_is_not_there_is_named_before_anything_starts(elsewhere: Checkout, tmp_path: Path) -> None:
    elsewhere.write("models.toml", '[models.mine]\nmodel = "./weights/mine"\ngpus = [0]\n')
    done = elsewhere.tandem("up", "mine", DOCKER_HOST=f"unix://{tmp_path}/docker.sock")
    said = fault(done, 2)
    assert said.startswith("models.toml: models.mine.model: the folder ")
    assert said.endswith("weights/mine holds no config.json")


def test_a_value_that_cannot_be_starts_nothing(tandem: "Inside", gpu_machine: "Machine") -> None:
    tandem.write("wrong.env", "GOOD_GPU_MEMORY_UTILIZATION=90%\n")
    done = tandem.tandem("--env-file", "wrong.env", "up", "good", COMPOSE_PROJECT_NAME="refused")
    said = fault(done, 2)
    (line,) = said.splitlines()
    assert "GOOD_GPU_MEMORY_UTILIZATION: should be a number above 0 and up to 1, " in line
    assert '"90%"' in line
    assert gpu_machine.ids("refused") == {}


@pytest.fixture
def without_image(gpu_machine: "Machine") -> Iterator[None]:
    """Takes the GPU profiles' image away for one test."""
    image = gpu_machine.docker("image", "ls", "--format={{.Repository}}:{{.Tag}}", "tandem/vllm")
    gpu_machine.docker("rmi", image)
    yield
    gpu_machine.docker("tag", "tandem/stand-in", image)


@pytest.mark.usefixtures("without_image")
def test_an_image_that_cannot_be_built_for_want_of_a_network_is_one_line_and_the_model_that_serves_goes_on(
    tandem: "Inside", gpu_machine: "Machine"
) -> None:
    before = gpu_machine.running(PROJECT)
    said = fault(tandem.tandem("up", "hangs"), 1)
    assert re.search("TANDEM_(BASE_IMAGE|DEBIAN_MIRROR)", said), f"should say what to do: {said}"
    assert gpu_machine.running(PROJECT) == before
