"""A machine that has nothing yet: a container of plain Debian 12, in which Docker itself is installed and runs."""

import json
import os
import pty
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator import host
from tests.checkout import Checkout, eventually

pytestmark = pytest.mark.docker

NAME = "tandem-test-fresh"
HOME = "/home/owner/tandem"
# How this machine reaches its package mirrors, which a new one would be told as well.
NETWORK = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"


class Machine:
    """A fresh machine, and how to run commands on it."""

    def __init__(self, checkout: Checkout) -> None:
        self.checkout = checkout

    def argv(self, command: str, *, user: str = "root", terminal: bool = False) -> list[str]:
        return ["docker", "exec", "-u", user, "-w", HOME, *(["-it"] if terminal else []), NAME, "bash", "-c", command]

    def run(self, command: str, *, user: str = "root") -> subprocess.CompletedProcess[str]:
        return self.checkout.run(self.argv(command, user=user))

    def on_terminal(self, command: str, answer: str) -> tuple[int, str]:
        """Run a command on a terminal and type an answer when it asks; exit code and what the screen got."""
        master, slave = pty.openpty()
        process = subprocess.Popen(
            self.argv(command, terminal=True), stdin=slave, stdout=slave, stderr=slave, env=self.checkout.env()
        )
        os.close(slave)
        screen, answered = b"", False
        while True:
            try:
                shown = os.read(master, 4096)
            except OSError:  # how Linux says that the other end is closed
                break
            screen += shown
            if not answered and screen.endswith(b"[y/N] "):
                answered = bool(os.write(master, answer.encode()))
        os.close(master)
        return process.wait(), screen.decode()


@pytest.fixture(scope="module")
def machine(images: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """Plain Debian 12 with this project's files in it, and this machine's mirrors."""
    base = next(
        image
        for image in ("debian:bookworm-slim", "tandem/base:bookworm")
        if images.run(["docker", "image", "inspect", image]).returncode == 0
    )
    mounts = ["-v", f"{CERTIFICATES}:{CERTIFICATES}:ro"] if host.certificates({}) else []
    if host.wheels():
        mounts += ["-v", f"{host.wheels()}:/wheels:ro", "-e", "PIP_FIND_LINKS=/wheels"]
    passed = [word for name in NETWORK if name in os.environ for word in ("-e", f"{name}={os.environ[name]}")]
    images.run(["docker", "rm", "-f", "-v", NAME])
    started = images.run(
        ["docker", "run", "-d", "--init", "--privileged", "--name", NAME, "-v", "/var/lib/docker", *mounts, *passed,
         "-e", f"PIP_CERT={CERTIFICATES}", "-e", f"SSL_CERT_FILE={CERTIFICATES}", base, "sleep", "infinity"]
    )  # fmt: skip
    assert started.returncode == 0, started.stderr
    files = Checkout.copy(tmp_path_factory.mktemp("fresh"))
    made = Machine(images)
    try:
        for argv in (
            ["exec", NAME, "mkdir", "-p", str(Path(HOME).parent)],
            ["cp", f"{files.folder}/.", f"{NAME}:{HOME}"],
        ):
            done = images.run(["docker", *argv])
            assert done.returncode == 0, done.stderr
        if host.debian_mirror():
            written = made.run(f"echo 'deb {host.debian_mirror()} bookworm main' >/etc/apt/sources.list")
            assert written.returncode == 0, written.stderr
        yield made
    finally:
        images.run(["docker", "rm", "-f", "-v", NAME])


def test_setup_says_what_it_is_about_to_install_and_a_no_installs_nothing(machine: Machine) -> None:
    code, screen = machine.on_terminal("scripts/setup", "n\r")
    assert code == 1, screen
    assert "missing here: engine compose python buildx debootstrap" in screen
    assert "installs with apt-get: iptables runc containerd/forky docker.io/forky" in screen
    assert "nothing was installed" in screen
    left = machine.run("command -v docker python3 debootstrap; ls /etc/apt/preferences.d; echo end")
    assert left.stdout == "end\n", left.stderr


def test_an_unknown_argument_is_refused(machine: Machine) -> None:
    done = machine.run("scripts/setup --force")
    assert (done.returncode, done.stderr) == (
        2,
        "setup: unknown argument --force; there are: --yes --dev --plot --offline DIR\n",
    )


def test_setup_installs_docker_compose_buildx_and_the_orchestrator(machine: Machine) -> None:
    done = machine.run("scripts/setup --yes")
    assert done.returncode == 0, done.stderr
    asked = ("docker version --format '{{.Server.Version}}'", "docker compose version --short", "docker buildx version")
    versions = [machine.run(command).stdout for command in asked]
    assert int(versions[0].split(".")[0]) >= 25
    assert tuple(map(int, versions[1].split("-")[0].split(".")[:2])) >= (2, 24)
    assert "buildx" in versions[2]
    shown = json.loads(machine.run(".venv/bin/tandem status --json").stdout)
    assert {row["state"] for row in shown["profiles"]} == {"stopped"}


def test_setup_again_finds_nothing_to_do_and_says_nothing(machine: Machine) -> None:
    done = machine.run("scripts/setup --yes")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_daemon_that_is_stopped_is_started_and_nothing_is_installed(machine: Machine) -> None:
    assert machine.run("kill $(cat /var/run/docker.pid)").returncode == 0
    eventually(lambda: machine.run("test -e /var/run/docker.pid").returncode != 0, what="the daemon's end")
    done = machine.run("scripts/setup --yes")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "setup: starting Docker\n")


