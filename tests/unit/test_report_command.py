"""`report` as a command: all sections, whatever is missing, and no secret of those in any place that it reads."""

import base64
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from orchestrator.load import results as loads
from tests.checkout import PATIENCE, eventually
from tests.standins import activator, docker
from tests.unit.loads import result as measured
from tests.unit.test_main import MODELS, VERSIONS, run
from tests.unit.values import ROOT, in_order

TITLES = [
    "Versions", "Machine", "Settings", "models.toml", "Doctor", "Last verify", "Last bench", "States", "Logs",
]  # fmt: skip
DIGEST = "4f2c1b7a9d3e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8"
# Made up. None looks like a token by itself: each is found by where it is kept.
SECRETS = {
    "client": "Kl13nt.Schluessel~von/Anna+x",
    "broken": "Kaputte-Zeile_9f4b/aa",
    "admin": "adm1n&Schluessel=ganz%lang",
    "hub": "m0delscope-hub-t0ken-geheim",
    "file": "f1le-t0ken-hugging-geheim",
    "proxy": "pr0xy@pass/wort",
    "index": "1ndex-passwort",
    "models": "m0dels-toml-geheim",
    "shell": "aws-sehr-geheim-77",
    "tls": "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj",
}
PRIVATE = ("anneliese", "192.168.77.5", "fd00:1234::77", "00:15:5d:01:ca:05", "anne@corp.example", "proxy.corp.example")


class Machine:
    """A project with a secret in every place, and stand-ins for all around it."""

    def __init__(self, folder: Path, stand_in: activator.StandIn, engine: docker.Docker) -> None:
        self.folder, self.activator, self.engine = in_order(folder / "project", MODELS, VERSIONS), stand_in, engine
        self.environment = {
            "DOCKER_HOST": engine.address,
            "PATH": f"{engine.bin}:/usr/bin:/bin",
            "TANDEM_PORT": stand_in.address.rpartition(":")[2],
            # Nobody is asked what time it is.
            "TANDEM_DEBIAN_MIRROR": "http://127.0.0.1:9/debian",
            "USER": "anneliese",
            "HOME": "/home/anneliese",
        }
        engine.images = {"tandem/vllm:0.32.0-cpu": f"sha256:{DIGEST}", "tandem/router:0.1.0": "sha256:1"}
        for service in ("router", "activator"):
            engine.has(service)
        engine.has("demo", image="tandem/vllm:0.32.0-cpu")

    def report(self, *options: str, **more: str) -> subprocess.CompletedProcess[str]:
        return run(self.folder, "-m", "orchestrator", "report", "--seconds", "150", *options, **self.environment | more)

    def write(self, path: str, text: str) -> Path:
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        return file


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    with activator.running() as stand_in, docker.running(tmp_path) as engine:
        yield Machine(tmp_path, stand_in, engine)


def sections(text: str) -> dict[str, str]:
    parts = text.split("\n## ")[1:]
    return {part.partition("\n")[0]: part.partition("\n")[2] for part in parts}


def checked(fact: str) -> str:
    row = {"name": "chat", "state": "miss", "fact": fact}
    found = {
        "profile": "demo", "model": "demo", "address": "http://localhost:8000/v1", "when": "2026-01-02T03:04:05Z",
        "seconds": 61.2, "plumbing": False, "passed": False, "checks": [row],
    }  # fmt: skip
    return json.dumps(found)


def test_a_machine_in_order_has_all_sections(machine: Machine) -> None:
    machine.write(".tandem/verify/demo.json", checked("it says nothing"))
    machine.write(
        "results/bench/demo-20260102T030405.json",
        loads.dump(measured((1, [100.0, 90.0]), (4, [200.0]), profile="demo")),
    )
    entry = {"name": "demo", "state": "ready", "open": True, "since": 1767323045}
    last = {"target": "demo", "outcome": "ready", "kind": "start", "seconds": {"load": 41.5}, "total": 42.5}
    machine.activator.status = {"models": [entry], "wanted": [], "switch": None, "queue": [], "last": last}
    machine.engine.logs = {"demo": "INFO up\nERROR it broke\n", "activator": "INFO 1\n", "router": ""}
    done = machine.report()
    assert done.returncode == 0, done.stderr
    found = sections(done.stdout)
    assert list(found) == TITLES
    assert f"tandem/vllm:0.32.0-cpu  {DIGEST[:12]}" in found["Versions"]
    assert DIGEST not in done.stdout
    assert "28.5.2 on a stand-in" in found["Versions"]
    assert "vllm of demo" in found["Versions"]
    assert "memory" in found["Machine"]
    assert "TANDEM_DEBIAN_MIRROR  http://127.0.0.1:9/debian  from the shell" in found["Settings"]
    assert 'model = "./demo"' in found["models.toml"]
    assert "engine" in found["Doctor"]
    assert "MISS     chat  it says nothing" in found["Last verify"]
    assert "OUTPUT TOKENS/S" in found["Last bench"]
    assert "last switch: demo ready by start in 42.5 s" in found["States"]
    assert "ERROR it broke" in found["Logs"]
    assert "not known" not in done.stdout


