"""What follows from the machine for a server: each setting where it follows, and where it does not."""

from typing import Any

import pytest

from orchestrator.doctor import derived, machine
from orchestrator.doctor.derived import settings
from orchestrator.doctor.machine import Box
from orchestrator.render.box import box as rendered
from tests.unit.values import profile

CARDS = dict.fromkeys((0, 1), "NVIDIA GeForce RTX 4090")
LINUX = Box(False, "580.95.05", CARDS, ((0, 1, "GNS"),))
WSL2 = Box(True, "581.42", CARDS, ((0, 1, "NS"),))
PEERS = Box(False, "580.95.05", dict.fromkeys((0, 1), "NVIDIA H200"), ((0, 1, "OK"),))
PINNED = "VLLM_WSL2_ENABLE_PIN_MEMORY=1"
ALONE = ["--disable-custom-all-reduce", "NCCL_P2P_DISABLE=1"]


def said(box: Box, version: str = "0.32.0", needed: dict[str, str] | None = None, **more: Any) -> list[str]:
    server = profile(**({"tensor_parallel_size": 2} | more))
    return [str(setting) for setting in settings(box, server, version, needed=needed)]


@pytest.mark.parametrize(
    ("box", "more", "expected"),
    [
        (LINUX, {}, ALONE),
        (WSL2, {}, ALONE),
        (PEERS, {}, []),
        # What is not known is left as it is.
        (Box(False, "580.1", dict.fromkeys((0, 1), "NVIDIA H200")), {}, []),
        # One GPU talks to nobody; two in a pipeline have no all-reduce.
        (LINUX, {"gpus": [0], "tensor_parallel_size": 1}, []),
        (LINUX, {"tensor_parallel_size": 1, "args": {"pipeline-parallel-size": 2}}, ["NCCL_P2P_DISABLE=1"]),
        # models.toml says it, or says otherwise.
        (LINUX, {"env": {"NCCL_P2P_DISABLE": "0"}}, ["--disable-custom-all-reduce"]),
        (LINUX, {"args": {"disable-custom-all-reduce": False}}, ["NCCL_P2P_DISABLE=1"]),
        # GPUs that the machine lacks, and none.
        (LINUX, {"gpus": [1, 2]}, []),
        (LINUX, {"gpus": [], "image": "cpu", "tensor_parallel_size": 1}, []),
    ],
)
def test_what_cards_without_peer_to_peer_need(box: Box, more: dict[str, Any], expected: list[str]) -> None:
    assert said(box, **more) == expected


@pytest.mark.parametrize(
    ("box", "version", "more", "there"),
    [
        (WSL2, "0.32.0", {"sleep": "auto"}, True),
        (WSL2, "0.32.0", {"args": {"cpu-offload-gb": 4}}, True),
        (WSL2, "0.32.0", {}, False),
        # Without it vLLM does not start there.
        (WSL2, "0.24.0", {}, True),
        (WSL2, "0.31.1", {}, True),
        # It does not know the variable.
        (WSL2, "0.19.1", {"sleep": "auto"}, False),
        (LINUX, "0.32.0", {"sleep": "auto"}, False),
        (WSL2, "0.32.0", {"sleep": "auto", "env": {"VLLM_WSL2_ENABLE_PIN_MEMORY": "0"}}, False),
    ],
)
def test_pinned_memory_under_wsl2(box: Box, version: str, more: dict[str, Any], there: bool) -> None:
    assert (PINNED in said(box, version, **more)) is there


def test_what_an_all_reduce_needed_is_said_once() -> None:
    needed = {"NCCL_P2P_DISABLE": "1", "NCCL_SHM_DISABLE": "1"}
    assert said(PEERS, needed=needed) == ["NCCL_P2P_DISABLE=1", "NCCL_SHM_DISABLE=1"]
    assert said(LINUX, needed=needed) == [*ALONE, "NCCL_SHM_DISABLE=1"]
    assert said(PEERS, needed={"SOMETHING": "1"}) == []


def test_every_setting_has_a_reason_and_can_be_named() -> None:
    found = settings(WSL2, profile(tensor_parallel_size=2, sleep="auto"), "0.32.0", needed={"NCCL_SHM_DISABLE": "1",
                     "NCCL_CUMEM_HOST_ENABLE": "0"})  # fmt: skip
    assert [setting.name for setting in found] == list(derived.NAMES)
    assert all(setting.reason for setting in found)
    assert all(len(line) <= 80 for line in derived.table(found))


def test_a_setting_that_is_turned_off_is_shown_and_not_in_force() -> None:
    found = settings(LINUX, profile(tensor_parallel_size=2), "0.32.0", without=["NCCL_P2P_DISABLE"])
    assert [(setting.name, setting.off) for setting in found] == [
        ("disable-custom-all-reduce", False), ("NCCL_P2P_DISABLE", True),
    ]  # fmt: skip
    assert derived.variables(found) == {"TANDEM_FLAGS": "--disable-custom-all-reduce"}
    assert "(off: TANDEM_WITHOUT names it)" in " ".join(" ".join(derived.table(found)).split())
    assert derived.as_json(found)[1]["off"] is True
    assert "NCCL_P2P_DISABLE" not in rendered(profile(), found)[0].text


def test_the_variables_of_a_server_carry_them() -> None:
    found = settings(LINUX, profile(tensor_parallel_size=2), "0.32.0")
    assert derived.variables(found) == {"NCCL_P2P_DISABLE": "1", "TANDEM_FLAGS": "--disable-custom-all-reduce"}
    (file,) = rendered(profile(), found)
    assert file.path == "box/qwen-14b.env"
    assert file.text.splitlines()[-2:] == ["NCCL_P2P_DISABLE=1", "TANDEM_FLAGS=--disable-custom-all-reduce"]
    assert rendered(profile(), []) == []


@pytest.mark.parametrize(
    ("text", "names"), [("", []), ("NCCL_P2P_DISABLE", ["NCCL_P2P_DISABLE"]), (" a , b,", ["a", "b"])]
)
def test_the_names_that_are_turned_off(text: str, names: list[str]) -> None:
    assert derived.names(text) == names


def test_a_name_that_there_is_not_is_told_with_those_there_are() -> None:
    assert derived.fault("NCCL_P2P_DISABLE,disable-custom-all-reduce") is None
    assert derived.fault("NCCL_P2P_DISABLE,NCCL_P2P") == (
        "should be some of disable-custom-all-reduce, NCCL_P2P_DISABLE, NCCL_CUMEM_HOST_ENABLE, NCCL_SHM_DISABLE, "
        'VLLM_WSL2_ENABLE_PIN_MEMORY, got "NCCL_P2P"'
    )


def test_a_machine_is_kept_and_read_back() -> None:
    assert machine.read(machine.values(WSL2)) == WSL2


@pytest.mark.parametrize(
    "text", [None, [], {}, {"gpus": {"x": 1}}, {"gpus": {}, "links": [], "driver": 1, "wsl": True},
             {"gpus": {}, "links": [[1]], "driver": "", "wsl": True}]
)  # fmt: skip
def test_what_is_no_machine_is_none(text: Any) -> None:
    with pytest.raises(ValueError, match="no description of a machine"):
        machine.read(text)
