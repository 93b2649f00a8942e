"""`bench NAME` and `bench compare` as commands, with stand-ins for Docker and for the activator."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from orchestrator.commands import LOADED
from orchestrator.load import run as running
from tests.checkout import PATIENCE, eventually
from tests.standins import activator, docker
from tests.unit.loads import recorded, result
from tests.unit.terminals import CTRL_C, Terminal, on_terminal
from tests.unit.test_cli_switch import IMAGES, Machine
from tests.unit.test_main import MODELS, VERSIONS, tandem
from tests.unit.values import ROOT, in_order

FEW = ("--concurrency", "4", "--per", "2", "--runs", "2", "--warmups", "0", "--output", "16")


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    folder = in_order(tmp_path / "project", MODELS, VERSIONS)
    with activator.running() as stand_in, docker.running(tmp_path) as engine:
        found = Machine(folder, stand_in, engine)
        engine.has("demo", image=IMAGES[2])
        benchmark(found, recorded("bench-serve-0.32.0"))
        yield found


DOCKER = """#!/bin/sh
case "$*" in
  *"config --hash"*) cat "{beside}/docker.hashes"; exit ;;
  *) echo "$@" | head -n 1 >> "{beside}/docker.log" ;;
esac
case "$1" in
  compose) for word in "$@"; do case "$word" in */flags.yaml) cat "$word" >> "{folder}/flags" ;; esac; done ;;
  run) read -r key; echo "Namespace(seed=1)"; printf '\\n{loaded}'; cat "{folder}/saved"; {last} ;;
esac
"""


def benchmark(machine: Machine, saved: str, last: str = ":") -> None:
    """Have `docker run` do as the container with vLLM's benchmark does."""
    (machine.folder / "saved").write_text(saved, encoding="utf-8")
    program = machine.docker.bin / "docker"
    text = DOCKER.format(folder=machine.folder, beside=machine.folder.parent, loaded=LOADED, last=last)
    program.write_text(text, encoding="utf-8")
    program.chmod(0o755)


def test_a_bench_prints_a_table_and_keeps_the_result(machine: Machine) -> None:
    done = machine.command("bench", "demo", *FEW)
    assert done.returncode == 0, done.stderr
    [kept] = (machine.folder / "results/bench").iterdir()
    assert done.stdout.splitlines()[-1] == f"kept in results/bench/{kept.name}"
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "\x1b" not in done.stdout + done.stderr
    assert [line for line in done.stderr.splitlines() if "run 2 of 2" in line]
    said = json.loads(kept.read_text(encoding="utf-8"))
    assert [(case["concurrency"], len(case["runs"])) for case in said["cases"]] == [(4, 2)]
    assert len([line for line in machine.docker.did if line.startswith("run --rm -i ")]) == 2
    assert not any("POST" in line for line in machine.activator.heard)


def test_a_bench_for_scripts_is_the_result_and_where_it_is(machine: Machine) -> None:
    done = machine.command("bench", "run", "demo", *FEW, "--json")
    given = json.loads(done.stdout)
    kept = Path(given.pop("file"))
    assert given == json.loads(kept.read_text(encoding="utf-8"))


def test_a_bench_with_failed_requests_keeps_them_and_ends_with_1(machine: Machine) -> None:
    benchmark(machine, recorded("bench-serve-0.32.0-failed"))
    done = machine.command("bench", "demo", *FEW)
    assert done.returncode == 1
    assert "error: 4 at once: 2 of 2 runs are not counted, 4 of their 16 requests failed" in done.stdout
    assert len(list((machine.folder / "results/bench").iterdir())) == 1


def test_a_bench_of_a_model_that_is_not_up_runs_nothing(machine: Machine) -> None:
    machine.tell("asleep")
    done = machine.command("bench", "demo", *FEW)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: demo is asleep; bring it up first: python -m orchestrator up demo\n"
    assert machine.docker.did == []


