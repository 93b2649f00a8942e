"""`doctor` as a command, and what `up` begins with: with a stand-in for Docker, on this machine as it is."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.cli_checks import Progress
from tests.standins import docker
from tests.unit.test_main import MODELS, VERSIONS, run
from tests.unit.values import in_order


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[docker.Docker]:
    with docker.running(tmp_path) as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return in_order(tmp_path / "project", MODELS, VERSIONS)


def doctor(folder: Path, engine: docker.Docker, *options: str, **shell: str) -> subprocess.CompletedProcess[str]:
    # Nobody is asked what time it is.
    nobody = {"TANDEM_DEBIAN_MIRROR": "http://127.0.0.1:9/debian"}
    environment = {"DOCKER_HOST": engine.address, "PATH": f"{engine.bin}:/usr/bin:/bin"} | nobody | shell
    return run(folder, "-m", "orchestrator", "doctor", *options, **environment)


def rows(done: "subprocess.CompletedProcess[str]") -> dict[str, dict[str, str]]:
    return {row["check"]: row for row in json.loads(done.stdout)["findings"]}


def test_it_looks_at_this_machine_whatever_it_is(folder: Path, engine: docker.Docker) -> None:
    done = doctor(folder, engine, "--json")
    found = rows(done)
    assert done.returncode == any(row["status"] == "bad" for row in found.values()), done.stderr
    assert found["engine"]["found"] == "28.5.2 (a stand-in)"
    assert found["docker's disk"]["status"] == "unknown"
    table = doctor(folder, engine)
    assert table.stdout.splitlines()[0].split()[1] == "wsl"
    assert "\x1b" not in table.stdout


def test_an_engine_that_is_too_old_ends_it_with_1_and_up_with_the_same_line(
    folder: Path, engine: docker.Docker
) -> None:
    engine.info = {"ServerVersion": "24.0.7"}
    done = doctor(folder, engine, "--json")
    found = rows(done)["engine"]
    assert (done.returncode, found["status"], found["blocks"]) == (1, "bad", True)
    environment = {"DOCKER_HOST": engine.address, "PATH": f"{engine.bin}:/usr/bin:/bin"}
    up = run(folder, "-m", "orchestrator", "up", "demo", **environment)
    assert (up.returncode, up.stdout) == (1, "")
    assert up.stderr.splitlines()[0] == f"error: engine: {found['found']}: {found['why']}"
    assert up.stderr.splitlines()[1] == f"  {found['fix']}"
    assert not [line for line in engine.did if "up" in line.split()]


def test_a_docker_that_does_not_answer_is_bad_and_not_a_failure_to_look(folder: Path, engine: docker.Docker) -> None:
    done = doctor(folder, engine, "--json", DOCKER_HOST="unix:///nowhere/docker.sock")
    found = rows(done)
    assert (done.returncode, found["docker"]["status"]) == (1, "bad")
    assert " docker start" in found["docker"]["fix"] or "start docker " in found["docker"]["fix"]
    assert found["project's disk"]["status"] in ("ok", "warn")


@pytest.mark.parametrize(("refused", "check"), [("/containers/json", "restarts"), ("/images/json", "docker's disk")])
def test_a_docker_that_answers_and_refuses_a_list_leaves_that_unknown_and_all_else_in_the_table(
    folder: Path, engine: docker.Docker, refused: str, check: str
) -> None:
    engine.refuses = (refused,)
    (folder / "root").mkdir()
    engine.info = {"DockerRootDir": str(folder / "root")}
    done = doctor(folder, engine, "--json")
    found = rows(done)
    assert (found[check]["status"], found[check]["blocks"]) == ("unknown", False)
    assert "Docker refused: not now" in found[check]["found"]
    assert found["engine"]["status"] == "ok"
    table = doctor(folder, engine)
    assert (table.returncode, f"unknown {check}" in table.stdout) == (done.returncode, True)


def test_of_several_env_files_fix_says_that_it_needs_one_also_in_json(folder: Path, engine: docker.Docker) -> None:
    engine.others = [{"Id": "1", "Names": ["/webui"], "Labels": {}, "Ports": [{"PublicPort": 58123}]}]
    shell = {"COMPOSE_ENV_FILES": "a.env,b.env", "TANDEM_PORT": "58123"}
    for name in ("a.env", "b.env"):
        (folder / name).write_text("")
    said = "--fix needs one file, and there are 2; name one: --env-file .env"
    done = doctor(folder, engine, "--fix", **shell)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"error: {said}\n")
    done = doctor(folder, engine, "--fix", "--json", **shell)
    assert (done.returncode, json.loads(done.stdout)["problems"]) == (1, [said])
    assert rows(done)["port"]["status"] == "bad"


def test_a_project_that_cannot_be_read_is_2(folder: Path, engine: docker.Docker, tmp_path: Path) -> None:
    (folder / "models.toml").write_text("[models]\n")
    done = doctor(folder, engine)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: models.toml: ")
    said = json.loads(doctor(folder, engine, "--json").stdout)
    assert (said["findings"], len(said["problems"])) == ([], 1)


def test_fix_mends_says_how_to_undo_and_looks_again(folder: Path, engine: docker.Docker) -> None:
    (folder / ".env").write_bytes(b"TANDEM_MIN_AWAKE=5\r\n")
    assert rows(doctor(folder, engine, "--json"))["line ends"]["status"] == "warn"
    done = doctor(folder, engine, "--fix")
    assert done.stdout.splitlines()[:3] == [
        f"{folder}/.env: its lines end as on Linux now",
        f"  undo: mv {folder}/.env.before-doctor {folder}/.env",
        "",
    ]
    assert "no env file, models.toml or script" in done.stdout
    again = json.loads(doctor(folder, engine, "--fix", "--json").stdout)
    assert again["fixed"] == []


def test_a_port_that_is_taken_is_mended_in_the_env_file_which_the_shell_may_beat(
    folder: Path, engine: docker.Docker
) -> None:
    engine.others = [{"Id": "1", "Names": ["/webui"], "Labels": {}, "Ports": [{"PublicPort": 58123}]}]
    done = doctor(folder, engine, "--fix", TANDEM_PORT="58123")
    wrote, undo, beaten = done.stdout.splitlines()[:3]
    port = (folder / ".env").read_text().strip()
    assert port.startswith("TANDEM_PORT=581")
    assert wrote == f"{port}: written to {folder}/.env (127.0.0.1:58123 is taken by container webui)"
    assert undo == f"  undo: rm {folder}/.env"
    assert beaten == "  but the shell's TANDEM_PORT beats the file: unset TANDEM_PORT"
    again = doctor(folder, engine, "--json")
    assert (rows(again)["port"]["status"], again.returncode) == ("unknown", 0)


def test_network_is_still_a_command_of_its_own_and_takes_no_options_of_doctor(
    folder: Path, engine: docker.Docker
) -> None:
    assert "--write" in doctor(folder, engine, "network", "--help").stdout
    assert doctor(folder, engine, "--fix", "network").returncode == 2


def test_progress_is_silent_when_it_is_over_before_and_else_says_each_step() -> None:
    said: list[str] = []
    quick = Progress(said.append, seconds=60)
    quick("one")
    quick.close()
    assert said == []
    slow = Progress(said.append, seconds=60)
    slow("one")
    slow._now()
    slow("two")
    slow.close()
    assert said == ["one", "two"]
