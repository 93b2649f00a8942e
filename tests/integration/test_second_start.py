"""What is compiled at run time is kept in the cache volume of the image's version, and read again."""

import json
from collections.abc import Iterator

import pytest

from tests.checkout import Checkout
from tests.integration.conftest import SERVER_IMAGE, Stack, stack

pytestmark = pytest.mark.docker

PROJECT = "tandem-test-cache"
VOLUME = f"{PROJECT}_cache-0.32.0-cpu"
# The demo, but for what keeps vLLM from compiling.
COMPILED = """
[models.compiled]
model = "./docker/demo/model"
image = "cpu"
gpus = []
tensor_parallel_size = 1
max_model_len = 1024
shm_size = "1gb"
"""
# What vLLM does with every model: torch.compile, whose code for a CPU is C++ that the image's own compiler builds.
COMPILE = """
import json, os, pathlib, torch
from torch._dynamo.utils import counters

def function(x):
    return torch.nn.functional.silu(x) * x.sum(-1, keepdim=True)

given = torch.ones(8, 64)
assert torch.allclose(torch.compile(function)(given), function(given))
home = [str(path) for path in pathlib.Path.home().rglob("*") if path.suffix in (".so", ".cpp", ".o")]
print(json.dumps({"found": dict(counters["inductor"]), "home": home, "root": os.environ["TORCHINDUCTOR_CACHE_DIR"]}))
"""


@pytest.fixture(scope="module")
def cached(images: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack with no cache volume yet."""
    for made in stack(tmp_path_factory.mktemp("cache"), PROJECT):
        made.extend_models(COMPILED)
        assert made.tandem("render").returncode == 0
        yield made


def compiled(stack: Stack) -> dict[str, int]:
    """Compile in a container like the server's; how often the cache was hit and missed."""
    words = ["--profile", "compiled", "run", "--rm", "--no-deps", "-T", "--entrypoint", "python3", "compiled"]
    done = stack.compose(*words, "-c", COMPILE)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["home"] == []
    assert said["root"].startswith("/cache/")
    return {name: said["found"].get(f"fxgraph_cache_{name}", 0) for name in ("hit", "miss")}


def kept(stack: Stack) -> dict[str, str]:
    """Each file of the volume, with its size and the time of its last change."""
    listed = stack.run(
        ["docker", "run", "--rm", "--network=none", f"--volume={VOLUME}:/cache:ro", "--entrypoint=find", SERVER_IMAGE,
         "/cache", "-type", "f", "-printf", "%P %s %T@\\n"]
    )  # fmt: skip
    assert listed.returncode == 0, listed.stderr
    return dict(line.split(" ", maxsplit=1) for line in listed.stdout.splitlines())


@pytest.mark.slow
def test_what_one_container_compiled_the_next_one_reads(cached: Stack) -> None:
    assert compiled(cached) == {"hit": 0, "miss": 1}
    first = kept(cached)
    assert [name for name in first if name.endswith(".so")]
    # The volume outlives the containers.
    assert cached.tandem("down").returncode == 0
    assert compiled(cached) == {"hit": 1, "miss": 0}
    assert kept(cached).keys() == first.keys()


@pytest.mark.slow
def test_the_second_start_of_a_server_compiles_nothing(cached: Stack) -> None:
    """Minutes, as vLLM compiles on a CPU; on GPUs it is tests/gpu/second_start.py."""
    states = []
    for _ in range(2):
        done = cached.tandem("up", "compiled")
        assert done.returncode == 0, done.stderr
        assert cached.complete("compiled", "Who are you?", max_tokens=4)
        assert cached.tandem("down").returncode == 0
        states.append(kept(cached))
    before, after = states
    assert [name for name in before if name.startswith("vllm/")]
    assert {name: after[name] for name in after if name.endswith((".so", ".cpp"))} == {
        name: before[name] for name in before if name.endswith((".so", ".cpp"))
    }