def test_a_report_holds_no_secret_of_any_place(machine: Machine, tmp_path: Path) -> None:
    s = SECRETS
    said = "\n".join(
        f"ERROR 11-23 00:41:55 [x.py:1] {way}"
        for secret in s.values()
        for way in (
            secret,
            quote(secret, safe=""),
            base64.b64encode(f"me:{secret}".encode()).decode(),
            json.dumps({"a": secret}),
            f"failed: Authorization: Bearer {secret}",
            f"failed http://h/?k={secret}",
        )
    )
    private = "\n".join(f"error: {each} /home/anneliese/x at 10:32:27" for each in PRIVATE)
    machine.write("docker/router/keys/keys", f"anna {s['client']} rate=5/s\n# bob {s['broken']}\n")
    admin = tmp_path / "admin.key"
    admin.write_text(f"{s['admin']}\n")
    token = tmp_path / "hub.token"
    token.write_text(s["file"])
    machine.write(
        ".env",
        f"MODELSCOPE_API_TOKEN={s['hub']}\nTANDEM_HF_TOKEN_FILE={token}\nTANDEM_ADMIN_KEY_FILE={admin}\n"
        f"HTTPS_PROXY=http://me:{s['index']}@proxy.corp.example:3128\nNO_PROXY=192.168.77.5\n"
        f"OTHER=http://me:{s['proxy']}@192.168.77.5/\n",
    )
    machine.write(
        "models.toml",
        f'# {s["models"]}\n{MODELS}env = {{ HF_TOKEN = "{s["models"]}", CACHE = "/home/anneliese/x" }}\n',
    )
    machine.write(".tandem/verify/demo.json", checked(said.replace("\n", " ") + private))
    bench = measured((1, [100.0, 90.0]), (4, [200.0]), profile="demo")
    server = bench.server.model_copy(update={"command": ("vllm", "serve", "--api-key", s["client"])})
    case = bench.cases[0]
    runs = (case.runs[0].model_copy(update={"faults": (said, private), "failed": 1}), *case.runs[1:])
    cases = (case.model_copy(update={"runs": runs}), *bench.cases[1:])
    machine.write(
        "results/bench/demo-20260102T030405.json",
        loads.dump(bench.model_copy(update={"server": server, "cases": cases})),
    )
    machine.activator.status = {
        "models": [{"name": "demo", "state": "failed", "open": False, "reason": f"{said}\n{private}"}],
        "wanted": [], "queue": [], "last": None,
        "switch": {"target": "demo", "cause": s["hub"], "phase": "load", "text": said, "seconds": 1},
    }  # fmt: skip
    key = f"-----BEGIN PRIVATE KEY-----\n{s['tls']}\n-----END PRIVATE KEY-----\n"
    log = "INFO well\n" * 20 + f"{private}\n{key}{said}\n"
    machine.engine.logs = {"demo": log, "activator": log, "router": log}
    machine.engine.info = {"OperatingSystem": f"box of anneliese at 192.168.77.5, {s['shell']}"}
    shell = {"AWS_SECRET_ACCESS_KEY": s["shell"], "PIP_INDEX_URL": f"https://me:{s['index']}@pypi.corp.example/simple"}
    output = tmp_path / "report.md"
    done = machine.report("--output", str(output), **shell)
    assert (done.returncode, done.stdout) == (0, f"written to {output}\n"), done.stderr
    text = output.read_text()
    assert "a fault of Tandem" not in text
    assert list(sections(text)) == TITLES
    joined = text.replace("\n", "").replace(" ", "")
    for name, secret in s.items():
        coded = [
            base64.b64encode(f"me:{secret}".encode()).decode()[8:-4],
            base64.b64encode(secret.encode()).decode()[:-4],
        ]
        for form in (secret, quote(secret, safe=""), json.dumps(secret)[1:-1], *coded):
            assert form not in text, name
            # Nor broken over lines.
            assert form not in joined, name
            assert form not in done.stderr, name
    for each in PRIVATE:
        assert each not in text
    assert os.uname().nodename not in text.replace("HOST", "")
    assert "MODELSCOPE_API_TOKEN   is set  from .env" in text
    assert "at 10:32:27" in text
    assert len([line for line in sections(text)["Logs"].splitlines() if "error" in line.lower()]) >= 20


def test_a_report_of_a_machine_where_nothing_answers_says_so(machine: Machine) -> None:
    (machine.folder / "models.toml").write_text("no toml [")
    machine.write(".env", "MODELSCOPE_API_TOKEN=$geheimes-w0rt\n")
    done = machine.report(DOCKER_HOST="unix:///nowhere/docker.sock", TANDEM_PORT="1")
    assert done.returncode == 0, done.stderr
    found = sections(done.stdout)
    assert list(found) == TITLES
    assert "docker  Docker does not answer" in found["Versions"]
    assert "models.toml: not TOML" in found["Settings"]
    assert "not known: the project cannot be read; see Settings" in found["Doctor"]
    assert "no model was verified here" in found["Last verify"]
    assert "not known: Docker does not answer" in found["States"]
    assert "The activator does not answer: at http://localhost:1: connection refused" in found["States"]
    assert "not known: Docker does not answer" in found["Logs"]
    assert "geheimes-w0rt" not in done.stdout


