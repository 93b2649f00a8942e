"""Weights from Hugging Face or a mirror of it, by its own client. The hub is a stand-in, in a container of its own."""

import json
import random
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.conftest import Stack, stack
from tests.integration.hub import Hub, hub, prepare
from tests.integration.test_failures import fault
from tests.integration.test_pull import MEGABYTE, STALL, flip, kill, pulled, right, under_way

pytestmark = pytest.mark.docker

PROJECT = "tandem-test-pull"
MODELS = """
[defaults]
image = "cpu"
source = "huggingface"

[models.two]
model = "Tandem/two"

[models.absent]
model = "Tandem/absent"
"""


@pytest.fixture(scope="module")
def pulling(images: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack whose models are on a mirror of Hugging Face at http://hf:8080."""
    for made in stack(tmp_path_factory.mktemp("hf"), PROJECT):
        prepare(made, MODELS, HF_ENDPOINT="http://hf:8080")
        yield made


@pytest.fixture(scope="module")
def mirror(pulling: Stack) -> Iterator[Hub]:
    with hub(pulling, "hf", "hf_hub.py") as made:
        yield made


def test_a_model_comes_whole_goes_on_after_a_kill_and_is_repaired(pulling: Stack, mirror: Hub) -> None:
    files = mirror.make("Tandem/two", a=20 * MEGABYTE, sub__b=MEGABYTE)
    # Its client asks again after some seconds in which nothing comes, and so is given a piece more each time.
    mirror.start_over(stall_after=STALL)
    kill(pulling, under_way(pulling, "two", least=3 * MEGABYTE), "pull-two")
    mirror.control(stall_after=None)
    pulled(pulling, "two")
    right(pulling, "Tandem/two", files)
    # The client hands out a file by the megabyte; what it held is lost with it.
    assert mirror.total() < 24 * MEGABYTE
    manifest = json.loads((pulling.folder / "weights/Tandem/two/.tandem-manifest.json").read_text())
    assert (manifest["source"], manifest["revision"]) == ("huggingface", "main")
    assert len(manifest["resolved"]) == 40
    flip(pulling, "Tandem/two/sub/b.safetensors")
    said = fault(pulling.tandem("verify", "two", "--weights"), 1)
    assert said.startswith("Tandem/two is damaged: sub/b.safetensors. ")
    mirror.start_over(rate=0)
    pulled(pulling, "two")
    assert mirror.by_file() == {"sub/b.safetensors": MEGABYTE}
    right(pulling, "Tandem/two", files)
    assert pulling.tandem("models", "remove", "two").returncode == 0
    # Small files have git's hash alone, and that is looked at too.
    with mirror.behaving(corrupt_once=["config.json"], die_after=6 * MEGABYTE, die_times=2):
        pulled(pulling, "two")
    right(pulling, "Tandem/two", files)
    assert pulling.tandem("models", "remove", "two").returncode == 0


def test_what_cannot_be_had_is_one_line(pulling: Stack, mirror: Hub) -> None:
    said = fault(pulling.tandem("pull", "absent"), 1)
    assert "Hugging Face has no model Tandem/absent at revision main, or it is private" in said
    token = f"hf_{random.Random(6).randbytes(12).hex()}"
    with mirror.behaving(private=["Tandem/two"], token=token):
        said = fault(pulling.tandem("pull", "two"), 1)
        assert "HF_TOKEN or TANDEM_HF_TOKEN_FILE" in said
        pulled(pulling, "two", HF_TOKEN=token)
    with mirror.behaving(down=True):
        said = fault(pulling.tandem("pull", "absent"), 1)
    assert "Hugging Face does not answer, or the line breaks: " in said
    assert "See HF_ENDPOINT and HTTPS_PROXY in .env" in said
