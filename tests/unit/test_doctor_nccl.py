"""What comes of an all-reduce, what it counts for, what is tried when it hangs; its container is a stand-in."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from orchestrator.doctor import kept, nccl, nccl_run
from orchestrator.doctor.machine import Box
from orchestrator.doctor.nccl import TRIALS, Result, Tried, due, trials, walk
from orchestrator.errors import ConfigError, TandemError
from orchestrator.imagestore import Ran
from orchestrator.project import Project
from tests.unit.values import CU130, VERSIONS, profile, project

KEY = Tried("sha256:1", "0.32.0-cu130", "580.1", (0, 1))
WORKS = Result("works", "nccl", "done", "", 1.5, 10.0)
HUNG = Result("hung", "nccl", "first", "no end in 60 s")
BOX = Box(False, "580.1", dict.fromkeys((0, 1), "NVIDIA GeForce RTX 4090"), ((0, 1, "GNS"),))


def printed(state: str = "works", why: str = "", **more: Any) -> str:
    found = {
        "backend": "nccl",
        "state": state,
        "phase": "first",
        "seconds": 1.5,
        "gigabytes_per_second": 10,
        "why": why,
    }
    return f"noise\n{json.dumps(found | more)}\n"


# --- values -----------------------------------------------------------------------------------------------------------


def test_an_answer_is_read() -> None:
    found = nccl.said(printed(), {"A": "1"})
    assert found == Result("works", "nccl", "first", "", 1.5, 10.0, {"A": "1"})
    assert (found.counts, found.stops, str(found)) == (
        True, False, "nccl works: an all-reduce ended in 1.5 s, then 10.0 GB/s",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("state", "counts", "stops", "words"),
    [
        ("hung", True, True, "nccl hung: it waits (at: first)"),
        ("wrong", True, True, "nccl gave wrong sums: it waits"),
        ("failed", False, False, "nccl failed: it waits"),
    ],
)
def test_what_went_wrong_counts_or_stops(state: str, counts: bool, stops: bool, words: str) -> None:
    found = nccl.said(printed(state, "it waits", seconds=None, gigabytes_per_second=None), {})
    assert (found.counts, found.stops, str(found)) == (counts, stops, words)


@pytest.mark.parametrize("text", ["", "{}", "[]", "no JSON", printed("fine"), printed(seconds="x"), "null"])
def test_what_is_no_answer_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="the all-reduce printed no answer"):
        nccl.said(text, {})


def test_results_are_kept_and_read_back_in_their_order() -> None:
    other = Tried("sha256:2", "0.32.0-cu130", "580.1", (0, 1))
    found = nccl.with_result(nccl.with_result({KEY: HUNG}, other, WORKS), KEY, WORKS)
    assert list(found) == [other, KEY]
    assert nccl.read(json.loads(json.dumps(nccl.values(found)))) == found


@pytest.mark.parametrize("text", [None, [1], [{}], {"a": 1}, [{**nccl.values({KEY: WORKS})[0], "state": "fine"}]])
def test_what_are_no_results_are_none(text: Any) -> None:
    with pytest.raises(ValueError, match="no results of all-reduces"):
        nccl.read(text)


# --- when it is due ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "key", "found", "cause"),
    [
        ({}, KEY, {}, "none was tried with this image and driver"),
        ({}, KEY, {KEY: WORKS}, ""),
        ({}, KEY, {KEY: HUNG}, "the last one hung"),
        (
            {},
            Tried("sha256:2", KEY.tag, KEY.driver, KEY.gpus),
            {KEY: WORKS},
            "none was tried with this image and driver",
        ),
        ({}, Tried(KEY.image, KEY.tag, "590.1", KEY.gpus), {KEY: WORKS}, "none was tried with this image and driver"),
        # The machine was not looked at, or has no such GPUs.
        ({}, Tried(KEY.image, KEY.tag, "", KEY.gpus), {}, ""),
        ({"gpus": [0]}, KEY, {}, ""),
        ({"gpus": [], "image": "cpu"}, KEY, {}, ""),
    ],
)
def test_it_is_due_once_for_an_image_a_driver_and_gpus(
    said: dict[str, Any], key: Tried, found: dict[Tried, Result], cause: str
) -> None:
    assert due(profile(**said), key, found) == cause


def test_what_was_needed_is_that_of_the_newest_result_that_works() -> None:
    needy = Result("works", "nccl", needed={"NCCL_SHM_DISABLE": "1"})
    newer = Tried("sha256:2", KEY.tag, KEY.driver, KEY.gpus)
    assert nccl.needed({KEY: needy}, KEY.tag, KEY.driver, [0, 1]) == {"NCCL_SHM_DISABLE": "1"}
    assert nccl.needed({KEY: needy, newer: WORKS}, KEY.tag, KEY.driver, [0, 1]) == {}
    assert nccl.needed({KEY: HUNG}, KEY.tag, KEY.driver, [0, 1]) == {}
    assert nccl.needed({KEY: needy}, KEY.tag, "590.1", [0, 1]) == {}
    assert nccl.needed({KEY: needy}, KEY.tag, KEY.driver, [0, 2]) == {}


# --- what is tried when it hangs --------------------------------------------------------------------------------------


def test_the_trials_take_one_way_more_each() -> None:
    assert [str(trial) for trial in TRIALS] == [
        "NCCL_P2P_DISABLE=1 --disable-custom-all-reduce",
        "NCCL_P2P_DISABLE=1 NCCL_CUMEM_HOST_ENABLE=0 --disable-custom-all-reduce",
        "NCCL_P2P_DISABLE=1 NCCL_CUMEM_HOST_ENABLE=0 NCCL_SHM_DISABLE=1 --disable-custom-all-reduce",
    ]
    assert trials({}) == list(TRIALS)
    assert trials({"NCCL_P2P_DISABLE": "1"}) == list(TRIALS[1:])
    assert trials(TRIALS[-1].environment) == []
    assert "nothing is left" in nccl.advice(TRIALS[-1].environment)
    mend, by_hand = nccl.advice({}).splitlines()
    assert mend.startswith("python -m orchestrator doctor --fix   # tries all that is left, in order")
    assert by_hand.startswith('or by hand: env = { NCCL_P2P_DISABLE = "1" } for the model in models.toml')


def test_a_start_that_would_hang_names_the_command_that_tries_what_is_left() -> None:
    hung = Result("hung", "nccl", "first", "no end in 60 s")
    assert nccl.refusal(profile(), hung, {}).splitlines() == [
        "qwen-14b would hang: the all-reduce between GPUs 0, 1 did not end (no end in 60 s).",
        "  python -m orchestrator doctor --fix   # tries all that is left, in order, and keeps what works",
        '  or by hand: env = { NCCL_P2P_DISABLE = "1" } for the model in models.toml; the next up tries it with them',
        "  To start it all the same: up qwen-14b --force",
    ]
    assert "doctor --fix" not in nccl.refusal(profile(), hung, TRIALS[-1].environment)


def test_they_are_walked_until_one_works_and_what_was_needed_is_said() -> None:
    ran: list[Mapping[str, str]] = []

    def run(variables: Mapping[str, str]) -> Result:
        ran.append(dict(variables))
        return Result("works" if "NCCL_CUMEM_HOST_ENABLE" in variables else "hung", "nccl", environment=variables)

    told: list[str] = []
    found = walk({"NCCL_P2P_DISABLE": "1", "A": "1"}, run, told.append)
    assert ran == [{"NCCL_P2P_DISABLE": "1", "A": "1", "NCCL_CUMEM_HOST_ENABLE": "0"}]
    assert (found.state, found.needed) == ("works", {"NCCL_CUMEM_HOST_ENABLE": "0"})
    assert len(told) == 2


def test_when_none_works_the_last_result_is_given() -> None:
    found = walk({}, lambda variables: Result("hung", "nccl", environment=variables), lambda _: None)
    assert (found.state, found.needed, found.environment) == ("hung", {}, TRIALS[-1].environment)
    assert walk(TRIALS[-1].environment, lambda _: WORKS, lambda _: None).state == "hung"


def test_an_error_ends_the_walk() -> None:
    ran: list[Mapping[str, str]] = []
    failed = Result("failed", "nccl", why="CUDA out of memory")
    assert walk({}, lambda variables: (ran.append(variables), failed)[1], lambda _: None) == failed
    assert len(ran) == 1


# --- the folder -------------------------------------------------------------------------------------------------------


def test_what_is_kept_in_the_folder_is_read_back(tmp_path: Path) -> None:
    assert (kept.box(tmp_path), kept.results(tmp_path)) == (None, {})
    kept.keep_box(tmp_path, BOX)
    kept.keep_results(tmp_path, {KEY: WORKS})
    assert (kept.box(tmp_path), kept.results(tmp_path)) == (BOX, {KEY: WORKS})
    assert sorted(path.name for path in (tmp_path / "box").iterdir()) == ["machine.json", "nccl.json"]


@pytest.mark.parametrize("name", [kept.MACHINE, kept.NCCL])
@pytest.mark.parametrize("text", [b"", b"{", b'{"a": 1}', b"\xff"])
def test_what_makes_no_sense_is_told_with_the_way_out(tmp_path: Path, name: str, text: bytes) -> None:
    (tmp_path / "box").mkdir()
    (tmp_path / name).write_bytes(text)
    with pytest.raises(ConfigError) as caught:
        (kept.box if name == kept.MACHINE else kept.results)(tmp_path)
    (problem,) = caught.value.problems
    assert problem.startswith(f"{tmp_path / name}: ")
    assert problem.endswith("; remove it, and the next up writes it anew")


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "box").write_text("")
    with pytest.raises(TandemError, match=r"machine\.json: cannot be written"):
        kept.keep_box(tmp_path, BOX)


# --- in a container ---------------------------------------------------------------------------------------------------


class Engine:
    project = "tandem"

    def image_ids(self) -> dict[str, str]:
        return {CU130.image: "sha256:1"}


class Container:
    """Stands for the container: what it says, one time after the other, the last for ever."""

    def __init__(self, *says: Ran) -> None:
        self.says = list(says)
        self.ran: list[tuple[list[str], dict[str, str]]] = []

    def __call__(self, argv: list[str], variables: Mapping[str, str]) -> Ran:
        self.ran.append((argv, dict(variables)))
        return self.says.pop(0) if len(self.says) > 1 else self.says[0]


TARGET = profile(tensor_parallel_size=2, env={"NCCL_DEBUG": "INFO", "OTHER": "1"})


def made(folder: Path, box: Box | None = BOX) -> Project:
    base = project(TARGET, folder=folder)
    return Project(folder, base.profiles, VERSIONS, base.settings, lambda: "580.1", box=box)


def proved(folder: Path, container: Container) -> Result:
    return nccl_run.prove(made(folder), Engine(), TARGET, lambda _: None, container)[0]  # type: ignore[arg-type]


def test_it_is_tried_as_the_server_will_be_run_and_kept(tmp_path: Path) -> None:
    container = Container(Ran(0, printed(), ""))
    assert proved(tmp_path, container).state == "works"
    assert container.ran == [(
        ["python", "/tmp/tandem/allreduce.py", "nccl", "0,1", "60"], {"NCCL_DEBUG": "INFO", "NCCL_P2P_DISABLE": "1"},
    )]  # fmt: skip
    assert {key: result.state for key, result in kept.results(tmp_path).items()} == {KEY: "works"}


def test_a_container_that_does_not_end_counts_as_hung(tmp_path: Path) -> None:
    found = proved(tmp_path, Container(Ran(None, "", "")))
    assert (found.state, found.backend, found.why) == ("hung", "nccl", "the container did not end in 270 s")
    assert kept.results(tmp_path)[KEY].state == "hung"


def test_an_error_is_not_kept(tmp_path: Path) -> None:
    assert proved(tmp_path, Container(Ran(0, printed("failed", "CUDA out of memory"), ""))).state == "failed"
    assert kept.results(tmp_path) == {}


def test_a_program_that_does_not_work_is_no_result(tmp_path: Path) -> None:
    with pytest.raises(TandemError, match=r"printed no answer .* it ended with 1: no torch"):
        proved(tmp_path, Container(Ran(1, "", "Traceback\nno torch\n\n")))
    assert kept.results(tmp_path) == {}


def test_an_image_that_is_not_here_cannot_be_tried(tmp_path: Path) -> None:
    engine = Engine()
    engine.image_ids = dict  # type: ignore[method-assign]
    with pytest.raises(TandemError, match=r"tandem/vllm:0\.32\.0-cu130 is not on this machine; build it"):
        nccl_run.prove(made(tmp_path), engine, TARGET, lambda _: None)  # type: ignore[arg-type]


def test_what_mends_it_is_kept_and_follows_for_the_server_from_then_on(tmp_path: Path) -> None:
    container = Container(Ran(0, printed("hung"), ""), Ran(0, printed(), ""))
    found = nccl_run.mend(made(tmp_path), Engine(), TARGET, lambda _: None, container)  # type: ignore[arg-type]
    assert found.needed == {"NCCL_CUMEM_HOST_ENABLE": "0", "NCCL_SHM_DISABLE": "1"}
    after = made(tmp_path)
    after = Project(tmp_path, after.profiles, VERSIONS, after.settings, box=BOX, reduced=kept.results(tmp_path))
    assert [str(setting) for setting in after.derived(TARGET)] == [
        "--disable-custom-all-reduce", "NCCL_P2P_DISABLE=1", "NCCL_CUMEM_HOST_ENABLE=0", "NCCL_SHM_DISABLE=1",
    ]  # fmt: skip
    assert due(TARGET, KEY, after.reduced) == ""


def test_where_nothing_mends_it_what_was_kept_stays(tmp_path: Path) -> None:
    kept.keep_results(tmp_path, {KEY: HUNG})
    found = nccl_run.mend(made(tmp_path), Engine(), TARGET, lambda _: None, Container(Ran(0, printed("hung"), "")))  # type: ignore[arg-type]
    assert found.state == "hung"
    assert kept.results(tmp_path) == {KEY: HUNG}


def test_a_machine_that_was_not_looked_at_has_no_driver_to_count_for(tmp_path: Path) -> None:
    assert nccl_run.tried(made(tmp_path), {CU130.image: "sha256:1"}, TARGET) == KEY
    assert nccl_run.tried(made(tmp_path, None), {}, TARGET) == Tried("", "0.32.0-cu130", "", (0, 1))


def test_gloo_stands_in_where_an_image_has_no_cuda() -> None:
    cpu = profile(name="demo", gpus=[], image="cpu", model="./demo")
    assert nccl_run.argv(cpu)[2:] == ["gloo", "0,1", "60"]
