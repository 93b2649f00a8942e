"""A bundle is written a file at a time; a second `save` writes what is missing, and a refused one writes nothing."""

import errno
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.bundle import files, manifest
from orchestrator.bundle.meter import Meter, amount
from orchestrator.errors import TandemError
from orchestrator.settings import Settings
from orchestrator.storage import Held
from tests.unit import bundles
from tests.unit.bundles import ACTIVATOR, ACTIVATOR_TAR, MODEL, ROUTER, ROUTER_TAR, SERVER, SERVER_TAR, Carrier
from tests.unit.values import profile

SMALL = ["README.txt", "tandem.tar"]
WHEELS = ["wheels/pydantic_core-cp3.11.whl", "wheels/pydantic_core-cp3.12.whl", "wheels/rich-15-none-any.whl"]
WEIGHTS = [f"weights/{MODEL}/{name}" for name in sorted((*bundles.WEIGHTS, bundles.MANIFEST))]


@pytest.fixture
def carrier(tmp_path: Path) -> Carrier:
    return Carrier(tmp_path)


def stop_at(carrier: Carrier, what: str, error: type[BaseException] = KeyboardInterrupt) -> None:
    """End the save in the midst of a step of Docker's."""

    def before(doing: str) -> None:
        if doing == what:
            raise error

    carrier.docker.before = before
    with pytest.raises(error):
        carrier.save(weights=True)
    carrier.docker.before = lambda _: None
    carrier.docker.did.clear()


def refused(carrier: Carrier, *, weights: bool = False) -> str:
    with pytest.raises(TandemError) as caught:
        carrier.save(weights=weights)
    return str(caught.value)


def test_everything_is_written_and_the_manifest_says_what(carrier: Carrier) -> None:
    saved = carrier.save(weights=True)
    names = sorted([*SMALL, *WHEELS, *WEIGHTS, ROUTER_TAR, ACTIVATOR_TAR, SERVER_TAR])
    assert carrier.names() == sorted([*names, "manifest.json"])
    whole = manifest.parse((carrier.bundle / "manifest.json").read_text(), "M")
    assert sorted(item.path for item in whole.items) == names
    assert {item.path: (item.size, item.sha256) for item in whole.items} == {
        name: files.write(carrier.bundle / "again", [(carrier.bundle / name).read_bytes()], meter()) for name in names
    }
    assert [(image.tag, image.id) for image in whole.images] == [
        (tag, bundles.image_id(carrier.docker.tars[tag])) for tag in (ACTIVATOR, ROUTER, SERVER)
    ]
    assert [(model.name, model.revision, model.image) for model in whole.models] == [(MODEL, "master", SERVER)]
    assert (whole.profiles, whole.pythons) == (["qwen-14b"], ["3.11", "3.12"])
    assert (saved.images, saved.models, saved.kept) == ([ACTIVATOR, ROUTER, SERVER], [MODEL], [])
    assert "none for Python 3.13: no matching distribution" in carrier.said


def meter() -> Meter:
    return Meter("x", 0, lambda _: None, lambda: 0.0)


def test_weights_come_only_when_asked_for(carrier: Carrier) -> None:
    carrier.docker.models.clear()
    assert carrier.save().models == []
    assert carrier.names() == sorted(["manifest.json", *SMALL, *WHEELS, ROUTER_TAR, ACTIVATOR_TAR, SERVER_TAR])


def test_an_image_of_two_profiles_is_there_once(carrier: Carrier) -> None:
    carrier.save(profile(), profile(name="other"))
    assert carrier.docker.did == [f"save {ROUTER}", f"save {ACTIVATOR}", f"save {SERVER}"]
    assert carrier.manifest()["profiles"] == ["qwen-14b", "other"]


def test_a_second_save_writes_no_image_and_no_weights_again_and_asks_no_index(carrier: Carrier) -> None:
    # With a Python that has no packages the index is asked for it again.
    carrier.save(weights=True)
    for path in carrier.bundle.rglob("*"):
        if path.is_file():
            path.chmod(0o444)
    carrier.docker.did.clear()
    again = carrier.save(weights=True)
    assert carrier.docker.did == []
    assert set(again.kept) >= {ROUTER_TAR, ACTIVATOR_TAR, SERVER_TAR, *WEIGHTS}


