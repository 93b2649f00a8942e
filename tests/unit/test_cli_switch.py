"""`up`, `down` and `status` as commands, with stand-ins for Docker and for the activator."""

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.versions import ACTIVATOR
from tests.checkout import PATIENCE
from tests.standins import activator, docker
from tests.unit.test_main import MODELS, VERSIONS, run
from tests.unit.values import ROOT

IMAGES = ("tandem/router:0.1.0", ACTIVATOR, "tandem/vllm:0.32.0-cpu")


class Machine:
    """A project in a folder, and all that its commands meet."""

    def __init__(self, folder: Path, stand_in: activator.StandIn, engine: docker.Docker) -> None:
        self.folder, self.activator, self.docker = folder, stand_in, engine
        self.environment = {
            "DOCKER_HOST": engine.address,
            "PATH": f"{engine.bin}:/usr/bin:/bin",
            "TANDEM_PORT": stand_in.address.rpartition(":")[2],
        }
        engine.images = {tag: f"sha256:{number}" for number, tag in enumerate(IMAGES)}
        for service in ("router", "activator", "engine-proxy"):
            engine.has(service)
        self.tell("ready")

    def tell(self, state: str, **more: Any) -> None:
        """Have the activator say this of the one model."""
        entry = {"name": "demo", "state": state, "open": state == "ready", "since": 1767323045}
        self.activator.status = {"models": [entry], "wanted": [], "switch": None, "queue": [], "last": None, **more}

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return run(self.folder, "-m", "orchestrator", *arguments, **self.environment)

    def begin(self, *arguments: str, **streams: Any) -> "subprocess.Popen[bytes]":
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("TANDEM_", "COMPOSE_"))}
        environment = inherited | {"PYTHONPATH": str(ROOT)} | self.environment
        argv = [sys.executable, "-m", "orchestrator", *arguments]
        return subprocess.Popen(argv, cwd=self.folder, env=environment, stdin=subprocess.DEVNULL, **streams)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    folder = tmp_path / "project"
    for name, text in (
        ("models.toml", MODELS),
        ("compose.yaml", "name: tandem\n"),
        ("docker/vllm/versions.toml", VERSIONS),
        ("demo/config.json", "{}"),
    ):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    with activator.running() as stand_in, docker.running(tmp_path) as engine:
        yield Machine(folder, stand_in, engine)


def heard(stream: int, words: str) -> str:
    """Read until something was said; what was read."""
    end, said = time.monotonic() + PATIENCE, ""
    while words not in said:
        assert time.monotonic() < end, f"not said: {words!r}; but: {said!r}"
        if select.select([stream], [], [], 0.1)[0]:
            said += os.read(stream, 65536).decode()
    return said


def interrupted(process: "subprocess.Popen[bytes]") -> int:
    process.send_signal(signal.SIGINT)
    return process.wait(PATIENCE)


# --- up ---------------------------------------------------------------------------------------------------------------


def test_up_shows_the_phases_of_the_activator_a_line_each_and_no_colour(machine: Machine) -> None:
    machine.docker.has("demo", "exited", image=IMAGES[2])
    machine.tell("stopped")
    phases = [
        ("start", "importing vLLM"),
        ("start", "loading weights"),
        ("prove", "asking for a first token"),
        ("ready", ""),
    ]
    machine.activator.script["up"] = [
        {"model": "demo", "phase": phase, "text": text} for phase, text in phases for _ in range(3)
    ]
    done = machine.command("up", "demo")
    assert done.returncode == 0, done.stderr
    said: list[str] = []
    at = 0
    for line in done.stderr.splitlines():
        if told := re.fullmatch(r"\[ *(\d+) s\] (.*)", line):
            # Of a phase that takes its time there is a sign of life every 5 s.
            if said[-1:] != [told[2]] or int(told[1]) - at < 4:
                said.append(told[2])
            at = int(told[1])
    assert said[-4:] == [
        "start: importing vLLM",
        "start: loading weights",
        "prove: asking for a first token",
        "ready: demo",
    ]
    assert "\x1b" not in done.stderr + done.stdout
    assert done.stdout.startswith("demo is ready\n")


