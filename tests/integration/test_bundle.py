"""A bundle, saved on this machine, loaded and served on one that has no network. In the order of its use."""

import json
import os
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from orchestrator.project import ACTIVATOR_IMAGE, ROUTER_IMAGE
from tests.checkout import PATIENCE, Checkout, eventually
from tests.integration.conftest import SEAL, Stack, stack
from tests.integration.test_demo import ANSWERED, ASKED

if TYPE_CHECKING:
    from tests.integration.engine import Inside, Machine

pytestmark = pytest.mark.docker
pytest_plugins = ("tests.integration.engine",)

PROJECT = "tandem-test-bundle"
SERVER_IMAGE = "tandem/vllm:0.32.0-cpu"
MODELS = """
[models.small]
model = "Tandem/small"
image = "cpu"
gpus = []
tensor_parallel_size = 1
max_model_len = 1024
enforce_eager = true
shm_size = "1gb"
"""
SECRET = uuid.uuid4().hex
# Weights as a pull leaves them.
FILL = (
    SEAL
    + """
import shutil
folder = shutil.copytree("/demo", Path("/models/Tandem/small"))
seal(folder, "Tandem/small")
"""
)
ROUTER_TAR = "images/tandem-router-0.1.0.tar"
ACTIVATOR_TAR = "images/tandem-activator-0.1.0.tar"


@dataclass
class Bundle:
    """Where it is, and the checkout that saves it."""

    source: Stack
    folder: Path

    def argv(self) -> list[str]:
        return [sys.executable, "-m", "orchestrator", "bundle", "save", str(self.folder), "demo", "small", "--weights"]


def interrupt(started: "subprocess.Popen[str]", at: str) -> list[str]:
    """Press Ctrl-C when a command says a line that begins so; everything that it said."""
    assert started.stderr is not None
    said, pressed = [], False
    for line in started.stderr:
        said.append(line)
        # Once: of what it says meanwhile, more may begin so.
        if line.startswith(at) and not pressed:
            pressed = True
            os.killpg(started.pid, signal.SIGINT)
    started.communicate(timeout=PATIENCE)
    assert started.returncode == 130, "".join(said)
    return said


@pytest.fixture(scope="module")
def bundle(images: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bundle]:
    """A checkout with weights in its volume, and a folder for the bundle, which is removed: it has gigabytes."""
    for made in stack(tmp_path_factory.mktemp("bundle"), PROJECT):
        made.extend_models(MODELS)
        assert made.tandem("render").returncode == 0
        made.write(".env", f"MODELSCOPE_ENDPOINT=https://me:{SECRET}@127.0.0.1:1\n")
        filled = made.run(
            ["docker", "run", "--rm", "--network=none", f"--volume={PROJECT}_models:/models",
             f"--volume={made.folder}/docker/demo/model:/demo:ro", "--entrypoint=python3", SERVER_IMAGE, "-c", FILL]
        )  # fmt: skip
        assert filled.returncode == 0, filled.stderr
        folder = tmp_path_factory.mktemp("carried") / "bundle"
        yield Bundle(made, folder)
        shutil.rmtree(folder, ignore_errors=True)
        made.run(["docker", "volume", "rm", f"{PROJECT}_models"])


