"""The entry: an expected error is a line and an exit code, a bug keeps its traceback, and help imports little."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from tests.checkout import PATIENCE
from tests.standins.activator import StandIn, running
from tests.unit.values import ROOT, in_order

MODELS = '[models.demo]\nmodel = "./demo"\nimage = "cpu"\n'
TWO = MODELS + '[models.other]\nmodel = "./demo"\nimage = "cpu"\n'
VERSIONS = (
    'default = "0.32.0"\n[versions."0.32.0"]\npython = "3.11"\npackages = []\n'
    'cuda = { build = "cu130", driver = 580, gigabytes = 20 }\ncpu = { build = "cpu", gigabytes = 7 }\n'
)


def run(folder: Path, *argv: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a folder, with the package and nothing of this machine's settings."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("TANDEM_", "COMPOSE_"))}
    environment = inherited | {"PYTHONPATH": str(ROOT), "COLUMNS": "120"} | variables
    return subprocess.run(
        [sys.executable, *argv],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )


def tandem(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return run(folder, "-m", "orchestrator", *arguments, **variables)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small project that is in order."""
    return in_order(tmp_path, MODELS, VERSIONS)


def raising(statement: str) -> str:
    """A program that is the entry with one more command, `boom`."""
    return dedent(f"""
        import sys
        from orchestrator.__main__ import main
        from orchestrator.cli import app
        from orchestrator.errors import ConfigError, TandemError

        @app.command()
        def boom():
            {statement}

        sys.argv = ["tandem", "boom"]
        sys.exit(main())
        """)


@pytest.mark.parametrize(
    ("statement", "code", "said"),
    [
        ('raise TandemError("what is wrong")', 1, "error: what is wrong\n"),
        (r'raise TandemError("what is wrong\n  what to do")', 1, "error: what is wrong\n  what to do\n"),
        ('raise ConfigError(["a: one", "b: two"])', 2, "error: a: one\nerror: b: two\n"),
        ('raise OSError(28, "No space left on device")', 1, "error: No space left on device\n"),
        ('open("/dev/full", "w").write("x" * 9000)', 1, "error: No space left on device\n"),
    ],
)
def test_an_expected_error_is_its_lines_and_an_exit_code(tmp_path: Path, statement: str, code: int, said: str) -> None:
    done = run(tmp_path, "-c", raising(statement))
    assert (done.returncode, done.stdout, done.stderr) == (code, "", said)


@pytest.mark.parametrize(
    ("statement", "last"),
    [
        ('raise ValueError("a bug")', "ValueError: a bug"),
        ('raise OSError("a bug")', "OSError: a bug"),
    ],
)
def test_a_bug_keeps_its_traceback(tmp_path: Path, statement: str, last: str) -> None:
    done = run(tmp_path, "-c", raising(statement))
    lines = done.stderr.splitlines()
    assert (done.returncode, lines[0], lines[-1]) == (1, "Traceback (most recent call last):", last)


def test_a_project_in_order_has_nothing_wrong(folder: Path) -> None:
    done = tandem(folder, "check")
    assert (done.returncode, done.stdout, done.stderr) == (0, "models.toml: 1 profiles, nothing wrong: demo\n", "")


def test_every_fault_is_an_error_line_and_the_code_is_2(folder: Path) -> None:
    (folder / "models.toml").write_text(MODELS + 'max_model_len = "1k"\nimages = 3\n')
    done = tandem(folder, "check", TANDEM_PROT="9000")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        'error: models.toml: models.demo.max_model_len: should be an integer, got "1k"',
        "error: models.toml: models.demo.images: unknown key, did you mean image?",
        "error: TANDEM_PROT: unknown setting, did you mean TANDEM_PORT?",
    ]


def test_a_name_that_is_no_profile_is_an_error_line_and_the_code_is_1(folder: Path) -> None:
    done = tandem(folder, "up", "nobody")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: nobody: no such profile; models.toml has: demo\n"


def test_a_bundle_of_a_name_that_is_no_profile_is_an_error_line(folder: Path) -> None:
    done = tandem(folder, "bundle", "save", "carried", "demo", "nobody")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: nobody: no such profile; models.toml has: demo\n"
    assert not (folder / "carried").exists()


def test_a_folder_that_is_no_bundle_is_an_error_line_and_needs_no_docker(folder: Path) -> None:
    done = tandem(folder, "bundle", "load", ".", DOCKER_HOST="unix:///nobody")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"error: {folder}: is no bundle: it holds no manifest.json\n"


def test_a_bundle_without_docker_is_an_error_line(folder: Path) -> None:
    done = tandem(folder, "bundle", "save", "carried", "demo", DOCKER_HOST="unix:///nobody")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: Docker does not answer. ")


