"""The images, as they were really built."""

import json
import os
import re
import shlex
from pathlib import Path

import pytest

from tests.checkout import ROOT, Checkout
from tests.integration.conftest import BUILD_SECONDS

pytestmark = pytest.mark.docker

CUDA = "tandem/vllm:0.32.0-cu130"
CPU = "tandem/vllm:0.32.0-cpu"
ROUTER = "tandem/router:0.1.0"
ACTIVATOR = "tandem/activator:0.1.0"


@pytest.fixture(scope="module")
def cuda() -> Checkout:
    """Build the image of the GPU profiles; minutes on a new machine, seconds where it is there already."""
    checkout = Checkout(ROOT)
    built = checkout.tandem("build", "qwen-14b", seconds=BUILD_SECONDS)
    assert built.returncode == 0, built.stderr[-3000:]
    assert built.stdout.split() == [ROUTER, ACTIVATOR, CUDA]
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


def test_the_libraries_of_kernels_find_bindings_of_cuda_that_fit_them(cuda: Checkout) -> None:
    script = """
    python -c 'import flashinfer.cuda_utils, flashinfer.comm.mnnvl, cutlass, nccl, tilelang, cuda.bindings
print(cuda.bindings.__version__)'
    """
    assert inside(cuda, CUDA, script).splitlines()[-1].startswith("13.0.")


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


@pytest.mark.parametrize("image", [CUDA, CPU, ROUTER, ACTIVATOR])
def test_no_image_runs_as_root(cuda: Checkout, images: Checkout, image: str) -> None:
    assert config(cuda, image)["User"] in ("vllm", "tandem")


@pytest.mark.parametrize("image", [CUDA, CPU])
def test_packages_are_byte_compiled(cuda: Checkout, images: Checkout, image: str) -> None:
    script = """
    cd /opt/vllm/lib/python3.11/site-packages/vllm
    echo $(find . -name '*.py' | wc -l) $(find . -name '*.cpython-311.pyc' | wc -l)
    """
    sources, compiled = map(int, inside(cuda, image, script).split())
    assert sources > 1000
    assert compiled >= sources * 0.99


@pytest.mark.parametrize("image", [CUDA, CPU])
def test_python_looks_for_cycles_rarely(cuda: Checkout, images: Checkout, image: str) -> None:
    assert inside(cuda, image, "python -c 'import gc; print(gc.get_threshold())'").strip() == "(50000, 10, 10)"


@pytest.mark.parametrize("image", [CUDA, CPU, ROUTER, ACTIVATOR])
def test_nothing_of_the_machine_that_built_it_stays_in_a_layer(cuda: Checkout, images: Checkout, image: str) -> None:
    from orchestrator import host

    kept = [f"{name}={value}" for name, value in dict.fromkeys(config(cuda, image)["Env"], "").items()]  # type: ignore[call-overload]
    assert not [line for line in kept if re.search("MIRROR|INDEX|PROXY|CERT", line)]
    if image != ROUTER:
        script = (
            "ls -d /etc/apt; ls /run/secrets 2>/dev/null || true; ls /tmp; grep -rlF {} /etc /opt/tandem /home || true"
        )
        mirror = host.debian_mirror() or "no mirror of this machine is known"
        assert inside(cuda, image, script.format(shlex.quote(mirror))) == "/etc/apt\n"
    history = cuda.run(["docker", "history", "--no-trunc", "--format", "{{.CreatedBy}}", image]).stdout
    assert "COPY" in history
    assert "://" not in history


@pytest.mark.parametrize(
    ("image", "title"),
    [
        (CUDA, "vLLM with modelscope"),
        (ROUTER, "Tandem's router: nginx with Lua"),
        (ACTIVATOR, "Tandem's activator"),
    ],
)
def test_labels_say_what_is_in_an_image(cuda: Checkout, image: str, title: str) -> None:
    labels = dict(config(cuda, image)["Labels"])  # type: ignore[call-overload]
    head = cuda.run(["git", "rev-parse", "HEAD"]).stdout.strip()
    assert labels["org.opencontainers.image.title"] == title
    assert labels["org.opencontainers.image.revision"].removesuffix("-dirty") == head
    assert re.fullmatch("[0-9a-f]{12}", labels["tandem.inputs"])
    if image == CUDA:
        assert labels["org.opencontainers.image.version"] == "0.32.0-cu130"
        assert labels["tandem.packages"] == "modelscope==1.40.2 torch==2.13.0 vllm==0.32.0 python==3.11"


def test_the_cuda_image_is_little_more_than_its_python_packages(cuda: Checkout) -> None:
    # Docker counts the bytes of files; as blocks of a disk the packages take more, and the rest is less of them.
    packages = int(inside(cuda, CUDA, "du -s --apparent-size --block-size=1 /opt/vllm/lib").split()[0])
    whole = int(cuda.run(["docker", "image", "inspect", "--format", "{{.Size}}", CUDA]).stdout)
    assert packages < whole < packages * 1.05


