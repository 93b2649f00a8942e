"""Mirrors that are none: a build, a base image and a pull end with one line, and the last good image stays.

The mirrors are stand-ins in the network of a Docker Engine of the test's own (see engine.py), or in a container.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from orchestrator import addresses, base, host
from orchestrator.addresses import OUTSIDE
from orchestrator.engine import Engine
from orchestrator.project import ACTIVATOR_IMAGE, ROUTER_IMAGE
from tests.checkout import PATIENCE, ROOT, Checkout
from tests.integration.conftest import Stack, stack
from tests.integration.test_failures import fault

if TYPE_CHECKING:
    from subprocess import CompletedProcess

    from tests.integration.engine import Inside, Machine

pytestmark = pytest.mark.docker
pytest_plugins = ("tests.integration.engine",)

MIRRORS = ROOT / "tests/standins/mirrors.py"
CPU_IMAGE = "tandem/vllm:0.32.0-cpu"
GOOD = (ROUTER_IMAGE, ACTIVATOR_IMAGE, CPU_IMAGE)
PYTHON_IMAGE = "tandem-network-python:latest"
# Python is real, and so is the pip that it brings. apt-get is not, as there is no mirror for it: it has everything.
PYTHON = """
ARG BASE_IMAGE
FROM ${BASE_IMAGE}
RUN --mount=type=bind,source=apt-install.sh,target=/tmp/apt-install.sh --mount=type=secret,id=debian-mirror \\
    sh /tmp/apt-install.sh python3 python3-venv && \\
    printf '#!/bin/sh\\n' >/usr/bin/apt-get
"""


@pytest.fixture(scope="module")
def machine(root: None, tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Machine]":
    """A machine with no base image, on which the last good images of the demo are."""
    from tests.integration.engine import Machine

    made = Machine(tmp_path_factory.mktemp("machine") / "mirrors", hook=False)
    with contextlib.ExitStack() as started:
        started.callback(made.stop)
        made.start()
        for number, image in enumerate(GOOD):
            (made.folder / "file").write_text(str(number))
            packed = subprocess.run(["tar", "-C", made.folder, "-c", "file"], capture_output=True, check=True).stdout
            (made.folder / "image.tar").write_bytes(packed)
            made.docker("import", str(made.folder / "image.tar"), image)
        yield made


@pytest.fixture
def tandem(machine: "Machine", tmp_path: Path) -> "Iterator[Inside]":
    """A checkout on that machine; at the end the last good images have to be there still."""
    before = machine.docker("images", "--no-trunc", "--format={{.Repository}}:{{.Tag}} {{.ID}}")
    yield machine.checkout(tmp_path / "tandem", COMPOSE_PROJECT_NAME="mirrors")
    after = machine.docker("images", "--no-trunc", "--format={{.Repository}}:{{.Tag}} {{.ID}}")
    kept = [line for line in after.splitlines() if line.split()[0] in GOOD]
    assert len(kept) == len(GOOD)
    assert set(kept) <= set(before.splitlines())


@contextlib.contextmanager
def mirror(machine: "Machine", mode: str) -> Iterator[int]:
    """A stand-in for a mirror in a machine's network; its port."""
    argv = [*machine.prefix, sys.executable, str(MIRRORS), "0.0.0.0", "0", mode]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline())
        finally:
            process.kill()


@pytest.fixture(scope="module")
def rubbish(machine: "Machine") -> Iterator[int]:
    """The port of a page to log in, whatever is asked for."""
    with mirror(machine, "rubbish") as port:
        yield port


@pytest.fixture(scope="module")
def good(machine: "Machine") -> Iterator[int]:
    """The port of what a mirror should be."""
    with mirror(machine, "good") as port:
        yield port


@pytest.fixture(scope="module")
def outside(machine: "Machine") -> str:
    """The machine's address as a container of it has it."""
    return machine.docker("network", "inspect", "bridge", "--format={{(index .IPAM.Config 0).Gateway}}")


