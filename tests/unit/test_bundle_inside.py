"""What runs in a container with the weights: a file has its name only when it is whole."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import weights.manifest

from orchestrator.bundle import inside, manifest
from tests.checkout import eventually
from tests.unit import bundles

WEIGHTS = {"config.json": b"{}", "deep/model.safetensors": b"w" * 3_000_000}


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "models/org/name"
    for name, content in bundles.pulled(WEIGHTS).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return tmp_path / "models"


def command(models: Path, *arguments: str) -> list[str]:
    """Run it the way a container does: as text, and with its folder of models."""
    program = Path(inside.__file__).read_text(encoding="utf-8").replace('"/models"', json.dumps(str(models)))
    return [sys.executable, "-c", program, *arguments]


def run(models: Path, *arguments: str, given: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
    argv = command(models, *arguments)
    return subprocess.run(argv, input=given, capture_output=True, check=False)


def test_a_model_is_listed_with_sizes_its_manifest_and_the_space(models: Path) -> None:
    shown = json.loads(run(models, "list", "org/name").stdout)
    assert {name: size for name, (size, _) in shown["files"].items()} == {
        name: len(content) for name, content in bundles.pulled(WEIGHTS).items()
    }
    assert json.loads(shown["manifest"])["revision"] == "master"
    assert shown["free"] > 0
    absent = json.loads(run(models, "list", "org/none").stdout)
    assert (absent["files"], absent["manifest"]) == ({}, None)


def test_files_are_hashed_a_line_each(models: Path) -> None:
    lines = run(models, "hash", "org/name", json.dumps(list(WEIGHTS))).stdout.splitlines()
    assert [json.loads(line) for line in lines] == [
        [name, hashlib.sha256(content).hexdigest()] for name, content in WEIGHTS.items()
    ]


def test_what_one_gives_another_takes(models: Path, tmp_path: Path) -> None:
    given = run(models, "give", "org/name", json.dumps(list(WEIGHTS))).stdout
    other = tmp_path / "other"
    taken = run(other, "take", "org/name", given=given)
    assert (taken.returncode, taken.stderr) == (0, b"")
    found = {str(p.relative_to(other / "org/name")): p.read_bytes() for p in other.rglob("*") if p.is_file()}
    assert found == WEIGHTS


@pytest.mark.parametrize("left", [100, 700, 1_000_000])
def test_a_stream_that_ends_early_leaves_only_whole_files(models: Path, tmp_path: Path, left: int) -> None:
    given = run(models, "give", "org/name", json.dumps(list(WEIGHTS))).stdout
    other = tmp_path / "other"
    taken = run(other, "take", "org/name", given=given[:left])
    assert taken.returncode == 1
    assert taken.stderr.startswith(b"org/name: ")
    assert taken.stderr.count(b"\n") == 1
    assert {path.read_bytes() for path in other.rglob("*") if path.is_file()} <= {WEIGHTS["config.json"]}


def test_a_half_file_does_not_replace_a_whole_one(models: Path) -> None:
    given = bundles.packed([("config.json", b"n" * 5000)])
    assert run(models, "take", "org/name", given=given[:2000]).returncode == 1
    assert (models / "org/name/config.json").read_bytes() == WEIGHTS["config.json"]


@pytest.mark.parametrize("action", ["hash", "give"])
def test_a_file_that_is_gone_is_one_line(models: Path, action: str) -> None:
    done = run(models, action, "org/name", '["gone"]')
    assert done.returncode == 1
    assert done.stderr.startswith(b"org/name: [Errno 2] No such file or directory: ")
    assert done.stderr.count(b"\n") == 1


def test_its_manifest_has_the_name_that_pulls_give_it() -> None:
    assert inside.MANIFEST == manifest.PULLED == weights.manifest.NAME


def test_a_stop_in_the_midst_leaves_no_half_file(models: Path, tmp_path: Path) -> None:
    given = run(models, "give", "org/name", json.dumps(list(WEIGHTS))).stdout
    other = tmp_path / "other"
    with subprocess.Popen(command(other, "take", "org/name"), stdin=subprocess.PIPE) as taker:
        assert taker.stdin is not None
        taker.stdin.write(given[:2_000_000])
        taker.stdin.flush()
        part = other / "org/name/deep/model.safetensors.tandem-part"
        eventually(part.exists, what="a file that is half written")
        taker.terminate()
    assert [path.name for path in other.rglob("*") if path.is_file()] == ["config.json"]
