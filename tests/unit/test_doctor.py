"""Each check of the doctor on a simulated machine: where it finds something, and where it does not."""

from pathlib import Path

import pytest

from orchestrator.doctor import words
from orchestrator.doctor.finding import Finding
from orchestrator.doctor.remedies import remedies
from orchestrator.engine import NO_COMMAND, NOT_ALLOWED, NOT_RUNNING, Published
from orchestrator.trust import Shown
from tests.unit.pasting import faults
from tests.unit.simulated import DRIVE, GIB, MOUNTS, NOW, REGISTRY, WSL1, Simulated
from tests.unit.values import container, profile

AWQ = profile(name="awq", model="Qwen/Qwen2.5-32B-Instruct-AWQ")


@pytest.fixture
def box(tmp_path: Path) -> Simulated:
    return Simulated(tmp_path)


@pytest.fixture
def wsl(box: Simulated) -> Simulated:
    box.wsl("memory=96GB")
    return box


def test_nothing_is_wrong_with_a_machine_in_order(box: Simulated) -> None:
    assert {name: found for name, found in box.findings().items() if found.status != "ok"} == {}
    assert box.blocking() == []


def test_nothing_is_wrong_with_wsl_in_order(wsl: Simulated) -> None:
    assert {name: found for name, found in wsl.findings().items() if found.status != "ok"} == {}
    assert wsl.blocking() == []


def test_what_is_well_has_neither_why_nor_fix_and_all_else_has_a_fix(wsl: Simulated) -> None:
    wsl.memory(8)
    wsl.engine.said = "Docker does not answer. Start it."
    found = wsl.findings().values()
    assert all(not (each.why or each.fix) for each in found if each.status == "ok")
    assert all(each.why and each.fix for each in found if each.status in ("bad", "warn"))


@pytest.mark.parametrize(
    ("fix", "wrong"),
    [
        ("sudo kill -9 77; else wsl --shutdown", "syntax error near unexpected token `else'"),
        ("python -m orchestrator up NAME (tries it first)", "syntax error near unexpected token `('"),
        ("if it is not meant: sudo nvidia-smi -i 0 -pl 450", "a command among words"),
        ("sudo dmesg | grep -i nvrm (says why); a restart", "syntax error near unexpected token `('"),
        ("Start it ('sudo systemctl start docker', or Docker Desktop)", "a command among words"),
        ("wsl --shutdown", "not marked as PowerShell's"),
        ("in PowerShell as administrator:\nsudo nvidia-smi -i 0 -pl 450", "sudo is not of Windows"),
        ("in PowerShell:\nwsl --shutdown\nor\nsudo kill (77)", "syntax error near unexpected token `('"),
        ("sudo kill -9 77\nor in PowerShell, which ends all of WSL:\nwsl --shutdown", ""),
        ("wsl --shutdown   # in PowerShell; ends all of WSL", ""),
        ("close what holds it (a browser), or less of it", ""),
    ],
)
def test_what_cannot_be_pasted_is_told(fix: str, wrong: str) -> None:
    """The findings of all simulated machines go through the same (Simulated.findings)."""
    assert (wrong in "\n".join(faults(fix))) if wrong else faults(fix) == []


def test_a_path_with_blanks_is_one_word_of_what_is_to_be_pasted(box: Simulated, tmp_path: Path) -> None:
    box.settings = {"TANDEM_MODELS": str(tmp_path / "my (own) models")}
    assert box.findings()["weights' disk"].fix.endswith(f"'{tmp_path}/my (own) models'")
    left = tmp_path / "my (own) models/a/b/._____temp"
    left.mkdir(parents=True)
    with (left / "model.safetensors").open("wb") as stream:
        stream.truncate(2 * GIB)
    assert box.findings()["left downloads"].fix == f"rm -r '{left}'"


# --- WSL --------------------------------------------------------------------------------------------------------------


def test_wsl_1_stands_in_the_way(wsl: Simulated) -> None:
    wsl.write("proc/version", WSL1)
    found = wsl.findings()["wsl"]
    assert (found.status, found.found, found.blocks) == ("bad", "WSL 1, Debian", True)
    assert found.fix == "in PowerShell:\nwsl --set-version Debian 2"
    assert [each.check for each in wsl.blocking()] == ["wsl"]
    # As it is: Docker does not run there.
    wsl.engine.said = "Docker does not answer. Start it."
    assert [each.check for each in wsl.blocking()] == ["wsl"]


def test_wsl_2_with_a_kernel_of_its_own_name_is_wsl_2(wsl: Simulated) -> None:
    wsl.write("proc/version", "Linux version 6.9.0-mine")
    assert wsl.findings()["wsl"].found == "WSL 2, Debian"


def test_without_wsl_nothing_of_windows_is_asked_or_said(box: Simulated) -> None:
    found = box.findings()
    assert found["wsl"].found == "does not apply: this is not WSL"
    assert {"driver in wsl", "windows gpu time-out", "windows' drive"} & set(found) == set()
    assert not [argv for argv in box.asked if argv[0].endswith(".exe")]


DPKG = """Package: {name}
Status: install ok {state}
Priority: optional

Package: libnvidia-container1
Status: install ok installed

"""


@pytest.mark.parametrize("name", ["nvidia-driver-550", "libnvidia-compute-550", "libcuda1", "nvidia-kernel-dkms"])
def test_a_linux_driver_in_wsl_is_named_with_what_removes_it(wsl: Simulated, name: str) -> None:
    wsl.write("var/lib/dpkg/status", DPKG.format(name=name, state="installed"))
    found = wsl.findings()["driver in wsl"]
    assert (found.status, found.found) == ("bad", f"an NVIDIA driver for Linux: {name}")
    assert found.fix.splitlines()[0] == f"sudo apt-get purge {name}"


