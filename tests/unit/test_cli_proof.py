"""verify and up --verify as commands: what is printed, kept, and the exit codes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.proof.checks import Check
from orchestrator.proof.result import Result, path, table, values
from orchestrator.proof.texts import columns_of
from orchestrator.versions import ACTIVATOR
from tests.standins import answering, docker
from tests.unit.test_cli_switch import heard, interrupted
from tests.unit.test_main import MODELS, VERSIONS, tandem
from tests.unit.values import ROOT, in_order

LONG = "The capital of a country that hardly anybody knows is said to be " * 3
ROWS = (
    Check("listed", "ok", "demo"),
    Check("8 at once", "miss", LONG + "“" + "雨" * 70 + "”"),
    Check("tool calls", "warn", "answered in words"),
    Check("sleep", "skipped", "not tried: sleep is off"),
)
FOUND = Result("demo", "Demo", "http://localhost:8000/v1", "2026-01-02T03:04:05Z", 12.34, False, ROWS)
SOUND = Result("demo", "Demo", "http://localhost:8000/v1", "2026-01-02T03:04:05Z", 12.34, True, ROWS[2:])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return in_order(tmp_path, MODELS, VERSIONS)


def kept(folder: Path) -> Path:
    return folder / path("demo")


def test_a_table_has_a_row_for_each_check_in_80_columns() -> None:
    lines = table(FOUND).splitlines()
    assert max(map(columns_of, lines)) <= 80
    assert lines[0] == "demo: http://localhost:8000/v1, 12 s"
    assert lines[2] == "  ok       listed      demo"
    assert lines[3].startswith("  MISS     8 at once   The capital of a country ")
    assert lines[4].startswith(" " * 23 + "hardly" if "hardly" not in lines[3] else " " * 23)
    assert "  warn     tool calls  answered in words" in lines
    assert "  skipped  sleep       not tried: sleep is off" in lines
    assert lines[-4:] == [
        "demo is up, and not right: 8 at once",
        "docs/verify.md says what each row means, and what to do",
        "Words without sense are meant, as of random weights? Leave them out:",
        "  python -m orchestrator verify demo --plumbing",
    ]


def test_what_is_right_but_for_its_words_is_said_so() -> None:
    assert table(SOUND).splitlines()[-1] == "demo is right, but for its words, which nobody judged"


def test_values_for_scripts_are_what_the_table_shows() -> None:
    shown = values(FOUND)
    assert (shown["passed"], shown["plumbing"], shown["seconds"], shown["when"]) == (
        False, False, 12.3, "2026-01-02T03:04:05Z",
    )  # fmt: skip
    assert shown["checks"][0] == {"name": "listed", "state": "ok", "fact": "demo"}


def port(standin: answering.Answering) -> str:
    return standin.address.rpartition(":")[2]


def test_a_sound_model_is_right_and_the_result_is_kept(folder: Path) -> None:
    with answering.running(name="demo", aliases=()) as standin:
        done = tandem(folder, "verify", "demo", TANDEM_PORT=port(standin))
        assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "demo is right"), done.stderr + done.stdout
        # What takes long says what it does.
        assert "demo: chats, in English and in Chinese" in done.stderr.splitlines()
        again = tandem(folder, "verify", "demo", "--json", "--plumbing", TANDEM_PORT=port(standin))
    shown = json.loads(again.stdout)
    assert (shown["passed"], shown["plumbing"], shown["model"]) == (True, True, "demo")
    assert json.loads(kept(folder).read_text(encoding="utf-8")) == shown
    assert max(map(columns_of, done.stdout.splitlines())) <= 80


def test_a_broken_model_is_exit_1_and_says_what_to_do(folder: Path) -> None:
    with answering.running("same", name="demo", aliases=()) as standin:
        done = tandem(folder, "verify", "demo", TANDEM_PORT=port(standin))
    assert done.returncode == 1
    assert "demo is up, and not right: own answers" in done.stdout
    assert json.loads(kept(folder).read_text(encoding="utf-8"))["passed"] is False


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["demo"],
            "error: demo is asleep, so it cannot be asked\n  Bring it up first: python -m orchestrator up demo\n",
        ),
        (["nobody"], "error: nobody: no such profile; models.toml has: demo\n"),
        (
            ["demo", "--weights", "--plumbing"],
            "error: --plumbing: is about what a model says, and --weights asks it nothing; give one of them\n",
        ),
    ],
)
def test_a_model_that_cannot_be_asked_is_exit_2(folder: Path, arguments: list[str], said: str) -> None:
    with answering.running(name="demo") as standin:
        standin.state["state"] = "asleep"
        done = tandem(folder, "verify", *arguments, TANDEM_PORT=port(standin))
        assert not any(line.startswith("POST") for line in standin.heard)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", said)
    assert not kept(folder).exists()


def test_a_router_that_does_not_answer_is_exit_2(folder: Path) -> None:
    done = tandem(folder, "verify", "demo", TANDEM_PORT="1")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: the activator does not answer: at http://localhost:1: connection refused\n")


def test_keys_open_what_is_a_clients_and_what_is_the_owners(folder: Path) -> None:
    (folder / "admin.key").write_text("owner-of-this-machine\n", encoding="utf-8")
    (folder / "keys").write_text("alice of-alice-0123456789 rate=9/m\nbob of-bob-0123456789\n", encoding="utf-8")
    with answering.running(name="demo", aliases=()) as standin:
        done = tandem(
            folder, "verify", "demo", TANDEM_PORT=port(standin), TANDEM_KEYS_FOLDER=str(folder),
            TANDEM_ADMIN_KEY_FILE=str(folder / "admin.key"),
        )  # fmt: skip
        sent = dict(zip(standin.heard, standin.keys, strict=True))
    assert done.returncode == 0, done.stderr
    assert sent["GET /-/status"] == "Bearer owner-of-this-machine"
    assert sent["POST /v1/chat/completions"] == sent["POST /tokenize"] == "Bearer of-bob-0123456789"


def test_a_result_that_cannot_be_kept_stands_all_the_same(folder: Path) -> None:
    (folder / ".tandem").write_text("in the way", encoding="utf-8")
    with answering.running(name="demo", aliases=()) as standin:
        done = tandem(folder, "verify", "demo", TANDEM_PORT=port(standin))
    assert done.returncode == 0
    assert "the result is not kept: " in done.stderr


def test_a_run_that_is_interrupted_ends_at_once_and_keeps_nothing(folder: Path) -> None:
    with answering.running("hangs", name="demo", aliases=()) as standin:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "TANDEM_PORT": port(standin)}
        argv = [sys.executable, "-m", "orchestrator", "verify", "demo"]
        with subprocess.Popen(argv, cwd=folder, env=environment, stderr=subprocess.PIPE) as process:
            assert process.stderr is not None
            heard(process.stderr.fileno(), "demo: completions, one after another")
            assert interrupted(process) == 130
            assert process.stderr.read().decode() == "interrupted; nothing is kept of it\n"
    assert not kept(folder).exists()


@pytest.mark.parametrize(("broken", "code"), [("", 0), ("same", 1)])
def test_up_ends_with_it_when_it_is_told_to(folder: Path, tmp_path: Path, broken: str, code: int) -> None:
    images = ("tandem/router:0.1.0", ACTIVATOR, "tandem/vllm:0.32.0-cpu")
    with answering.running(broken, name="demo", aliases=()) as standin, docker.running(tmp_path) as engine:
        engine.images = {tag: f"sha256:{number}" for number, tag in enumerate(images)}
        for service in ("router", "activator", "engine-proxy"):
            engine.has(service)
        engine.has("demo", image=images[2])
        where = {
            "DOCKER_HOST": engine.address, "PATH": f"{engine.bin}:/usr/bin:/bin", "TANDEM_PORT": port(standin),
        }  # fmt: skip
        done = tandem(folder, "up", "demo", "--verify", **where)
        assert done.returncode == code, done.stderr + done.stdout
        assert done.stdout.startswith("demo is ready\n")
        assert ("demo is up, and not right: own answers" if code else "demo is right") in done.stdout.splitlines()
        done = tandem(folder, "up", "demo", "--verify", "--plumbing", "--json", **where)
        shown = json.loads(done.stdout)
    assert (done.returncode, shown["state"], shown["verify"]["passed"]) == (0, "ready", True)


def test_plumbing_without_verify_says_what_it_belongs_to(folder: Path) -> None:
    done = tandem(folder, "up", "demo", "--plumbing")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: --plumbing: is about how a model is verified; give --verify too\n"