@pytest.mark.parametrize("error", [KeyboardInterrupt, TandemError])
def test_an_interrupted_save_keeps_what_was_finished_and_no_half_file(
    carrier: Carrier, error: type[BaseException]
) -> None:
    stop_at(carrier, f"chunk of {SERVER}", error)
    assert carrier.names() == sorted([*SMALL, *WHEELS, ROUTER_TAR, ACTIVATOR_TAR, "manifest.partial.json"])
    saved = carrier.save(weights=True)
    assert carrier.docker.did == [f"save {SERVER}", f"give {' '.join(sorted(bundles.WEIGHTS))} {bundles.MANIFEST}"]
    assert {ROUTER_TAR, ACTIVATOR_TAR} <= set(saved.kept)
    assert not (carrier.bundle / "manifest.partial.json").exists()


def test_weights_go_on_with_the_files_that_are_missing(carrier: Carrier) -> None:
    carrier.save(weights=True)
    (carrier.bundle / WEIGHTS[-1]).write_bytes(b"short")
    carrier.docker.did.clear()
    carrier.save(weights=True)
    assert carrier.docker.did == ["give model.safetensors"]
    assert (carrier.bundle / WEIGHTS[-1]).read_bytes() == bundles.WEIGHTS["model.safetensors"]


def test_a_folder_that_is_being_written_again_is_half_a_bundle(carrier: Carrier) -> None:
    carrier.save()
    carrier.docker.tars[SERVER] = bundles.image(SERVER, b"newer")
    stop_at(carrier, f"save {SERVER}")
    assert "manifest.json" not in carrier.names()
    carrier.save()
    assert carrier.docker.did == [f"save {SERVER}"]
    assert (carrier.bundle / SERVER_TAR).read_bytes() == carrier.docker.tars[SERVER]


def test_what_a_killed_save_was_writing_is_removed(carrier: Carrier) -> None:
    stop_at(carrier, f"save {SERVER}")
    left = carrier.bundle / "images/tandem-other.tar.part"
    left.write_bytes(b"half")
    (carrier.bundle / "wheels.part").mkdir()
    carrier.save()
    assert not left.exists()
    assert not (carrier.bundle / "wheels.part").exists()


def test_what_nothing_needs_any_more_is_removed_and_said(carrier: Carrier) -> None:
    carrier.save(weights=True)
    carrier.save()
    assert not any(name.startswith("weights/") for name in carrier.names())
    assert f"removing {WEIGHTS[0]}: nothing needs it now" in carrier.said


def test_packages_are_fetched_again_when_the_requirements_change_or_one_is_lost(carrier: Carrier) -> None:
    carrier.save()
    carrier.edit(lambda data: data["pythons"].append("3.13"))
    carrier.downloads.clear()
    assert set(carrier.save().kept) >= set(WHEELS)
    assert carrier.downloads == []
    (carrier.bundle / WHEELS[0]).unlink()
    carrier.save()
    assert carrier.downloads == ["3.11", "3.12", "3.13"]
    carrier.downloads.clear()
    carrier.edit(lambda data: data["pythons"].append("3.13"))
    (carrier.project.folder / "requirements/run.txt").write_text("newer")
    carrier.save()
    assert carrier.downloads == ["3.11", "3.12", "3.13"]


def test_an_image_that_is_not_here_is_one_line_with_the_command(carrier: Carrier) -> None:
    del carrier.docker.tars[SERVER]
    assert refused(carrier) == (
        f"{SERVER}: no such image on this machine. Build it: python -m orchestrator build qwen-14b"
    )
    assert not carrier.bundle.exists()


@pytest.mark.parametrize(
    ("weights", "found"),
    [
        ({}, ""),
        (bundles.WEIGHTS, ""),
        ({**bundles.pulled(bundles.WEIGHTS), "config.json": b"short{"}, ""),
        ({**bundles.pulled(bundles.WEIGHTS), bundles.MANIFEST: b"3"}, ""),
        (bundles.pulled(bundles.WEIGHTS, "v1"), " (revision v1 of modelscope is)"),
    ],
)
def test_weights_that_are_not_whole_are_one_line_with_the_command(
    carrier: Carrier, weights: dict[str, bytes], found: str
) -> None:
    carrier.docker.models[MODEL] = weights
    assert refused(carrier, weights=True) == (
        f"{MODEL}: revision master is not whole in tandem_models{found}. Pull it: python -m orchestrator pull qwen-14b"
    )
    assert not carrier.bundle.exists()


