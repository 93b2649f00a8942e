"""A bundle is checked whole before the first image is loaded; what is wrong is one line, and the images stay."""

import json
import os
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.bundle.meter import amount
from orchestrator.cli_bundle import _loaded
from orchestrator.errors import TandemError
from tests.unit import bundles
from tests.unit.bundles import ACTIVATOR, ACTIVATOR_TAR, MODEL, ROUTER, ROUTER_TAR, SERVER, SERVER_TAR, Carrier, Docker
from tests.unit.values import profile
from tests.unit.values import project as whole

OLDER = bundles.image(SERVER, b"the last good one")


@pytest.fixture
def carrier(tmp_path: Path) -> Carrier:
    """A whole bundle, with weights."""
    made = Carrier(tmp_path)
    made.save(weights=True)
    made.said.clear()
    return made


@pytest.fixture
def other() -> Docker:
    """The other machine: it has an older image under the tag of the new one."""
    return Docker({SERVER: OLDER}, there=False)


def refused(carrier: Carrier, other: Docker) -> str:
    """What a load says that loads nothing."""
    with pytest.raises(TandemError) as caught:
        carrier.load(other)
    assert other.did == []
    assert other.tars == {SERVER: OLDER}
    return str(caught.value)


def test_images_and_weights_come_to_the_other_machine(carrier: Carrier, other: Docker) -> None:
    loaded = carrier.load(other)
    assert loaded.loaded == [ACTIVATOR, ROUTER, SERVER, MODEL]
    assert (loaded.present, loaded.warnings) == ([], [])
    assert other.tars == carrier.docker.tars
    assert other.models == carrier.docker.models
    # Its manifest last: with that the model counts as whole.
    assert other.did == [
        f"load {ACTIVATOR}", f"load {ROUTER}", f"load {SERVER}", "make the volume",
        "take config.json", "take model.safetensors", f"take {bundles.MANIFEST}",
    ]  # fmt: skip
    assert f"  the image that had this tag stays, without it: {bundles.image_id(OLDER)}" in carrier.said


def test_a_second_load_has_nothing_to_do(carrier: Carrier, other: Docker) -> None:
    carrier.load(other)
    other.did.clear()
    assert carrier.load(other).present == [ACTIVATOR, ROUTER, SERVER, MODEL]
    assert other.did == []


def test_an_engine_that_names_images_by_their_manifest_has_them_too(carrier: Carrier) -> None:
    class Containerd(Docker):
        def images(self) -> dict[str, Any]:
            return {tag: type(stored)("sha256:" + "f" * 64, 1) for tag, stored in super().images().items()}

    other = Containerd(dict(carrier.docker.tars), carrier.docker.models)
    assert carrier.load(other).loaded == []


def test_one_bit_that_changed_is_found(carrier: Carrier, other: Docker) -> None:
    for item in carrier.manifest()["images"] + carrier.manifest()["files"]:
        path = carrier.bundle / item["path"]
        content = path.read_bytes()
        path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
        assert refused(carrier, other) == (
            f"{path}: is damaged: its sha256 is not what was saved. "
            "Nothing was loaded; copy the bundle again, or save it again"
        )
        path.write_bytes(content)
    carrier.load(other)


@pytest.mark.parametrize("path", [SERVER_TAR, "tandem.tar", f"weights/{MODEL}/model.safetensors"])
def test_a_truncated_file_is_found(carrier: Carrier, other: Docker, path: str) -> None:
    content = (carrier.bundle / path).read_bytes()
    (carrier.bundle / path).write_bytes(content[:-1])
    assert refused(carrier, other) == (
        f"{carrier.bundle / path}: is damaged: it has {len(content) - 1} bytes, and {len(content)} were saved. "
        "Nothing was loaded; copy the bundle again, or save it again"
    )
    (carrier.bundle / path).unlink()
    assert refused(carrier, other).startswith(f"{carrier.bundle / path}: is missing. Nothing was loaded")


def test_a_truncated_manifest_is_found(carrier: Carrier, other: Docker) -> None:
    path = carrier.bundle / "manifest.json"
    path.write_text(path.read_text()[:-20])
    assert refused(carrier, other).startswith(f"{path}: is no manifest of a bundle: not JSON: ")


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data["models"][0].update(name="Qwen/Qwen2.5-14B-Instrucu"),
        lambda data: data["models"][0].update(revision="mastes"),
        lambda data: data["profiles"].append("demo"),
        lambda data: data["pythons"].clear(),
        lambda data: data.update(revision="x"),
        lambda data: data.update(created="2026-11-24T00:00:00"),
        lambda data: data.update(sha256="0" * 64),
        lambda data: data.pop("sha256"),
        lambda data: data.update(format=1),
        lambda data: data.update(format=4),
    ],
)
def test_a_change_in_the_manifest_loads_nothing(
    carrier: Carrier, other: Docker, change: Callable[[dict[str, Any]], object]
) -> None:
    data = carrier.manifest()
    change(data)
    (carrier.bundle / "manifest.json").write_text(json.dumps(data), encoding="utf-8")
    assert refused(carrier, other) == (
        f"{carrier.bundle}/manifest.json: is damaged: its sha256 is not what was saved. "
        "Nothing was loaded; copy the bundle again, or save it again"
    )