def test_an_env_file_that_is_missing_is_an_error_line(folder: Path) -> None:
    done = tandem(folder, "--env-file", "none.env", "check")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: {folder}/none.env: cannot be read: No such file or directory\n"


def test_a_command_that_there_is_not_is_refused(folder: Path) -> None:
    done = tandem(folder, "upp")
    assert (done.returncode, done.stdout) == (2, "")
    assert "No such command 'upp'" in done.stderr


def test_what_render_wrote_is_up_to_date(folder: Path) -> None:
    assert tandem(folder, "render").stdout.splitlines() == [
        "wrote compose.models.yaml",
        "wrote env/demo.env",
        "wrote docker/router/routes/routes.json",
        "wrote docker/activator/models/models.json",
        "wrote models.schema.json",
    ]
    assert tandem(folder, "render").stdout == "everything is up to date\n"
    checked = tandem(folder, "render", "--check")
    assert (checked.returncode, checked.stdout) == (0, "")


def test_render_check_shows_what_is_stale_and_writes_nothing(folder: Path) -> None:
    tandem(folder, "render")
    path = folder / "env/demo.env"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("COMPOSE_PROFILES=demo", "COMPOSE_PROFILES=dem"), encoding="utf-8")
    checked = tandem(folder, "render", "--check")
    assert checked.returncode == 1
    assert [line for line in checked.stdout.splitlines() if line[:1] in "+-"] == [
        "--- env/demo.env",
        "+++ env/demo.env (rendered)",
        "-COMPOSE_PROFILES=dem",
        "+COMPOSE_PROFILES=demo",
    ]
    assert "COMPOSE_PROFILES=dem\n" in path.read_text(encoding="utf-8")


def test_an_up_that_nobody_could_ask_for_says_how_to_make_a_key_and_check_is_content(folder: Path) -> None:
    open_to_all = {"TANDEM_BIND": "0.0.0.0", "TANDEM_BIND_WITHOUT_KEY": "yes", "DOCKER_HOST": "unix:///nobody"}
    assert tandem(folder, "check", **open_to_all).returncode == 0
    done = tandem(folder, "up", "demo", **open_to_all)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: TANDEM_BIND=0.0.0.0 lets other machines in")
    assert "  and put its whole path into .env:  TANDEM_ADMIN_KEY_FILE=" in done.stderr


class Machine:
    """An activator as the command line sees it: the state of each model follows from what was asked before."""

    def __init__(self, stand_in: StandIn, *models: str) -> None:
        self.stand_in = stand_in
        self.models = models
        ends = {"sleep": "asleep", "wake": "ready", "up": "ready", "down": "stopped"}
        stand_in.script = {verb: [{"model": models[0], "phase": end}] for verb, end in ends.items()}
        stand_in.look = self.look

    def look(self) -> dict[str, Any]:
        states = dict.fromkeys(self.models, "stopped") | {self.models[0]: "ready"}
        last: dict[str, Any] = {}
        for line in self.stand_in.heard:
            verb, name = self.asked(line)
            before = states.get(name)
            if not verb or (before == "ready" and verb not in ("down", "sleep")):
                continue
            if verb in ("down", "sleep"):
                states[name], kind = ("stopped" if verb == "down" else "asleep"), "rest"
            else:
                states = {model: "asleep" if state == "ready" else state for model, state in states.items()}
                states[name], kind = "ready", "cold" if before == "stopped" else "wake"
            last = {"target": name, "kind": kind, "seconds": {"wake": 0.25}, "total": 0.5, "outcome": "ready"}
        models = [{"name": name, "state": state} for name, state in states.items()]
        return {"models": models, "gpus": None, "last": last, "wanted": [self.models[0]]}

    def asked(self, line: str) -> tuple[str, str]:
        """The verb and the model of a request; "" where it switches nothing."""
        if "/v1/completions" in line:
            return "completions", json.loads(line.split(maxsplit=2)[2])["model"]
        found = re.match(r"POST /-/(up|down|sleep|wake)/([^ ?]+)", line)
        return (found[1], found[2]) if found else ("", "")

    @property
    def port(self) -> str:
        return self.stand_in.address.rpartition(":")[2]

    def posts(self) -> list[str]:
        return [line.split()[1] for line in self.stand_in.heard if line.startswith("POST")]


@pytest.mark.parametrize(("answers", "code"), [(["four"], 0), (["four", "fish"], 1)])
def test_a_sleep_test_ends_with_whether_the_answer_stayed_the_same(
    folder: Path, answers: list[str | tuple[int, str]], code: int
) -> None:
    with running() as stand_in:
        machine = Machine(stand_in, "demo")
        stand_in.completions = list(answers)
        done = tandem(folder, "sleep-test", "demo", "--cycles", "1", TANDEM_PORT=machine.port)
    assert done.returncode == code, done.stderr
    assert ("may sleep" in done.stdout) == (code == 0)
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert machine.posts()[-1] == "/-/slept/demo"