def test_a_driver_that_no_package_brought_is_found_by_its_library(wsl: Simulated) -> None:
    wsl.write("usr/lib/x86_64-linux-gnu/libcuda.so.1", "")
    found = wsl.findings()["driver in wsl"]
    assert (found.status, "nvidia-uninstall" in found.fix) == ("bad", True)


@pytest.mark.parametrize(
    ("name", "state"), [("nvidia-driver-550", "config-files"), ("nvidia-container-toolkit", "installed")]
)
def test_what_is_no_driver_or_was_removed_is_none(wsl: Simulated, name: str, state: str) -> None:
    wsl.write("var/lib/dpkg/status", DPKG.format(name=name, state=state))
    link = wsl.root / "usr/lib/x86_64-linux-gnu/libcuda.so.1"
    link.parent.mkdir(parents=True)
    link.symlink_to("/usr/lib/wsl/lib/libcuda.so.1")
    assert wsl.findings()["driver in wsl"].status == "ok"


@pytest.mark.parametrize(
    ("registry", "said"),
    [
        ("    TdrDelay    REG_DWORD    0x8\r\n", "8 s"),
        ("    Other    REG_DWORD    0x8\r\n", "2 s, Windows' default"),
    ],
)
def test_a_short_time_out_of_gpus_is_told(wsl: Simulated, registry: str, said: str) -> None:
    wsl.says("reg.exe query HKLM", registry)
    found = wsl.findings()["windows gpu time-out"]
    assert (found.status, found.found) == ("warn", said)
    assert "TdrDelay /t REG_DWORD /d 60 /f" in found.fix


@pytest.mark.parametrize("registry", ["    TdrDelay    REG_DWORD    0x3c\r\n", "    TdrLevel    REG_DWORD    0x0\r\n"])
def test_a_long_time_out_or_none_is_well(wsl: Simulated, registry: str) -> None:
    wsl.says("reg.exe query HKLM", registry)
    assert wsl.findings()["windows gpu time-out"].status == "ok"


def test_where_windows_cannot_be_asked_its_part_is_unknown(box: Simulated) -> None:
    box.wsl(interop=False)
    found = box.findings()
    assert {found[name].status for name in ("windows gpu time-out", "port on windows", "windows' drive")} == {"unknown"}
    assert "interop is off" in found["windows' drive"].found
    assert not [argv for argv in box.asked if argv[0].endswith(".exe")]


def test_a_windows_that_hangs_leaves_its_part_unknown(wsl: Simulated) -> None:
    for name in list(wsl.programs):
        if ".exe" in name:
            del wsl.programs[name]
    found = wsl.findings()
    assert found["windows gpu time-out"].status == "unknown"
    assert found["windows' drive"].status == "unknown"
    assert found["memory for weights"].status == "ok"


# --- memory -----------------------------------------------------------------------------------------------------------


def test_wsl_with_less_memory_than_the_weights_stands_in_the_way(box: Simulated) -> None:
    box.wsl("memory=24GB")
    box.memory(23.4)
    found = box.findings()["memory for weights"]
    assert (found.status, found.found) == (
        "bad",
        "23.4 GiB for WSL by .wslconfig; qwen-14b has 27.9 GiB of weights, by what was pulled",
    )
    assert "\n[wsl2]\nmemory=36GB\nswap=16GB\n" in found.fix


def test_less_memory_than_weights_and_reserve_costs_something(box: Simulated) -> None:
    box.wsl()
    box.memory(31)
    found = box.findings()["memory for weights"]
    assert (found.status, "its default (half of the machine)" in found.found) == ("warn", True)


def test_linux_with_little_memory_is_slow_and_not_stopped(box: Simulated) -> None:
    box.memory(16)
    found = box.findings()["memory for weights"]
    assert (found.status, ".wslconfig" in found.fix) == ("warn", False)


def test_a_windows_that_has_not_so_much_is_not_told_to_give_it(box: Simulated) -> None:
    box.wsl()
    box.memory(15)
    box.says("powershell.exe", str(32 * GIB))
    found = box.findings()["memory for weights"]
    assert (found.status, "Windows has 32.0 GiB in all" in found.fix, "[wsl2]" in found.fix) == ("bad", True, False)


def test_weights_that_are_not_here_are_estimated_by_name(box: Simulated) -> None:
    box.pulled, box.profiles = {}, [AWQ]
    assert box.findings()["memory for weights"].found.endswith("awq has 17.9 GiB of weights, by its name")
    box.profiles = [profile(model="org/secret")]
    assert box.findings()["memory for weights"].status == "unknown"


def test_memory_that_is_pinned_has_to_be_there(box: Simulated) -> None:
    box.profiles = [profile(tensor_parallel_size=2, args={"cpu-offload-gb": 16})]
    assert box.findings()["memory to pin"].status == "ok"
    box.memory(36)
    found = box.findings()["memory to pin"]
    assert (found.status, found.found) == ("bad", "qwen-14b pins 32.0 GiB (cpu-offload-gb) of 36.0 GiB")


def test_memory_that_wslconfig_gives_and_wsl_has_not_yet_needs_a_restart_alone(wsl: Simulated) -> None:
    wsl.memory(16)
    found = wsl.findings()["memory for weights"]
    assert (found.status, found.fix) == (
        "bad",
        ".wslconfig says 96.0 GiB already; it counts after\nwsl --shutdown   # in PowerShell; ends all of WSL",
    )