@pytest.fixture(scope="module")
def offline(empty_machine: "Machine", bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> "Inside":
    """The project's files on the other machine, as the bundle brings them."""
    there = tmp_path_factory.mktemp("offline")
    from tests.integration.engine import Inside

    # What this machine's pip is set up with, that one does not have.
    environment = {**empty_machine.variables, "PIP_CONFIG_FILE": os.devnull}
    inside = Inside(there, environment, prefix=empty_machine.prefix)
    assert inside.run(["tar", "-xf", str(bundle.folder / "tandem.tar")]).returncode == 0
    inside.folder = there / "tandem"
    return inside


def tandem(offline: "Inside", *arguments: str) -> list[str]:
    return [".venv/bin/python", "-m", "orchestrator", *arguments]


def test_an_interrupted_save_leaves_half_a_bundle_that_says_so(bundle: Bundle) -> None:
    said = interrupt(bundle.source.start(bundle.argv()), f"saving {SERVER_IMAGE} ")
    assert said[-1] == "interrupted; what is finished stays, and the same command goes on from there\n"
    names = {path.name for path in bundle.folder.iterdir()}
    assert names == {"manifest.partial.json", "tandem.tar", "README.txt", "wheels", "images"}
    there = {f"images/{path.name}" for path in (bundle.folder / "images").iterdir()}
    assert there == {ROUTER_TAR, ACTIVATOR_TAR}
    assert list(bundle.folder.rglob("*.part")) == []
    refused = bundle.source.tandem("bundle", "load", str(bundle.folder))
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith(f"error: {bundle.folder}: is half a bundle: ")


def test_the_same_save_goes_on_and_writes_nothing_again(bundle: Bundle) -> None:
    before = (bundle.folder / ROUTER_TAR).stat()
    done = bundle.source.run([*bundle.argv(), "--json"])
    assert done.returncode == 0, done.stderr
    saved = json.loads(done.stdout)
    assert (saved["images"], saved["models"]) == ([ACTIVATOR_IMAGE, ROUTER_IMAGE, SERVER_IMAGE], ["Tandem/small"])
    assert {ROUTER_TAR, ACTIVATOR_TAR} <= set(saved["kept"])
    assert "fetching" not in done.stderr
    after = (bundle.folder / ROUTER_TAR).stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert not (bundle.folder / "manifest.partial.json").exists()
    assert (bundle.folder / "weights/Tandem/small/config.json").is_file()


def test_no_secret_of_this_machine_is_in_it(bundle: Bundle, offline: "Inside") -> None:
    assert not (offline.folder / ".env").exists()
    assert not (offline.folder / ".venv").exists()
    assert (offline.folder / "models.toml").read_text(encoding="utf-8").endswith(MODELS)
    argv = ["grep", "-rl", "--exclude-dir=images", SECRET, str(bundle.folder), str(offline.folder)]
    found = bundle.source.run(argv)
    assert (found.returncode, found.stdout) == (1, ""), found.stderr


def test_setup_says_what_is_wrong_with_a_bundle_and_makes_nothing(
    bundle: Bundle, offline: "Inside", tmp_path: Path
) -> None:
    (tmp_path / "manifest.json").write_text('{"pythons": ["3.9", "3.10"]}')
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    for arguments, code, said in (
        (["--offline"], 2, "setup: --offline needs the folder of a bundle"),
        (["--offline", "x", "--dev"], 2, "setup: a bundle holds nothing for --dev; leave it out with --offline"),
        (["--offline", "."], 1, f"error: {offline.folder}/.: is no whole bundle: it holds no manifest.json"),
        (
            ["--offline", str(tmp_path)],
            1,
            f"error: this machine has Python {own}, and the bundle has packages for: 3.9, 3.10",
        ),
    ):
        done = offline.run(["scripts/setup", *arguments])
        assert (done.returncode, done.stdout, done.stderr) == (code, "", said + "\n")
    assert not (offline.folder / ".venv").exists()


def test_setup_installs_the_orchestrator_with_no_network(bundle: Bundle, offline: "Inside") -> None:
    # 192.0.2.1 is nobody's (RFC 5737).
    assert "Network is unreachable" in offline.run(["ip", "route", "get", "192.0.2.1"]).stderr
    assert offline.run(["ip", "route", "get", "127.0.0.1"]).returncode == 0
    done = offline.run(["scripts/setup", "--offline", str(bundle.folder)])
    assert (done.returncode, done.stderr) == (0, "setup: installing the orchestrator into .venv\n")
    again = offline.run(["scripts/setup", "--offline", os.path.relpath(bundle.folder, offline.folder)])
    assert (again.returncode, again.stderr) == (0, "")
    assert offline.run([".venv/bin/tandem", "check"]).returncode == 0


def test_one_bit_that_changed_loads_nothing(bundle: Bundle, offline: "Inside", empty_machine: "Machine") -> None:
    path = bundle.folder / ROUTER_TAR
    with path.open("r+b") as stream:
        for flip in (True, False):
            stream.seek(20_000_000)
            byte = stream.read(1)
            stream.seek(20_000_000)
            stream.write(bytes([byte[0] ^ 1]))
            stream.flush()
            if flip:
                done = offline.run(tandem(offline, "bundle", "load", str(bundle.folder)))
    assert (done.returncode, done.stdout) == (1, "")
    assert f"error: {path}: is damaged: its sha256 is not what was saved. Nothing was loaded" in done.stderr
    assert empty_machine.docker("images", "-q") == ""


def test_an_interrupted_load_leaves_images_whole_or_not_there(
    bundle: Bundle, offline: "Inside", empty_machine: "Machine"
) -> None:
    started = offline.start(tandem(offline, "bundle", "load", str(bundle.folder)))
    said = interrupt(started, f"loading {SERVER_IMAGE} ")
    assert said[-1].startswith("interrupted; what was loaded is whole and stays")
    shown = empty_machine.docker("images", "--format", "{{.Repository}}:{{.Tag}}")
    assert set(shown.split()) == {ROUTER_IMAGE, ACTIVATOR_IMAGE}
    # What Docker had unpacked of it is gone too.
    eventually(
        lambda: not empty_machine.docker("ps", "-aq") and not empty_machine.docker("images", "-qf", "dangling=true"),
        what="no container and no image without a name",
    )


def test_load_goes_on_and_then_has_nothing_to_do(bundle: Bundle, offline: "Inside", empty_machine: "Machine") -> None:
    first = offline.run(tandem(offline, "bundle", "load", str(bundle.folder), "--json"))
    assert first.returncode == 0, first.stderr
    loaded = json.loads(first.stdout)
    assert loaded["loaded"] == [SERVER_IMAGE, "Tandem/small"]
    assert loaded["present"] == [ACTIVATOR_IMAGE, ROUTER_IMAGE]
    assert loaded["warnings"] == []
    again = offline.run(tandem(offline, "bundle", "load", str(bundle.folder)))
    assert again.returncode == 0, again.stderr
    assert again.stdout.splitlines() == [
        f"already here: {ACTIVATOR_IMAGE}",
        f"already here: {ROUTER_IMAGE}",
        f"already here: {SERVER_IMAGE}",
        "already here: Tandem/small",
        "next: python -m orchestrator up demo",
    ]
    assert "loading" not in again.stderr


def test_the_weights_are_whole_and_owned_by_the_servers_user(offline: "Inside", empty_machine: "Machine") -> None:
    pulled = offline.run(["docker", "compose", "--profile", "small", "run", "--rm", "pull-small"])
    assert pulled.returncode == 0, pulled.stderr
    assert pulled.stdout.startswith("tandem: Tandem/small is complete: ")
    assert "was not created by Docker Compose" not in pulled.stderr
    listed = empty_machine.docker(
        "run", "--rm", "--network=none", "--volume=tandem_models:/models:ro", "--entrypoint=find", SERVER_IMAGE,
        "/models", "-not", "-uid", "1000", "-or", "-name", "*part",
    )  # fmt: skip
    assert listed == ""


def test_demo_serves_with_no_way_out(offline: "Inside", empty_machine: "Machine") -> None:
    done = offline.run(tandem(offline, "up", "demo"))
    assert done.returncode == 0, done.stderr
    body = {"model": "demo", "prompt": ASKED, "temperature": 0}
    status, answer = empty_machine.ask("http://127.0.0.1:8000/v1/completions", body)
    assert (status, answer["choices"][0]["text"]) == (200, ANSWERED)
    assert offline.run(tandem(offline, "down")).returncode == 0
