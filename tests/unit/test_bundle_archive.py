"""An image's tar is looked through before Docker gets it: nothing in it may reach out of it."""

import tarfile
from pathlib import Path

import pytest

from orchestrator.bundle import archive
from orchestrator.errors import TandemError
from tests.unit import bundles


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, target
    return made


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.tar"


def test_the_tags_and_every_id_that_an_engine_may_give_it(path: Path) -> None:
    content = bundles.image("tandem/a:1")
    path.write_bytes(content)
    assert archive.look(path) == archive.Archive(
        frozenset({"tandem/a:1"}), frozenset({bundles.image_id(content), "sha256:" + "f" * 64})
    )


@pytest.mark.parametrize(
    ("made", "fault"),
    [
        (member("../x"), '"../x" climbs out of the archive'),
        (member("blobs/../../x"), '"blobs/../../x" climbs out of the archive'),
        (member("/etc/passwd"), '"/etc/passwd" climbs out of the archive'),
        (member("a", tarfile.SYMTYPE, "/etc/passwd"), '"a" links out of the archive, to "/etc/passwd"'),
        (member("a/b", tarfile.SYMTYPE, "../../x"), '"a/b" links out of the archive, to "../../x"'),
        (member("a/b", tarfile.LNKTYPE, "../x"), '"a/b" links out of the archive, to "../x"'),
        (member("a", tarfile.CHRTYPE), '"a" is neither a file nor a folder'),
        (member("a", tarfile.BLKTYPE), '"a" is neither a file nor a folder'),
        (member("a", tarfile.FIFOTYPE), '"a" is neither a file nor a folder'),
    ],
)
def test_a_member_that_reaches_out_is_refused_and_named(path: Path, made: tarfile.TarInfo, fault: str) -> None:
    path.write_bytes(bundles.image("tandem/a:1", more=[(made, b"")]))
    with pytest.raises(TandemError) as caught:
        archive.look(path)
    assert str(caught.value) == f"{path}: the member {fault}; nothing was loaded"


def test_links_that_stay_inside_are_what_older_docker_saves(path: Path) -> None:
    inside = member("b/layer.tar", tarfile.SYMTYPE, "../a/layer.tar")
    path.write_bytes(bundles.image("tandem/a:1", more=[(inside, b"")]))
    assert archive.look(path).tags == {"tandem/a:1"}


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "is no whole tar: "),
        (b"x" * 2000, "is no whole tar: "),
        (bundles.image("tandem/a:1", b"l" * 5000)[:3000], "is no whole tar: "),
        (bundles.packed([("a", b"")]), "is a tar, and no image that 'docker save' wrote"),
        (bundles.packed([("manifest.json", b"{")]), "is a tar, and no image that 'docker save' wrote"),
        (bundles.packed([("manifest.json", b"[" * 100_000)]), "is a tar, and no image that 'docker save' wrote"),
        (bundles.packed([("manifest.json", b"[1]")]), "is a tar, and no image that 'docker save' wrote"),
        (bundles.packed([("manifest.json", b"{}"), ("index.json", b"3")]), "is a tar, and no image that"),
    ],
)
def test_what_is_no_image_is_told_so(path: Path, content: bytes, fault: str) -> None:
    path.write_bytes(content)
    with pytest.raises(TandemError) as caught:
        archive.look(path)
    assert str(caught.value).startswith(f"{path}: {fault}")
    assert "\n" not in str(caught.value)
