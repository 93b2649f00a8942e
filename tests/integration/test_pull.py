"""Weights come from the hub once, by the real modelscope client. The hub is a stand-in, in a container of its own."""

import re
import shutil
from collections.abc import Iterator

import pytest

from tests.checkout import ROOT, Checkout
from tests.integration.conftest import Stack, stack

pytestmark = pytest.mark.docker

STANDINS = ROOT / "tests/standins"
MODELS = """
[models.small]
model = "Tandem/small"
image = "cpu"
max_model_len = 1024
enforce_eager = true
shm_size = "1gb"

[models.absent]
model = "Tandem/absent"
image = "cpu"
"""


@pytest.fixture(scope="module")
def small(images: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack whose models are on a hub, with the hub beside it on its network."""
    for made in stack(tmp_path_factory.mktemp("pull"), "tandem-test-pull"):
        made.write("models.toml", MODELS)
        made.environment["MODELSCOPE_ENDPOINT"] = "http://hub:8080"
        hub = made.folder / "hub"
        shutil.copytree(ROOT / "docker/demo/model", hub / "Tandem/small")
        assert made.tandem("render").returncode == 0
        assert made.compose("up", "-d", "router").returncode == 0
        given = ("/standins/stub_hub.py", "/hub", "--host", "0.0.0.0", "--port", "8080")
        with made.beside("hub", *given, mounts={hub: "/hub", STANDINS: "/standins"}):
            yield made


def requests(stack: Stack) -> list[str]:
    """The paths that the hub was asked for."""
    # Its threads write whole objects but may share a line.
    logged = stack.run(["docker", "logs", "tandem-test-pull-hub"])
    assert logged.returncode == 0, logged.stderr
    return re.findall(r'"p": "([^"]+)"', logged.stderr)


def fetched(stack: Stack, name: str) -> list[str]:
    """The hub's requests for a file."""
    return [path for path in requests(stack) if f"FilePath={name}" in path]


def test_up_pulls_the_weights_and_then_serves_them(small: Stack) -> None:
    done = small.tandem("up", "small", seconds=400)
    assert done.returncode == 0, done.stderr
    assert small.complete("small", "Who are you?", max_tokens=40) == "I am demo, a tiny model of Tandem for any CPU."
    assert fetched(small, "model.safetensors")


def test_the_server_may_only_read_the_weights(small: Stack) -> None:
    tried = small.compose("--profile", "small", "exec", "small", "touch", "/models/Tandem/small/new")
    assert tried.returncode != 0
    assert "Read-only file system" in tried.stderr


def test_weights_that_are_complete_need_no_hub(small: Stack) -> None:
    assert small.tandem("down", "small").returncode == 0
    before = len(requests(small))
    assert before
    pulled = small.compose("--profile", "small", "run", "--rm", "pull-small", MODELSCOPE_ENDPOINT="http://nowhere:1")
    assert (pulled.returncode, pulled.stdout) == (0, "tandem: Tandem/small is complete\n")
    assert len(requests(small)) == before


def test_a_damaged_folder_is_completed_again(small: Stack) -> None:
    remove = "import os; os.remove('/models/Tandem/small/config.json')"
    run = ["--profile", "small", "run", "--rm", "--entrypoint", "python3", "pull-small", "-c", remove]
    assert small.compose(*run).returncode == 0
    before = len(fetched(small, "config.json"))
    again = ["--profile", "small", "run", "--rm", "pull-small"]
    pulled = small.compose(*again)
    assert pulled.returncode == 0, pulled.stderr
    assert len(fetched(small, "config.json")) > before
    assert small.compose(*again, MODELSCOPE_ENDPOINT="http://nowhere:1").returncode == 0


def test_a_model_that_the_hub_does_not_have_ends_up_with_one_line_that_says_so(small: Stack) -> None:
    done = small.tandem("up", "absent", seconds=120)
    assert done.returncode == 1
    fault = done.stderr[done.stderr.index("error: ") :]
    assert fault.startswith("error: absent has no weights: tandem: could not pull Tandem/absent (master): ")
    assert "ModelScope has no such model or revision; see `model` and `revision` in models.toml" in fault
    assert "Traceback" not in done.stderr
