"""The entry: an expected error is a line and an exit code, a bug keeps its traceback, and help imports little."""

import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from tests.unit.values import ROOT

MODELS = '[models.demo]\nmodel = "./demo"\nimage = "cpu"\n'
VERSIONS = (
    'default = "0.32.0"\n[versions."0.32.0"]\npython = "3.11"\npackages = []\n'
    'cuda = { build = "cu130", driver = 580, gigabytes = 20 }\ncpu = { build = "cpu", gigabytes = 7 }\n'
)


def run(folder: Path, *argv: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a folder, with the package and nothing of this machine's settings."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("TANDEM_", "COMPOSE_"))}
    environment = inherited | {"PYTHONPATH": str(ROOT), "COLUMNS": "120"} | variables
    return subprocess.run(
        [sys.executable, *argv], cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=60
    )


def tandem(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return run(folder, "-m", "orchestrator", *arguments, **variables)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small project that is in order."""
    for name, text in (
        ("models.toml", MODELS),
        ("compose.yaml", "name: tandem\n"),
        ("docker/vllm/versions.toml", VERSIONS),
        ("demo/config.json", "{}"),
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path


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
        "wrote docker/router/routes/routes.js",
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
        "up",
        "down",
        "status",
        "logs",
        "doctor",
        "models",
        "bundle",
    ]