def test_a_sleep_test_for_scripts(folder: Path) -> None:
    with running() as stand_in:
        machine = Machine(stand_in, "demo")
        stand_in.completions = ["four"]
        done = tandem(folder, "sleep-test", "demo", "--cycles", "1", "--json", TANDEM_PORT=machine.port)
    given = json.loads(done.stdout)
    assert (given["passed"], given["cycles"][0]["wake"]["phases"]) == (True, {"wake": 0.25})


@pytest.mark.parametrize("command", [("sleep-test", "demo"), ("bench", "switch", "--models", "demo,other")])
def test_where_no_activator_is_measuring_is_an_error_line(folder: Path, command: tuple[str, ...]) -> None:
    (folder / "models.toml").write_text(TWO)
    done = tandem(folder, *command, TANDEM_PORT="1")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[0] == (
        "error: the activator does not answer: at http://localhost:1: connection refused"
    )


def test_a_bench_prints_a_matrix_of_what_it_switched_and_leaves_up_what_was_wanted(folder: Path) -> None:
    (folder / "models.toml").write_text(TWO)
    with running() as stand_in:
        machine = Machine(stand_in, "demo", "other")
        stand_in.completions = ['data: {"choices": [{"text": "Hi"}]}']
        options = ("--models", "demo,other", "--rounds", "1")
        set_to = {"TANDEM_PORT": machine.port, "TANDEM_MIN_AWAKE": "0"}
        done = tandem(folder, "bench", "switch", *options, **set_to)
        assert done.returncode == 0, done.stderr + done.stdout
        lines = done.stdout.splitlines()
        assert [line.split()[:2] for line in lines[2:5]] == [["FROM", "TO"], ["demo", "other"], ["other", "demo"]]
        assert lines[2].split()[2:] == ["WARM", "WAKE"]
        assert lines.count("  wake 0.25") == 4
        # A warm start is that of a server that was stopped, a wake that of one that slept.
        assert machine.posts()[:3] == ["/-/up/demo", "/-/down/other", "/v1/completions"]
        assert machine.posts()[-2:] == ["/v1/completions", "/-/up/demo"]
        stand_in.heard.clear()
        done = tandem(folder, "bench", "switch", *options, "--kinds", "wake", "--json", **set_to)
    given = json.loads(done.stdout)
    assert [(cell["source"], cell["target"], cell["kind"], cell["rounds"]) for cell in given["matrix"]] == [
        ("demo", "other", "wake", 1),
        ("other", "demo", "wake", 1),
    ]
    assert given["switches"][0]["seconds"] == {"wake": 0.25}


@pytest.mark.parametrize(
    ("arguments", "fact"),
    [
        (["--kinds", "hot"], "--kinds: should be some of cold, warm, wake, got hot"),
        (["--models", "demo"], "--models: should be two profiles or more, got demo"),
        (["--models", "demo,nobody"], "nobody: no such profile; models.toml has: demo"),
    ],
)
def test_a_bench_of_what_there_is_not_is_an_error_line(folder: Path, arguments: list[str], fact: str) -> None:
    done = tandem(folder, "bench", "switch", *arguments)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"error: {fact}\n")


HEAVY = ("docker", "requests", "rich.live", "httpx", "dotenv", "orchestrator.profiles")


@pytest.mark.parametrize(
    ("arguments", "heavy"),
    [
        (["--help"], ("pydantic", *HEAVY)),
        # typer itself needs pydantic from here on.
        (["up", "--help"], HEAVY),
    ],
)
def test_help_waits_for_nothing_that_it_does_not_need(
    tmp_path: Path, arguments: list[str], heavy: tuple[str, ...]
) -> None:
    program = dedent(f"""
        import sys
        from orchestrator.__main__ import main
        sys.argv = ["tandem", *{arguments!r}]
        try:
            main()
        finally:
            print("imported:", [name for name in {heavy!r} if name in sys.modules])
        """)
    done = run(tmp_path, "-c", program)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "imported: []"
    assert "Usage: tandem" in done.stdout


def test_help_names_every_command(tmp_path: Path) -> None:
    shown = tandem(tmp_path, "--help")
    assert (shown.returncode, shown.stderr) == (0, "")
    commands = shown.stdout.split("Commands:")[1].splitlines()[1:]
    assert [line.split()[0] for line in commands if line.strip()] == [
        "check",
        "render",
        "plan",
        "build",
        "images",
        "verify-image",
        "pull",
        "verify",
        "report",
        "up",
        "down",
        "status",
        "requests",
        "logs",
        "sleep-test",
        "doctor",
        "models",
        "bench",
        "bundle",
        "keys",
    ]