def test_sleepers_that_have_no_room_are_told(wsl: Simulated) -> None:
    wsl.write("mnt/c/Users/me/.wslconfig", "[wsl2]\nmemory=48GB\n")
    wsl.profiles = [profile(sleep="auto"), profile(name="awq", model=AWQ.model, sleep="auto"), profile(name="third")]
    wsl.memory(96)
    assert wsl.findings()["memory for sleepers"].status == "ok"
    wsl.memory(48)
    found = wsl.findings()["memory for sleepers"]
    assert (found.status, found.found) == ("warn", "48.0 GiB; 2 asleep take 45.8 GiB, 8.0 GiB are kept free")
    assert "memory=54GB" in found.fix


def test_all_who_ask_for_memory_give_one_line_for_it(box: Simulated) -> None:
    box.wsl()
    box.profiles = [profile(sleep="auto"), profile(name="awq", model=AWQ.model, sleep="auto"), profile(name="third")]
    box.memory(23)
    found = box.findings()
    names = ("memory for weights", "memory for sleepers")
    assert [found[name].status for name in names] == ["bad", "warn"]
    assert all("\nmemory=54GB\n" in found[name].fix for name in names)
    # What Windows has not is not asked for.
    box.says("powershell.exe", str(48 * GIB))
    found = box.findings()
    assert "\nmemory=36GB\n" in found["memory for weights"].fix
    assert "Windows has 48.0 GiB in all" in found["memory for sleepers"].fix


def test_of_models_that_all_sleep_one_is_awake(box: Simulated) -> None:
    box.profiles = [profile(sleep="auto"), profile(name="awq", model=AWQ.model, sleep="auto")]
    box.settings = {"TANDEM_HOST_RESERVE": str(4 * GIB)}
    box.memory(33)
    found = box.findings()["memory for sleepers"]
    assert (found.status, found.found) == ("ok", "33.0 GiB; 1 asleep take 27.9 GiB, 4.0 GiB are kept free")


def test_no_swap_is_told_where_it_matters(wsl: Simulated) -> None:
    wsl.write("proc/swaps", "Filename Type Size Used Priority\n")
    found = wsl.findings()["swap"]
    assert (found.status, "swap=16GB" in found.fix) == ("warn", True)


def test_no_swap_is_well_on_linux_with_enough_memory(box: Simulated) -> None:
    box.write("proc/swaps", "Filename Type Size Used Priority\n")
    assert box.findings()["swap"].status == "ok"
    box.memory(16)
    found = box.findings()["swap"]
    assert (found.status, "swapon" in found.fix) == ("warn", True)


def test_little_shared_memory_stands_in_the_way_of_several_gpus(box: Simulated) -> None:
    box.profiles = [profile(shm_size="512mb")]
    found = box.findings()["shared memory"]
    assert (found.status, found.found) == ("bad", "qwen-14b has 0.5 GiB (shm_size)")
    box.profiles = [profile(shm_size="64mb", gpus=[0])]
    assert box.findings()["shared memory"].status == "ok"


def test_shared_memory_of_more_than_the_machine_has_is_told(box: Simulated) -> None:
    box.profiles = [profile(shm_size="200gb")]
    assert box.findings()["shared memory"].status == "warn"


def test_a_limit_of_locked_memory_is_told(box: Simulated) -> None:
    limits = '{"default-ulimits": {"memlock": {"Name": "memlock", "Soft": %s, "Hard": %s}}}'
    box.write("etc/docker/daemon.json", limits % (65536, 65536))
    found = box.findings()["memlock"]
    assert (found.status, found.fix.splitlines()[-1]) == ("warn", "sudo systemctl restart docker")
    box.write("etc/docker/daemon.json", limits % (-1, -1))
    assert box.findings()["memlock"].status == "ok"


# --- files ------------------------------------------------------------------------------------------------------------


def test_a_project_on_a_drive_of_windows_is_told(wsl: Simulated) -> None:
    wsl.write("proc/mounts", f"{MOUNTS}C:\\134 {wsl.project} 9p rw,aname=drvfs 0 0\n{DRIVE}")
    found = wsl.findings()["project's disk"]
    assert (found.status, found.found) == ("warn", f"9p, {wsl.project}")


def test_a_shared_folder_of_another_machine_is_no_drive_of_windows(box: Simulated) -> None:
    box.write("proc/mounts", f"{MOUNTS}share {box.project} 9p rw 0 0\n")
    assert box.findings()["project's disk"].status == "ok"


def test_weights_on_a_drive_of_windows_stand_in_the_way(wsl: Simulated, tmp_path: Path) -> None:
    models = tmp_path / "models"
    models.mkdir()
    wsl.settings = {"TANDEM_MODELS": str(models)}
    assert wsl.findings()["weights' disk"].status == "ok"
    wsl.write("proc/mounts", f"{MOUNTS}drvfs {models} 9p rw,path=D:\\ 0 0\n{DRIVE}")
    assert wsl.findings()["weights' disk"].status == "bad"


def test_a_folder_of_weights_that_is_not_there_stands_in_the_way(box: Simulated, tmp_path: Path) -> None:
    box.settings = {"TANDEM_MODELS": str(tmp_path / "no/models")}
    found = box.findings()["weights' disk"]
    assert (found.status, found.fix) == ("bad", f"sudo install -d -o 1000 -g 1000 {tmp_path}/no/models")