def test_a_volume_that_is_not_there_is_not_made(carrier: Carrier) -> None:
    carrier.docker.there = False
    assert refused(carrier, weights=True).startswith(f"{MODEL}: revision master is not whole in tandem_models. ")
    assert carrier.docker.did == []


def test_a_manifest_of_weights_that_climbs_out_is_refused(carrier: Carrier) -> None:
    evil = json.dumps(
        {"source": "modelscope", "revision": "master", "resolved": "", "files": {"../x": {"size": 1}}}
    ).encode()
    carrier.docker.models[MODEL] = {bundles.MANIFEST: evil}
    assert refused(carrier, weights=True) == (
        f'{MODEL}: .tandem-manifest.json names "../x", which climbs out of the folder'
    )


def test_a_model_that_nobody_pulls_and_two_revisions_of_one_are_refused(carrier: Carrier) -> None:
    with pytest.raises(TandemError, match=r"^qwen-14b: with pull = false its server fetches the weights itself"):
        carrier.save(profile(pull=False), weights=True)
    with pytest.raises(TandemError, match=r"these profiles want two revisions of it"):
        carrier.save(profile(), profile(name="b", revision="v2"), weights=True)


def test_a_folder_of_somebody_else_is_left_alone(carrier: Carrier) -> None:
    carrier.bundle.mkdir()
    (carrier.bundle / "photo.jpg").touch()
    assert refused(carrier) == f"{carrier.bundle}: is not empty and holds no bundle; name a new folder"
    assert carrier.names() == ["photo.jpg"]


def test_a_file_is_no_folder(carrier: Carrier) -> None:
    carrier.bundle.touch()
    assert refused(carrier) == f"{carrier.bundle}: is no folder"


def test_a_bundle_of_a_newer_format_is_left_alone(carrier: Carrier) -> None:
    carrier.save()
    carrier.edit(lambda data: data.update(format=4))
    names = carrier.names()
    said = refused(carrier)
    assert "format 4, and this Tandem reads format 3; name a new folder, or remove " in said
    assert "use the Tandem" not in said
    assert carrier.names() == names


