"""What --fix does: no more than is safe, each with the line that undoes it; and that line does."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from orchestrator.doctor.fixing import Done, Hands, fix
from orchestrator.doctor.remedies import Remedy, lines, remedies
from orchestrator.errors import TandemError
from tests.unit.simulated import Simulated


@pytest.fixture
def box(tmp_path: Path) -> Simulated:
    return Simulated(tmp_path)


class Fixer:
    """Hands that keep what they were told to run."""

    def __init__(self, box: Simulated, *, user: int = 1000, says: bool | None = None, fails: str = "") -> None:
        self.box, self.fails = box, fails
        self.ran: list[str] = []
        self.asked: list[str] = []
        self._says = says
        self.hands = Hands(lambda: box.project / ".env", user, self._run, None if says is None else self._ask)

    def _run(self, argv: Sequence[str]) -> int:
        self.ran.append(" ".join(argv))
        return 1 if self.fails and self.fails in argv else 0

    def _ask(self, question: str) -> bool:
        self.asked.append(question)
        return bool(self._says)

    def fix(self) -> list[Done]:
        return list(fix(remedies(self.box.box()), self.hands))


def undo(done: Done) -> None:
    subprocess.run(done.undo, shell=True, check=True)


def test_a_machine_in_order_has_nothing_to_mend(box: Simulated) -> None:
    assert Fixer(box).fix() == []


def test_line_ends_are_mended_with_a_copy_beside_that_brings_them_back(box: Simulated) -> None:
    env, before = box.project / ".env", b"# mine\r\nTANDEM_PORT=8000\nHF_TOKEN=x\r\n"
    env.write_bytes(before)
    env.chmod(0o600)
    done = Fixer(box).fix()
    assert env.read_bytes() == b"# mine\nTANDEM_PORT=8000\nHF_TOKEN=x\n"
    copy = box.project / ".env.before-doctor"
    assert (copy.read_bytes(), copy.stat().st_mode & 0o777, env.stat().st_mode & 0o777) == (before, 0o600, 0o600)
    assert done == [Done(f"{env}: its lines end as on Linux now", f"mv {copy} {env}")]
    assert box.findings()["line ends"].status == "ok"
    undo(done[0])
    assert env.read_bytes() == before


def test_an_older_copy_is_never_written_over(box: Simulated) -> None:
    for text in (b"A=1\r\n", b"A=2\r\n"):
        (box.project / "models.toml").write_bytes(text)
        Fixer(box).fix()
    assert (box.project / "models.toml.before-doctor").read_bytes() == b"A=1\r\n"
    assert (box.project / "models.toml.before-doctor-2").read_bytes() == b"A=2\r\n"


def test_a_link_stays_a_link(box: Simulated, tmp_path: Path) -> None:
    (tmp_path / "real.env").write_bytes(b"A=1\r\n")
    (box.project / ".env").symlink_to(tmp_path / "real.env")
    Fixer(box).fix()
    assert (box.project / ".env").is_symlink()
    assert (tmp_path / "real.env").read_bytes() == b"A=1\n"


def test_what_undoes_it_may_have_blanks_in_its_path(box: Simulated, tmp_path: Path) -> None:
    folder = tmp_path / "my models/a b"
    box.settings = {"TANDEM_MODELS": str(folder)}
    done = Fixer(box).fix()
    assert folder.is_dir()
    undo(done[0])
    assert not folder.parent.exists()
    other = Fixer(box, user=1001).fix()[0].text.splitlines()[1]
    assert other == f"  sudo install -d -o 1000 -g 1000 '{folder}'"


def test_scripts_are_told_and_left(box: Simulated) -> None:
    script = box.project / "scripts/up"
    script.parent.mkdir()
    script.write_bytes(b"#!/bin/sh\r\n")
    assert Fixer(box).fix() == []
    assert script.read_bytes() == b"#!/bin/sh\r\n"


def test_a_file_that_cannot_be_written_is_an_error_and_is_as_it_was(
    box: Simulated, monkeypatch: pytest.MonkeyPatch
) -> None:
    (box.project / ".env").write_bytes(b"A=1\r\n")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(TandemError, match=r"\.env: cannot be written: No space left on device"):
        Fixer(box).fix()
    assert (box.project / ".env").read_bytes() == b"A=1\r\n"
    assert [path.name for path in box.project.iterdir()] == [".env"]


def test_a_folder_of_weights_is_made_and_taken_away_again(box: Simulated, tmp_path: Path) -> None:
    folder = tmp_path / "a/b/models"
    box.settings = {"TANDEM_MODELS": str(folder)}
    done = Fixer(box).fix()
    assert folder.is_dir()
    undo(done[0])
    assert not (tmp_path / "a").exists()


def test_a_folder_that_root_makes_is_the_pullers(box: Simulated, tmp_path: Path) -> None:
    if os.getuid():
        pytest.skip("only root may give a folder away")
    box.settings = {"TANDEM_MODELS": str(tmp_path / "models")}
    Fixer(box, user=0).fix()
    assert (tmp_path / "models").stat().st_uid == 1000


def test_another_user_is_told_how_to_make_the_folder(box: Simulated, tmp_path: Path) -> None:
    box.settings = {"TANDEM_MODELS": str(tmp_path / "models")}
    (done,) = Fixer(box, user=1001).fix()
    assert (done.undo, "sudo install -d -o 1000 -g 1000" in done.text) == ("", True)
    assert not (tmp_path / "models").exists()


def test_a_port_that_is_taken_gives_way_to_a_free_one(box: Simulated) -> None:
    (box.project / ".env").write_text("# mine\nA=1\n")
    box.process(4242, "python3", inode=991)
    box.listens(8000, 991)
    (done,) = Fixer(box).fix()
    assert (box.project / ".env").read_text() == "# mine\nA=1\nTANDEM_PORT=8001\n"
    assert "python3 (pid 4242)" in done.text
    undo(done)
    assert (box.project / ".env").read_text() == "# mine\nA=1\n"


def test_an_env_file_that_was_not_there_goes_again(box: Simulated) -> None:
    box.engine.listens = "unix:///run/user/1000/docker.sock"
    (done,) = Fixer(box).fix()
    assert (box.project / ".env").read_text() == "TANDEM_DOCKER_SOCKET=/run/user/1000/docker.sock\n"
    undo(done)
    assert not (box.project / ".env").exists()


COMMANDS = [
    "sudo cp -a /etc/docker/daemon.json /etc/docker/daemon.json.before-doctor",
    "sudo nvidia-ctk runtime configure --runtime=docker",
    "sudo systemctl restart docker",
]


@pytest.fixture
def unconfigured(box: Simulated) -> Simulated:
    assert isinstance(box.engine.said, dict)
    box.engine.said["Runtimes"] = {}
    box.write("usr/bin/nvidia-container-runtime-hook", "")
    box.write("etc/docker/daemon.json", "{}")
    return box


def test_the_runtime_is_configured_when_somebody_says_yes(unconfigured: Simulated) -> None:
    fixer = Fixer(unconfigured, says=True)
    (done,) = fixer.fix()
    assert fixer.ran == COMMANDS
    assert done.text == "NVIDIA's runtime: configured, and Docker restarted"
    assert done.undo == (
        "sudo mv /etc/docker/daemon.json.before-doctor /etc/docker/daemon.json && sudo systemctl restart docker"
    )
    assert "Docker restarts, and with it all containers" in fixer.asked[0]


def test_each_configuring_keeps_a_copy_of_its_own_and_undoes_to_that(unconfigured: Simulated) -> None:
    unconfigured.write("etc/docker/daemon.json.before-doctor", "of the first time")
    fixer = Fixer(unconfigured, says=True)
    (done,) = fixer.fix()
    copy = "/etc/docker/daemon.json.before-doctor-2"
    assert fixer.ran[0] == f"sudo cp -a /etc/docker/daemon.json {copy}"
    assert done.undo.startswith(f"sudo mv {copy} /etc/docker/daemon.json && ")


def test_a_configuration_that_was_not_there_goes_again_and_one_that_is_not_seen_is_not_lost(
    unconfigured: Simulated,
) -> None:
    (unconfigured.root / "etc/docker/daemon.json").unlink()
    fixer = Fixer(unconfigured, says=True)
    (done,) = fixer.fix()
    assert fixer.ran == ["sudo test ! -e /etc/docker/daemon.json", *COMMANDS[1:]]
    assert done.undo == "sudo rm /etc/docker/daemon.json && sudo systemctl restart docker"
    fixer = Fixer(unconfigured, says=True, fails="test")
    (done,) = fixer.fix()
    assert (fixer.ran, done.undo) == (["sudo test ! -e /etc/docker/daemon.json"], "")


def test_the_runtime_is_left_when_somebody_says_no_or_nobody_can(unconfigured: Simulated) -> None:
    for says, words in ((False, "left as it is"), (None, "nobody can be asked")):
        fixer = Fixer(unconfigured, says=says)
        (done,) = fixer.fix()
        assert (fixer.ran, done.undo, words in done.text) == ([], "", True)
        assert "\n  sudo nvidia-ctk runtime configure --runtime=docker\n" in done.text


def test_what_comes_after_a_failure_is_not_done(unconfigured: Simulated) -> None:
    fixer = Fixer(unconfigured, says=True, fails="nvidia-ctk")
    (done,) = fixer.fix()
    assert fixer.ran == COMMANDS[:2]
    assert "'sudo nvidia-ctk runtime configure --runtime=docker' failed" in done.text
    assert done.undo.startswith("sudo mv ")


def test_docker_is_never_configured_for_a_machine_without_a_toolkit(unconfigured: Simulated) -> None:
    (unconfigured.root / "usr/bin/nvidia-container-runtime-hook").unlink()
    assert Fixer(unconfigured, says=True).fix() == []


def test_commands_are_written_as_they_are_typed() -> None:
    remedy = Remedy("runtime", "x", argv=(("sudo", "sh", "-c", "a || b"),))
    assert lines(remedy.argv) == ["sudo sh -c 'a || b'"]