def test_a_project_with_faults_tells_them_and_no_secret(machine: Machine, tmp_path: Path) -> None:
    s = SECRETS
    folder = tmp_path / "shut"
    folder.mkdir()
    machine.write("docker/router/keys/keys", f"anna {s['client']} rate=nothing\nbob {s['broken']} {s['client']}\n")
    machine.write(
        ".env",
        f"TANDEM_HF_TOKEN_FILE={s['file']}\nTANDEM_PYPI_INDEX=https://me:{s['index']}@proxy.corp.example/simple\n"
        f"HTTPS_PROXY=me:{s['proxy']}@proxy.corp.example\nTANDEM_TLS_KEY_FILE={folder}\nTANDEM_PORTT={s['hub']}\n"
        f"HF_TOKEN={s['hub']}\nTANDEM_MODELS=/home/anneliese/m\nTANDEM_BIND=192.168.77.5\n",
    )
    machine.engine.logs = dict.fromkeys(("demo", "router"), "\n".join(f"error {secret}" for secret in s.values()))
    machine.engine.has("demo")
    done = machine.report(AWS_SECRET=s["shell"], MY_PASSWORD=s["models"], A_TOKEN=s["admin"], B_KEY=s["tls"])
    assert done.returncode == 0, done.stderr
    found = sections(done.stdout)
    assert "The project cannot be read whole:\nTANDEM_PORTT: unknown setting" in found["Settings"]
    assert "rate" in found["Settings"]
    assert "TANDEM_HF_TOKEN_FILE" in found["Settings"]
    assert "is set, to no whole path  from .env" in found["Settings"]
    assert "/home/USER1/m" in found["Settings"]
    assert found["Logs"].count("error ***") == 20
    assert f"by their look alone: {folder}**" in done.stdout
    for secret in (*s.values(), *PRIVATE):
        assert secret not in done.stdout


def test_broken_results_are_said_to_be_broken(machine: Machine) -> None:
    machine.write(".tandem/verify/demo.json", "{}")
    machine.write("results/bench/demo-20260102T030405.json", "{}")
    machine.activator.refusal = (401, "a key is needed")
    found = sections(machine.report().stdout)
    assert "not known: demo.json: is no result of verify" in found["Last verify"]
    assert "not known: demo-20260102T030405.json: is no result of bench" in found["Last bench"]
    assert "a key is needed" in found["States"]
    assert "ready" in found["States"]


def test_an_output_that_cannot_be_is_refused_before_anything_is_looked_at(machine: Machine, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path, tmp_path / "none" / "report.md", tmp_path / "fifo"):
        done = machine.report("--output", str(path))
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == f"error: --output: {path}: should be a file in a folder that is there\n"
    assert machine.activator.heard == []
    assert (tmp_path / "fifo").is_fifo()


def test_an_output_that_is_a_link_stays_one(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "report.md")
    done = machine.report("--output", str(tmp_path / "link"))
    assert (done.returncode, done.stdout) == (0, f"written to {tmp_path / 'link'}\n"), done.stderr
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "report.md").read_text(encoding="utf-8").startswith("# Tandem")


def test_an_interrupt_writes_nothing(machine: Machine, tmp_path: Path) -> None:
    release = threading.Event()

    def look() -> None:
        release.wait()

    machine.activator.look = look
    output = tmp_path / "report.md"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **machine.environment}
    argv = [sys.executable, "-m", "orchestrator", "report", "--output", str(output)]
    with subprocess.Popen(argv, cwd=machine.folder, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            eventually(lambda: machine.activator.heard, what="an activator that is asked")
            process.send_signal(signal.SIGINT)
            said = process.communicate(timeout=PATIENCE)[1]
        finally:
            release.set()
    assert process.returncode == 130
    assert said.splitlines()[-1] == "interrupted; nothing is written"
    assert not output.exists()


def test_what_is_late_says_so(machine: Machine) -> None:
    release = threading.Event()

    def look() -> None:
        release.wait()

    machine.activator.look = look
    try:
        done = machine.report("--seconds", "2.6")
    finally:
        release.set()
    assert done.returncode == 0, done.stderr
    found = sections(done.stdout)
    assert list(found) == TITLES
    # On a slow machine what is made of it may be late as well.
    assert any(words in found["States"] for words in ("gave no answer in 1 s", "it took more than 1.6 s"))


def test_a_program_that_hangs_costs_its_section_alone(machine: Machine) -> None:
    smi = machine.engine.bin / "nvidia-smi"
    smi.write_text("#!/bin/sh\nexec sleep 600\n")
    smi.chmod(0o755)
    found = sections(machine.report().stdout)
    assert "nvidia-smi gave no answer in 2 s" in found["Machine"]
    assert "28.5.2" in found["Versions"]
    assert "engine" in found["Doctor"]