def test_line_ends_of_windows_are_told_with_file_and_line(box: Simulated) -> None:
    (box.project / ".env").write_bytes(b"TANDEM_PORT=8000\nA=1\r\nB=2\r\n")
    found = box.findings()["line ends"]
    assert (found.status, found.found) == (
        "warn", f"{box.project}/.env: line 2 and 1 more end as on Windows (CRLF)",
    )  # fmt: skip
    (box.project / ".env").write_bytes(b"TANDEM_PORT=8000\nA=1\rB\nB=2\n")
    assert box.findings()["line ends"].status == "ok"


def test_models_toml_with_line_ends_of_windows_is_told(box: Simulated) -> None:
    (box.project / "models.toml").write_bytes(b"[models.a]\r\n")
    assert "models.toml: line 1 end" in box.findings()["line ends"].found


def test_a_script_that_linux_cannot_start_stands_in_the_way(box: Simulated) -> None:
    for name, text in {
        "start.sh": b"#!/bin/sh\r\nexit\r\n",
        "text.conf": b"a\r\n",
        "good.sh": b"#!/bin/sh\nexit\n",
    }.items():
        path = box.project / "docker/router" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text)
    found = box.findings()["line ends"]
    assert (found.status, "start.sh" in found.found) == ("bad", True)


def test_downloads_that_modelscope_left_are_told_when_they_are_large(box: Simulated, tmp_path: Path) -> None:
    left = tmp_path / "models/Qwen/Qwen3/._____temp"
    left.mkdir(parents=True)
    box.settings = {"TANDEM_MODELS": str(tmp_path / "models")}
    assert box.findings()["left downloads"].status == "ok"
    with (left / "model.safetensors").open("wb") as stream:
        stream.truncate(2 * GIB)
    found = box.findings()["left downloads"]
    assert (found.status, found.fix) == ("warn", f"rm -r {left}")


# --- Docker -----------------------------------------------------------------------------------------------------------


def test_a_docker_that_does_not_answer_is_bad_with_its_own_fix_and_all_else_is_looked_at(box: Simulated) -> None:
    box.engine.said = NOT_RUNNING
    found = box.findings()
    assert (found["docker"].status, found["docker"].found) == ("bad", "Docker does not answer")
    assert found["docker"].fix.startswith("sudo systemctl start docker   # or start Docker Desktop")
    assert "engine" not in found
    assert (found["port"].status, found["port"].found) == ("unknown", "127.0.0.1:8000: Docker does not answer")
    assert found["docker's disk"].status == "unknown"
    assert found["memory for weights"].status == "ok"


@pytest.mark.parametrize(
    ("said", "found", "fix"),
    [
        (NOT_ALLOWED, "Docker's socket may not be used by this user", "sudo usermod -aG docker $USER   #"),
        (NO_COMMAND, "There is no docker command", "scripts/up   #"),
        ("Docker refused: no. Not today", "Docker refused: no. Not today", "docker info   #"),
        ("Docker gave no answer: x. 'docker info' shows whether it runs.", "Docker gave no answer: x.", "docker info "),
    ],
)
def test_each_reason_why_docker_does_not_answer_has_a_line_to_paste(
    box: Simulated, said: str, found: str, fix: str
) -> None:
    box.engine.said = said
    row = box.findings()["docker"]
    assert (row.found, row.fix.startswith(fix)) == (found, True)
    (box.root / "run/systemd/system").rmdir()
    box.engine.said = NOT_RUNNING
    assert box.findings()["docker"].fix.startswith("sudo service docker start   #")


@pytest.mark.parametrize(
    ("version", "status"), [("24.0.9", "bad"), ("20.10.24+dfsg1", "bad"), ("25.0.0", "ok"), ("", "unknown")]
)
def test_an_engine_that_is_too_old_stands_in_the_way(box: Simulated, version: str, status: str) -> None:
    assert isinstance(box.engine.said, dict)
    box.engine.said["ServerVersion"] = version
    assert box.findings()["engine"].status == status
    assert [each.check for each in box.blocking()] == (["engine"] if status == "bad" else [])


@pytest.mark.parametrize(
    ("said", "status"), [("2.23.3", "bad"), ("1.29.2", "bad"), ("v2.24.0-desktop.1", "ok"), ("", "unknown")]
)
def test_a_compose_that_is_too_old_stands_in_the_way(box: Simulated, said: str, status: str) -> None:
    box.says("docker compose version --short", said)
    assert box.findings()["compose"].status == status
    assert [each.check for each in box.blocking()] == (["compose"] if status == "bad" else [])


def test_without_compose_nothing_can_be_made(box: Simulated) -> None:
    box.says("docker compose version --short", "Usage: docker", code=125)
    assert (box.findings()["compose"].found, [each.check for each in box.blocking()]) == ("not there", ["compose"])


def test_what_docker_will_not_list_is_unknown_and_not_missing(wsl: Simulated) -> None:
    wsl.engine.refuses = {"containers", "images", "ports"}
    wsl.says("docker buildx version", "", code=1)
    wsl.free = 30 * 10**9
    found = wsl.findings()
    assert found["restarts"].found == "could not look: Docker refused: not now"
    assert found["port"].found == "127.0.0.1:8000: Docker refused: not now"
    assert "could not look what is to come" in found["docker's disk"].found
    assert {name: found[name].status for name in ("restarts", "port", "docker's disk", "buildx", "windows' drive")} == {
        "restarts": "unknown", "port": "unknown", "docker's disk": "unknown", "buildx": "warn", "windows' drive": "ok",
    }  # fmt: skip
    assert wsl.blocking() == []


def test_without_buildx_no_image_that_is_missing_comes(box: Simulated) -> None:
    box.says("docker buildx version", "", code=1)
    assert box.findings()["buildx"].status == "warn"
    box.engine.tags = frozenset()
    assert box.findings()["buildx"].status == "bad"


