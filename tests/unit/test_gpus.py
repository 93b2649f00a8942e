"""The reader of the GPUs: what it tells, and whom it may kill."""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gpus as reader
import nvml
import pytest
from gating import memory

from tests.checkout import PATIENCE
from tests.standins.nvml import RESERVED, TOTAL, GiB, Gpus
from tests.unit.gates import alive, until

ONE, TWO = "1" * 64, "2" * 64


class Proc:
    """A /proc of our own, in which processes of this machine belong to containers of our choice."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(
        self, pid: int, *, cgroup: str, comm: str = "python3", cmdline: str = "", inner: int = 7, state: str = "S"
    ) -> None:
        entry = self.folder / str(pid)
        entry.mkdir(parents=True)
        (entry / "cgroup").write_text(cgroup)
        (entry / "comm").write_text(comm + "\n")
        (entry / "cmdline").write_text(cmdline)
        (entry / "status").write_text(f"Name:\t{comm}\nState:\t{state} (some)\nNSpid:\t{pid}\t{inner}\n")


@pytest.fixture
def proc(tmp_path: Path) -> Proc:
    (tmp_path / "proc").mkdir()
    return Proc(tmp_path / "proc")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Gpus:
    monkeypatch.setenv("TANDEM_STANDIN_NVML", str(tmp_path / "nvml"))
    return Gpus(tmp_path / "nvml")


Load = Callable[[], nvml.Nvml | nvml.Fault]


@pytest.fixture
def load(nvml_library: Path) -> Load:
    return lambda: nvml.load((str(nvml_library),))


@pytest.fixture
def path(tmp_path: Path, machine: Gpus, proc: Proc, load: Load) -> Iterator[Path]:
    path = tmp_path / "gpus.sock"
    # What an earlier service left.
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    made = reader.service(path, reader.Reader((), reader.Processes(proc.folder), load))
    thread = threading.Thread(target=lambda: made.serve_forever(poll_interval=0.01))
    thread.start()
    yield path
    made.shutdown()
    thread.join()
    made.server_close()


@pytest.fixture
def process() -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"]) as made:
        yield made
        made.kill()


def ask(path: Path, method: str, target: str, body: Any = None) -> tuple[int, str]:
    data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(str(path))
        line.sendall(f"{method} {target} HTTP/1.0\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data)
        answer = b"".join(iter(lambda: line.recv(65536), b"")).decode()
    return int(answer.split()[1]), answer.partition("\r\n\r\n")[2]


def test_it_tells_of_gpus_and_of_who_is_on_them(path: Path, machine: Gpus, proc: Proc) -> None:
    machine.use(1, 4711, 20 * GiB)
    machine.use(1, 4712, None)
    proc.add(4711, cgroup=f"0::/../{ONE}\n", comm="VLLM::EngineCor", cmdline="VLLM::EngineCore\0")
    status, text = ask(path, "GET", "/gpus")
    assert status == 200
    assert json.loads(text)["gpus"][1] == {
        "index": 1, "uuid": "GPU-10000000", "name": "NVIDIA GeForce RTX 4090", "total": TOTAL, "reserved": RESERVED,
        "free": TOTAL - RESERVED - 20 * GiB,
        "processes": [
            {"pid": 4711, "name": "VLLM::EngineCore", "used": 20 * GiB, "container": ONE},
            {"pid": 4712, "name": "", "used": None, "container": ""},
        ],
    }  # fmt: skip
    assert path.stat().st_mode & 0o777 == 0o666


def test_a_driver_that_fails_is_said_and_tried_again(path: Path, machine: Gpus) -> None:
    machine.say("fail nvmlDeviceGetCount_v2 15")
    assert ask(path, "GET", "/gpus") == (503, "nvmlDeviceGetCount_v2: GPU is lost\n")
    machine.say("fail nvmlInit_v2 18")
    assert ask(path, "GET", "/gpus") == (503, "nvmlInit_v2: Driver/library version mismatch\n")
    machine.say()
    assert ask(path, "GET", "/gpus")[0] == 200


def test_its_numbers_are_the_machines(machine: Gpus, proc: Proc, load: Load) -> None:
    found = reader.Reader((1,), reader.Processes(proc.folder), load).gpus()
    assert isinstance(found, list)
    assert [(gpu["index"], gpu["uuid"]) for gpu in found] == [(1, "GPU-10000000")]


@pytest.mark.parametrize(
    ("cgroup", "container"),
    [
        (f"0::/../{ONE}\n", ONE),
        (f"0::/system.slice/docker-{ONE}.scope\n", ONE),
        (f"12:memory:/docker/{ONE}\n11:cpu:/docker/{ONE}\n0::/\n", ONE),
        # Docker in Docker.
        (f"0::/docker/{ONE}/docker/{TWO}\n", TWO),
        ("0::/user.slice/user-1000.slice\n", ""),
        (f"0::/{ONE}0\n", ""),
        ("", ""),
    ],
)
def test_the_container_of_a_process_in_every_spelling_of_cgroups(proc: Proc, cgroup: str, container: str) -> None:
    proc.add(4711, cgroup=cgroup)
    assert reader.Processes(proc.folder).container(4711) == container


@pytest.mark.parametrize(
    ("comm", "cmdline", "name"),
    [("python3", "/usr/bin/python3\0-m\0x", "python3"), ("VLLM::Worker_TP", "VLLM::Worker_TP0\0", "VLLM::Worker_TP0"),
     ("fifteen-letters", "/bin/other\0", "fifteen-letters")],
)  # fmt: skip
def test_the_name_of_a_process(proc: Proc, comm: str, cmdline: str, name: str) -> None:
    proc.add(4711, cgroup="", comm=comm, cmdline=cmdline)
    assert reader.Processes(proc.folder).name(4711) == name


# --- whom it may kill -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cgroup", "first", "words"),
    [
        (f"0::/../{TWO}\n", None, "belongs to no container that was named"),
        ("0::/user.slice\n", None, "belongs to no container that was named"),
        (f"0::/../{ONE}\n", "S", "the container of process {pid} is running"),
    ],
)
def test_what_is_not_ours_or_is_alive_is_not_killed(
    path: Path, proc: Proc, process: "subprocess.Popen[bytes]", cgroup: str, first: str | None, words: str
) -> None:
    proc.add(process.pid, cgroup=cgroup)
    if first:
        proc.add(4711, cgroup=cgroup, inner=1, state=first)
    status, text = ask(path, "POST", f"/kill/{process.pid}", {"containers": [ONE]})
    assert status == 403
    assert words.format(pid=process.pid) in text
    assert alive(process.pid)


@pytest.mark.parametrize("first", [None, "Z"])
def test_what_a_dead_container_of_ours_left_is_killed(
    path: Path, proc: Proc, process: "subprocess.Popen[bytes]", first: str | None
) -> None:
    proc.add(process.pid, cgroup=f"0::/../{ONE}\n")
    if first:
        proc.add(4711, cgroup=f"0::/../{ONE}\n", inner=1, state=first)
    assert ask(path, "POST", f"/kill/{process.pid}", {"containers": [TWO, ONE]}) == (
        200, f"process {process.pid} was killed\n"
    )  # fmt: skip
    until(lambda: not alive(process.pid), lambda: "its end")


@pytest.mark.parametrize(
    ("target", "body", "status"),
    [
        ("/kill/self", {"containers": [ONE]}, 404),
        ("/kill/0", {"containers": [ONE]}, 404),
        ("/kill/-1", {"containers": [ONE]}, 404),
        ("/kill/1/../2", {"containers": [ONE]}, 404),
        ("/gpus", None, 404),
        ("/kill/1", None, 400),
        ("/kill/1", b"[]", 400),
        ("/kill/1", b"{", 400),
        ("/kill/1", {"containers": ONE}, 400),
        ("/kill/1", {"containers": [""]}, 400),
        ("/kill/1", {"containers": [1]}, 400),
        ("/kill/1", {"containers": []}, 403),
        ("/kill/9999999999", {"containers": [ONE]}, 404),
    ],
)
def test_a_request_that_names_nothing_is_refused(path: Path, target: str, body: Any, status: int) -> None:
    assert ask(path, "POST", target, body)[0] == status


def test_a_process_that_has_ended_is_not_found(path: Path) -> None:
    # The number of one that has ended may be another's by then; this one is nobody's ever.
    nobody = Path("/proc/sys/kernel/pid_max").read_text().strip()
    assert ask(path, "POST", f"/kill/{nobody}", {"containers": [ONE]})[0] == 404


# --- the gate asks it too ---------------------------------------------------------------------------------------------


def test_the_gate_learns_names_and_containers_from_it(path: Path, machine: Gpus, proc: Proc, load: Load) -> None:
    machine.use(0, 4711, 20 * GiB)
    proc.add(4711, cgroup=f"0::/../{ONE}\n", comm="Xorg")
    library = load()
    assert isinstance(library, nvml.Nvml)
    found = library.gpus()
    assert isinstance(found, list)
    gpu = found[0]
    assert memory.lacking(gpu, 0.9, memory.ask(path)[0]) == (
        "GPU 0 has 3.5 of the 21.6 GiB that are needed; held by Xorg (pid 4711, 20.0 GiB, container 111111111111)"
    )


def test_where_it_does_not_answer_the_gate_knows_nothing_of_names(tmp_path: Path) -> None:
    assert memory.ask(tmp_path / "none") == {}


def test_the_service_as_a_process(tmp_path: Path, machine: Gpus, nvml_library: Path) -> None:
    argv = [sys.executable, "-S", str(Path(reader.__file__)), str(tmp_path / "it.sock")]
    environment = {**os.environ, "LD_LIBRARY_PATH": str(nvml_library.parent)}
    with subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, text=True) as service:
        assert service.stdout
        assert service.stdout.readline() == "reading 2 GPUs\n"
        until((tmp_path / "it.sock").exists, lambda: "its socket")
        service.terminate()
        assert service.wait(timeout=PATIENCE) == 0