@contextlib.contextmanager
def loaded(machine: "Machine", image: str) -> Iterator[None]:
    machine.load([image])
    try:
        yield
    finally:
        machine.docker("image", "rm", "--force", image)


def chosen() -> base.Base:
    """The base image of the machine's own Engine."""
    with contextlib.closing(Engine(ROOT, "tandem", os.environ)) as engine:
        return base.choose(engine, "", host.debian_mirror(), print)


@pytest.fixture(scope="module")
def python_image() -> Iterator[str]:
    found = chosen()
    mirror = host.debian_mirror() if found.image == base.OWN_IMAGE else ""
    argv = ["docker", "buildx", "build", "--quiet", "--load", "--tag", PYTHON_IMAGE, "--file", "-"]
    argv += ["--build-arg", f"BASE_IMAGE={found.image}", str(ROOT / "docker")]
    argv += ["--secret", "id=debian-mirror,env=TANDEM_DEBIAN_MIRROR"]
    environment = {**os.environ, "TANDEM_DEBIAN_MIRROR": mirror}
    built = subprocess.run(argv, input=PYTHON, env=environment, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    yield PYTHON_IMAGE
    subprocess.run(["docker", "image", "rm", PYTHON_IMAGE], capture_output=True, check=True)


def test_a_registry_that_is_none_is_named_and_debootstrap_does_not_take_its_place(
    tandem: "Inside", rubbish: int
) -> None:
    said = fault(tandem.tandem("build", "demo", TANDEM_REGISTRY=f"127.0.0.1:{rubbish}"), 1)
    assert said.startswith(f"TANDEM_REGISTRY names 127.0.0.1:{rubbish}, but the image registry does not answer (")
    assert "python -m orchestrator doctor network" in said
    assert "TANDEM_BASE_IMAGE=tandem/base:bookworm" in said


def test_a_registry_that_is_one_gives_the_base_image_and_is_not_asked_again(
    tandem: "Inside", machine: "Machine", good: int
) -> None:
    image = f"127.0.0.1:{good}/library/debian:bookworm-slim"
    for why in ("the image registry answers", "it is on this machine"):
        # The stand-in's image is empty: the build itself goes no further than its first step.
        done = tandem.tandem("build", "demo", TANDEM_REGISTRY=f"127.0.0.1:{good}")
        assert done.returncode == 1
        assert f"base image: {image}, as {why}\n" in done.stderr
    machine.docker("image", "rm", "--force", image)


def test_a_base_image_by_name_from_a_registry_that_is_none(tandem: "Inside", rubbish: int) -> None:
    image = f"127.0.0.1:{rubbish}/library/debian:bookworm-slim"
    said = fault(tandem.tandem("build", "demo", TANDEM_BASE_IMAGE=image), 1)
    assert said.startswith("the build failed: ")
    assert "see TANDEM_REGISTRY and TANDEM_BASE_IMAGE in .env. 'python -m orchestrator doctor network'" in said


@pytest.mark.skipif(not host.debootstrap(), reason="debootstrap is not installed")
@pytest.mark.parametrize("mode", ["rubbish", "404"])
def test_debootstrap_with_a_mirror_that_is_none_says_so_in_one_line(
    tandem: "Inside", machine: "Machine", mode: str
) -> None:
    with mirror(machine, mode) as port:
        given = {"TANDEM_BASE_IMAGE": base.OWN_IMAGE, "TANDEM_DEBIAN_MIRROR": f"http://{OUTSIDE}:{port}/debian"}
        said = fault(tandem.tandem("build", "demo", **given), 1)
    assert "debootstrap cannot make the base image: E: " in said
    # It was asked here, under the name that this machine has for itself.
    assert {"rubbish": "gpgv", "404": f"http://127.0.0.1:{port}/debian"}[mode] in said
    assert "TANDEM_DEBIAN_MIRROR for debootstrap" in said
    assert "python -m orchestrator doctor network" in said
    assert base.OWN_IMAGE not in machine.docker("images", "--format={{.Repository}}:{{.Tag}}").split()


@pytest.mark.skipif(not host.debootstrap(), reason="debootstrap is not installed")
def test_debootstrap_goes_through_the_proxy_of_the_settings(tandem: "Inside", machine: "Machine") -> None:
    with mirror(machine, "403") as port:
        given = {"TANDEM_BASE_IMAGE": base.OWN_IMAGE, "TANDEM_DEBIAN_MIRROR": "http://mirror.example.org/debian"}
        given["HTTP_PROXY"] = f"http://host.docker.internal:{port}"
        proxied = tandem.tandem("build", "demo", **given)
        assert "http://mirror.example.org/debian" in fault(proxied, 1)
        asked = doctor(tandem, "--json", **given)
    rows = json.loads(asked.stdout)["tried"]
    assert [row["answer"] for row in rows if row["address"] == "http://mirror.example.org/debian"] == ["403 Forbidden"]


@pytest.mark.parametrize(
    ("mode", "line"),
    [
        ("rubbish", "the build failed: E: Failed to fetch "),
        ("404", "the build failed: E: The repository "),
        # apt takes an answer of 500 for no update, and goes on with the lists that it has.
        ("500", "the build failed: E: (?:Unable to locate package |The value 'forky' is invalid)"),
    ],
)
def test_a_build_with_a_debian_mirror_that_is_none_says_so_in_one_line(
    tandem: "Inside", machine: "Machine", outside: str, mode: str, line: str
) -> None:
    with mirror(machine, mode) as port, loaded(machine, chosen().image):
        done = tandem.tandem("build", "demo", TANDEM_DEBIAN_MIRROR=f"http://{outside}:{port}/debian")
    said = fault(done, 1)
    assert re.match(line, said)
    assert "see TANDEM_DEBIAN_MIRROR in .env. 'python -m orchestrator doctor network' shows which answer" in said


def test_a_build_with_a_python_index_that_is_none_says_so_in_one_line(
    tandem: "Inside", machine: "Machine", outside: str, rubbish: int, python_image: str
) -> None:
    # Our own images need packages that an apt-get which does nothing cannot give, or the index as well.
    compose = (tandem.folder / "compose.yaml").read_text(encoding="utf-8")
    tandem.write("compose.yaml", re.sub(r"^    build:\n(?: {6,}.*\n)+", "", compose, flags=re.MULTILINE))
    with loaded(machine, python_image):
        done = tandem.tandem(
            "build", "demo", TANDEM_BASE_IMAGE=python_image, TANDEM_DEBIAN_MIRROR=f"http://{outside}:{rubbish}/debian",
            TANDEM_PYPI_INDEX=f"http://{outside}:{rubbish}/simple",
        )  # fmt: skip
    said = fault(done, 1)
    assert said.startswith("the build failed: ERROR: No matching distribution found for uv==")
    assert "see TANDEM_PYPI_INDEX in .env. 'python -m orchestrator doctor network' shows which answer" in said


# A stand-in's address of each kind: the daemon asks registries, and containers the others.
FORMS = {
    "registry": "127.0.0.1:{}",
    "debian": f"http://{OUTSIDE}:{{}}/debian",
    "pypi": f"http://{OUTSIDE}:{{}}/simple",
    "torch": f"http://{OUTSIDE}:{{}}/whl/cpu/torch/",
    "modelscope": f"http://{OUTSIDE}:{{}}",
}


def listing(*ports: int) -> str:
    """A mirrors.toml of stand-ins."""
    return "".join(
        f"[{kind}]\naddresses = {json.dumps([form.format(p) for p in ports])}\n" for kind, form in FORMS.items()
    )


def doctor(tandem: "Inside", *options: str, seconds: float = 60, **shell: str) -> "CompletedProcess[str]":
    return tandem.tandem("doctor", "network", f"--seconds={seconds:g}", *options, **shell)


def test_doctor_writes_the_fastest_that_works_and_nothing_else_changes(
    tandem: "Inside", machine: "Machine", rubbish: int, good: int
) -> None:
    with mirror(machine, "silent") as silent, mirror(machine, "old") as old:
        tandem.write("env/mirrors.toml", listing(rubbish, silent, old, 9, good))
        (tandem.folder / ".env").write_bytes(b"# mine\r\nTANDEM_REGISTRY=mirror.invalid # none\r\nTANDEM_PORT=9000\r\n")
        # So long the silent one costs each time, and the daemon itself gives a registry 15; the good one has to have
        # answered by then.
        looked = doctor(tandem, seconds=10)
        assert looked.returncode == 0, looked.stderr
        assert f"TANDEM_REGISTRY (.env) does not work, 127.0.0.1:{good} does: --write sets it" in looked.stdout
        assert max(map(len, looked.stdout.splitlines())) <= 80
        assert f"trying debian: http://{OUTSIDE}:{silent}/debian\n" in looked.stderr
        done = doctor(tandem, "--write", "--json", seconds=10)
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    wanted = {addresses.MIRRORS[kind]: form.format(good) for kind, form in FORMS.items()}
    assert (shown["written"], shown["problems"]) == (wanted, [])
    answers = {row["address"]: row["answer"] for row in shown["tried"] if row["what"] == "registry"}
    assert answers == {
        # In whatever words the daemon has for a name that is none, and for a network that is not there.
        "mirror.invalid": answers["mirror.invalid"],
        "": answers[""],
        f"127.0.0.1:{rubbish}": "answers rubbish: no image registry",
        f"127.0.0.1:{silent}": "no answer in 10 s",
        f"127.0.0.1:{old}": "answers, but has no such image",
        "127.0.0.1:9": "connection refused",
        f"127.0.0.1:{good}": "ok",
    }
    assert "ok" not in (answers["mirror.invalid"], answers[""])
    assert (tandem.folder / ".env").read_bytes().decode() == (
        f"# mine\r\nTANDEM_REGISTRY=127.0.0.1:{good} # none\r\nTANDEM_PORT=9000\r\n"
        + "".join(f"{name}={value}\r\n" for name, value in wanted.items() if name != "TANDEM_REGISTRY")
    )
    # What was written is in force, and works.
    again = json.loads(doctor(tandem, "--json").stdout)["tried"]
    assert {row["what"] for row in again if row["source"] == ".env" and row["works"]} == {*FORMS}


def test_doctor_writes_no_mirror_that_a_container_would_look_for_in_itself(tandem: "Inside", good: int) -> None:
    tandem.write("env/mirrors.toml", listing(good).replace(OUTSIDE, "127.0.0.1"))
    done = doctor(tandem, "--write")
    assert done.returncode == 1
    assert done.stdout.count("answers here, but in a container 127.0.0.1 is the container: write") == len(FORMS) - 1
    assert (tandem.folder / ".env").read_text() == f"TANDEM_REGISTRY=127.0.0.1:{good}\n"


def test_doctor_ends_with_1_where_nothing_works_names_the_settings_and_writes_nothing(
    tandem: "Inside", rubbish: int
) -> None:
    tandem.write("env/mirrors.toml", listing(rubbish))
    done = doctor(tandem, "--write")
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert [line for line in lines if "registry" not in line] == [
        f"error: {kind}: nothing that was tried works" for kind in ("debian", "pypi", "modelscope")
    ]
    assert "Set TANDEM_PYPI_INDEX in .env" in done.stderr
    assert "nothing works, so nothing was written to .env" in done.stdout
    assert not (tandem.folder / ".env").exists()


def test_doctor_says_that_the_shell_beats_what_it_writes_and_takes_one_file_to_write(
    tandem: "Inside", rubbish: int, good: int
) -> None:
    tandem.write("env/mirrors.toml", listing(good))
    shell = f"http://127.0.0.1:{rubbish}/simple"
    done = doctor(tandem, "--write", TANDEM_PYPI_INDEX=shell)
    assert done.returncode == 0, done.stderr
    assert "  but the shell's TANDEM_PYPI_INDEX beats .env: unset TANDEM_PYPI_INDEX\n" in done.stdout
    two = tandem.tandem("--env-file=.env", "--env-file=env/demo.env", "doctor", "network", "--write")
    assert fault(two, 1) == "--write needs one file, and there are 2; name one: --env-file .env"
    rendered = tandem.tandem("--env-file=env/demo.env", "doctor", "network", "--write")
    assert "is rendered, and a change would be lost" in fault(rendered, 1)


def test_doctor_looks_for_a_base_image_that_is_named_here_and_then_at_its_registry(
    tandem: "Inside", rubbish: int, good: int
) -> None:
    tandem.write("env/mirrors.toml", listing(good))
    for image, answer in ((CPU_IMAGE, "ok, on this machine"), (f"127.0.0.1:{good}/library/debian:bookworm-slim", "ok")):
        done = doctor(tandem, "--json", TANDEM_BASE_IMAGE=image)
        assert done.returncode == 0, done.stderr
        assert [row["answer"] for row in json.loads(done.stdout)["tried"] if row["what"] == "base image"] == [answer]
    image = f"127.0.0.1:{rubbish}/library/debian:bookworm-slim"
    done = doctor(tandem, TANDEM_BASE_IMAGE=image)
    assert done.returncode == 1
    assert f"error: base image: {image}: answers rubbish: no image registry\n  See TANDEM_BASE_IMAGE" in done.stderr


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_ctrl_c_while_a_mirror_is_silent_ends_at_once_and_writes_nothing(
    tandem: "Inside", machine: "Machine", unbuffered: str
) -> None:
    with mirror(machine, "silent") as port:
        tandem.write("env/mirrors.toml", listing(port))
        argv = Checkout.argv("doctor", "network", "--seconds=60", "--write")
        with tandem.start(argv, PYTHONUNBUFFERED=unbuffered) as process:
            assert process.stderr is not None
            wanted = f"trying modelscope: http://{OUTSIDE}:{port}\n"
            assert wanted in iter(process.stderr.readline, "")
            os.killpg(process.pid, signal.SIGINT)
            said = process.communicate(timeout=PATIENCE)[1]
        assert process.returncode == 130
        assert said.splitlines()[-1] == "interrupted: nothing was written"
    assert not (tandem.folder / ".env").exists()


MODELS = '[models.small]\nmodel = "Tandem/small"\nimage = "cpu"\n'


@pytest.fixture
def pulling(images: Checkout, tmp_path: Path) -> Iterator[Stack]:
    """A stack whose model is on a hub that is none, in a container on its network."""
    for made in stack(tmp_path / "pull", "tandem-test-network"):
        made.write("models.toml", MODELS)
        made.environment["MODELSCOPE_ENDPOINT"] = "http://hub:8080"
        shutil.copy(MIRRORS, made.folder / "mirrors.py")
        assert made.tandem("render").returncode == 0
        assert made.compose("up", "-d", "router").returncode == 0
        given = ("/mirrors.py", "0.0.0.0", "8080", "rubbish")
        with made.beside("hub", *given, mounts={made.folder / "mirrors.py": "/mirrors.py"}):
            yield made


def test_a_pull_from_a_hub_that_is_none_says_so_in_one_line_and_the_images_stay(pulling: Stack) -> None:
    identity = ["docker", "image", "inspect", "--format", "{{.Id}}", *GOOD]
    before = pulling.run(identity).stdout
    assert before.count("sha256:") == len(GOOD)
    said = fault(pulling.tandem("up", "small"), 1)
    assert said.startswith("small has no weights: could not pull Tandem/small (master): ")
    assert "what answers there is no ModelScope: " in said
    assert "See MODELSCOPE_ENDPOINT in .env" in said
    assert "python -m orchestrator doctor network" in said
    assert pulling.run(identity).stdout == before
