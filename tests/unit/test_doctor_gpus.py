"""Each check of the GPUs where it finds something, and where it finds nothing."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.doctor.finding import Finding
from orchestrator.doctor.gpus import Around, findings
from orchestrator.doctor.nccl import Result, Tried
from orchestrator.profiles import Profile
from orchestrator.settings import Settings
from tests.unit.nvidia_samples import ALIVE, DEAD, LINUX, NONE_P2P, WSL2, on_first, process, seen
from tests.unit.pasting import pasted
from tests.unit.values import VERSIONS, profile

CPU = {"name": "demo", "gpus": [], "image": "cpu", "model": "./demo"}
KEPT = {Tried("sha256:1", "0.32.0-cu130", "580.95.05", (0, 1)): Result("works", "nccl", "done", "", 1.2, 11.5)}
AROUND = Around(running=frozenset({ALIVE}), images={"tandem/vllm:0.32.0-cu130": "sha256:1"}, kept=KEPT)


def usual(**said: Any) -> Profile:
    return profile(**({"tensor_parallel_size": 2, "gpu_memory_utilization": 0.9} | said))


def judge(
    folder: Path, text: str = LINUX, *profiles: Profile, around: Around = AROUND,
    settings: dict[str, str] | None = None, **more: Any,
) -> dict[str, Finding]:  # fmt: skip
    """Look at a machine and judge it, for one usual model unless others are given; the rows by their checks."""
    said = Settings(settings or {}, ())
    found = findings(seen(folder, text, **more), profiles or (usual(),), VERSIONS, said.get, around)
    assert len({row.check for row in found}) == len(found), "a check has one row"
    pasted(found)
    return {row.check: row for row in found}


def test_a_machine_as_it_should_be_has_nothing_wrong(tmp_path: Path) -> None:
    found = judge(tmp_path)
    assert {name: (row.status, row.found) for name, row in found.items()} == {
        "nvidia driver": ("ok", "580.95.05, runs vLLM 0.32.0"),
        "gpus": ("ok", "0 NVIDIA GeForce RTX 4090, 1 NVIDIA GeForce RTX 4090"),
        "compute capability": ("ok", "8.9"),
        "gpu 0 memory": ("ok", "23.52 GiB of 23.52 GiB free"),
        "gpu 0 pcie": ("ok", "generation 4 x8, 15.8 GB/s, of x16"),
        "gpu 1 memory": ("ok", "23.52 GiB of 23.52 GiB free"),
        "gpu 1 pcie": ("ok", "generation 4 x8, 15.8 GB/s, of x16"),
        "peer-to-peer 0,1": ("ok", "none: the GPUs do not support it (GNS)"),
        "nccl": ("ok", "nccl works: an all-reduce ended in 1.2 s, then 11.5 GB/s"),
    }
    assert found["peer-to-peer 0,1"].why == "so servers get --disable-custom-all-reduce, NCCL_P2P_DISABLE=1"
    assert not any(row.blocks for row in found.values())


# --- the driver -------------------------------------------------------------------------------------------------------


def test_without_a_driver_models_that_need_gpus_cannot_start(tmp_path: Path) -> None:
    (row,) = judge(tmp_path, "", code=None).values()
    assert (row.check, row.status, row.found, row.blocks) == (
        "nvidia driver", "bad", "there is no nvidia-smi, so no driver", True,
    )  # fmt: skip
    assert row.fix.startswith("sudo apt-get install nvidia-driver   #")


def test_under_wsl2_it_is_windows_that_needs_a_driver_or_a_new_one(tmp_path: Path) -> None:
    wsl = replace(seen(tmp_path, WSL2), cards=())
    (row,) = findings(replace(wsl, fault="there is no nvidia-smi", absent=True), [usual()], VERSIONS)
    assert row.fix.splitlines()[0].startswith("install NVIDIA's driver for Windows, and none inside WSL, then in")
    (failed,) = findings(replace(wsl, fault="Unable to determine the device handle"), [usual()], VERSIONS)
    assert failed.fix.splitlines()[0].startswith("update NVIDIA's driver for Windows if it fails again after this")
    pasted([row, failed])
    assert row.fix.splitlines()[1] == failed.fix.splitlines()[1] == "wsl --shutdown"


def test_without_a_driver_others_start_all_the_same(tmp_path: Path) -> None:
    (row,) = judge(tmp_path, "", usual(), profile(**CPU), code=None).values()
    assert (row.status, row.blocks) == ("bad", False)
    (row,) = judge(tmp_path, "", profile(**CPU), code=None).values()
    assert (row.status, row.found) == ("ok", "not needed: no model here uses a GPU")


@pytest.mark.parametrize(
    ("said", "fix"),
    [
        ("Failed to initialize NVML: Driver/library version mismatch", "restart the machine"),
        ("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.", "dmesg"),
    ],
)
def test_a_driver_that_fails_is_told_of_in_its_own_words(tmp_path: Path, said: str, fix: str) -> None:
    (row,) = judge(tmp_path, f"{said}\n", code=9).values()
    assert (row.status, row.found, row.blocks) == ("bad", said, True)
    assert fix in row.fix


def test_a_driver_too_old_for_the_line_that_a_model_asks_for_is_bad_and_names_the_line_that_fits(
    tmp_path: Path,
) -> None:
    old = LINUX.replace("580.95.05", "551.61")
    row = judge(tmp_path, old, usual(vllm="0.32.0"))["nvidia driver"]
    assert row.found == (
        "vLLM 0.32.0 needs NVIDIA driver 580 or newer, this machine has 551.61 (models.toml asks for it)."
    )
    assert (row.status, row.blocks) == ("bad", True)
    assert 'vllm = "0.7.3" for this model in models.toml' in row.fix
    assert not judge(tmp_path, old, usual(vllm="0.32.0"), usual(name="b", vllm="0.7.3"))["nvidia driver"].blocks


def test_a_driver_too_old_for_the_newest_line_costs_that_line(tmp_path: Path) -> None:
    row = judge(tmp_path, WSL2.replace("581.42", "551.61"))["nvidia driver"]
    assert (row.status, row.found) == ("warn", "551.61, so models get vLLM 0.7.3")
    assert row.fix == "update NVIDIA's driver for Windows to 580 or newer"


def test_a_driver_too_old_for_all_says_what_is_needed(tmp_path: Path) -> None:
    row = judge(tmp_path, LINUX.replace("580.95.05", "470.1"))["nvidia driver"]
    assert (row.status, row.blocks) == ("bad", True)
    assert row.found == "no vLLM here runs on NVIDIA driver 470.1: update it to 525 or newer"
    asked = judge(tmp_path, LINUX.replace("580.95.05", "551.61"), settings={"TANDEM_VLLM": "0.32.0-cu130"})
    assert "TANDEM_VLLM=0.7.3-cu124 in .env" in asked["nvidia driver"].fix


# --- the cards --------------------------------------------------------------------------------------------------------


def test_gpus_that_are_not_here_are_named(tmp_path: Path) -> None:
    row = judge(tmp_path, LINUX, usual(gpus=[1, 2]))["gpus"]
    assert (row.status, row.blocks, row.why) == ("bad", True, "cannot start: qwen-14b")
    assert row.found.endswith("models.toml names GPU 2 too")
    row = judge(tmp_path, LINUX, usual(gpus=[1, 2]), usual(name="b"))["gpus"]
    assert (row.status, row.blocks) == ("bad", False)


def test_gpus_of_two_kinds_under_one_model_are_told_of(tmp_path: Path) -> None:
    mixed = LINUX.replace("RTX 4090", "RTX 3090", 1)
    row = judge(tmp_path, mixed)["gpu kinds"]
    assert (row.status, row.found) == (
        "warn", "qwen-14b: on NVIDIA GeForce RTX 3090 and NVIDIA GeForce RTX 4090 together",
    )  # fmt: skip
    assert "gpu kinds" not in judge(tmp_path, mixed, usual(gpus=[0], tensor_parallel_size=1))


@pytest.mark.parametrize(
    ("told", "said", "status", "words"),
    [
        ("7.0", {}, "bad", "has code for 7.5 or newer"),
        ("7.0", {"vllm": "0.7.3"}, "ok", "7.0"),
        ("6.1", {"vllm": "0.7.3"}, "bad", "has code for 7.0 or newer"),
        ("7.5", {"dtype": "bfloat16"}, "bad", "bfloat16 needs 8.0"),
        (
            "7.5",
            {"model": "Qwen/QwQ-32B-AWQ", "vllm": "0.7.3"},
            "warn",
            "Marlin, the fast kernel of this format, needs",
        ),
        ("7.5", {"model": "Qwen/QwQ-32B-AWQ"}, "ok", "7.5"),
        ("8.0", {"model": "Qwen/QwQ-32B-AWQ", "vllm": "0.7.3"}, "ok", "8.0"),
        ("8.6", {"model": "a/b-FP8"}, "warn", "FP8 in hardware needs 8.9"),
        ("8.6", {"args": {"kv-cache-dtype": "fp8"}}, "warn", "FP8 in hardware needs 8.9"),
        ("8.9", {"model": "a/b-FP8"}, "ok", "8.9"),
    ],
)
def test_a_compute_capability_is_enough_or_costs_or_is_too_low(
    tmp_path: Path, told: str, said: dict[str, Any], status: str, words: str
) -> None:
    row = judge(tmp_path, LINUX, usual(**said), capabilities=f"0, {told}\n1, 8.9\n")["compute capability"]
    assert (row.status, row.blocks) == (status, status == "bad")
    assert words in row.found


def test_models_with_one_fault_share_a_row_and_others_have_their_own(tmp_path: Path) -> None:
    servers = (
        usual(dtype="bfloat16"),
        usual(name="b", dtype="bfloat16"),
        usual(name="c", model="a/b-FP8"),
        usual(name="d"),
    )
    found = judge(tmp_path, LINUX, *servers, capabilities="0, 7.5\n1, 7.5\n")
    rows = {name: (row.status, row.why, row.blocks) for name, row in found.items() if name.startswith("compute")}
    assert rows == {
        "compute capability qwen-14b": ("bad", "cannot start: qwen-14b, b", False),
        "compute capability c": ("warn", "slower than it could be: c", False),
    }
    old = LINUX.replace("580.95.05", "470.1")
    names = [name for name in judge(tmp_path, old, usual(vllm="0.32.0"), usual(name="b")) if "driver" in name]
    assert names == ["nvidia driver"]


def test_a_capability_that_is_not_told_is_not_known(tmp_path: Path) -> None:
    assert judge(tmp_path, capabilities="")["compute capability"].status == "unknown"


# --- memory -----------------------------------------------------------------------------------------------------------


def full(text: str, free: int, used: int) -> str:
    """GPU 0 with so many MiB free and used."""
    old_free = "24081" if "580.95" in text else "22735"
    old_used = "2" if "580.95" in text else "1341"
    changed = text.replace(f"<free>{old_free} MiB</free>", f"<free>{free} MiB</free>", 1)
    return changed.replace(f"<used>{old_used} MiB</used>", f"<used>{used} MiB</used>", 1)


def test_memory_that_others_hold_is_too_little_and_they_are_named(tmp_path: Path) -> None:
    text = on_first(full(LINUX, 14083, 10000), process(77, "C", "/usr/bin/python3", "9990 MiB"))
    row = judge(tmp_path, text)["gpu 0 memory"]
    assert (row.status, row.found, row.blocks) == ("bad", "13.75 GiB of 23.52 GiB free", True)
    assert row.why.endswith("qwen-14b would wait; held by python3 (77, 9.76 GiB)")
    assert row.fix == "close what holds it, or in .env: QWEN_14B_GPU_MEMORY_UTILIZATION=0.56"
    assert judge(tmp_path, text, settings={"QWEN_14B_GPU_MEMORY_UTILIZATION": "0.56"})["gpu 0 memory"].status == "ok"
    smaller = usual(name="b", gpus=[0], tensor_parallel_size=1, gpu_memory_utilization=0.5)
    both = judge(tmp_path, text, usual(), smaller)["gpu 0 memory"]
    assert (both.status, both.blocks) == ("bad", False)


def test_what_our_own_servers_hold_is_no_obstacle(tmp_path: Path) -> None:
    text = on_first(full(LINUX, 2083, 22000), process(77, "C", "/opt/vllm/bin/python", "21990 MiB"))
    around = Around(running=frozenset({ALIVE}), ours={ALIVE: "qwen-14b"})
    row = judge(tmp_path, text, around=around, p77=f"/docker/{ALIVE}")["gpu 0 memory"]
    assert (row.status, row.found) == (
        "ok",
        "2.03 GiB of 23.52 GiB free, 23.51 GiB without the servers of this project",
    )


def test_under_wsl2_it_is_said_that_nobody_is_named(tmp_path: Path) -> None:
    row = judge(tmp_path, full(WSL2, 14075, 10000))["gpu 0 memory"]
    assert row.status == "bad"
    assert "under WSL2 no process is listed" in row.why
    assert judge(tmp_path, WSL2)["gpu 0 memory"].status == "ok"


def test_under_wsl2_a_running_server_of_ours_leaves_it_open(tmp_path: Path) -> None:
    around = Around(running=frozenset({ALIVE}), ours={ALIVE: "qwen-14b"})
    row = judge(tmp_path, full(WSL2, 2075, 22000), around=around)["gpu 0 memory"]
    assert (row.status, row.blocks) == ("unknown", False)


def test_hardly_anything_free_names_no_share(tmp_path: Path) -> None:
    assert judge(tmp_path, full(LINUX, 1000, 23083))["gpu 0 memory"].fix == "close what holds it"


def test_a_display_and_what_draws_are_told_of(tmp_path: Path) -> None:
    row = judge(tmp_path, WSL2)["gpu 0 display"]
    assert (row.status, row.found) == ("warn", "drives a display, 1.31 GiB held in all")
    text = on_first(
        LINUX, process(8, "G", "/usr/lib/xorg/Xorg", "300 MiB"), process(9, "G", "/opt/chrome --type=gpu", "400 MiB")
    )
    row = judge(tmp_path, text)["gpu 0 display"]
    assert row.found == "programs draw on it, 0.68 GiB: chrome, Xorg"
    assert "gpu 1 display" not in judge(tmp_path, text)


def test_a_desktop_that_holds_next_to_nothing_is_not_worth_a_line(tmp_path: Path) -> None:
    assert "gpu 0 display" not in judge(tmp_path, on_first(LINUX, process(8, "G", "/usr/lib/xorg/Xorg", "4 MiB")))


def test_a_worker_that_outlived_its_container_is_found(tmp_path: Path) -> None:
    text = on_first(LINUX, process(77, "C", "VLLM::Worker_TP0", "20000 MiB"), process(78, "C", "python", "10 MiB"))
    groups = {"p77": f"/system.slice/docker-{DEAD}.scope", "p78": f"/system.slice/docker-{ALIVE}.scope"}
    row = judge(tmp_path, text, **groups)["gpu 0 leftovers"]
    assert (row.status, row.fix) == ("bad", "sudo kill -9 77")
    assert row.found == "VLLM::Worker_TP0 (77, 19.53 GiB), of a container that does not run any more"
    assert "gpu 0 leftovers" not in judge(tmp_path, text, around=Around(), **groups), "Docker was not asked"
    under = judge(tmp_path, on_first(WSL2, process(77, "C", "python", "10 MiB")), **groups)["gpu 0 leftovers"]
    assert under.fix.splitlines() == [
        "sudo kill -9 77", "or, where that does not help, in PowerShell, which ends all of WSL:", "wsl --shutdown",
    ]  # fmt: skip
    groups["p77"] = "/user.slice/user-1000.slice"
    assert "gpu 0 leftovers" not in judge(tmp_path, text, **groups)


@pytest.mark.parametrize(
    ("old", "new", "status", "found"),
    [
        ("<current_link_gen>1<", "<current_link_gen>4<", "ok", "generation 4 x8, 15.8 GB/s, of x16"),
        ("<current_link_width>8x<", "<current_link_width>16x<", "ok", "generation 4 x16, 31.5 GB/s"),
        ("<current_link_width>8x<", "<current_link_width>4x<", "warn", "generation 4 x4, 7.9 GB/s, of x16"),
        (
            "<max_link_gen>4<", "<max_link_gen>3<", "warn",
            "generation 3 x8, 7.9 GB/s, of x16; the card could generation 4",
        ),
        ("<current_link_width>8x<", "<current_link_width>N/A<", "unknown", "the driver does not tell its link"),
    ],
)  # fmt: skip
def test_the_width_counts_and_not_the_generation_of_an_idle_card(
    tmp_path: Path, old: str, new: str, status: str, found: str
) -> None:
    row = judge(tmp_path, LINUX.replace(old, new))["gpu 0 pcie"]
    assert (row.status, row.found) == (status, found)


def test_a_power_limit_below_the_usual_is_told_with_what_it_costs(tmp_path: Path) -> None:
    row = judge(tmp_path, LINUX.replace("<current_power_limit>450.00 W", "<current_power_limit>300.00 W", 1))
    assert (row["gpu 0 power"].status, row["gpu 0 power"].found) == ("warn", "limited to 300 of 450 W")
    assert "33 % less power" in row["gpu 0 power"].why
    assert row["gpu 0 power"].fix == "sudo nvidia-smi -i 0 -pl 450   # if it is not meant"
    assert "gpu 1 power" not in row
    under = judge(tmp_path, WSL2.replace("<current_power_limit>450.00 W", "<current_power_limit>300.00 W", 1))
    assert under["gpu 0 power"].fix == "if it is not meant, in PowerShell as administrator:\nnvidia-smi -i 0 -pl 450"
    raised = LINUX.replace("<current_power_limit>450.00 W", "<current_power_limit>600.00 W")
    assert "gpu 0 power" not in judge(tmp_path, raised)


# --- what servers are told --------------------------------------------------------------------------------------------


def test_peer_to_peer_that_is_there_or_patched_in_or_not_known(tmp_path: Path) -> None:
    fine = NONE_P2P.replace("GNS\t", "OK\t")
    assert judge(tmp_path, LINUX.replace("GeForce RTX 4090", "H200"), peers=fine)["peer-to-peer 0,1"].status == "ok"
    patched = judge(tmp_path, peers=fine)["peer-to-peer 0,1"]
    assert patched.status == "warn"
    assert "wrong text" in patched.why
    unknown = judge(tmp_path, LINUX.replace("RTX 4090", "RTX 3090"), peers="")
    assert unknown["peer-to-peer 0,1"].status == "unknown"
    assert "peer-to-peer 0,1" not in judge(tmp_path, LINUX, usual(gpus=[0], tensor_parallel_size=1))


@pytest.mark.parametrize(
    ("said", "settings", "words"),
    [
        ({}, {"TANDEM_WITHOUT": "NCCL_P2P_DISABLE"}, "TANDEM_WITHOUT names NCCL_P2P_DISABLE"),
        ({"env": {"NCCL_P2P_DISABLE": "0"}}, {}, "models.toml says otherwise for qwen-14b"),
        ({"args": {"disable-custom-all-reduce": False}}, {}, "models.toml says otherwise for qwen-14b"),
    ],
)
def test_what_follows_from_it_may_be_turned_off_and_that_is_said(
    tmp_path: Path, said: dict[str, Any], settings: dict[str, str], words: str
) -> None:
    row = judge(tmp_path, LINUX, usual(**said), settings=settings)["peer-to-peer 0,1"]
    assert row.status == "warn"
    assert words in row.found


SEGMENTS = {"PYTORCH_CUDA_ALLOC_CONF": "max_split_size_mb:128,expandable_segments:True"}


@pytest.mark.parametrize(
    ("text", "said", "status"),
    [
        (LINUX, {"env": SEGMENTS}, "ok"),
        (LINUX, {"env": SEGMENTS, "sleep": "auto"}, "ok"),
        (LINUX, {"env": SEGMENTS, "sleep": "auto", "vllm": "0.7.3"}, "bad"),
        (WSL2, {"env": SEGMENTS}, "warn"),
        (WSL2, {"env": SEGMENTS, "model": "Qwen/QwQ-32B-AWQ"}, "bad"),
        (WSL2, {"env": {"PYTORCH_ALLOC_CONF": "expandable_segments:True"}, "quantization": "gptq"}, "bad"),
        (WSL2, {"env": {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:False"}}, None),
        (LINUX, {}, None),
    ],
)
def test_expandable_segments_with_sleep_or_marlin(
    tmp_path: Path, text: str, said: dict[str, Any], status: str | None
) -> None:
    row = judge(tmp_path, text, usual(**said)).get("allocator qwen-14b")
    assert (row.status if row else None) == status


def test_pinned_memory_that_is_turned_off_under_wsl2(tmp_path: Path) -> None:
    off = {"TANDEM_WITHOUT": "VLLM_WSL2_ENABLE_PIN_MEMORY"}
    assert judge(tmp_path, WSL2, usual(sleep="auto"), settings=off)["pinned memory qwen-14b"].status == "warn"
    by_env = usual(sleep="auto", env={"VLLM_WSL2_ENABLE_PIN_MEMORY": "0"})
    assert judge(tmp_path, WSL2, by_env)["pinned memory qwen-14b"].fix == "take it out of models.toml"
    assert judge(tmp_path, WSL2, usual(sleep="auto", vllm="0.7.3"))["pinned memory"].status == "warn"
    for text, server, settings in (
        (WSL2, usual(sleep="auto"), {}), (WSL2, usual(), off), (LINUX, usual(sleep="auto"), off),
    ):  # fmt: skip
        assert not [name for name in judge(tmp_path, text, server, settings=settings) if name.startswith("pinned")]


def test_pinned_memory_that_a_version_needs_to_start_is_bad_when_it_is_off(tmp_path: Path) -> None:
    build = VERSIONS.builds["0.32.0"]
    for version, status in (("0.23.0", None), ("0.24.0", "bad"), ("0.31.2", "bad"), ("0.32.0", None)):
        of = {kind: replace(each, version=version) for kind, each in build.items()}
        versions = replace(VERSIONS, builds={**VERSIONS.builds, version: of})
        off = Settings({"TANDEM_WITHOUT": "VLLM_WSL2_ENABLE_PIN_MEMORY"}, ())
        listed = findings(seen(tmp_path, WSL2), [usual(vllm=version)], versions, off.get, AROUND)
        pasted(listed)
        rows = {row.check: row for row in listed}
        row = rows.get("pinned memory qwen-14b")
        assert (row.status if row else None) == status, version
        if row:
            assert row.why == f"vLLM {version} does not start under WSL2 without it (UVA is not available)"
            assert row.fix == "take it out of TANDEM_WITHOUT"


# --- the all-reduce ---------------------------------------------------------------------------------------------------


def test_an_all_reduce_that_was_never_tried_is_not_known(tmp_path: Path) -> None:
    row = judge(tmp_path, around=Around())["nccl"]
    assert (row.status, row.blocks) == ("unknown", False)
    assert "nccl" not in judge(tmp_path, LINUX, usual(gpus=[0], tensor_parallel_size=1), around=Around())


def test_an_all_reduce_that_hung_says_what_to_try(tmp_path: Path) -> None:
    (key,) = KEPT
    hung = Result("hung", "nccl", "first", "no end in 60 s", environment={"NCCL_P2P_DISABLE": "1"})
    row = judge(tmp_path, around=Around(images=AROUND.images, kept={key: hung}))["nccl"]
    assert (row.status, row.found) == ("bad", "nccl hung: no end in 60 s (at: first)")
    assert 'NCCL_P2P_DISABLE = "1", NCCL_CUMEM_HOST_ENABLE = "0"' in row.fix


def test_an_all_reduce_that_needed_something_says_what(tmp_path: Path) -> None:
    (key,) = KEPT
    needy = Result("works", "nccl", "done", "", 1, 2, needed={"NCCL_SHM_DISABLE": "1"})
    row = judge(tmp_path, around=Around(images=AROUND.images, kept={key: needy}))["nccl"]
    assert (row.status, row.found.endswith("with NCCL_SHM_DISABLE=1 alone")) == ("ok", True)


def test_each_set_of_gpus_has_its_own(tmp_path: Path) -> None:
    two = LINUX.replace("</nvidia_smi_log>", LINUX[LINUX.index("<gpu id") : LINUX.rindex("</nvidia_smi_log>")])
    found = judge(tmp_path, two + "</nvidia_smi_log>", usual(), usual(name="b", gpus=[2, 3]),
                  capabilities="0, 8.9\n1, 8.9\n2, 8.9\n3, 8.9\n")  # fmt: skip
    assert [name for name in found if name.startswith("nccl")] == ["nccl 0.32.0-cu130 0,1", "nccl 0.32.0-cu130 2,3"]
