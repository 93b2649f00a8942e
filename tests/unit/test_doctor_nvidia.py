"""What nvidia-smi prints becomes values, and what it does not tell is not known."""

from pathlib import Path

import pytest

from orchestrator import host
from orchestrator.doctor import nvidia, smi
from orchestrator.doctor.machine import Box, merged
from orchestrator.doctor.smi import MIB
from tests.unit.nvidia_samples import ALIVE, LINUX, NONE_P2P, WSL2, on_first, proc, process, runner, seen


def test_two_cards_under_linux(tmp_path: Path) -> None:
    found = seen(tmp_path)
    assert (found.wsl, found.fault, found.driver, found.links) == (False, "", "580.95.05", ((0, 1, "GNS"),))
    first, second = found.cards
    assert (first.index, second.index, first.name) == (0, 1, "NVIDIA GeForce RTX 4090")
    assert (first.total, first.reserved, first.used, first.free) == (24564 * MIB, 481 * MIB, 2 * MIB, 24081 * MIB)
    assert (first.usable, first.display, first.capability, first.holders) == (24083 * MIB, False, (8, 9), ())
    assert (first.gen_most, first.gen_card, first.width, first.width_most) == (4, 4, 8, 16)
    assert (first.power, first.power_usual) == (450, 450)
    assert found.box == Box(False, "580.95.05", dict.fromkeys((0, 1), first.name), ((0, 1, "GNS"),))


def test_two_cards_under_wsl2_where_the_first_has_the_display(tmp_path: Path) -> None:
    found = seen(tmp_path, WSL2)
    assert (found.wsl, found.driver) == (True, "581.42")
    assert [card.display for card in found.cards] == [True, False]
    assert found.cards[0].used == 1341 * MIB
    assert found.cards[0].holders == ()


def test_processes_have_their_kind_and_their_container(tmp_path: Path) -> None:
    text = on_first(
        LINUX,
        process(11, "G", "/usr/bin/gnome-shell", "175 MiB"),
        process(12, "C", "/opt/vllm/bin/python", "21000 MiB"),
        process(13, "C+G", r"C:\Windows\dwm.exe", "N/A"),
    )
    found = seen(tmp_path, text, p11="/user.slice", p12=f"/system.slice/docker-{ALIVE}.scope")
    holders = found.cards[0].holders
    assert [(each.pid, each.draws, each.program, each.used) for each in holders] == [
        (11, True, "gnome-shell", 175 * MIB),
        (12, False, "python", 21000 * MIB),
        (13, False, "dwm.exe", None),
    ]
    assert found.containers == {12: ALIVE}


@pytest.mark.parametrize(
    ("name", "program"),
    [
        ("/opt/google/chrome --type=gpu-process --x=/a/b", "chrome"),
        (r"C:\Program Files\Google Chrome\chrome.exe", "chrome.exe"),
        ("", "a process"),
        ("[Insufficient Permissions]", "[Insufficient Permissions]"),
    ],
)
def test_a_program_is_named_without_folder_and_arguments(name: str, program: str) -> None:
    assert smi.Holder(1, "G", name, None).program == program


@pytest.mark.parametrize(
    ("code", "text", "fault", "absent"),
    [
        (None, "", "there is no nvidia-smi", True),
        (None, "nvidia-smi gave no answer in 20 s", "nvidia-smi gave no answer in 20 s", False),
        (
            18,
            "Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 580.95\n",
            "Failed to initialize NVML: Driver/library version mismatch",
            False,
        ),
        (9, "", "nvidia-smi ended with 9", False),
        (0, "No devices were found\n", "nvidia-smi -q -x printed no XML (syntax error: line 1, column 0)", False),
        (0, "<?xml version='1.0'?><other/>", "nvidia-smi -q -x printed other, and no nvidia_smi_log", False),
        (0, "<nvidia_smi_log></nvidia_smi_log>", "the driver shows no GPU", False),
        (
            0,
            "<nvidia_smi_log><gpu><product_name>X</product_name></gpu></nvidia_smi_log>",
            "nvidia-smi -q -x does not tell the memory of GPU 0",
            False,
        ),
    ],
)
def test_where_nothing_is_seen_it_is_said_why(
    tmp_path: Path, code: int | None, text: str, fault: str, absent: bool
) -> None:
    found = seen(tmp_path, text, code=code)
    assert (found.fault, found.absent, found.cards, found.box) == (fault, absent, (), None)


def test_an_older_drivers_words_are_read_too(tmp_path: Path) -> None:
    old = LINUX.replace("gpu_power_readings", "power_readings").replace("current_power_limit", "power_limit")
    old = old.replace("\t\t\t<reserved>481 MiB</reserved>\n", "")
    card = seen(tmp_path, old).cards[0]
    assert (card.power, card.reserved) == (450, 481 * MIB)