def test_an_interrupted_up_says_what_runs_once_the_model_is_given_up(machine: Machine) -> None:
    machine.docker.has("demo", "exited", image=IMAGES[2])
    machine.tell("stopped")
    machine.activator.script["up"] = [{"model": "demo", "phase": "start", "text": "loading weights"}, "wait"]
    looks = iter(range(1000))

    def look() -> dict[str, Any] | None:
        # It takes a while until what was given up is stopped.
        if machine.activator.left.is_set() and next(looks) > 1:
            machine.docker.has("demo", "exited", image=IMAGES[2])
            machine.tell("stopped")
        return machine.activator.status

    machine.activator.look = look
    with machine.begin("up", "demo", stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        said = heard(process.stderr.fileno(), "start: loading weights")
        machine.docker.has("demo", health="starting", image=IMAGES[2])
        machine.tell("starting", wanted=["demo"])
        code = interrupted(process)
        said += process.stderr.read().decode()
    assert code == 130
    assert said.splitlines()[-2:] == [
        "interrupted",
        "running now: router (ready), activator (ready), engine-proxy (ready)",
    ]


# --- down -------------------------------------------------------------------------------------------------------------


def test_down_of_a_model_drains_it_removes_its_container_and_says_what_runs(machine: Machine) -> None:
    machine.docker.has("demo", image=IMAGES[2])
    machine.activator.script["down"] = [
        {"model": "demo", "phase": "drain", "text": "2 in flight"},
        {"model": "demo", "phase": "stopped"},
    ]
    done = machine.command("down", "demo")
    assert done.returncode == 0, done.stderr
    assert [line for line in machine.activator.heard if line.startswith("POST")] == ["POST /-/down/demo"]
    assert machine.docker.did == ["compose --profile * --progress plain rm -s -f demo"]
    said = [re.sub(r"^\[ *\d+ s\] ", "", line) for line in done.stderr.splitlines()]
    assert said == ["stopping demo", "drain: 2 in flight"]
    assert done.stdout == "running now: router (ready), activator (ready), engine-proxy (ready), demo (ready)\n"


@pytest.mark.parametrize("status", ["running", "created"])
def test_down_of_a_server_that_models_toml_does_not_list_any_more_removes_it(machine: Machine, status: str) -> None:
    machine.docker.has("renamed", status, image=IMAGES[2])
    machine.docker.containers["renamed"]["Config"]["Cmd"] = ["vllm", "serve", "/local/renamed"]
    done = machine.command("down", "renamed")
    assert done.returncode == 0, done.stderr
    assert done.stderr == "stopping renamed, which models.toml does not list any more\n"
    # Neither the activator nor Compose knows of it.
    assert not [line for line in machine.activator.heard if line.startswith("POST")]
    assert machine.docker.did == ["stop tandem-renamed", "rm tandem-renamed"]


@pytest.mark.parametrize("name", ["router", "nothing"])
def test_down_of_what_is_no_server_is_an_error_line(machine: Machine, name: str) -> None:
    done = machine.command("down", name)
    assert (done.returncode, done.stderr) == (1, f"error: {name}: no such profile; models.toml has: demo\n")
    assert machine.docker.did == []


def test_down_of_everything_asks_nobody(machine: Machine) -> None:
    done = machine.command("down")
    assert done.returncode == 0, done.stderr
    assert machine.docker.did == ["compose --profile * --progress plain down --remove-orphans"]
    assert not [line for line in machine.activator.heard if line.startswith("POST")]


# --- status -----------------------------------------------------------------------------------------------------------


def changing(machine: Machine, then: Callable[[], None]) -> None:
    """Have something happen at the second look."""
    looks = iter(range(1000))

    def look() -> dict[str, Any] | None:
        if next(looks) == 1:
            then()
        return machine.activator.status

    machine.activator.look = look


def test_a_status_that_is_watched_through_a_pipe_is_printed_when_it_changes(machine: Machine) -> None:
    changing(machine, lambda: machine.tell("asleep"))
    with machine.begin("status", "--watch", stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        said = heard(process.stdout.fileno(), "asleep")
        code = interrupted(process)
        said += process.stdout.read().decode()
    assert code == 0
    assert [line.split()[1] for line in said.splitlines() if line.startswith("demo ")] == ["ready", "asleep"]
    assert "\x1b" not in said


def test_a_status_that_is_watched_on_a_terminal_is_redrawn(machine: Machine) -> None:
    changing(machine, lambda: machine.tell("asleep"))
    mine, its = pty.openpty()
    machine.environment |= {"TERM": "xterm", "NO_COLOR": "1", "COLUMNS": "80"}
    with machine.begin("status", "--watch", stdout=its) as process:
        os.close(its)
        said = heard(mine, "asleep")
        code = interrupted(process)
    os.close(mine)
    assert code == 0
    # Wiped, line by line upwards, before it is drawn anew.
    assert said.index("ready") < said.index("\x1b[1A") < said.index("asleep")


def test_a_watched_status_outlives_a_daemon_that_goes_and_comes_back(machine: Machine) -> None:
    def go() -> None:
        machine.docker.refusal = "the daemon is going"

    changing(machine, go)
    with machine.begin("status", "--watch", stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert "demo     ready" in heard(process.stdout.fileno(), "Docker refused: the daemon is going")
        machine.tell("asleep")
        machine.docker.refusal = ""
        heard(process.stdout.fileno(), "demo     asleep")
        assert interrupted(process) == 0


def test_a_status_for_scripts_that_is_watched_is_a_line_each(machine: Machine) -> None:
    changing(machine, lambda: machine.tell("asleep"))
    with machine.begin("status", "--watch", "--json", stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        said = heard(process.stdout.fileno(), "asleep")
        assert interrupted(process) == 0
    assert [re.search(r'"state": "(\w+)"', line)[1] for line in said.splitlines()] == ["ready", "asleep"]  # type: ignore[index]