def test_an_interrupted_bench_keeps_nothing_and_leaves_no_container(machine: Machine) -> None:
    benchmark(machine, "", last=f"touch {machine.folder}/hangs; exec sleep 600")
    with machine.begin("bench", "demo", *FEW, stderr=subprocess.PIPE) as process:
        eventually((machine.folder / "hangs").exists, what="a benchmark under way")
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 130
        assert process.stderr is not None
        assert process.stderr.read().decode().splitlines()[-1] == "interrupted; nothing is kept"
    assert list((machine.folder / "results/bench").iterdir()) == []
    [name] = machine.docker.removed
    assert f"--name {name} " in machine.docker.did[0]


@pytest.mark.parametrize(
    ("arguments", "fact"),
    [
        (
            ["swich"],
            "swich: no such profile; models.toml has: demo; bench has the commands compare, flags, run, switch too",
        ),
        (
            ["demo", "--concurrency", "1,0"],
            '--concurrency: should be numbers from 1 to 1024, each once, such as 1,4,16, got "1,0"',
        ),
        (
            ["demo", "--concurrency", "4,04"],
            '--concurrency: should be numbers from 1 to 1024, each once, such as 1,4,16, got "4,04"',
        ),
        (
            ["demo", "--concurrency", "1,,4"],
            '--concurrency: should be numbers from 1 to 1024, each once, such as 1,4,16, got "1,,4"',
        ),
    ],
)
def test_what_cannot_be_measured_is_an_error_line(machine: Machine, arguments: list[str], fact: str) -> None:
    done = machine.command("bench", *arguments)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"error: {fact}\n")
    assert not (machine.folder / "results").exists()


@pytest.mark.parametrize("arguments", [["demo", "--output", "1"], ["demo", "--runs", "0"], ["--nonsense"]])
def test_options_that_are_none_are_refused_with_2(machine: Machine, arguments: list[str]) -> None:
    assert machine.command("bench", *arguments).returncode == 2


def test_a_model_that_is_called_as_a_command_is_reached_by_run(machine: Machine) -> None:
    models = machine.folder / "models.toml"
    models.write_text(MODELS.replace("demo]", "switch]"), encoding="utf-8")
    done = machine.command("bench", "run", "switch", *FEW)
    assert done.stderr == "error: switch is stopped; bring it up first: python -m orchestrator up switch\n"


# --- flags ------------------------------------------------------------------------------------------------------------


def steps(machine: Machine) -> list[str]:
    """What was asked of the activator and of Docker, without what Docker's lines are made of."""
    asked = [line.removeprefix("POST /-/").partition("?")[0] for line in machine.activator.heard if "POST" in line]
    return [*asked, *(word for line in machine.docker.did for word in ("run", "up --no-start") if f"{word} " in line)]


def test_flags_are_tried_on_a_new_container_and_its_own_come_back(machine: Machine) -> None:
    machine.activator.script["down"] = [{"model": "demo", "phase": "stopped"}]
    machine.activator.script["up"] = [{"model": "demo", "phase": "ready"}]
    done = machine.command("bench", "flags", "demo", "--against", "--max-num-seqs 8", *FEW)
    assert done.returncode == 0, done.stderr
    assert steps(machine) == ["down/demo", "up/demo"] * 2 + ["up --no-start", "run", "run"] * 2
    laid = json.loads((machine.folder / "flags").read_text(encoding="utf-8"))
    assert laid == {"services": {"demo": {"command": ["--max-num-seqs", "8"]}}}
    creates = [line for line in machine.docker.did if "--no-start" in line]
    assert creates[0].startswith(f"compose -f {machine.folder}/compose.yaml -f /")
    assert creates[1] == "compose --profile demo --progress plain up --no-start --no-deps --no-build --pull never demo"
    assert "output tokens a second" in done.stdout
    assert done.stdout.splitlines()[-1] == "kept in results/bench, in the order B, A"
    assert len(list((machine.folder / "results/bench").iterdir())) == 2


def test_flags_that_the_server_refuses_end_it_with_its_own_back(machine: Machine) -> None:
    machine.activator.script["down"] = [{"model": "demo", "phase": "stopped"}]
    machine.activator.script["up"] = [
        {"model": "demo", "phase": "failed", "reason": "vllm: error: unrecognized arguments: --nonsense"}
    ]
    done = machine.command("bench", "flags", "demo", "--against", "--nonsense", *FEW)
    assert (done.returncode, done.stdout) == (1, "")
    assert "error: demo is not ready: vllm: error: unrecognized arguments: --nonsense" in done.stderr
    assert steps(machine) == ["down/demo", "up/demo"] * 2 + ["up --no-start"] * 2
    assert list((machine.folder / "results/bench").iterdir()) == []