def test_a_bundle_for_no_profile_loads_nothing(carrier: Carrier, other: Docker) -> None:
    carrier.edit(lambda data: data["profiles"].clear())
    assert refused(carrier, other) == f"{carrier.bundle}/manifest.json: profiles: should name at least one"


def test_a_folder_that_is_no_bundle_and_half_a_bundle_are_told_apart(
    carrier: Carrier, other: Docker, tmp_path: Path
) -> None:
    (carrier.bundle / "manifest.json").rename(carrier.bundle / "manifest.partial.json")
    assert refused(carrier, other) == (
        f"{carrier.bundle}: is half a bundle: 'bundle save' did not end. Run that again, and it goes on"
    )
    carrier.bundle = tmp_path
    assert refused(carrier, other) == f"{tmp_path}: is no bundle: it holds no manifest.json"
    carrier.bundle = tmp_path / "nowhere"
    assert refused(carrier, other) == f"{tmp_path}/nowhere: is no bundle: it holds no manifest.json"


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda data: data.update(format=4), "format 4, and this Tandem reads format 3; "),
        (lambda data: data.update(colour="red"), "colour: unknown key; valid keys: "),
        (lambda data: data["images"][0].update(sha265="x"), "images.0.sha265: unknown key, did you mean sha256?"),
        (lambda data: data["files"][0].update(path="../../etc/x"), 'path "../../etc/x" climbs out of the folder'),
        (lambda data: data["files"][0].update(path="/etc/passwd"), 'path "/etc/passwd" is an absolute path'),
    ],
)
def test_a_manifest_that_is_not_ours_loads_nothing(
    carrier: Carrier, other: Docker, change: Callable[[dict[str, Any]], object], fault: str
) -> None:
    carrier.edit(change)
    assert refused(carrier, other).startswith(f"{carrier.bundle}/manifest.json: {fault}")


def test_what_is_behind_a_link_is_refused(carrier: Carrier, other: Docker, tmp_path: Path) -> None:
    (carrier.bundle / "images").rename(tmp_path / "elsewhere")
    (carrier.bundle / "images").symlink_to(tmp_path / "elsewhere")
    assert refused(carrier, other) == (
        f"{carrier.bundle / ACTIVATOR_TAR}: is behind a symbolic link, and a bundle has none"
    )
    (carrier.bundle / "images").unlink()
    (tmp_path / "elsewhere").rename(carrier.bundle / "images")
    (carrier.bundle / SERVER_TAR).rename(tmp_path / "a.tar")
    (carrier.bundle / SERVER_TAR).symlink_to(tmp_path / "a.tar")
    assert refused(carrier, other) == (
        f"{carrier.bundle / SERVER_TAR}: is behind a symbolic link, and a bundle has none"
    )


def test_a_path_that_no_disk_takes_is_one_line(carrier: Carrier, other: Docker) -> None:
    carrier.edit(lambda data: data["files"][0].update(path="x" * 300))
    assert refused(carrier, other) == f"{carrier.bundle / ('x' * 300)}: cannot be read: File name too long"


@pytest.mark.parametrize(
    ("folder", "first"), [("", "manifest.json"), ("images", ACTIVATOR_TAR), ("weights", "weights/Qwen")]
)
def test_a_folder_that_may_not_be_read_is_one_line(carrier: Carrier, other: Docker, folder: str, first: str) -> None:
    with unreadable(carrier.bundle / folder):
        assert refused(carrier, other) == f"{carrier.bundle / first}: cannot be read: Permission denied"


@contextmanager
def unreadable(folder: Path) -> Iterator[None]:
    """Take a folder from this user; root, whom no mode keeps out, is nobody for that time."""
    root = os.geteuid() == 0
    modes = {path: path.stat().st_mode for path in (folder, *folder.parents)}
    closed = [path for path in folder.parents if root and not modes[path] & 0o001]
    try:
        for path in closed:
            path.chmod(0o755)
        folder.chmod(0)
        if root:
            os.seteuid(65534)
        yield
    finally:
        if root:
            os.seteuid(0)
        for path in (folder, *closed):
            path.chmod(modes[path])


