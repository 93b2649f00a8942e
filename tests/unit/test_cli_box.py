"""`plan` and `up` look at the machine first: what follows is shown, kept and rendered. All around are stand-ins."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.doctor import kept
from orchestrator.doctor.nccl import Result, Tried
from tests.standins import activator, docker
from tests.unit.nvidia_samples import LINUX, NONE_P2P
from tests.unit.test_main import VERSIONS, run
from tests.unit.values import QWEN, in_order

SMI = """#!/bin/sh
case "$*" in
  "-q -x") cat {folder}/report.xml;;
  "topo -p2p r") cat {folder}/p2p.txt;;
  "--query-gpu=index,compute_cap --format=csv,noheader") printf '0, 8.9\\n1, 8.9\\n';;
  "--query-gpu=driver_version --format=csv,noheader") printf '580.95.05\\n580.95.05\\n';;
  *) exit 6;;
esac
"""
IMAGES = ("tandem/router:0.1.0", "tandem/activator:0.1.0", "tandem/vllm:0.32.0-cu130")


class Machine:
    """A project with one model on two GPUs, and an nvidia-smi that a test may take away."""

    def __init__(self, folder: Path, stand_in: activator.StandIn, engine: docker.Docker) -> None:
        self.folder = in_order(folder / "project", QWEN, VERSIONS)
        (folder / "report.xml").write_text(LINUX)
        (folder / "p2p.txt").write_text(NONE_P2P)
        self.report, self.engine = folder / "report.xml", engine
        self.smi = engine.bin / "nvidia-smi"
        self.smi.write_text(SMI.format(folder=folder))
        self.smi.chmod(0o755)
        self.activator = stand_in
        self.environment = {
            "DOCKER_HOST": engine.address,
            "PATH": f"{engine.bin}:/usr/bin:/bin",
            "TANDEM_PORT": stand_in.address.rpartition(":")[2],
        }
        engine.images = {tag: f"sha256:{number}" for number, tag in enumerate(IMAGES)}
        for service in ("router", "activator", "engine-proxy", "gpus"):
            engine.has(service)
        engine.has("qwen-14b", image=IMAGES[2])
        entry = {"name": "qwen-14b", "state": "ready", "open": True, "since": 1767323045}
        stand_in.status = {"models": [entry], "wanted": ["qwen-14b"], "switch": None, "queue": [], "last": None}

    def here(self) -> None:
        """Have Docker be of this machine, where the router has its port."""
        self.environment["DOCKER_HOST"] = self.engine.local
        labels = {"com.docker.compose.project": "tandem", "com.docker.compose.service": "router"}
        port = {"PublicPort": int(self.environment["TANDEM_PORT"])}
        self.engine.others = [{"Id": "1", "Names": ["/tandem-router"], "Labels": labels, "Ports": [port]}]

    def command(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        return run(self.folder, "-m", "orchestrator", *arguments, **self.environment, **more)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    with activator.running() as stand_in, docker.running(tmp_path) as engine:
        yield Machine(tmp_path, stand_in, engine)


def test_a_plan_shows_what_follows_from_the_machine_and_keeps_nothing(machine: Machine) -> None:
    done = machine.command("plan", "qwen-14b")
    assert done.returncode == 0, done.stderr
    assert "render  box/qwen-14b.env             this machine says otherwise\n" in done.stdout
    said = done.stdout[done.stdout.index("settings that follow from this machine") :].splitlines()
    assert said[1].startswith("  --disable-custom-all-reduce: these GPUs have no peer-to-peer")
    assert any(line.startswith("  NCCL_P2P_DISABLE=1: ") for line in said)
    assert all(len(line) <= 80 for line in said)
    assert not (machine.folder / "box").exists()
    values = json.loads(machine.command("plan", "qwen-14b", "--json", TANDEM_WITHOUT="NCCL_P2P_DISABLE").stdout)
    assert [(each["name"], each["off"]) for each in values["settings"]] == [
        ("disable-custom-all-reduce", False), ("NCCL_P2P_DISABLE", True),
    ]  # fmt: skip


def test_an_up_keeps_the_machine_and_renders_what_follows(machine: Machine) -> None:
    done = machine.command("up", "qwen-14b")
    assert done.returncode == 0, done.stderr
    assert "rendered box/qwen-14b.env: this machine says otherwise\n" in done.stderr
    box = kept.box(machine.folder)
    assert box is not None
    assert (box.driver, box.links) == ("580.95.05", ((0, 1, "GNS"),))
    text = (machine.folder / "box/qwen-14b.env").read_text()
    assert text.endswith("NCCL_P2P_DISABLE=1\nTANDEM_FLAGS=--disable-custom-all-reduce\n")
    # A driver that does not answer just now changes nothing.
    machine.smi.unlink()
    done = machine.command("up", "qwen-14b")
    assert done.returncode == 0, done.stderr
    assert "rendered" not in done.stderr
    assert (machine.folder / "box/qwen-14b.env").read_text() == text
    assert machine.command("render", "--check").returncode == 0


def test_what_is_turned_off_is_gone_after_the_next_up(machine: Machine) -> None:
    machine.command("up", "qwen-14b")
    off = "NCCL_P2P_DISABLE,disable-custom-all-reduce"
    done = machine.command("up", "qwen-14b", TANDEM_WITHOUT=off)
    assert done.returncode == 0, done.stderr
    assert not (machine.folder / "box/qwen-14b.env").exists()


def test_a_machine_without_a_driver_is_not_kept(machine: Machine) -> None:
    machine.smi.unlink()
    done = machine.command("up", "qwen-14b")
    assert done.returncode == 0, done.stderr
    assert not (machine.folder / "box").exists()


FAILS = "#!/bin/sh\necho 'Failed to initialize NVML: Driver/library version mismatch'\nexit 18\n"


def broken(machine: Machine, how: str) -> None:
    """Have the machine's GPUs be as no start of the model can use them."""
    match how:
        case "old":
            machine.report.write_text(LINUX.replace("580.95.05", "470.1"))
        case "one":
            gpu = LINUX.index("<gpu id", LINUX.index("<gpu id") + 1)
            machine.report.write_text(LINUX[:gpu] + "</nvidia_smi_log>")
        case "mismatch":
            machine.smi.write_text(FAILS)
        case "weak":
            machine.smi.write_text(machine.smi.read_text().replace("8.9", "6.1"))


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("old", "nvidia driver: no vLLM here runs on NVIDIA driver 470.1: update it to 580 or newer: cannot start: "),
        ("one", "gpus: 1 here (0 NVIDIA GeForce RTX 4090); models.toml names GPU 1 too: cannot start: qwen-14b"),
        ("mismatch", "nvidia driver: Failed to initialize NVML: Driver/library version mismatch: models that use"),
        ("weak", "compute capability: GPU 0 has 6.1, and vLLM 0.32.0 (cu130) has code for 7.5 or newer: cannot start"),
    ],
)
def test_an_up_stops_by_its_gpus_with_doctors_own_line(machine: Machine, how: str, said: str) -> None:
    machine.here()
    machine.engine.has("qwen-14b", status="exited", image=IMAGES[2])
    broken(machine, how)
    done = machine.command("up", "qwen-14b")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"error: {said}"), done.stderr
    check = said.partition(":")[0]
    listed = json.loads(machine.command("doctor", "--json").stdout)["findings"]
    row = next(row for row in listed if row["check"] == check)
    assert row["blocks"]
    lines = done.stderr.splitlines()
    assert lines[0] == f"error: {check}: {row['found'].removesuffix('.')}: {row['why']}"
    assert lines[1:] == [f"  {line}" for line in row["fix"].splitlines()]
    assert not (machine.folder / "box").exists(), "it stops before it writes anything"
    # Whoever insists gets further.
    assert said not in machine.command("up", "qwen-14b", "--force").stderr


