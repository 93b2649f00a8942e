"""Images and weights are streams through Docker's CLI: its faults are one line, and it does not outlive who asked."""

import io
import os
import select
import tarfile
from pathlib import Path

import pytest

from orchestrator.bundle import inside
from orchestrator.engine import Engine as RealEngine
from orchestrator.errors import TandemError
from orchestrator.storage import Storage
from tests.checkout import eventually


class Engine:
    """The Engine's settings, with a `docker` that is a shell script of the test's."""

    project = "tandem"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {"PATH": f"{folder}:{os.environ['PATH']}"}

    def docker(self, script: str) -> None:
        path = self.folder / "docker"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return Engine(tmp_path)


@pytest.fixture
def storage(engine: Engine) -> Storage:
    return Storage(engine, "models")  # type: ignore[arg-type]


def test_a_machine_without_the_docker_command_is_told_so(engine: Engine, storage: Storage) -> None:
    engine.environment = {"PATH": str(engine.folder)}
    with pytest.raises(TandemError, match=r"^There is no docker command\."):
        list(storage.save("tandem/a:1"))


def test_an_image_comes_out_whole(engine: Engine, storage: Storage) -> None:
    engine.docker('echo "$@"; head -c 300000 /dev/zero')
    assert b"".join(storage.save("tandem/a:1")) == b"save tandem/a:1\n" + bytes(300_000)


def test_a_save_that_fails_is_the_last_line_of_docker(engine: Engine, storage: Storage) -> None:
    engine.docker('echo some; echo first >&2; echo "no such image" >&2; exit 1')
    with pytest.raises(TandemError, match=r"^'docker save' failed: no such image$"):
        list(storage.save("tandem/a:1"))


def test_time_that_goes_by_shows_while_docker_gathers_an_image(
    engine: Engine, storage: Storage, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "gate")
    engine.docker(f"read line <{tmp_path}/gate; echo $line")
    chunks = storage.save("tandem/a:1")
    assert next(chunks) == b""
    (tmp_path / "gate").write_text("bytes\n")
    assert b"".join(chunks) == b"bytes\n"


def test_docker_ends_with_who_reads_from_it(engine: Engine, storage: Storage, tmp_path: Path) -> None:
    engine.docker(f"echo $$ >{tmp_path}/pid; echo some; exec sleep 600")
    chunks = storage.save("tandem/a:1")
    assert next(chunks) == b"some\n"
    process = os.pidfd_open(int((tmp_path / "pid").read_text()))
    chunks.close()
    # Readable once it has ended.
    eventually(lambda: select.select([process], [], [], 0)[0], what="the end of docker")
    os.close(process)


def test_an_image_goes_in_whole_and_the_wait_for_docker_shows(engine: Engine, storage: Storage, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "gate")
    engine.docker(f'echo "$@" >{tmp_path}/argv; cat >{tmp_path}/in; read line <{tmp_path}/gate')
    storage.load([b"some", b"more" * 100_000], lambda: (tmp_path / "gate").write_text("go\n") and None)
    assert (tmp_path / "argv").read_text() == "load --quiet\n"
    assert (tmp_path / "in").read_bytes() == b"some" + b"more" * 100_000


def test_a_load_that_ends_early_says_why(engine: Engine, storage: Storage) -> None:
    engine.docker('echo "no space left on device" >&2; exit 1')
    with pytest.raises(TandemError, match=r"^'docker load' failed: no space left on device$"):
        storage.load([bytes(100_000)] * 20, lambda: None)


def test_weights_that_cannot_be_read_say_why_and_not_that_a_tar_ended(engine: Engine, storage: Storage) -> None:
    engine.docker('echo "org/name: Permission denied" >&2; exit 1')
    with (
        pytest.raises(TandemError, match=r"^'docker run' failed: org/name: Permission denied$"),
        storage.give("image", "org/name", ["a"]) as stream,
        tarfile.open(fileobj=stream, mode="r|"),
    ):
        pass


def test_weights_that_cannot_be_looked_at_are_one_line(engine: Engine) -> None:
    engine.docker('echo "docker: some" >&2; echo "exec: tini: not found" >&2; exit 127')
    storage = Storage(RealEngine(engine.folder, "tandem", engine.environment), "models")
    with pytest.raises(TandemError) as caught:
        storage.look("image", "org/name")
    assert str(caught.value) == "the weights of org/name cannot be looked at: exec: tini: not found"


def test_weights_in_a_folder_are_seen_without_an_image(engine: Engine, tmp_path: Path) -> None:
    folder = tmp_path / "models/org/name"
    folder.mkdir(parents=True)
    (folder / "config.json").write_bytes(b"{}")
    (folder / ".tandem-manifest.json").write_bytes(b"\xff{}")
    held = Storage(engine, str(tmp_path / "models")).see("org/name")  # type: ignore[arg-type]
    assert held is not None
    assert {name: size for name, (size, _) in held.files.items()} == {"config.json": 2, ".tandem-manifest.json": 3}
    assert held.manifest == "\ufffd{}"
    assert held.free > 0
    assert Storage(engine, str(tmp_path / "none")).see("org/name") is None  # type: ignore[arg-type]


def test_weights_that_end_early_are_an_error(engine: Engine, storage: Storage) -> None:
    engine.docker("exit 0")
    with (
        pytest.raises(TandemError, match=r"^the weights of org/name ended early: "),
        storage.give("image", "org/name", ["a"]) as stream,
        tarfile.open(fileobj=stream, mode="r|"),
    ):
        pass


@pytest.mark.parametrize(
    ("weights", "mount"),
    [
        ("models", "type=volume,source=tandem_models,target=/models"),
        ("/data/models", "type=bind,source=/data/models,target=/models"),
    ],
)
def test_weights_are_read_and_written_by_a_container_without_a_network(
    engine: Engine, tmp_path: Path, weights: str, mount: str
) -> None:
    engine.docker(f'printf "%s\\0" "$@" >{tmp_path}/argv; cat >/dev/null')
    storage = Storage(engine, weights)  # type: ignore[arg-type]
    options = ["run", "--rm", "--interactive", "--pull", "never", "--network", "none", "--log-driver", "none"]
    options.append("--mount")
    program = ["python3", "-c", Path(inside.__file__).read_text(encoding="utf-8")]
    with storage.take("image", "org/name") as stream:
        stream.write(b"tar")
    said = (tmp_path / "argv").read_text().split("\0")[:-1]
    assert said == [*options, mount, "--entrypoint", "tini", "image", "--", *program, "take", "org/name", "[]"]
    with storage.give("image", "org/name", ["a", "b c"]) as stream:
        assert isinstance(stream, io.RawIOBase)
    said = (tmp_path / "argv").read_text().split("\0")[:-1]
    end = [f"{mount},readonly", "--entrypoint", "tini", "image", "--", *program, "give", "org/name", '["a", "b c"]']
    assert said == [*options, *end]