def test_docker_desktop_beside_an_engine_is_told(wsl: Simulated) -> None:
    (wsl.root / "mnt/wsl/docker-desktop").mkdir(parents=True)
    assert wsl.findings()["one engine"].status == "ok"
    wsl.process(77, "dockerd")
    found = wsl.findings()["one engine"]
    assert (found.status, found.found) == ("warn", "Docker Desktop and an Engine here; in use is the one here")


def test_docker_desktop_alone_is_well_and_listens_on_windows(wsl: Simulated) -> None:
    (wsl.root / "mnt/wsl/docker-desktop").mkdir(parents=True)
    assert isinstance(wsl.engine.said, dict)
    wsl.engine.said |= {"OperatingSystem": "Docker Desktop", "Runtimes": {}}
    found = wsl.findings()
    assert {found[name].status for name in ("one engine", "nvidia runtime", "localhost on windows")} == {"ok"}


def test_another_socket_than_that_of_the_settings_stands_in_the_way(box: Simulated) -> None:
    box.engine.listens = "unix:///run/docker.sock"
    assert box.findings()["docker socket"].status == "ok"
    box.engine.listens = "unix:///run/user/1000/docker.sock"
    found = box.findings()["docker socket"]
    assert (found.status, "TANDEM_DOCKER_SOCKET=/run/user/1000/docker.sock" in found.fix) == ("bad", True)


def test_without_the_container_toolkit_no_model_gets_gpus(box: Simulated) -> None:
    assert isinstance(box.engine.said, dict)
    box.engine.said["Runtimes"] = {"runc": {}}
    found = box.findings()["nvidia runtime"]
    assert (found.status, found.found) == ("bad", "no NVIDIA Container Toolkit")
    assert found.fix.splitlines()[-1] == (
        "sudo nvidia-ctk runtime configure --runtime=docker && sudo systemctl restart docker"
    )


def test_a_toolkit_whose_runtime_is_not_configured_is_told_also_without_systemd(box: Simulated) -> None:
    assert isinstance(box.engine.said, dict)
    box.engine.said["Runtimes"] = {"runc": {}}
    box.write("usr/bin/nvidia-container-runtime-hook", "")
    (box.root / "run/systemd/system").rmdir()
    found = box.findings()["nvidia runtime"]
    assert (found.status, found.fix) == (
        "warn", "sudo nvidia-ctk runtime configure --runtime=docker && sudo service docker restart",
    )  # fmt: skip


def test_a_docker_without_root_has_settings_of_its_own(box: Simulated) -> None:
    assert isinstance(box.engine.said, dict)
    box.engine.said |= {"Runtimes": {}, "SecurityOptions": ["name=seccomp,profile=builtin", "name=rootless"]}
    box.write("usr/bin/nvidia-container-runtime-hook", "")
    assert "--config=$HOME/.config/docker/daemon.json" in box.findings()["nvidia runtime"].fix
    assert remedies(box.box()) == []


def test_where_no_gpu_is_the_runtime_does_not_matter(box: Simulated) -> None:
    assert isinstance(box.engine.said, dict)
    box.engine.said["Runtimes"] = {}
    (box.root / "proc/driver/nvidia/version").unlink()
    assert box.findings()["nvidia runtime"].found == "does not apply: no NVIDIA GPU is here"
    box.write("dev/nvidiactl", "")
    box.profiles = [profile(name="demo", gpus=[], image="cpu")]
    assert box.findings()["nvidia runtime"].found == "does not apply: no profile uses GPUs"


def test_a_container_that_restarts_in_a_loop_is_named(box: Simulated) -> None:
    box.engine.listed = [container("router", restarts=9, started_at="2026-11-27T05:00:00.123456789Z")]
    assert box.findings()["restarts"].status == "ok"
    # 30 s before now.
    box.engine.listed = [container("activator", health="", restarts=3, exit_code=1, started_at="2027-01-15T07:59:30Z")]
    found = box.findings()["restarts"]
    assert (found.status, found.fix) == ("bad", "docker logs --tail 50 tandem-activator")
    box.engine.listed = [container("router", "restarting", "", restarts=1, exit_code=127)]
    assert box.findings()["restarts"].found == "tandem-router was started again 1 times; its last exit code was 127"


# --- the port, and who reaches it -------------------------------------------------------------------------------------


def test_a_port_that_a_program_has_is_told_with_its_name_and_a_free_one(box: Simulated) -> None:
    box.process(4242, "python3", inode=991)
    box.process(4243, "other", inode=5)
    box.listens(8000, 991)
    box.refused[8001] = "taken"
    found = box.findings()["port"]
    assert (found.status, found.blocks) == ("bad", True)
    assert found.found == "127.0.0.1:8000 is taken by python3 (pid 4242)"
    assert found.fix == "Set TANDEM_PORT in .env to a free one, such as 8002,\nor stop what holds it"
    assert [each.check for each in box.blocking()] == ["port"]


def test_a_port_of_another_users_program_is_taken_by_somebody(box: Simulated) -> None:
    box.listens(8000, 991)
    assert "another user" in box.findings()["port"].found


def test_a_port_of_another_container_is_told_with_its_name(box: Simulated) -> None:
    box.engine.has = [Published("open-webui", "", "0.0.0.0")]
    assert box.findings()["port"].found == "127.0.0.1:8000 is taken by container open-webui"
    box.engine.has = [Published("open-webui", "", "192.168.1.5")]
    assert box.findings()["port"].status == "ok"