def test_questions_that_a_driver_does_not_know_leave_that_unknown(tmp_path: Path) -> None:
    found = seen(tmp_path, capabilities="", peers="")
    assert [card.capability for card in found.cards] == [None, None]
    assert found.links == ()


def test_one_card_is_not_asked_for_its_peers(tmp_path: Path) -> None:
    one = LINUX[: LINUX.index("<gpu id", LINUX.index("</gpu>"))] + "</nvidia_smi_log>"
    asked: list[tuple[str, ...]] = []
    run = runner(one)
    nvidia.look(lambda arguments: (asked.append(tuple(arguments)), run(arguments))[1], proc(tmp_path))
    assert asked == [smi.QUERY, smi.CAPABILITIES]


@pytest.mark.parametrize(
    ("text", "links"),
    [
        (NONE_P2P, [(0, 1, "GNS")]),
        (NONE_P2P.replace("GNS\t", "OK\t"), [(0, 1, "OK")]),
        (
            " \tGPU0\tGPU1\tGPU2\n GPU0\tX\tOK\tCNS\n GPU1\tOK\tX\tTNS\n GPU2\tCNS\tTNS\tX\n",
            [(0, 1, "OK"), (0, 2, "CNS"), (1, 2, "TNS")],
        ),
        ("", []),
        ("Invalid combination of input arguments.\n", []),
    ],
)
def test_each_pair_of_gpus_is_read_once(text: str, links: list[smi.Link]) -> None:
    assert smi.links(text) == links


@pytest.mark.parametrize(
    ("names", "links", "peer"),
    [
        ("NVIDIA GeForce RTX 4090", ((0, 1, "GNS"),), "no"),
        ("NVIDIA GeForce RTX 4090", ((0, 1, "OK"),), "yes"),
        ("NVIDIA GeForce RTX 4090", (), "no"),
        ("NVIDIA GeForce RTX 5090", ((0, 1, "U"),), "no"),
        ("NVIDIA GeForce RTX 3090", (), "unknown"),
        ("NVIDIA H200", (), "unknown"),
        ("NVIDIA H200", ((0, 1, "OK"),), "yes"),
    ],
)
def test_peers_are_what_the_driver_says_else_what_the_cards_are(
    names: str, links: tuple[smi.Link, ...], peer: str
) -> None:
    assert Box(False, "580.1", {0: names, 1: names}, links).peer([0, 1]) == peer


def test_of_three_gpus_all_pairs_count() -> None:
    box = Box(False, "580.1", dict.fromkeys(range(3), "X"), ((0, 1, "OK"), (0, 2, "OK"), (1, 2, "TNS")))
    assert (box.peer([0, 1]), box.peer([0, 2]), box.peer([0, 1, 2])) == ("yes", "yes", "no")
    assert box.why([0, 1, 2]) == "the topology does not support it (TNS)"


def test_what_was_told_of_pairs_once_holds_when_nothing_is_told_now() -> None:
    before = Box(True, "581.42", {0: "X", 1: "X"}, ((0, 1, "NS"),))
    now = Box(True, "581.42", {0: "X", 1: "X"})
    assert merged(before, now) == before
    assert merged(None, now) == now
    newer = Box(True, "590.1", {0: "X", 1: "X"})
    assert merged(before, newer) == newer


@pytest.mark.parametrize(
    ("kernel", "wsl"),
    [("6.6.87.2-microsoft-standard-WSL2", True), ("4.4.0-19041-Microsoft", True), ("6.1.0-40", False)],
)
def test_wsl_is_known_by_its_kernel(tmp_path: Path, kernel: str, wsl: bool) -> None:
    under = proc(tmp_path)
    (under / "sys/kernel/osrelease").write_text(kernel)
    assert nvidia.wsl(under) is wsl
    assert nvidia.wsl(tmp_path / "nowhere") is False


def test_nvidia_smi_is_run_as_it_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert host.nvidia_smi(["-q"]) == (None, "")
    program = tmp_path / "nvidia-smi"
    program.write_text('#!/bin/sh\necho "out $*"; echo err >&2; [ "$1" != -x ]\n')
    program.chmod(0o755)
    assert host.nvidia_smi(["-q", "1"]) == (0, "out -q 1\n")
    assert host.nvidia_smi(["-x"]) == (1, "out -x\nerr\n")
    program.write_text("#!/nowhere\n")
    code, said = host.nvidia_smi(["-q"])
    assert code is None
    assert "No such file" in said