@pytest.mark.parametrize("image", [CUDA, CPU])
def test_what_no_server_reads_is_left_out_and_licences_stay(cuda: Checkout, images: Checkout, image: str) -> None:
    script = """
    find /usr/share/man /usr/share/locale /usr/share/info /usr/share/doc -type f ! -name copyright
    find /usr -name '*lto-dump*' -o -path '*/config-3*' -name '*.a'
    test -s /usr/share/doc/gcc-12/copyright || test -L /usr/share/doc/gcc-12
    test -s /usr/share/doc/gcc-12-base/copyright
    test -s /usr/share/doc/tini/copyright
    """
    assert inside(cuda, image, script) == ""


KERNEL = """
#include <cmath>
#include <vector>
extern "C" double total(int n) {
    std::vector<double> v(n, 2.0);
    double t = 0;
    #pragma omp parallel for reduction(+:t)
    for (int i = 0; i < n; i++) t += std::sqrt(v[i]);
    return t;
}
"""
EMBED = """
#include <Python.h>
int main(void) { Py_Initialize(); return !Py_IsInitialized(); }
"""


@pytest.mark.parametrize("image", [CUDA, CPU])
def test_what_is_left_out_is_not_needed_to_compile(cuda: Checkout, images: Checkout, image: str) -> None:
    """As torch.compile, Triton and FlashInfer compile; torch.compile itself is in test_second_start.py."""
    script = f"""
    cd /tmp
    include=$(python -c 'import sysconfig; print(sysconfig.get_path("include"))')
    printf %s {shlex.quote(EMBED)} >embed.c
    gcc -O2 -I"$include" embed.c -lpython3.11 -o embed
    ./embed
    printf %s {shlex.quote(KERNEL)} >kernel.cpp
    g++ -O3 -march=native -ffast-math -fopenmp -flto -shared -fPIC kernel.cpp -o kernel.so
    python -c 'import ctypes
total = ctypes.CDLL("./kernel.so").total
total.restype = ctypes.c_double
print(round(total(1000), 3))'
    """
    assert inside(cuda, image, script) == "1414.214\n"


def test_images_lists_what_the_profiles_use_and_nothing_of_it_is_stale(cuda: Checkout) -> None:
    listed = {row["image"]: row for row in json.loads(cuda.tandem("images", "--json").stdout)}
    assert {listed[image]["state"] for image in (CUDA, CPU, ROUTER, ACTIVATOR)} == {"used"}
    assert listed[CUDA]["profiles"] == ["qwen-14b", "deepseek-14b", "qwen-32b-awq", "qwq-32b-awq"]
    assert listed[CUDA]["size"] > 8e9


def test_what_docker_says_otherwise_makes_an_image_stale_and_leaves_it_in_use(images: Checkout, tmp_path: Path) -> None:
    copy = Checkout.copy(tmp_path)
    gate = tmp_path / "docker/vllm/gate.py"
    gate.write_text(gate.read_text() + "\n# changed\n")
    listed = {row["image"]: row for row in json.loads(copy.tandem("images", "--json").stdout)}
    assert (listed[CPU]["state"], listed[ROUTER]["state"]) == ("stale", "used")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--vllm", "9.9"], "vLLM 9.9: no such version; there are: 0.32.0, 0.19.1, 0.7.3"),
        (["--vllm", "0.19.1", "--target", "cpu"], "vLLM 0.19.1 has no cpu build; it has: cuda"),
        (["--target", "gpu"], "--target: should be one of cuda, cpu, got gpu"),
        (
            ["--vllm", "0.32.0", "--target", "cuda"],
            "vLLM 0.32.0 needs NVIDIA driver 580 or newer, this machine has 550.54",
        ),
        (["qwen-14b", "--vllm", "0.32.0"], "vLLM 0.32.0 needs NVIDIA driver 580 or newer, this machine has 550"),
    ],
)
def test_a_version_that_cannot_be_had_is_refused_before_anything_is_built(
    images: Checkout, older_driver: str, arguments: list[str], words: str
) -> None:
    done = images.tandem("build", *arguments, PATH=older_driver)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"error: {words}")
    assert "building" not in done.stderr


def test_the_driver_chooses_the_version_and_what_was_chosen_is_said(images: Checkout, older_driver: str) -> None:
    done = images.tandem("plan", "qwen-14b", PATH=older_driver)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "vLLM 0.19.1: the newest that driver 550.54.14 runs; 0.32.0 needs 580 or newer\n"
    built = images.run(["docker", "image", "inspect", "tandem/vllm:0.19.1-cu128"]).returncode == 0
    assert ("tandem/vllm:0.19.1-cu128" in done.stdout) is not built


@pytest.fixture
def older_driver(tmp_path: Path) -> str:
    """A PATH whose nvidia-smi, a stand-in, shows two GPUs with a driver that is too old for the default."""
    program = tmp_path / "bin/nvidia-smi"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\n[ "$1" = -L ] && printf "GPU 0: x\\nGPU 1: x\\n" || echo 550.54.14\n')
    program.chmod(0o755)
    return f"{program.parent}:{os.environ['PATH']}"


def test_a_second_build_does_nothing_again(images: Checkout) -> None:
    identity = ["docker", "image", "inspect", "--format", "{{.Id}}", CPU, ROUTER, ACTIVATOR]
    before = images.run(identity).stdout
    assert before.count("sha256:") == 3
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
    assert config(images, missing)["User"] == "tandem"
    assert images.run(["docker", "image", "rm", missing]).returncode == 0
