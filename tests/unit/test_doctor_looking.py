"""What the doctor reads: the kernel's tables, names of models, programs that hang, servers that tell the time."""

import os
import socket
import sys
import time
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from orchestrator import host
from orchestrator.doctor import examining, reading
from orchestrator.doctor.looking import Look
from orchestrator.http import Way, get
from tests.checkout import PATIENCE
from tests.standins.serving import serving
from tests.unit.simulated import Simulated
from tests.unit.values import profile, project


@pytest.mark.parametrize(
    ("model", "gigabytes"),
    [
        ("Qwen/Qwen2.5-14B-Instruct", 29.4),
        ("Qwen/Qwen2.5-32B-Instruct-AWQ", 19.2),
        ("Qwen/Qwen2.5-7B-Instruct-GPTQ-Int8", 7.7),
        ("Qwen/Qwen3-30B-A3B", 63.0),
        ("Qwen/Qwen2.5-0.5B", 1.05),
        ("org/fp8-8b", 8.8),
        ("org/model-v2", None),
        ("org/4bit", None),
    ],
)
def test_a_models_name_tells_about_how_large_it_is(model: str, gigabytes: float | None) -> None:
    found = reading.by_name(model)
    assert found == (None if gigabytes is None else pytest.approx(gigabytes * 1e9))


@pytest.mark.parametrize(
    ("text", "size"),
    [("8gb", 8 << 30), ("96GB", 96 << 30), ("1.5g", 3 << 29), ("512m", 512 << 20), ("7", 7), ("x", None)],
)
def test_sizes_are_read_as_docker_and_wsl_write_them(text: str, size: int | None) -> None:
    assert reading.size(text) == size


@pytest.mark.parametrize(
    ("bind", "other", "meet"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "0.0.0.0", True),
        ("0.0.0.0", "192.168.1.5", True),
        ("127.0.0.1", "192.168.1.5", False),
        ("127.0.0.1", "::", True),
        ("127.0.0.1", "::1", False),
        ("[::1]", "::1", True),
        ("127.0.0.1", "::ffff:127.0.0.1", True),
    ],
)
def test_two_servers_meet_on_one_address_or_on_all(bind: str, other: str, meet: bool) -> None:
    assert reading.clash(bind, other) is meet


def test_who_listens_is_read_from_the_kernels_own_tables(tmp_path: Path) -> None:
    box = Simulated(tmp_path)
    line = "   1: 00000000000000000000000001000000:1F40 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 77 1\n"
    box.write("proc/net/tcp6", f"header\n{line}")
    box.process(9, "six", inode=77)
    look = Look(box.root, lambda _: 0)
    assert look.holders("[::1]", 8000) == ["six (pid 9)"]
    assert look.holders("127.0.0.1", 8000) == []
    assert look.holders("[::1]", 8001) == []


def test_who_has_a_port_of_this_machine_is_found_by_name() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        assert host.refused("127.0.0.1", port) == "taken"
        holders = Look(Path("/"), lambda _: 0).holders("127.0.0.1", port)
        assert [holder for holder in holders if holder.endswith(f"(pid {os.getpid()})")]
    # What is left of a server that ended is none. Another may have come; then it is not ours to say.
    assert host.refused("127.0.0.1", port) in ("", "taken")
    assert host.refused("203.0.113.7", port) == "no such address"


def test_a_program_that_hangs_or_is_not_there_says_nothing() -> None:
    assert host.ran([sys.executable, "-c", "print('é'.encode('cp1252'))"], PATIENCE).code == 0
    assert host.ran([sys.executable, "-c", "import time; time.sleep(600)"], 0.2) == host.Ran(None, "")
    assert host.ran(["/nowhere/reg.exe"], 1) == host.Ran(None, "")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le"])
def test_what_a_program_says_in_utf_16_is_read_too(encoding: str) -> None:
    text = "USERPROFILE=C:\\Users\\张三\r\n"
    told = f"import sys; sys.stdout.buffer.write(bytes.fromhex('{text.encode(encoding).hex()}'))"
    assert host.ran([sys.executable, "-c", told], PATIENCE) == host.Ran(0, text)
    told = f"import sys; sys.stdout.buffer.write(bytes.fromhex('{text.encode('gbk').hex()}'))"
    assert host.ran([sys.executable, "-c", told], PATIENCE).text.startswith("USERPROFILE=C:\\Users\\")


def test_what_a_person_watches_is_no_part_of_our_own_output(capfd: pytest.CaptureFixture[str]) -> None:
    assert host.shown([sys.executable, "-c", "print('seen'); raise SystemExit(3)"]) == 3
    assert capfd.readouterr() == ("", "seen\n")


def test_mounts_are_found_by_the_nearest_and_the_last() -> None:
    listed = reading.mounts("a / ext4 rw 0 0\nb /mnt/my\\040disk 9p rw 0 0\nc /data ext4 rw 0 0\nd /data xfs rw 0 0\n")
    assert reading.kind_at(listed, "/mnt/my disk/x") == "9p"
    assert reading.kind_at(listed, "/mnt/my") == "ext4"
    assert reading.kind_at(listed, "/data") == "xfs"
    assert reading.kind_at([], "/data") == ""


