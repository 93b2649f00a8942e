"""Doctor, verify, bench and report on a real stack with the demo model, where clients need a key. In this order."""

import json
import os
import signal
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.checkout import LONG_PATIENCE, Checkout, eventually, free_port
from tests.integration.conftest import STARTED, Stack, stack

pytestmark = pytest.mark.docker

# A run at each concurrency, as each imports vLLM: what more of them, and warm-ups, are for is told by tests/unit.
FEW = ("--per", "1", "--input", "16", "--output", "8", "--runs", "1", "--warmups", "0")
ONCE = (*FEW, "--concurrency", "1")
# Made up; none looks like a token by itself.
TOKENS = {"MODELSCOPE_API_TOKEN": "m0delscope-geheim-4711", "HF_TOKEN": "hugging-geheim-0815"}
PNG = b"\x89PNG\r\n\x1a\n"


@dataclass
class Box:
    """A stack whose demo is up, and what of it nobody else is to see."""

    stack: Stack
    secrets: Sequence[str]
    # The words of the demo's container, as models.toml has them.
    command: Sequence[str]

    @property
    def running(self) -> Sequence[str]:
        """The words of its container now; none while there is none."""
        name = f"{self.stack.environment['COMPOSE_PROJECT_NAME']}-demo"
        found = json.loads(self.stack.run(["docker", "inspect", name]).stdout)
        return list(found[0]["Config"]["Cmd"]) if found else []

    @property
    def state(self) -> str:
        _, answer = self.stack.ask("/-/status")
        return str({row["name"]: row["state"] for row in answer["models"]}["demo"])

    @property
    def results(self) -> set[Path]:
        return set((self.stack.folder / "results/bench").glob("*"))

    def as_it_was(self) -> None:
        """See that the demo is up with its own flags, and that no benchmark's container is left."""
        assert self.running == self.command
        assert self.state == "ready"
        listed = self.stack.run(["docker", "ps", "--all", "--format", "{{.Names}}"]).stdout.split()
        left = f"{self.stack.environment['COMPOSE_PROJECT_NAME']}-load-"
        assert [name for name in listed if name.startswith(left)] == []