def flip(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def test_what_a_drive_damaged_is_written_anew_and_said(carrier: Carrier) -> None:
    carrier.save(weights=True)
    carrier.edit(lambda data: data["pythons"].append("3.13"))
    carrier.docker.did.clear()
    carrier.downloads.clear()
    flip(carrier.bundle / SERVER_TAR)
    flip(carrier.bundle / WEIGHTS[-1])
    with pytest.raises(TandemError, match=r"is damaged: its sha256 is not what was saved\. .*, or save it again$"):
        carrier.load()
    saved = carrier.save(weights=True)
    assert carrier.docker.did == [f"save {SERVER}", "give model.safetensors"]
    assert carrier.downloads == []
    assert [line for line in carrier.said if "damaged" in line] == [
        f"{path}: is damaged, and is written anew" for path in (SERVER_TAR, WEIGHTS[-1])
    ]
    assert {ROUTER_TAR, ACTIVATOR_TAR, *WHEELS, *WEIGHTS[:-1]} == set(saved.kept)
    carrier.load()
    flip(carrier.bundle / WHEELS[0])
    carrier.save(weights=True)
    assert carrier.downloads == ["3.11", "3.12", "3.13"]
    carrier.load()


def test_what_is_written_anew_needs_its_space(carrier: Carrier) -> None:
    carrier.save()
    flip(carrier.bundle / SERVER_TAR)
    carrier.free = 100_000_000
    before = carrier.names()
    assert refused(carrier).startswith(f"no space: {carrier.bundle} needs 100.1 MB, ")
    assert carrier.names() == before


def test_only_what_would_be_kept_is_hashed(carrier: Carrier) -> None:
    carrier.save(weights=True)
    flip(carrier.bundle / WEIGHTS[-1])
    carrier.docker.tars[SERVER] = bundles.image(SERVER, b"newer")
    flip(carrier.bundle / SERVER_TAR)
    carrier.save()
    assert not any("damaged" in line for line in carrier.said)


@pytest.mark.parametrize("content", ["{", '{"format": 3}', '{"version": 4}', "[" * 100_000])
def test_a_bundle_whose_manifest_is_damaged_is_written_anew(carrier: Carrier, content: str) -> None:
    carrier.save(weights=True)
    names = carrier.names()
    (carrier.bundle / "manifest.json").write_text(content)
    carrier.docker.did.clear()
    assert carrier.save(weights=True).kept == []
    assert f"save {SERVER}" in carrier.docker.did
    assert carrier.names() == names
    assert any(line.endswith("; everything is written anew") for line in carrier.said)
    assert carrier.load().present == [ACTIVATOR, ROUTER, SERVER, MODEL]
    # Where no save ever wrote, it is the manifest of something else.
    (carrier.bundle / "manifest.json").write_text(content)
    (carrier.bundle / "tandem.tar").unlink()
    assert refused(carrier).startswith(f"{carrier.bundle}/manifest.json: is ")


def test_no_space_is_said_before_the_first_byte(carrier: Carrier, tmp_path: Path) -> None:
    carrier.free = 100_000_000
    needed = amount(100_000_000 + sum(map(len, carrier.docker.tars.values())))
    assert refused(carrier) == f"no space: {carrier.bundle} needs {needed}, and 100.0 MB is free there"
    assert not carrier.bundle.exists()
    # Docker gathers the largest image on a disk of its own, here the same one.
    carrier.docker.folder = (tmp_path, True)
    carrier.free = 100_000_000 + sum(map(len, carrier.docker.tars.values()))
    assert refused(carrier).startswith(f"no space: {carrier.bundle} and {tmp_path} need ")
    carrier.docker.folder = (tmp_path, False)
    carrier.save()


def test_what_is_written_already_needs_no_space(carrier: Carrier) -> None:
    stop_at(carrier, f"save {SERVER}")
    carrier.free = 100_000_000 + len(carrier.docker.tars[SERVER])
    carrier.save()


def test_packages_for_this_machines_python_must_be_there(carrier: Carrier) -> None:
    def none(folder: Path, python: str, target: Path, settings: Settings) -> str:
        return "no index answers"

    from orchestrator.bundle.save import Saver

    saver = Saver(
        carrier.project, carrier.docker, carrier.bundle, say=print, clock=lambda: 0.0, now="", free=lambda _: 10**15,
        download=none,
    )  # type: ignore[arg-type]  # fmt: skip
    with pytest.raises(TandemError, match=r"^the packages for Python 3\.\d+ cannot be fetched: no index answers$"):
        saver.run([profile()], with_weights=False)


def test_a_model_of_this_machine_that_stays_here_is_said(carrier: Carrier) -> None:
    inside = carrier.project.folder / "mine/config.json"
    inside.parent.mkdir()
    inside.touch()
    carrier.save(profile(model="./mine"))
    assert not any("its model is not in the bundle" in line for line in carrier.said)
    carrier.save(profile(model="/data/mine"))
    assert "qwen-14b: its model is not in the bundle; copy /data/mine to the same place there" in carrier.said


def test_a_drive_that_takes_no_large_file_is_said_in_one_line(tmp_path: Path) -> None:
    def full() -> Iterator[bytes]:
        yield b"some"
        raise OSError(errno.EFBIG, "File too large")

    with pytest.raises(TandemError) as caught:
        files.write(tmp_path / "a.tar", full(), meter())
    assert str(caught.value) == (
        f"{tmp_path}/a.tar: cannot be written: File too large; "
        "FAT32 takes no file of 4 GiB or more: use a drive with exFAT, NTFS or ext4"
    )
    assert list(tmp_path.iterdir()) == []


def test_progress_is_a_line_every_few_seconds_and_says_when_docker_is_silent() -> None:
    said: list[str] = []
    now = [0.0]
    shown = Meter("a", 9_400_000_000, said.append, lambda: now[0])
    steps = ((3, 0), (6, 0), (7, 10**9), (11, 2 * 10**9), (12, 10**9), (17, 6 * 10**9), (20, 0), (23, 0))
    for second, count in steps:
        now[0] = second
        shown.add(count)
    assert said == [
        "a: waiting for Docker, 6 s",
        "a: 3.0 of 9.4 GB",
        "a: 10.0 of 10.0 GB",
        "a: waiting for Docker, 6 s",
    ]


def test_a_source_changes_with_the_time_of_its_file(carrier: Carrier) -> None:
    carrier.save(weights=True)
    look = carrier.docker.look

    def newer(image: str, model: str) -> Held:
        held = look(image, model)
        changed = {name: (size, 2 if name == "config.json" else time) for name, (size, time) in held.files.items()}
        return Held(changed, held.manifest, held.free)

    carrier.docker.look = newer  # type: ignore[method-assign]
    carrier.docker.did.clear()
    carrier.save(weights=True)
    assert carrier.docker.did == ["give config.json"]