def test_the_routers_own_port_is_no_fault(box: Simulated) -> None:
    box.engine.has = [Published("tandem-router", "router", "127.0.0.1")]
    box.listens(8000, 991)
    assert box.findings()["port"].found == "127.0.0.1:8000, the router has it"
    assert box.blocking() == []


def test_a_server_on_another_address_is_no_holder(box: Simulated) -> None:
    box.process(4242, "python3", inode=991)
    box.listens(8000, 991, "0205A8C0")
    assert "python3" not in box.findings()["port"].found


def test_an_address_that_is_not_here_stands_in_the_way(box: Simulated) -> None:
    box.settings, box.refused = {"TANDEM_BIND": "192.168.1.9"}, {8000: "no such address"}
    assert [each.found for each in box.blocking()] == [
        "192.168.1.9:8000: this machine has no such address (TANDEM_BIND)"
    ]


def test_a_port_that_this_user_may_not_have_is_dockers_to_try(box: Simulated) -> None:
    box.settings, box.refused = {"TANDEM_PORT": "443"}, {443: "not allowed"}
    assert box.findings()["port"].status == "ok"


def test_the_port_of_a_docker_elsewhere_is_not_looked_at(box: Simulated) -> None:
    box.engine.listens, box.refused = "tcp://10.0.0.9:2376", {8000: "taken"}
    assert box.findings()["port"].status == "unknown"
    assert box.blocking() == []


def test_a_program_on_windows_that_has_the_port_is_named(wsl: Simulated) -> None:
    # Of a Windows that speaks German.
    wsl.says("netstat.exe", "  TCP    127.0.0.1:8000    0.0.0.0:0    ABHÖREN    4711\r\n")
    wsl.says("tasklist.exe", '"python.exe","4711","Console","1","12.345 K"\r\n')
    found = wsl.findings()["port on windows"]
    assert (found.status, found.found) == ("warn", "8000 is taken by python.exe (pid 4711)")


def test_wsls_own_relay_and_connections_are_no_others(wsl: Simulated) -> None:
    wsl.says(
        "netstat.exe",
        "  TCP    [::1]:8000    [::]:0    LISTENING    4711\r\n"
        "  TCP    10.0.0.2:8000    10.0.0.3:99    ESTABLISHED   5\r\n",
    )
    wsl.says("tasklist.exe", '"wslrelay.exe","4711","Console","1","12.345 K"\r\n')
    assert wsl.findings()["port on windows"].status == "ok"


def test_windows_own_http_server_is_another_program(wsl: Simulated) -> None:
    wsl.says("netstat.exe", "  TCP    0.0.0.0:8000    0.0.0.0:0    LISTENING    4\r\n")
    wsl.says("tasklist.exe", '"System","4","Services","0","144 K"\r\n')
    found = wsl.findings()["port on windows"]
    assert (found.status, found.found) == ("warn", "8000 is taken by System (pid 4)")
    assert found.fix.splitlines()[-1] == "netsh http show servicestate"


def test_a_service_of_windows_has_the_port_for_wsl_by_portproxy_alone(wsl: Simulated) -> None:
    wsl.says("netstat.exe", "  TCP    0.0.0.0:8000    0.0.0.0:0    LISTENING    77\r\n")
    wsl.says("tasklist.exe", '"svchost.exe","77","Services","0","144 K"\r\n')
    assert wsl.findings()["port on windows"].found == "8000 is taken by svchost.exe (pid 77)"
    wsl.says("netsh.exe interface portproxy", f"{PROXY}0.0.0.0 9000 172.20.5.3 9000\r\n")
    assert wsl.findings()["port on windows"].status == "warn"
    wsl.says("netsh.exe interface portproxy", f"{PROXY}0.0.0.0 8000 172.20.5.3 8000\r\n")
    assert wsl.findings()["port on windows"].status == "ok"


def test_a_port_that_windows_keeps_is_told(wsl: Simulated) -> None:
    wsl.settings = {"TANDEM_PORT": "50010"}
    assert wsl.findings()["port on windows"].found == "Windows keeps 50000 to 50059 for itself"


def test_without_localhost_forwarding_windows_does_not_reach_it(box: Simulated) -> None:
    box.wsl("localhostForwarding=false  # why")
    found = box.findings()["localhost on windows"]
    assert (found.status, "localhostForwarding=true" in found.fix) == ("warn", True)
    box.wsl("localhostForwarding=false", "networkingMode=mirrored")
    assert box.findings()["localhost on windows"].status == "ok"


def test_a_bind_on_all_addresses_is_not_reached_from_others_in_wsls_own_network(wsl: Simulated) -> None:
    wsl.settings = {"TANDEM_BIND": "0.0.0.0"}
    found = wsl.findings()["reached from others"]
    assert found.status == "warn"
    assert "networkingMode=mirrored" in found.fix
    assert "listenport=8000 connectaddress=172.20.5.3 connectport=8000" in found.fix


PROXY = "Address         Port        Address         Port\r\n--------------- ----------  ---------------\r\n"


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("0.0.0.0         8000        172.20.5.3      8000", "ok"),
        ("0.0.0.0         8000        127.0.0.1       8000", "ok"),
        ("0.0.0.0         8000        172.20.9.9      8000", "warn"),
        ("0.0.0.0         9000        172.20.5.3      8000", "warn"),
        ("127.0.0.1       8000        172.20.5.3      8000", "warn"),
        ("localhost       8000        172.20.5.3      8000", "warn"),
        ("127.0.0.9       8000        172.20.5.3      8000", "warn"),
        ("192.168.1.7     8000        172.20.5.3      8000", "ok"),
        ("*               8000        172.20.5.3      8000", "ok"),
        ("desk            8000        172.20.5.3      8000", "ok"),
    ],
)
def test_a_portproxy_has_to_lead_to_where_wsl_is_now(wsl: Simulated, line: str, status: str) -> None:
    wsl.settings = {"TANDEM_BIND": "0.0.0.0"}
    wsl.says("netsh.exe interface portproxy", f"{PROXY}{line}\r\n")
    assert wsl.findings()["reached from others"].status == status