@pytest.fixture(scope="module")
def fresh(images: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack of which nothing is up."""
    yield from stack(tmp_path_factory.mktemp("box"), "tandem-test-box")


@pytest.fixture(scope="module")
def box(fresh: Stack) -> Box:
    fresh.write(".env", "".join(f"{name}={token}\n" for name, token in TOKENS.items()))
    keys = [fresh.tandem("keys", "add", *words).stdout.strip() for words in (("anna",), ("bob", "--rate", "1/m"))]
    assert all(key.startswith("tdm-") for key in keys)
    done = fresh.tandem("up", "demo")
    assert done.returncode == 0, done.stderr
    assert fresh.ask("/v1/models")[0] == 401
    return Box(fresh, [*keys, *TOKENS.values()], fresh.inspect("demo")["Config"]["Cmd"])


def doctor(stack: Stack, **more: str) -> dict[str, dict[str, Any]]:
    """The rows of the doctor's table; its exit code follows from them."""
    done = stack.tandem("doctor", "--json", **more)
    shown = json.loads(done.stdout)
    rows = {row["check"]: row for row in shown["findings"]}
    assert len(rows) == len(shown["findings"])
    assert (shown["fixed"], shown["problems"]) == ([], [])
    assert done.returncode == (1 if any(row["status"] == "bad" for row in rows.values()) else 0)
    return rows


# --- doctor -----------------------------------------------------------------------------------------------------------


def test_doctor_finds_this_machines_docker_in_order(fresh: Stack) -> None:
    rows = doctor(fresh)
    fine = ("engine", "compose", "buildx", "docker socket", "restarts", "port", "line ends", "weights' disk")
    assert {check: rows[check]["status"] for check in fine} == dict.fromkeys(fine, "ok")
    said = fresh.run(["docker", "version", "--format", "{{.Server.Version}}"]).stdout.strip()
    assert rows["engine"]["found"].startswith(said)
    assert rows["port"]["found"] == f"127.0.0.1:{fresh.environment['TANDEM_PORT']} is free"


def test_doctor_names_who_has_the_port_and_ends_with_1(fresh: Stack) -> None:
    port = free_port()
    with socket.create_server(("127.0.0.1", port)):
        rows = doctor(fresh, TANDEM_PORT=str(port))
        assert rows["port"]["status"] == "bad"
        assert str(os.getpid()) in rows["port"]["found"]
        # `up` stops with it, before it does anything.
        done = fresh.tandem("up", "demo", TANDEM_PORT=str(port))
    assert (done.returncode, done.stdout) == (1, "")
    assert rows["port"]["found"] in done.stderr
    assert fresh.compose("--profile", "*", "ps", "-aq").stdout == ""


def test_doctor_is_content_with_what_is_up(box: Box) -> None:
    rows = doctor(box.stack)
    assert {check: rows[check]["status"] for check in ("port", "restarts", "docker socket")} == {
        "port": "ok", "restarts": "ok", "docker socket": "ok"
    }  # fmt: skip
    box.as_it_was()


# --- verify -----------------------------------------------------------------------------------------------------------


def test_verify_asks_with_a_key_and_keeps_what_it_found(box: Box) -> None:
    done = box.stack.tandem("verify", "demo", "--plumbing", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    shown = json.loads(done.stdout)
    assert shown["passed"]
    assert {row["state"] for row in shown["checks"]} == {"ok", "skipped"}
    kept = (box.stack.folder / ".tandem/verify/demo.json").read_text(encoding="utf-8")
    assert json.loads(kept) == shown
    assert not [secret for secret in box.secrets if secret in kept + done.stdout + done.stderr]


# --- bench ------------------------------------------------------------------------------------------------------------


def test_a_bench_measures_each_concurrency_keeps_it_and_draws_it(box: Box) -> None:
    done = box.stack.tandem("bench", "demo", *FEW, "--concurrency", "1,2", "--plot", "demo.png", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    shown = json.loads(done.stdout)
    path, picture = Path(shown.pop("file")), Path(shown.pop("plot"))
    assert {path} == box.results
    kept = path.read_text(encoding="utf-8")
    assert json.loads(kept) == shown
    assert [(case["concurrency"], len(case["runs"])) for case in shown["cases"]] == [(1, 1), (2, 1)]
    for case in shown["cases"]:
        for run in case["runs"]:
            assert (run["failed"], run["faults"], run["others"]) == (0, [], 0)
            assert run["asked"] == case["concurrency"]
            assert run["metrics"]["output_tokens"] > 0
    assert len({run["seed"] for case in shown["cases"] for run in case["runs"]}) == 2
    assert shown["server"]["command"] == box.command
    assert shown["server"]["vllm"] == "0.32.0"
    assert picture == box.stack.folder / "demo.png"
    assert picture.read_bytes().startswith(PNG)
    assert not [secret for secret in box.secrets if secret in kept + done.stdout + done.stderr]
    box.as_it_was()


def test_other_flags_are_measured_and_compared_and_its_own_come_back(box: Box) -> None:
    before = box.results
    done = box.stack.tandem("bench", "flags", "demo", "--against", "--max-num-seqs 1", *ONCE, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    shown = json.loads(done.stdout)
    own, other = (json.loads(Path(path).read_text(encoding="utf-8")) for path in shown["files"])
    assert own["server"]["command"] == box.command
    assert other["server"]["command"] == [*box.command, "--max-num-seqs", "1"]
    assert "flags: (none) and --max-num-seqs 1" in shown["differs"]
    assert box.results - before == {Path(path) for path in shown["files"]}
    box.as_it_was()


def test_two_results_are_compared_and_drawn(box: Box) -> None:
    first, *_, last = sorted(path.stem for path in box.results)
    done = box.stack.tandem("bench", "compare", first, last, "--plot", "both.png")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[:2] == [f"A  {first}", f"B  {last}"]
    # The other was measured at 1 alone.
    assert "not compared, as not both have good runs of it: 2 at once" in lines
    assert lines[-1] == "drawn in both.png"
    assert max(map(len, lines)) <= 80
    assert (box.stack.folder / "both.png").read_bytes().startswith(PNG)


def test_its_own_flags_come_back_after_ctrl_c(box: Box) -> None:
    before = box.results
    process = box.stack.start(box.stack.argv("bench", "flags", "demo", "--against", "--max-num-seqs 1", *ONCE))
    STARTED.append(process)

    def begun() -> bool:
        assert process.poll() is None, process.communicate()
        # By the time that this looks it may be measured already: its own come back all the same.
        return "--max-num-seqs" in box.running and box.state in {"starting", "ready"}

    eventually(begun, seconds=LONG_PATIENCE, what="a demo that starts with other flags")
    # To all of its processes, as a terminal does.
    os.killpg(process.pid, signal.SIGINT)
    said, told = process.communicate(timeout=LONG_PATIENCE)
    assert (process.returncode, said) == (130, ""), told
    assert "putting demo's own flags back" in told
    assert told.splitlines()[-1] == "interrupted; nothing is kept"
    assert box.results == before
    box.as_it_was()


def test_flags_that_vllm_refuses_are_told_in_its_words_and_put_back(box: Box) -> None:
    before = box.results
    done = box.stack.tandem("bench", "flags", "demo", "--against", "--no-such-flag", *ONCE)
    assert (done.returncode, done.stdout) == (1, "")
    fault = done.stderr[done.stderr.index("error: ") :]
    assert "unrecognized arguments: --no-such-flag" in fault.splitlines()[0]
    assert box.results == before
    box.as_it_was()


# --- report -----------------------------------------------------------------------------------------------------------


def test_a_report_tells_of_all_of_it_and_of_no_secret(box: Box) -> None:
    done = box.stack.tandem("report", "--seconds", "300", "--output", "report.md")
    assert done.returncode == 0, done.stderr
    text = (box.stack.folder / "report.md").read_text(encoding="utf-8")
    parts = {part.partition("\n")[0]: part for part in text.split("\n## ")[1:]}
    engine = box.stack.run(["docker", "version", "--format", "{{.Server.Version}}"]).stdout.strip()
    assert f"{engine} on" in parts["Versions"]
    assert "tandem/vllm:0.32.0-cpu" in parts["Versions"]
    assert [line for line in parts["Doctor"].splitlines() if line.split()[1:2] == ["engine"]]
    assert "streaming" in parts["Last verify"]
    assert "OUTPUT TOKENS/S" in parts["Last bench"]
    states = {line.split()[0]: line for line in parts["States"].splitlines() if line.startswith(("demo", "router"))}
    assert "ready" in states["demo"]
    # What was refused before stands in the activator's log, as the server's own container is another by now.
    assert "unrecognized arguments: --no-such-flag" in parts["Logs"]
    for service in ("activator", "router", "demo"):
        assert f"--- {service}\n" in parts["Logs"]
    assert ["MODELSCOPE_API_TOKEN", "is", "set"] in [line.split()[:3] for line in parts["Settings"].splitlines()]
    assert not [secret for secret in box.secrets if secret in text]
    box.as_it_was()