def test_no_up_stops_by_gpus_that_it_does_not_need(machine: Machine) -> None:
    # A server that runs has started.
    broken(machine, "mismatch")
    machine.here()
    assert machine.command("up", "qwen-14b").returncode == 0
    machine.engine.has("qwen-14b", status="exited", image=IMAGES[2])
    stopped = machine.command("up", "qwen-14b")
    assert stopped.stderr.startswith("error: nvidia driver: ")
    # A Docker elsewhere has other GPUs; and where no nvidia-smi is, Docker itself is asked.
    machine.environment["DOCKER_HOST"] = machine.engine.address
    assert "nvidia driver: " not in machine.command("up", "qwen-14b").stderr
    machine.here()
    machine.smi.unlink()
    assert "nvidia driver: " not in machine.command("up", "qwen-14b").stderr


def test_doctor_has_the_gpus_in_its_table_and_what_their_all_reduce_gave(machine: Machine) -> None:
    done = machine.command("doctor", "--json")
    assert done.stdout, done.stderr
    found = {row["check"]: row for row in json.loads(done.stdout)["findings"]}
    assert found["nvidia driver"]["status"] == "ok"
    assert found["nccl"]["found"].startswith("not tried yet between GPUs 0, 1")
    machine.command("up", "qwen-14b")
    key = Tried("sha256:2", "0.32.0-cu130", "580.95.05", (0, 1))
    kept.keep_results(machine.folder, {key: Result("hung", "nccl", "all-reduce", "no end in 60 s")})
    done = machine.command("doctor", "--json")
    row = next(row for row in json.loads(done.stdout)["findings"] if row["check"] == "nccl")
    assert (done.returncode, row["status"]) == (1, "bad")
    # The stand-in for Docker runs no container, which is said, and changes nothing.
    mended = machine.command("doctor", "--fix")
    assert "qwen-14b: its GPUs could not be tried together: " in mended.stdout
    assert kept.results(machine.folder)[key].state == "hung"