@pytest.mark.parametrize("left", [None, 1000])
def test_weights_that_vanish_or_shrink_while_they_are_sent_are_one_line(
    carrier: Carrier, other: Docker, left: int | None
) -> None:
    path = carrier.bundle / f"weights/{MODEL}/model.safetensors"

    def before(doing: str) -> None:
        if doing == "make the volume":
            path.unlink() if left is None else path.write_bytes(bytes(left))

    other.before = before
    with pytest.raises(TandemError) as caught:
        carrier.load(other)
    fault = "cannot be read: No such file or directory" if left is None else "ended early: the drive lost some of it"
    assert str(caught.value) == f"{path}: {fault}"
    # Without its manifest no model counts as whole.
    assert bundles.MANIFEST not in other.models.get(MODEL, {})


def test_a_tar_that_climbs_out_is_refused_though_its_hash_is_right(carrier: Carrier, other: Docker) -> None:
    carrier.replace(SERVER_TAR, bundles.image(SERVER, b"s" * 50_000, [("../../etc/cron.d/x", b"")]))
    assert refused(carrier, other) == (
        f'{carrier.bundle / SERVER_TAR}: the member "../../etc/cron.d/x" climbs out of the archive; nothing was loaded'
    )
    device = tarfile.TarInfo("blobs/sda")
    device.type = tarfile.BLKTYPE
    carrier.replace(SERVER_TAR, bundles.image(SERVER, b"s" * 50_000, [(device, b"")]))
    assert '"blobs/sda" is neither a file nor a folder' in refused(carrier, other)


def test_a_tar_with_another_image_or_tag_is_refused(carrier: Carrier, other: Docker) -> None:
    carrier.replace(ROUTER_TAR, bundles.image(ROUTER, b"another"))
    assert "holds another image than the manifest says, sha256:" in refused(carrier, other)
    carrier.replace(ROUTER_TAR, bundles.image("debian:latest"))
    assert refused(carrier, other) == f"{carrier.bundle / ROUTER_TAR}: holds debian:latest, and not {ROUTER} alone"


def test_no_space_is_said_before_anything_is_loaded(carrier: Carrier, other: Docker, tmp_path: Path) -> None:
    tars = [len(tar) for tar in carrier.docker.tars.values()]
    weights = sum(map(len, carrier.docker.models[MODEL].values()))
    # Docker unpacks a tar beside the image that comes of it.
    needed = sum(tars) + max(tars) + weights
    other.folder = (tmp_path, True)
    carrier.free = needed - 1
    assert refused(carrier, other) == (
        f"no space: {tmp_path} needs {amount(needed)}, and {amount(needed - 1)} is free there"
    )
    carrier.free = 3000
    assert refused(carrier, other) == f"no space: {tmp_path} needs 169.4 kB, and 3.0 kB is free there"
    carrier.free = needed
    carrier.load(other)
    # What is there needs none.
    carrier.free = 0
    carrier.load(other)


def test_a_disk_that_cannot_be_seen_is_said_so(carrier: Carrier, other: Docker) -> None:
    carrier.free = 0
    carrier.load(other)
    assert carrier.said[0].startswith("Docker will need ")
    assert carrier.said[0].endswith(" in /var/lib/docker; how much is free there cannot be seen from here")


def test_weights_in_a_folder_need_it_and_its_space(carrier: Carrier, other: Docker, tmp_path: Path) -> None:
    other.in_folder, other.weights = True, str(tmp_path / "models")
    assert refused(carrier, other) == (
        f"TANDEM_MODELS: there is no folder {tmp_path}/models; "
        f"make it: sudo install -d -o 1000 -g 1000 {tmp_path}/models"
    )
    (tmp_path / "models").mkdir()
    other.there = True
    carrier.free = 5000
    assert refused(carrier, other).startswith(f"no space: {tmp_path}/models needs 5.")
    carrier.free = 6000
    carrier.load(other)
    assert "make the volume" not in other.did


def test_no_space_in_a_volume_is_said_before_anything_is_loaded(carrier: Carrier, other: Docker) -> None:
    other.there, other.free = True, 10
    assert refused(carrier, other) == "no space: tandem_models needs 5.5 kB, and 0.0 kB is free there"
    # What is there needs none.
    other.models[MODEL] = {"model.safetensors": bundles.WEIGHTS["model.safetensors"]}
    other.free = 600
    carrier.load(other)


def test_the_space_of_a_volume_that_is_not_there_is_known_when_it_is_made(carrier: Carrier, other: Docker) -> None:
    other.free = 10
    with pytest.raises(TandemError, match=r"^no space: tandem_models needs 5\.5 kB, and 0\.0 kB is free there$"):
        carrier.load(other)
    assert MODEL not in other.models