def test_of_several_lines_of_portproxy_the_one_that_leads_there_is_named(wsl: Simulated) -> None:
    wsl.settings = {"TANDEM_BIND": "0.0.0.0"}
    lines = ("127.0.0.1 8000 172.20.5.3 8000", "10.0.0.4 8000 172.20.9.9 8000", "192.168.1.7 8000 172.20.5.3 8000")
    wsl.says("netsh.exe interface portproxy", PROXY + "".join(f"{line}\r\n" for line in lines))
    assert wsl.findings()["reached from others"].found == "by Windows' portproxy at 192.168.1.7 to 172.20.5.3"
    wsl.says("netsh.exe interface portproxy", PROXY + lines[0])
    found = wsl.findings()["reached from others"]
    assert (found.status, found.found) == ("warn", "portproxy listens on 127.0.0.1:8000")


def test_a_portproxy_to_windows_own_localhost_ends_there_when_that_is_not_forwarded(box: Simulated) -> None:
    box.wsl("localhostForwarding=false")
    box.settings = {"TANDEM_BIND": "0.0.0.0"}
    box.says("netsh.exe interface portproxy", f"{PROXY}0.0.0.0 8000 127.0.0.1 8000\r\n")
    assert box.findings()["reached from others"].status == "warn"


def test_a_network_that_wsl_has_not_is_told(box: Simulated) -> None:
    box.wsl("networkingMode=None")
    found = box.findings()["localhost on windows"]
    assert (found.status, found.found) == ("bad", "networkingMode=none")
    assert "networkingMode=mirrored" in found.fix


def test_mirrored_networking_and_a_loopback_address_are_well(box: Simulated) -> None:
    box.wsl("networkingMode=Mirrored")
    box.settings = {"TANDEM_BIND": "0.0.0.0"}
    assert box.findings()["reached from others"].status == "ok"
    box.wsl()
    box.settings = {}
    assert box.findings()["reached from others"].found == "not asked for (TANDEM_BIND=127.0.0.1)"


WEIGHTS = "python -m orchestrator models   # lists weights; models remove NAME removes some"


# --- the clock, the disks ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("date", "said"), [(NOW + 7200, "7200 s behind"), (NOW - 301, "301 s ahead of")])
def test_a_clock_that_is_off_stands_in_the_way(box: Simulated, date: float, said: str) -> None:
    box.date = date
    found = box.findings()["clock"]
    assert (found.status, found.found) == ("bad", f"{said} mirror.example.org")


def test_a_clock_that_one_server_agrees_with_is_right(box: Simulated) -> None:
    box.dates = {"mirror.example.org": NOW + 86400}
    assert box.findings()["clock"].found == "within 1 s of www.modelscope.cn"


def test_a_clock_that_nobody_knows_is_unknown(box: Simulated) -> None:
    box.dates = {"": "no answer in 3 s"}
    found = box.findings()["clock"]
    assert (found.status, found.found) == ("unknown", "not compared: www.modelscope.cn: no answer in 3 s")


def test_a_disk_with_no_room_for_any_model_stands_in_the_way(box: Simulated) -> None:
    box.engine.tags, box.pulled, box.free = frozenset(), {}, 40 * 10**9
    found = box.findings()["docker's disk"]
    assert (found.status, "still takes 49.4 GB" in found.found) == ("bad", True)
    box.profiles = [profile(), AWQ]
    box.free = 60 * 10**9
    found = box.findings()["docker's disk"]
    assert found.status == "warn"
    assert {"docker builder prune", WEIGHTS} <= set(found.fix.splitlines())
    box.free = 100 * 10**9
    assert box.findings()["docker's disk"].status == "ok"


