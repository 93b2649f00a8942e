"""A manifest is read back as it was written, and every way to be wrong is one line."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from orchestrator.bundle import manifest
from orchestrator.bundle.manifest import File, Image, Manifest, Model
from orchestrator.errors import TandemError

SHA = "a" * 64
GOOD = Manifest(
    format=3,
    created="2026-11-23T00:00:00",
    revision="",
    profiles=["demo"],
    pythons=["3.11"],
    images=[Image(path="images/a.tar", size=1, sha256=SHA, tag="tandem/a:1", id=f"sha256:{SHA}")],
    files=[
        File(path="tandem.tar", size=2, sha256=SHA),
        File(path="weights/org/name/config.json", size=3, sha256=SHA, source="master 3 1"),
        File(path="weights/org/name/.tandem-manifest.json", size=4, sha256=SHA),
        File(path="weights/org/name-2/config.json", size=3, sha256=SHA),
    ],
    models=[Model(name="org/name", revision="master", image="tandem/a:1")],
)


def refused(change: Callable[[dict[str, Any]], object]) -> list[str]:
    data = json.loads(manifest.text(GOOD))
    change(data)
    with pytest.raises(TandemError) as caught:
        manifest.parse(manifest.sealed(data), "M")
    return str(caught.value).splitlines()


def test_what_was_written_is_read() -> None:
    assert manifest.parse(manifest.text(GOOD), "M") == GOOD
    assert GOOD.size == 13
    assert [file.path for file in GOOD.weights("org/name")] == [
        "weights/org/name/config.json",
        "weights/org/name/.tandem-manifest.json",
    ]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "not JSON: Expecting value: line 1 column 1 (char 0)"),
        (manifest.text(GOOD)[:100], "not JSON: "),
        ("[" * 100_000, "nested too deeply"),
        ('{"format": 3, "a": ' + "[" * 100_000, "nested too deeply"),
        ("[]", "format should be 3"),
        ("{}", "format should be 3"),
        ('{"format": "1"}', "format should be 3"),
        ('{"format": true}', "format should be 3"),
    ],
)
def test_what_is_no_manifest_is_told_so(text: str, fault: str) -> None:
    with pytest.raises(TandemError) as caught:
        manifest.parse(text, "M")
    assert str(caught.value).startswith(f"M: is no manifest of a bundle: {fault}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("number", [1, 2, 4])
def test_another_format_is_refused_whatever_else_is_in_it(number: int) -> None:
    line = f"M: format {number}, and this Tandem reads format 3; use the Tandem of the bundle's own tandem.tar"
    assert refused(lambda data: data.update(format=number, compression="zstd")) == [line]


def test_the_first_format_had_no_sha256_of_itself() -> None:
    with pytest.raises(TandemError, match=r"^M: format 1, and this Tandem reads format 3; "):
        manifest.parse('{"format": 1, "profiles": ["demo"]}', "M")


def changed(value: Any) -> Iterator[Any]:
    """A value with one change in it, for each thing in it that can change."""
    if isinstance(value, dict):
        for key, below in value.items():
            yield {f"{other}x" if other == key else other: found for other, found in value.items()}
            for other in changed(below):
                yield value | {key: other}
    elif isinstance(value, list):
        yield value[:-1]
        for at, below in enumerate(value):
            yield from ([*value[:at], other, *value[at + 1 :]] for other in changed(below))
    elif isinstance(value, int):
        yield value ^ 1
    else:
        yield value[:-1] + chr(ord(value[-1]) ^ 1) if value else "x"


def test_one_change_anywhere_is_damage_whatever_it_would_mean() -> None:
    others = list(changed(json.loads(manifest.text(GOOD))))
    assert len(others) > 60
    for data in others:
        with pytest.raises(manifest.DamagedError) as caught:
            manifest.parse(json.dumps(data), "M")
        said = "M: is damaged: its sha256 is not what was saved"
        assert str(caught.value) == (said if "format" in data else "M: is no manifest of a bundle: format should be 3")


def test_one_bit_anywhere_in_the_file_is_refused_or_means_the_same() -> None:
    content = manifest.text(GOOD).encode()
    for at in range(len(content)):
        for bit in range(8):
            other = content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :]
            try:
                found = manifest.parse(other.decode(errors="replace"), "M")
            except manifest.DamagedError as error:
                assert "\n" not in str(error)  # noqa: PT017
            else:
                assert found == GOOD


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            lambda data: data.update(extra=1),
            "extra: unknown key; valid keys: created, files, format, images, models, profiles, pythons, revision",
        ),
        (lambda data: data["images"][0].update(tags=1), "images.0.tags: unknown key, did you mean tag?"),
        (
            lambda data: data["files"][1].update(mode=1),
            "files.1.mode: unknown key; valid keys: path, sha256, size, source",
        ),
        (lambda data: data["models"][0].update(x=1), "models.0.x: unknown key; valid keys: image, name, revision"),
        (lambda data: data.pop("models"), "models: is missing"),
        (lambda data: data["files"][0].pop("sha256"), "files.0.sha256: is missing"),
        (lambda data: data["files"][0].update(size="2"), 'files.0.size: input should be a valid integer, got "2"'),
        (
            lambda data: data["files"][0].update(size=-1),
            "files.0.size: input should be greater than or equal to 0, got -1",
        ),
        (
            lambda data: data["images"][0].update(id="b"),
            "images.0.id: string should match pattern '^sha256:[0-9a-f]{64}$', got \"b\"",
        ),
        (
            lambda data: data["images"][0].update(path="a.tar"),
            'path "a.tar" of an image should begin with images/',
        ),
        (lambda data: data["files"][0].update(path="images/a.tar"), 'path "images/a.tar" is there twice'),
        (lambda data: data["files"][0].update(path="manifest.json"), 'path "manifest.json" is the manifest itself'),
        (lambda data: data["models"][0].update(name="../x"), 'model "../x" climbs out of the folder'),
        (
            lambda data: data["models"][0].update(image="b"),
            "model org/name: image b is not one of the bundle's: tandem/a:1",
        ),
        (
            lambda data: data["images"].append({**data["images"][0], "path": "images/b.tar"}),
            "image tandem/a:1 is there twice",
        ),
        (
            lambda data: data["models"][0].update(name="org/none"),
            "model org/none: weights/org/none/.tandem-manifest.json is not one of the files",
        ),
        (lambda data: data["files"].pop(1), "model org/name: has no files but .tandem-manifest.json"),
    ],
)
def test_each_fault_is_one_line(change: Callable[[dict[str, Any]], object], line: str) -> None:
    assert refused(change) == [f"M: {line}"]


@pytest.mark.parametrize(
    ("path", "fault"),
    [
        ("/etc/passwd", "is an absolute path"),
        ("C:/x", "is an absolute path"),
        ("../x", "climbs out of the folder"),
        ("wheels/../../x", "climbs out of the folder"),
        ("", "is not a plain relative path"),
        (".", "is not a plain relative path"),
        ("a//b", "is not a plain relative path"),
        ("a/", "is not a plain relative path"),
        ("a\\b", "is not a plain relative path"),
        ("a\ud800b", "is not a plain relative path"),
        ("a\nb", "is not a plain relative path"),
    ],
)
def test_a_path_that_is_not_plainly_inside_is_refused(path: str, fault: str) -> None:
    assert refused(lambda data: data["files"][0].update(path=path)) == [f"M: path {json.dumps(path)} {fault}"]


def test_names_with_dots_and_spaces_are_plain() -> None:
    assert manifest.unsafe("weights/org/name/.tandem-manifest.json") is None
    assert manifest.unsafe("a/..b/c d..e") is None
