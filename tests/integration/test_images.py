"""The images, as they were really built."""

import json
import re
from pathlib import Path

import pytest

from tests.checkout import ROOT, Checkout

pytestmark = pytest.mark.docker

CUDA = "tandem/vllm:0.32.0-cu130"
CPU = "tandem/vllm:0.32.0-cpu"
ROUTER = "tandem/router:0.1.0"


@pytest.fixture(scope="module")
def cuda() -> Checkout:
    """Build the image of the GPU profiles; minutes on a new machine, seconds where it is there already."""
    checkout = Checkout(ROOT)
    built = checkout.tandem("build", "qwen-14b", seconds=1500)
    assert built.returncode == 0, built.stderr[-3000:]
    assert built.stdout.split() == [ROUTER, CUDA]
    return checkout


def inside(checkout: Checkout, image: str, script: str, **environment: str) -> str:
    """Run a shell script in an image with no network; its output."""
    variables = [word for name, value in environment.items() for word in ("-e", f"{name}={value}")]
    done = checkout.run(
        ["docker", "run", "--rm", "--network", "none", *variables, "--entrypoint", "sh", image, "-ec", script]
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def config(checkout: Checkout, image: str) -> dict[str, object]:
    return dict(json.loads(checkout.run(["docker", "image", "inspect", image]).stdout)[0]["Config"])


@pytest.mark.parametrize("image", [CUDA, CPU])
def test_vllm_and_modelscope_are_importable_at_their_pinned_versions(
    cuda: Checkout, images: Checkout, image: str
) -> None:
    script = "python -c 'import vllm, modelscope; print(vllm.__version__, modelscope.__version__)'"
    assert inside(cuda, image, script).splitlines()[-1] == "0.32.0 1.40.2"


@pytest.mark.parametrize(("image", "environment"), [(CUDA, {"VLLM_TARGET_DEVICE": "cpu"}), (CPU, {})])
def test_vllm_serve_help_answers_without_a_gpu(
    cuda: Checkout,
    images: Checkout,
    image: str,
    environment: dict[str, str],
) -> None:
    assert "--served-model-name" in inside(cuda, image, "vllm serve --help=all", **environment)


def test_a_compiler_and_pythons_headers_are_there_for_kernels_compiled_at_run_time(cuda: Checkout) -> None:
    script = """
    cd /tmp
    echo '#include <Python.h>
    int main(void) { return Py_IsInitialized(); }' >probe.c
    gcc -I"$(python -c 'import sysconfig; print(sysconfig.get_path("include"))')" -c probe.c
    nvcc --version | grep -o 'release 13'
    ninja --version >/dev/null && echo ninja
    """
    assert inside(cuda, CUDA, script).split("\n") == ["release 13", "ninja", ""]


@pytest.mark.parametrize("image", [CUDA, CPU, ROUTER])
def test_no_image_runs_as_root(cuda: Checkout, images: Checkout, image: str) -> None:
    assert config(cuda, image)["User"] in ("vllm", "www-data")


@pytest.mark.parametrize("image", [CUDA, CPU])
def test_packages_are_byte_compiled(cuda: Checkout, images: Checkout, image: str) -> None:
    script = """
    cd /opt/vllm/lib/python3.11/site-packages/vllm
    echo $(find . -name '*.py' | wc -l) $(find . -name '*.cpython-311.pyc' | wc -l)
    """
    sources, compiled = map(int, inside(cuda, image, script).split())
    assert sources > 1000
    assert compiled >= sources * 0.99


@pytest.mark.parametrize("image", [CUDA, CPU, ROUTER])
def test_nothing_of_the_machine_that_built_it_stays_in_a_layer(cuda: Checkout, images: Checkout, image: str) -> None:
    from orchestrator import host

    kept = [f"{name}={value}" for name, value in dict.fromkeys(config(cuda, image)["Env"], "").items()]  # type: ignore[call-overload]
    assert not [line for line in kept if re.search("MIRROR|INDEX|PROXY|CERT", line)]
    if image != ROUTER and host.debian_mirror():
        script = "cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null || true; ls /run/secrets || true"
        files = inside(cuda, image, script)
        assert host.debian_mirror() not in files
        assert "ca" not in files.split()


def test_a_second_build_does_nothing_again(images: Checkout) -> None:
    identity = ["docker", "image", "inspect", "--format", "{{.Id}}", CPU, ROUTER]
    before = images.run(identity).stdout
    again = images.tandem("build", "demo")
    steps = set(re.findall(r"^(#\d+) \[.*\] (?:RUN|COPY) ", again.stderr, re.MULTILINE))
    cached = set(re.findall(r"^(#\d+) CACHED", again.stderr, re.MULTILINE))
    assert steps
    assert steps <= cached
    assert images.run(identity).stdout == before


def test_which_base_image_is_used_and_why_is_said(images: Checkout) -> None:
    said = images.tandem("build", "demo").stderr
    assert re.search(r"^base image: \S+, as .+", said, re.MULTILINE)


def test_compose_alone_builds_an_image_that_is_missing(images: Checkout, tmp_path: Path) -> None:
    from orchestrator import host

    bases = ("debian:bookworm-slim", "tandem/base:bookworm")
    base = next(image for image in bases if images.run(["docker", "image", "inspect", image]).returncode == 0)
    # A tag of its own: the real one may be in use.
    missing = "tandem/router:test"
    copy = Checkout.copy(tmp_path, TANDEM_BASE_IMAGE=base, TANDEM_DEBIAN_MIRROR=host.debian_mirror())
    copy.write("compose.yaml", (tmp_path / "compose.yaml").read_text().replace(ROUTER, missing))
    built = copy.compose("build", "router")
    assert built.returncode == 0, built.stderr
    assert config(images, missing)["User"] == "www-data"
    assert images.run(["docker", "image", "rm", missing]).returncode == 0