@pytest.mark.parametrize("against", ["", "enforce-eager", "--port 9"])
def test_flags_that_are_none_or_fixed_change_nothing(machine: Machine, against: str) -> None:
    done = machine.command("bench", "flags", "demo", "--against", against, *FEW)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: --against: ")
    assert steps(machine) == []


def test_flags_of_a_model_that_is_not_up_change_nothing(machine: Machine) -> None:
    machine.tell("stopped")
    done = machine.command("bench", "flags", "demo", "--against", "--enforce-eager", *FEW)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: demo is stopped; bring it up first: python -m orchestrator up demo\n"
    assert steps(machine) == []


BEGIN = ("bench", "flags", "demo", "--against", "--max-num-seqs 8", *FEW)
OWN = "compose --profile demo --progress plain up --no-start --no-deps --no-build --pull never demo"
TWO_ON_THE_SAME = "".join(
    f'[models.{name}]\nmodel = "./demo"\ngpus = [0, 1]\ntensor_parallel_size = 2\n' for name in ("demo", "other")
)


def measuring(machine: Machine) -> None:
    """Have the model come up and go down, and a benchmark go on for ever."""
    machine.activator.script["down"] = [{"model": "demo", "phase": "stopped"}]
    machine.activator.script["up"] = [{"model": "demo", "phase": "ready"}]
    benchmark(machine, "", last=f"touch {machine.folder}/hangs; exec sleep 600")


@contextmanager
def trial(machine: Machine) -> Iterator[tuple["subprocess.Popen[bytes]", Terminal]]:
    """Begin one on a terminal, which has come as far as measuring the other flags."""
    measuring(machine)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **machine.environment, "TERM": "dumb"}
    with on_terminal(["-m", "orchestrator", *BEGIN], environment, folder=machine.folder) as found:
        eventually((machine.folder / "hangs").exists, what="a benchmark under way")
        yield found


def came_back(machine: Machine) -> None:
    """See that the container was made anew with its own flags, and the model brought up again; nothing is kept."""
    assert steps(machine) == ["down/demo", "up/demo"] * 2 + ["up --no-start", "run", "up --no-start"]
    assert [line for line in machine.docker.did if "--no-start" in line][-1] == OWN
    assert list((machine.folder / "results/bench").iterdir()) == []


def test_flags_come_back_where_the_terminal_is_closed(machine: Machine) -> None:
    with trial(machine) as (process, terminal):
        terminal.close()
    assert process.returncode == 130
    came_back(machine)


