"""verify-image on images as they were built, and on images that something was taken from."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator import cli_verify, project
from orchestrator.engine import Engine
from orchestrator.verify import Check
from orchestrator.versions import Build
from tests.checkout import PATIENCE, ROOT, Checkout, eventually
from tests.integration.conftest import BUILD_SECONDS, Stack

pytestmark = pytest.mark.docker

CPU = "tandem/vllm:0.32.0-cpu"
CUDA = "tandem/vllm:0.32.0-cu130"
PROJECT = "tandem-test-verify"
SITE = "/opt/vllm/lib/python3.11/site-packages"


@pytest.fixture(scope="module")
def checkout(images: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    return Stack.copy(tmp_path_factory.mktemp("verify"), COMPOSE_PROJECT_NAME=PROJECT)


def docker(*arguments: str, **more: str) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def build(folder: Path, tag: str, dockerfile: str) -> str:
    (folder / "Dockerfile").write_text(dockerfile)
    docker("build", "--network", "none", "--tag", tag, str(folder))
    return tag


def examine(checkout: Checkout, image: str, variant: str) -> dict[str, Check]:
    """What is found in an image that should be the default version's build of a variant."""
    environment = checkout.env()
    whole = project.load(checkout.folder, [], environment)
    wanted = next(found for found in whole.versions.builds[whole.versions.default].values() if found.variant == variant)
    assert isinstance(wanted, Build)
    engine = Engine(checkout.folder, PROJECT, environment)
    try:
        found = cli_verify.examine(engine, checkout.folder, image, wanted, print, profile="demo")
    finally:
        engine.close()
    assert containers() == []
    return {check.name: check for check in found}


def containers() -> list[str]:
    return docker("ps", "--all", "--filter", f"name={PROJECT}-run-", "--format", "{{.Names}}").split()


@pytest.fixture(scope="module")
def unpatched(images: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The CPU image as if its patch had never been applied, and with neither compiler nor a working command line."""
    folder, file = tmp_path_factory.mktemp("unpatched"), "vllm/lora/utils.py"
    (folder / file).parent.mkdir(parents=True)
    (folder / file).write_text(docker("run", "--rm", "--network", "none", "--entrypoint", "cat", CPU, f"{SITE}/{file}"))
    patch = (ROOT / "docker/vllm/patches/lora.patch").read_text()
    argv = ["patch", "--reverse", "--fuzz=0", "-p1", "--batch"]
    subprocess.run(argv, input=patch, cwd=folder, text=True, check=True, capture_output=True)
    yield build(
        folder,
        "tandem-verify-test:unpatched",
        f"FROM {CPU}\nUSER root\nCOPY {file} {SITE}/{file}\n"
        f"RUN rm /usr/bin/gcc /opt/tandem/patches.json {SITE}/vllm/entrypoints/cli/main.py\nUSER vllm\n",
    )
    docker("image", "rm", "tandem-verify-test:unpatched")


def test_an_image_as_built_is_as_it_should_be(checkout: Checkout) -> None:
    done = checkout.tandem("verify-image", "demo")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "all as it should be"
    assert "  ok    patch lora.patch: in effect" in done.stdout.splitlines()
    assert "  ok    architectures: no CUDA: cpu" in done.stdout.splitlines()
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "looking for the fault lora" in done.stderr.splitlines()
    assert containers() == []


@pytest.mark.slow
def test_the_image_for_gpus_has_code_for_an_rtx_4090(checkout: Checkout) -> None:
    if not docker("image", "ls", "--quiet", CUDA):
        assert checkout.tandem("build", "qwen-14b", seconds=BUILD_SECONDS).returncode == 0
    done = checkout.tandem("verify-image", "qwen-14b", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    facts = {check["name"]: check["fact"] for check in json.loads(done.stdout)["checks"]}
    capability = facts["compute capability"].split()[0].strip(",")
    kernels = [name for name in facts if name.startswith("code of ")]
    assert len(kernels) == 4
    assert all(facts[name].startswith(f"{capability} runs ") for name in kernels)
    if capability == "8.9":
        assert facts["code of _C_stable_libtorch"] == "8.9 runs sm_89"


@pytest.mark.slow
def test_what_is_missing_is_a_miss(checkout: Checkout, unpatched: str) -> None:
    found = examine(checkout, unpatched, "cpu")
    assert [name for name, check in found.items() if not check.ok] == [
        "patch lora.patch",
        "vllm serve --help",
        "compiler",
    ]
    assert found["patch lora.patch"].fact.startswith(
        "not in effect: ImportError: cannot import name 'InvalidParameter'"
    )
    assert "No module named 'vllm.entrypoints.cli.main'" in found["vllm serve --help"].fact
    assert found["compiler"].fact.endswith("gcc: there is no such program")


@pytest.mark.slow
def test_an_image_for_cpus_does_not_pass_for_one_for_gpus(checkout: Checkout) -> None:
    found = examine(checkout, CPU, "cuda")
    assert found["architectures"] == Check("architectures", ok=False, fact="no CUDA code in torch")


def test_an_image_that_is_not_there_is_named_with_the_command_that_builds_it(
    checkout: Checkout, tmp_path: Path
) -> None:
    copy = Checkout.copy(tmp_path, COMPOSE_PROJECT_NAME=PROJECT)
    versions = (tmp_path / "docker/vllm/versions.toml").read_text()
    copy.write("docker/vllm/versions.toml", versions.replace('build = "cpu"', 'build = "none"'))
    done = copy.tandem("verify-image", "demo")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1] == (
        "error: tandem/vllm:0.32.0-none is not on this machine; build it: python -m orchestrator build demo"
    )


def test_an_image_without_python_is_an_error_of_one_line(checkout: Checkout, tmp_path: Path) -> None:
    from orchestrator.errors import TandemError

    (tmp_path / "file").touch()
    tag = build(tmp_path, "tandem-verify-test:empty", "FROM scratch\nCOPY file /\n")
    try:
        with pytest.raises(TandemError, match=r'^Docker refused: .*"python": executable file not found') as caught:
            examine(checkout, tag, "cpu")
        assert len(str(caught.value).splitlines()) == 1
        assert containers() == []
    finally:
        docker("image", "rm", tag)


def test_ctrl_c_takes_the_container_away(checkout: Checkout) -> None:
    import signal

    process = checkout.start(checkout.argv("verify-image", "demo"))
    eventually(containers, what="a container of verify-image")
    labels = json.loads(docker("inspect", *containers()))[0]["Config"]["Labels"]
    # Compose puts its labels on images; a container that kept them would be listed as one of the project's.
    assert labels["com.docker.compose.project"] == ""
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "interrupted; the container is gone"
    assert containers() == []
