"""What is known of a model and of the machine comes together; the hub is a stand-in on this machine."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import TandemError
from orchestrator.fit import check, hub, inside, look
from orchestrator.fit.gpu import MIB, Gpu, Process
from orchestrator.fit.verdict import Fit
from orchestrator.profiles import Profile
from orchestrator.states import Container
from tests.standins.hub_client import running
from tests.unit import checkpoints as models
from tests.unit.test_fit_inside import safetensors
from tests.unit.values import CPU, ROOT, container, profile, project

NAME = "NVIDIA GeForce RTX 4090"


class Engine:
    """Docker with some containers, images and processes; run answers for a container that looks at the weights."""

    project = "tandem"

    def __init__(self, *listed: Container, images: frozenset[str] = frozenset(), said: str = "", code: int = 0) -> None:
        self._listed = {found.service: found for found in listed}
        self._images = images
        self._done = subprocess.CompletedProcess[str]([], code, said, said)
        self.ran: list[list[str]] = []
        self.client = self
        self.api = self

    def containers(self) -> dict[str, Container]:
        return self._listed

    def images(self) -> frozenset[str]:
        return self._images

    def volumes(self) -> dict[str, Any]:
        return {"Volumes": [{"Name": "tandem_models"}]}

    def processes(self, name: str) -> frozenset[int]:
        return frozenset({"tandem-other": {11}}.get(name, set()))

    def run(self, argv: list[str], *, check: bool) -> "subprocess.CompletedProcess[str]":
        self.ran.append(argv)
        return self._done


SIZES = {"Qwen2.5-14B-Instruct": 29_540_067_328, "Qwen2.5-14B-Instruct-AWQ": 10}


@contextmanager
def listing_of(script: str, folder: Path) -> Iterator[str]:
    """A hub that has Qwen/Qwen2.5-14B-Instruct of 30 GB, and a quantized one; its address."""
    for model in SIZES:
        (folder / "Qwen" / model).mkdir(parents=True)
        (folder / "Qwen" / model / "config.json").write_text(json.dumps(models.QWEN_14B))
        (folder / "Qwen" / model / "model.safetensors").write_text("listed as larger than it is")
        (folder / "Qwen" / model / "notes.txt").write_text("not a weight")
    with running(script, folder) as made:
        made.control(wrong_size={f"Qwen/{model}/model.safetensors": size for model, size in SIZES.items()})
        yield made.address


@pytest.fixture
def listing(tmp_path: Path) -> Iterator[str]:
    with listing_of("stub_hub.py", tmp_path / "hub") as address:
        yield address


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[str]:
    """The same as a mirror of Hugging Face has it."""
    with listing_of("hf_hub.py", tmp_path / "hf") as address:
        yield address


def look_at(target: Profile, engine: Engine, folder: Path = Path("/tandem"), **values: str) -> look.Found | str:
    return look.look(project(target, folder=folder, values=values), engine, target)  # type: ignore[arg-type]


def checked(engine: Engine, *leaving: str, gpus: list[Gpu], values: dict[str, str], **said: Any) -> Fit:
    target = profile(tensor_parallel_size=2, max_model_len=16384, **said)
    whole = project(target, values=values)
    return check.check(whole, engine, target, leaving, gpus=lambda: gpus)  # type: ignore[arg-type]


def cards(free: int, *processes: Process) -> list[Gpu]:
    return [Gpu(index, NAME, 24083 * MIB, free * MIB, (24083 - free) * MIB, processes) for index in (0, 1, 2)]


def test_a_hub_tells_of_a_model_that_is_not_here(listing: str) -> None:
    found = look_at(profile(), Engine(), MODELSCOPE_ENDPOINT=listing)
    assert isinstance(found, look.Found)
    assert (found.source, found.size, found.tensors) == ("the hub's list of files", 29_540_067_328, ())
    assert found.config == models.QWEN_14B


@pytest.mark.parametrize("said", [{"model": "Qwen/nobody"}, {"revision": "v9"}])
def test_what_the_hub_does_not_have_is_not_known(listing: str, said: dict[str, str]) -> None:
    found = look_at(profile(**said), Engine(), MODELSCOPE_ENDPOINT=listing)
    assert found == f"it is not pulled, and the hub does not say ({listing}: 404 Not Found)"


def test_hugging_face_tells_of_a_model_too(mirror: str) -> None:
    found = look_at(profile(source="huggingface"), Engine(), HF_ENDPOINT=mirror)
    assert isinstance(found, look.Found)
    assert (found.config, found.size) == (models.QWEN_14B, SIZES["Qwen2.5-14B-Instruct"])
    gone = look_at(profile(source="huggingface", revision="v9"), Engine(), HF_ENDPOINT=mirror)
    assert gone == f"it is not pulled, and the hub does not say ({mirror}: 404 Not Found)"


def test_a_hub_that_is_down_is_no_failure(listing: str) -> None:
    down = listing.rpartition(":")[0] + ":1"
    found = look_at(profile(), Engine(), MODELSCOPE_ENDPOINT=down)
    assert found == f"it is not pulled, and the hub does not say ({down}: connection refused)"


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"\xff", b'"Data"'])
def test_what_is_no_answer_of_a_hub_is_said(body: bytes) -> None:
    assert hub.table(body) == "answers rubbish"


@pytest.mark.parametrize("listed", [{}, {"Data": None}, {"Data": {"Files": [{}]}}, {"Data": {"Files": 3}}])
def test_what_is_no_list_of_files_is_said(listed: dict[str, Any]) -> None:
    assert hub.sizes("modelscope", listed) == "its list of files is none"
    assert hub.sizes("huggingface", listed) == "its list of files is none"


def test_weights_in_a_folder_are_read_there(tmp_path: Path) -> None:
    folder = tmp_path / "Qwen/Qwen2.5-14B-Instruct"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    safetensors(folder / "model.safetensors", {"a": {"dtype": "F16", "shape": [1]}})
    found = look_at(profile(), Engine(), TANDEM_MODELS=str(tmp_path))
    assert isinstance(found, look.Found)
    assert [tensor.name for tensor in found.tensors] == ["a"]


def test_weights_in_a_volume_are_read_in_a_container_of_an_image_that_is_here() -> None:
    said = json.dumps({"config": {}, "tensors": [["a", "F16", [1]]], "fault": ""})
    engine = Engine(images=frozenset({CPU.image}), said=said)
    assert isinstance(look_at(profile(), engine), look.Found)
    (argv,) = engine.ran
    assert argv[:2] == ["docker", "run"]
    assert "type=volume,source=tandem_models,target=/models,readonly" in argv
    assert argv[-5:] == ["--", "python3", "-c", Path(inside.__file__).read_text(), "Qwen/Qwen2.5-14B-Instruct"]


@pytest.mark.parametrize(
    "engine",
    [
        Engine(images=frozenset({CPU.image}), said="no such thing", code=1),
        Engine(images=frozenset({CPU.image}), said='{"config": null, "tensors": [], "fault": "no config.json"}'),
        Engine(images=frozenset({CPU.image}), said='{"config": {}, "tensors": [], "fault": "a is missing"}'),
        Engine(),
    ],
)  # fmt: skip
def test_what_is_not_whole_in_the_volume_is_asked_of_the_hub(engine: Engine, listing: str) -> None:
    found = look_at(profile(), engine, MODELSCOPE_ENDPOINT=listing)
    assert isinstance(found, look.Found)
    assert found.source == "the hub's list of files"


def test_a_folder_of_this_machine_needs_no_docker(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "docker/demo/model", tmp_path / "model")
    found = look_at(profile(model="./model"), Engine(), folder=tmp_path)
    assert isinstance(found, look.Found)
    assert (found.source, found.fault) == ("the headers of its folder", "")


def test_a_model_on_the_hub_and_two_cards_that_are_free(listing: str) -> None:
    found = checked(Engine(), gpus=cards(23800), values={"MODELSCOPE_ENDPOINT": listing})
    assert found is not None
    assert (found.state, found.unknown) == ("fits", ())
    assert found.memory is not None
    assert [gpu.index for gpu in found.memory.gpus] == [0, 1]


def test_a_setting_changes_the_answer_and_a_quantized_model_of_the_hub_is_named(listing: str) -> None:
    values = {"MODELSCOPE_ENDPOINT": listing, "QWEN_14B_MAX_MODEL_LEN": "400000"}
    found = checked(Engine(), gpus=cards(23800), values=values)
    assert found is not None
    assert found.state == "cannot"
    assert found.length == 400000
    assert found.advice[-1] == "Qwen/Qwen2.5-14B-Instruct-AWQ, which is quantized"


def test_what_a_server_holds_that_the_plan_stops_counts_as_free(listing: str) -> None:
    other = container("other", gpus=(0, 1))
    values = {"MODELSCOPE_ENDPOINT": listing}
    held = cards(1000, Process(11, "VLLM::Worker", 22000 * MIB))
    stops = checked(Engine(other), "other", gpus=held, values=values)
    beside = checked(Engine(other), gpus=held, values=values)
    assert stops is not None
    assert beside is not None
    assert (stops.state, beside.state) == ("fits", "cannot")


def test_what_it_holds_without_being_told_of_blocks_nothing(listing: str) -> None:
    other = container("other", gpus=(0, 1))
    found = checked(Engine(other), "other", gpus=cards(1000), values={"MODELSCOPE_ENDPOINT": listing})
    assert found is not None
    assert found.state == "fits"
    assert found.memory is not None
    assert found.memory.back == {0: None, 1: None}


def test_a_machine_whose_driver_tells_nothing_is_no_failure(listing: str) -> None:
    found = checked(Engine(), gpus=[], values={"MODELSCOPE_ENDPOINT": listing})
    assert found is not None
    assert found.unknown == ("the GPUs' memory: nvidia-smi does not tell of GPU 0, 1",)


def test_docker_that_does_not_answer_is_no_failure_of_the_look(listing: str) -> None:
    class Down(Engine):
        def volumes(self) -> dict[str, Any]:
            raise TandemError("Docker gave no answer")

    found = look_at(profile(), Down(), MODELSCOPE_ENDPOINT=listing)
    assert isinstance(found, look.Found)