def test_flags_come_back_where_nobody_reads_what_is_said(machine: Machine) -> None:
    measuring(machine)
    with machine.begin(*BEGIN, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        eventually((machine.folder / "hangs").exists, what="a benchmark under way")
        assert process.stderr is not None
        # As where `tee` reads, which Ctrl-C ends too.
        process.stderr.close()
        process.send_signal(signal.SIGINT)
        process.wait(PATIENCE)
    came_back(machine)


def test_flags_come_back_where_ctrl_c_comes_again_and_again(machine: Machine) -> None:
    # The container is made for as long as the test likes; whoever does that is in the same terminal.
    program = machine.docker.bin / "docker"
    with trial(machine) as (process, terminal):
        text = program.read_text(encoding="utf-8")
        slow = f"touch {machine.folder}/making; until [ -e {machine.folder}/go ]; do sleep 0.05; done"
        made = f"touch {machine.folder}/made"
        program.write_text(text + f'case "$*" in *--no-start*) {slow}; {made} ;; esac\n', encoding="utf-8")
        terminal.types(CTRL_C)
        eventually((machine.folder / "making").exists, what="a container that is made")
        terminal.types(CTRL_C)
        terminal.types(CTRL_C)
        terminal.shows("^C", times=3)
        (machine.folder / "go").touch()
        said = terminal.shows("nothing is kept")
    assert process.returncode == 130
    assert (machine.folder / "made").exists()
    assert "putting demo's own flags back; Ctrl-C does not break that off" in said
    came_back(machine)


def test_flags_take_nothing_back_from_a_model_that_came_up_meanwhile(machine: Machine) -> None:
    (machine.folder / "models.toml").write_text(TWO_ON_THE_SAME, encoding="utf-8")
    machine.activator.script["down"] = [{"model": "demo", "phase": "stopped"}]
    machine.activator.script["up"] = [{"model": "demo", "phase": "ready"}]
    benchmark(machine, recorded("bench-serve-0.32.0"), last=f"touch {machine.folder}/measured")

    def look() -> dict[str, Any] | None:
        switched = (machine.folder / "measured").exists()
        there = {"name": "demo", "state": "asleep" if switched else "ready", "open": not switched, "since": 1767323045}
        other = {"name": "other", "state": "ready" if switched else "stopped", "gpus": [0, 1], "since": 1767323045}
        return {"models": [there, other], "wanted": ["other"] if switched else [], "switch": None, "queue": []}

    machine.activator.look = look
    done = machine.command(*BEGIN)
    assert (done.returncode, done.stdout) == (1, "")
    assert steps(machine) == ["down/demo", "up/demo", "down/demo", "up --no-start", "run", "up --no-start"]
    assert [line for line in machine.docker.did if "--no-start" in line][-1] == OWN
    assert done.stderr.splitlines()[-2:] == [
        "other is up, or wanted, on GPUs of demo, so demo is left down, with its own flags: "
        "python -m orchestrator up demo",
        "error: demo is asleep now: somebody switched models while it was measured, or its server died. "
        "Nothing is kept.",
    ]


# --- compare ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = in_order(tmp_path, MODELS, VERSIONS)
    place = found / "results/bench"
    running.prepare(place)
    running.keep(place, result((1, [31.7, 31.5])))
    running.keep(place, result((1, [167.6, 165.1]), date="2026-11-23T03:04:05Z"))
    running.keep(place, result((1, [300.0, 301.0]), date="2026-11-21T03:04:05Z", model="Qwen/QwQ-32B-AWQ"))
    return found


def test_two_results_are_compared_by_name_and_the_latest(folder: Path) -> None:
    done = tandem(folder, "bench", "compare", "qwen-14b-20261122T030405", "latest")
    assert done.returncode == 0, done.stderr
    assert "1        31.60 (31.50 to 31.70)  166.3 (165.1 to 167.6)  5.26  better" in done.stdout
    done = tandem(folder, "bench", "compare", "qwen-14b-20261122T030405", "latest", "--json")
    assert json.loads(done.stdout)["rows"][0]["difference"] == "better"


def test_results_of_two_models_are_compared_only_anyway(folder: Path) -> None:
    names = ("qwen-14b-20261121T030405", "latest")
    done = tandem(folder, "bench", "compare", *names)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "error: qwen-14b-20261121T030405 and latest did not measure the same, so a ratio means little:\n"
        "  model: Qwen/QwQ-32B-AWQ and Qwen/Qwen2.5-14B-Instruct\n"
        "  --anyway compares them all the same\n"
    )
    done = tandem(folder, "bench", "compare", *names, "--anyway")
    assert done.returncode == 0
    assert "not the same model: Qwen/QwQ-32B-AWQ and Qwen/Qwen2.5-14B-Instruct" in done.stdout


def test_a_file_that_is_no_result_is_named(folder: Path) -> None:
    broken = folder / "results/bench/x.json"
    broken.write_text("{", encoding="utf-8")
    done = tandem(folder, "bench", "compare", "x", "latest")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"error: {broken}: is no result of bench: ")


# --- plots ------------------------------------------------------------------------------------------------------------


PNG = b"\x89PNG\r\n\x1a\n"


def test_a_bench_is_drawn_when_asked(machine: Machine) -> None:
    done = machine.command("bench", "demo", *FEW, "--plot", "demo.png")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "drawn in demo.png"
    assert (machine.folder / "demo.png").read_bytes().startswith(PNG)
    done = machine.command("bench", "demo", *FEW, "--plot", "other.png", "--json")
    given = json.loads(done.stdout)
    assert given["plot"] == str(machine.folder / "other.png")
    assert Path(given["plot"]).is_file()