def test_weights_in_a_folder_need_room_there(box: Simulated, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    box.settings, box.pulled = {"TANDEM_MODELS": str(tmp_path / "models")}, {}
    box.frees = {"/models": 20 * 10**9}
    found = box.findings()
    assert (found["space for weights"].status, found["docker's disk"].status) == ("bad", "ok")
    # Images are elsewhere.
    assert found["space for weights"].fix == WEIGHTS


def test_the_drive_of_windows_below_wsls_disk_has_to_have_room(wsl: Simulated) -> None:
    wsl.engine.tags = frozenset()
    wsl.frees = {"mnt/c": 9 * 10**9}
    found = wsl.findings()
    assert (found["windows' drive"].status, found["docker's disk"].status) == ("bad", "ok")
    lines = found["windows' drive"].fix.splitlines()
    assert lines[lines.index("wsl --shutdown") :] == [
        "wsl --shutdown",
        "diskpart",
        "then at its prompt, which ends with exit:",
        r'select vdisk file="C:\Users\me\AppData\Local\wsl\debian\ext4.vhdx"',
        "compact vdisk",
    ]
    # Of a name in a code page nobody knows what it is.
    wsl.says("reg.exe query HKCU", REGISTRY.replace("\\me\\", "\\\ufffd\ufffd\\"))
    assert 'file="<folder>\\ext4.vhdx"' in wsl.findings()["windows' drive"].fix


def test_weights_that_nobody_could_look_at_are_not_counted_as_missing(box: Simulated) -> None:
    box.pulled, box.free = None, 10 * 10**9
    found = box.findings()["docker's disk"]
    assert (found.status, "weights, which could not be looked at" in found.found) == ("ok", True)


def test_with_no_docker_the_drive_of_windows_is_judged_alone(wsl: Simulated) -> None:
    wsl.engine.said, wsl.free = "Docker does not answer. Start it.", 10 * 10**9
    assert wsl.findings()["windows' drive"].status == "ok"
    wsl.free = 4 * 10**9
    assert wsl.findings()["windows' drive"].status == "bad"


def test_the_data_folder_of_a_docker_elsewhere_is_unknown(box: Simulated) -> None:
    box.engine.listens = "tcp://10.0.0.9:2376"
    assert box.findings()["docker's disk"].status == "unknown"


# --- the table --------------------------------------------------------------------------------------------------------


def test_the_table_has_status_and_fact_and_below_what_is_not_well_why_and_fix() -> None:
    shown = words.table(
        [
            Finding("wsl", "ok", "WSL 2", "", ""),
            Finding("swap", "warn", "none", "a peak of memory " * 5, "one\ntwo"),
            Finding("port", "bad", "taken", "no router", "stop it", blocks=True),
            Finding("clock", "unknown", "nobody answers"),
        ]
    )
    assert shown.splitlines() == [
        "ok      wsl    WSL 2",
        "warn    swap   none",
        "          why  a peak of memory a peak of memory a peak of memory a peak of",
        "               memory a peak of memory",
        "          fix  one",
        "               two",
        "bad     port   taken",
        "          why  no router",
        "          fix  stop it",
        "unknown clock  nobody answers",
        "",
        "1 stands in the way; 1 costs something; 1 could not be looked at",
    ]


def test_all_but_what_is_to_be_pasted_fits_80_columns(wsl: Simulated) -> None:
    wsl.memory(8)
    wsl.settings = {"TANDEM_BIND": "0.0.0.0"}
    shown = words.table(list(wsl.findings().values()))
    pasted = {line for found in wsl.findings().values() for line in found.fix.splitlines()}
    # A path is one word, however long.
    long = [line for line in shown.splitlines() if len(line) > 80 and len(line.split()) > 1]
    assert [line for line in long if not any(line.endswith(fix) for fix in pasted)] == []


def test_a_start_ends_with_the_same_words() -> None:
    found = Finding("port", "bad", "127.0.0.1:8000 is taken", "the router cannot start", "one\ntwo", blocks=True)
    assert words.refusal(found) == "port: 127.0.0.1:8000 is taken: the router cannot start\n  one\n  two"


# --- the router's certificate -----------------------------------------------------------------------------------------


@pytest.fixture
def tls(box: Simulated) -> Simulated:
    """The router is up, with a certificate in a folder."""
    box.settings["TANDEM_TLS_FOLDER"] = "/tls"
    box.engine.has = [Published("tandem-router", "router", "127.0.0.1")]
    return box


def test_plain_http_has_no_certificate(box: Simulated) -> None:
    found = box.findings()["certificate"]
    assert (found.status, found.found) == ("ok", "does not apply: the router speaks plain HTTP (TANDEM_TLS_FOLDER)")


@pytest.mark.parametrize(("days", "status"), [(80.5, "ok"), (14.5, "ok"), (13.5, "warn"), (0.5, "warn")])
def test_a_certificate_that_ends_soon_is_told(tls: Simulated, days: float, status: str) -> None:
    tls.shown = Shown(same=True, ends=NOW + days * 86400)
    found = tls.findings()["certificate"]
    assert (found.status, found.found) == (status, f"/tls/cert.pem is valid for {int(days)} days more")


def test_a_certificate_that_has_expired_is_bad(tls: Simulated) -> None:
    tls.shown = Shown(expired=True)
    found = tls.findings()["certificate"]
    assert (found.status, found.found, found.fix) == ("bad", "/tls/cert.pem has expired", "renew it")


def test_a_renewed_certificate_that_the_router_does_not_show_is_bad(tls: Simulated) -> None:
    tls.shown = Shown(same=False)
    found = tls.findings()["certificate"]
    assert (found.status, found.found) == ("bad", "the router does not show the one in /tls/cert.pem")
    assert found.fix.startswith("python -m orchestrator logs router")
    # A file that is mounted alone is not replaced by a new one of its name.
    tls.settings = {"TANDEM_TLS_CERT_FILE": "/c.pem", "TANDEM_TLS_KEY_FILE": "/k.pem"}
    assert tls.findings()["certificate"].fix.startswith("docker compose restart router\n")


def test_a_pair_that_no_router_would_start_with_is_bad_whatever_it_shows(tls: Simulated, tmp_path: Path) -> None:
    tls.settings["TANDEM_TLS_FOLDER"] = str(tmp_path)
    tls.shown = Shown(same=True, ends=NOW + 80 * 86400)
    found = tls.findings()["certificate"]
    said = f"TANDEM_TLS_FOLDER: should hold cert.pem and key.pem, and {tmp_path}/cert.pem is not there"
    assert (found.status, found.found) == ("bad", said)
    assert found.fix.startswith("python -m orchestrator logs router")


def test_a_router_that_is_not_up_shows_no_certificate(tls: Simulated) -> None:
    tls.engine.has = []
    found = tls.findings()["certificate"]
    assert (found.status, found.found) == ("unknown", "/tls/cert.pem: the router is not up")
    tls.engine.has = [Published("tandem-router", "router", "127.0.0.1")]
    tls.shown = Shown(fault="connection refused")
    assert tls.findings()["certificate"].found == "/tls/cert.pem: connection refused"