def test_an_interrupted_load_goes_on(carrier: Carrier, other: Docker) -> None:
    def before(doing: str) -> None:
        if ROUTER in other.tars and doing == "chunk to load":
            raise KeyboardInterrupt

    other.before = before
    with pytest.raises(KeyboardInterrupt):
        carrier.load(other)
    assert other.tars == {tag: carrier.docker.tars[tag] for tag in (ACTIVATOR, ROUTER)} | {SERVER: OLDER}
    other.before = lambda _: None
    other.did.clear()
    loaded = carrier.load(other)
    assert (loaded.loaded, loaded.present) == ([SERVER, MODEL], [ACTIVATOR, ROUTER])


def test_weights_go_on_with_the_files_that_are_missing_or_not_the_same(carrier: Carrier, other: Docker) -> None:
    other.models[MODEL] = {"config.json": bundles.WEIGHTS["config.json"], "model.safetensors": b"x" * 5000}
    other.there = True
    carrier.load(other)
    assert [did for did in other.did if did.startswith("take")] == [
        "take model.safetensors",
        f"take {bundles.MANIFEST}",
    ]
    assert other.models == carrier.docker.models


@pytest.mark.parametrize(
    ("images", "in_folder", "known"),
    [
        ([SERVER], False, True),
        (["tandem/vllm:0.7.3-cu124", "debian:latest"], False, True),
        ([], True, True),
        (["debian:latest", ROUTER], False, False),
    ],
)
def test_whole_weights_of_another_revision_stay_and_no_image_is_loaded_where_they_can_be_seen(
    carrier: Carrier, images: list[str], in_folder: bool, known: bool
) -> None:
    there = bundles.pulled({"config.json": b"v1"}, "v1")
    other = Docker({tag: bundles.image(tag, b"old") for tag in images}, {MODEL: dict(there)}, in_folder=in_folder)
    with pytest.raises(TandemError) as caught:
        carrier.load(other)
    assert str(caught.value) == (
        f"{MODEL}: revision v1 is whole in tandem_models, and the bundle brings master. "
        f"To take the bundle's: python -m orchestrator models remove {MODEL}"
    )
    assert other.models[MODEL] == there
    assert other.did == ([] if known else [f"load {ACTIVATOR}", f"load {ROUTER}", f"load {SERVER}"])


def test_a_broken_image_under_the_tag_is_replaced_though_it_cannot_look(carrier: Carrier, other: Docker) -> None:
    def before(doing: str) -> None:
        if doing == f"look with {SERVER}" and other.tars[SERVER] == OLDER:
            raise TandemError("no tini in it")

    other.there, other.before = True, before
    assert carrier.load(other).loaded == [ACTIVATOR, ROUTER, SERVER, MODEL]


def test_a_machine_that_wants_other_images_is_told_so_before_and_after(carrier: Carrier, other: Docker) -> None:
    warning = "qwen-14b: the bundle brings vLLM 0.32.0, which needs NVIDIA driver 580 or newer; this machine has 470.10"
    carrier.project = replace(carrier.project, driver=lambda: "470.10")
    loaded = carrier.load(other)
    assert loaded.loaded == [ACTIVATOR, ROUTER, SERVER, MODEL]
    assert loaded.warnings == [warning]
    assert carrier.said.index(f"warning: {warning}") < carrier.said.index(f"loading {ROUTER} (10.2 kB)")
    assert _loaded(loaded).splitlines()[-2:] == [
        f"warning: {warning}",
        "next: update the driver to 580 or newer (under WSL2: the one of Windows)",
    ]
    carrier.project = whole(profile(name="other"))
    loaded = carrier.load(other)
    assert _loaded(loaded).splitlines() == [
        f"already here: {ACTIVATOR}",
        f"already here: {ROUTER}",
        f"already here: {SERVER}",
        f"already here: {MODEL}",
        "warning: the bundle is for qwen-14b, which this models.toml does not have",
    ]


def test_an_image_that_docker_took_and_does_not_have_is_an_error(carrier: Carrier, other: Docker) -> None:
    other.load = lambda chunks, waiting: None  # type: ignore[method-assign]
    with pytest.raises(TandemError, match=r", and does not have the image$"):
        carrier.load(other)


def test_the_result_is_json(carrier: Carrier, other: Docker) -> None:
    assert json.loads(json.dumps(carrier.load(other)._asdict())) == {
        "folder": str(carrier.bundle),
        "profiles": ["qwen-14b"],
        "loaded": [ACTIVATOR, ROUTER, SERVER, MODEL],
        "present": [],
        "warnings": [],
        "next": ["python -m orchestrator up qwen-14b"],
    }