@pytest.mark.parametrize("name", ["there.png", "none/demo.png", "demo.jpg"])
def test_a_plot_that_cannot_be_is_refused_before_anything_is_done(machine: Machine, name: str) -> None:
    (machine.folder / "there.png").touch()
    for command in (("demo", *FEW), ("compare", "a", "b")):
        done = machine.command("bench", *command, "--plot", name)
        assert (done.returncode, done.stdout) == (1, "")
        [line] = done.stderr.splitlines()
        assert line.startswith(f"error: --plot: {name}: ")
    assert machine.docker.did == machine.activator.heard == []
    assert not (machine.folder / "results").exists()


def test_a_plot_without_matplotlib_is_refused_before_anything_is_done(machine: Machine) -> None:
    without = machine.folder / "without"
    without.mkdir()
    (without / "matplotlib.py").write_text("raise ModuleNotFoundError('no', name='matplotlib')\n")
    machine.environment["PYTHONPATH"] = f"{without}:{ROOT}"
    said = "error: --plot: needs matplotlib, which is not installed here: scripts/setup --plot\n"
    for command in (("demo", *FEW), ("compare", "a", "b")):
        done = machine.command("bench", *command, "--plot", "demo.png")
        assert (done.returncode, done.stdout, done.stderr) == (1, "", said)
    assert machine.docker.did == machine.activator.heard == []
    # And nothing else needs it.
    done = machine.command("bench", "demo", *FEW)
    assert done.returncode == 0, done.stderr


def test_a_bench_with_nothing_to_draw_keeps_its_result_and_says_so(machine: Machine) -> None:
    benchmark(machine, recorded("bench-serve-0.32.0-failed"))
    done = machine.command("bench", "demo", *FEW, "--plot", "demo.png")
    assert done.returncode == 1
    [kept] = (machine.folder / "results/bench").iterdir()
    assert done.stdout.splitlines()[-1] == f"kept in results/bench/{kept.name}"
    assert done.stderr.splitlines()[-1] == f"error: nothing to draw: in every run of {kept.stem} a request failed"
    assert not (machine.folder / "demo.png").exists()
    done = machine.command("bench", "demo", *FEW, "--plot", "demo.png", "--json")
    assert done.returncode == 1
    assert "plot" not in json.loads(done.stdout)


def test_an_interrupted_drawing_leaves_no_file_and_the_figures_are_told(folder: Path) -> None:
    # A module in matplotlib's place that interrupts who draws with it, as Ctrl-C does.
    stand_in = folder / "stand-in/matplotlib"
    (stand_in / "backends").mkdir(parents=True)
    (stand_in / "__init__.py").write_text("def rc_context():\n    raise KeyboardInterrupt\n")
    (stand_in / "backends/__init__.py").touch()
    (stand_in / "backends/backend_agg.py").touch()
    names = ("qwen-14b-20261122T030405", "latest")
    done = tandem(
        folder, "bench", "compare", *names, "--plot", "both.png", PYTHONPATH=f"{folder}/stand-in:{ROOT}"
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (130, "error: interrupted; nothing is drawn\n")
    assert "output tokens a second" in done.stdout
    assert not (folder / "both.png").exists()


def test_two_results_are_drawn_when_asked(folder: Path) -> None:
    names = ("qwen-14b-20261122T030405", "latest")
    done = tandem(folder, "bench", "compare", *names, "--plot", "both.png")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "drawn in both.png"
    first = (folder / "both.png").read_bytes()
    assert first.startswith(PNG)
    done = tandem(folder, "bench", "compare", *names, "--plot", "both.png")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: --plot: both.png: is there already; name another, or remove it\n"
    assert (folder / "both.png").read_bytes() == first
    done = tandem(folder, "bench", "compare", *names, "--plot", "again.png", "--json")
    assert json.loads(done.stdout)["plot"] == str(folder / "again.png")
    assert (folder / "again.png").read_bytes() == first


def test_two_results_that_cannot_be_compared_are_not_drawn(folder: Path) -> None:
    done = tandem(folder, "bench", "compare", "qwen-14b-20261121T030405", "latest", "--plot", "both.png")
    assert done.returncode == 1
    assert not (folder / "both.png").exists()