@pytest.mark.parametrize(
    ("line", "drives"),
    [
        ("C:\\134 /mnt/c 9p rw,aname=drvfs;path=C:\\;uid=1000 0 0", {"c": "/mnt/c"}),
        ("drvfs /d 9p rw,aname=drvfs;path=D:\\;uid=1000 0 0", {"d": "/d"}),
        ("none /usr/lib/wsl/drivers 9p ro,aname=drivers;fmask=222 0 0", {}),
    ],
)
def test_drives_of_windows_are_found_wherever_they_are_mounted(line: str, drives: dict[str, str]) -> None:
    assert reading.drives(reading.mounts(line)) == drives


def test_of_several_users_settings_nobody_guesses(tmp_path: Path) -> None:
    box = Simulated(tmp_path)
    box.wsl("memory=8GB", interop=False)
    box.write("mnt/c/Users/you/.wslconfig", "[wsl2]\nmemory=9GB\n")
    assert box.box().wsl.config is None
    box.wsl("memory=8GB")
    assert box.box().wsl.config == {"memory": "8GB"}


def test_a_user_of_any_name_has_settings_that_are_found(tmp_path: Path) -> None:
    box = Simulated(tmp_path)
    box.wsl()
    box.write("mnt/c/Users/张三 & co/.wslconfig", "[wsl2]\nmemory=40GB\nnetworkingMode=mirrored\n")
    box.says("cmd.exe /d /u /c set USERPROFILE", "USERPROFILE=C:\\Users\\张三 & co\r\n")
    assert box.box().wsl.config == {"memory": "40GB", "networkingmode": "mirrored"}
    assert box.findings()["localhost on windows"].found == "mirrored: WSL and Windows have one localhost"


@pytest.mark.parametrize(
    "said",
    # Of a cmd that did not know of UTF-16; a drive that is not mounted; a folder that is not there; nothing at all.
    ["USERPROFILE=C:\\Users\\\ufffd\ufffd\r\n", "USERPROFILE=D:\\me\r\n", "USERPROFILE=C:\\Users\\gone\r\n", ""],
)
def test_a_folder_of_the_user_that_is_not_there_does_not_hide_the_settings_that_are(tmp_path: Path, said: str) -> None:
    box = Simulated(tmp_path)
    box.wsl("memory=40GB", "networkingMode=mirrored")
    box.says("cmd.exe /d /u /c set USERPROFILE", said)
    box.memory(39)
    assert box.box().wsl.config == {"memory": "40GB", "networkingmode": "mirrored"}
    assert "by .wslconfig" in box.findings()["memory for weights"].found
    box.write("mnt/c/Users/you/.wslconfig", "")
    found = box.findings()
    assert found["localhost on windows"].status == "unknown", "of two nobody says which counts"
    assert "its default" not in found["memory for weights"].found


def test_a_user_without_settings_has_the_defaults_and_settings_that_nobody_may_read_are_unknown(tmp_path: Path) -> None:
    box = Simulated(tmp_path)
    box.wsl()
    (box.root / "mnt/c/Users/me/.wslconfig").unlink()
    assert box.box().wsl.config == {}
    (box.root / "mnt/c/Users/me/.wslconfig").mkdir()
    assert box.box().wsl.config is None


def test_windows_is_asked_with_interop_alone_and_each_program_once(tmp_path: Path) -> None:
    box = Simulated(tmp_path)
    box.wsl()
    box.box()
    asked = [Path(argv[0]).name for argv in box.asked if argv[0].endswith(".exe")]
    assert asked == ["cmd.exe", "reg.exe", "reg.exe", "powershell.exe", "netstat.exe", "netsh.exe", "netsh.exe"]


# --- the time that servers tell ---------------------------------------------------------------------------------------


class Dated(BaseHTTPRequestHandler):
    """Says that it is noon of a day of 2001: with a page, with an error, or out of a cache."""

    def do_GET(self) -> None:
        self.send_response_only(404 if self.path == "/none" else 200)
        if self.path != "/silent":
            self.send_header("Date", "rubbish" if self.path == "/rubbish" else formatdate(1_000_000_000, usegmt=True))
        if self.path == "/cached":
            self.send_header("Age", "500")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize(
    ("path", "date"),
    [("/", 1e9), ("/none", 1e9), ("/cached", 1e9 + 500), ("/silent", None), ("/rubbish", None)],
)
def test_a_server_tells_the_time_with_a_page_and_with_an_error(path: str, date: float | None) -> None:
    with serving(Dated) as where:
        assert get(f"http://{where}{path}", Way({}), seconds=PATIENCE).date == date


def test_nobody_tells_the_time_where_nobody_answers() -> None:
    assert get("http://127.0.0.1:9/", Way({}), seconds=PATIENCE).date is None


def test_the_time_is_asked_of_http_first_and_of_no_password() -> None:
    whole = project(
        profile(),
        values={
            "TANDEM_PYPI_INDEX": "https://index.example.org/simple",
            "MODELSCOPE_ENDPOINT": "http://me:secret@hub:81/x",
        },
    )
    assert examining.servers(whole, "http://mirror.example.org/debian") == [
        "http://mirror.example.org",
        "http://hub:81",
        "https://index.example.org",
    ]


def test_a_clock_that_is_off_is_told_without_the_servers_password(tmp_path: Path) -> None:
    box = Simulated(tmp_path)
    box.settings = {"TANDEM_DEBIAN_MIRROR": "http://me:secret@mirror.example.org/debian"}
    box.date = time.time()
    found = box.findings()["clock"]
    assert (found.status, "secret" in str(found)) == ("bad", False)
    box.dates = {"": "no answer in 3 s"}
    assert "secret" not in str(box.findings()["clock"])