def test_a_daemon_that_was_killed_is_started_though_its_number_is_another_s_now(machine: Machine) -> None:
    files = "/var/run/docker.pid /var/run/docker/containerd/containerd.pid"
    numbers = machine.run(f'for file in {files}; do echo "$(cat $file)"; done').stdout.split()
    assert len(numbers) == 2
    # The kernel ends containerd with its dockerd, so one of the two may be gone before its own turn.
    machine.run(f"kill -9 {' '.join(numbers)}")
    for number in numbers:
        eventually(
            lambda number=number: machine.run(f"test -e /proc/{number}/exe").returncode != 0,
            what=f"the end of {number}",
        )
    assert machine.run(f"for file in {files}; do echo 1 >$file; done").returncode == 0
    done = machine.run("scripts/setup --yes")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "setup: starting Docker\n")


def test_a_user_who_is_not_root_gets_the_group_and_can_go_on_at_once(machine: Machine) -> None:
    prepared = machine.run(
        "apt-get -q update && apt-get -q install -y sudo && useradd -m owner2 && "
        "echo 'owner2 ALL=(ALL) NOPASSWD:ALL' >/etc/sudoers.d/owner2 && chown -R owner2: ."
    )
    assert prepared.returncode == 0, prepared.stderr
    done = machine.run("scripts/setup --yes", user="owner2")
    assert done.returncode == 0, done.stderr
    assert "added owner2 to the group docker" in done.stderr
    shown = machine.run("scripts/with-docker docker ps -q && echo reached", user="owner2")
    assert (shown.returncode, shown.stdout) == (0, "reached\n"), shown.stderr


@pytest.mark.slow
def test_scripts_up_brings_a_fresh_machine_to_an_answer(machine: Machine) -> None:
    done = machine.run("scripts/up --yes")
    assert done.returncode == 0, done.stderr
    lines = dict(line.strip().split(maxsplit=1) for line in done.stdout.splitlines()[1:])
    assert lines["model"] == "demo"
    assert "as the image registry" in done.stderr or "as it is on this machine" in done.stderr
    answer = machine.run("apt-get -q install -y curl >/dev/null 2>&1; " + lines["try"])
    assert json.loads(answer.stdout)["choices"][0]["text"].startswith("我是 Tandem 的 demo 模型")
