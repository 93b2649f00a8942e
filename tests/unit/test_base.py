"""Which base image is taken, and why; what a registry that is none leads to."""

import subprocess
from pathlib import Path

import pytest

from orchestrator import base
from orchestrator.base import OWN_IMAGE, REGISTRY_IMAGE, Base
from orchestrator.errors import TandemError

MIRRORED = "mirror.example.org/library/debian:bookworm-slim"
SHUT = "the image registry gave no answer in 15 s"


class Engine:
    """Docker with some images; refusal is what it says of every registry, and asked what it was asked for."""

    environment: dict[str, str]

    def __init__(
        self, *images: str, refusal: str | None = None, says: tuple[str, ...] = ("Pull complete", "=0")
    ) -> None:
        self.present, self.refusal, self.says = frozenset(images), refusal, says
        self.asked: list[str] = []
        self.ran: list[str] = []
        self.environment = {}

    def images(self) -> frozenset[str]:
        return self.present

    def registry_refusal(self, image: str, seconds: float) -> str | None:
        self.asked.append(image)
        return self.refusal

    def stream(self, argv: list[str]):  # type: ignore[no-untyped-def]
        self.ran.append(" ".join(argv))
        yield from self.says


class Running(Engine):
    """Docker with no image, which runs what it is given as the real one does."""

    def stream(self, argv: list[str]):  # type: ignore[no-untyped-def]
        self.ran.append(" ".join(argv))
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        yield from [*done.stdout.splitlines(), f"={done.returncode}"]


# Says what it got, and fails.
DEBOOTSTRAP = """#!/bin/sh
echo "I: mode $(stat -c %a "$(dirname "$4")/environment")"
echo "E: $* through $http_proxy"
exit 1
"""


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a debootstrap and a sudo, before all others in PATH."""
    folder = tmp_path / "programs"
    folder.mkdir()
    for name, text in (("debootstrap", DEBOOTSTRAP), ("sudo", '#!/bin/sh\nexec "$@"\n')):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder


def choose(
    engine: Engine,
    wanted: str = "",
    registry: str = "",
    mirror: str = "http://mirror.example.org/debian",
    **proxies: str,
) -> Base:
    return base.choose(engine, wanted, mirror, lambda _: None, registry=registry, proxies=proxies)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("present", "wanted", "registry", "image"),
    [
        ((REGISTRY_IMAGE, OWN_IMAGE), "", "", REGISTRY_IMAGE),
        ((OWN_IMAGE,), "", "", OWN_IMAGE),
        ((REGISTRY_IMAGE, OWN_IMAGE), OWN_IMAGE, "", OWN_IMAGE),
        ((REGISTRY_IMAGE, OWN_IMAGE, MIRRORED), "", "mirror.example.org", MIRRORED),
        ((REGISTRY_IMAGE, OWN_IMAGE), "", "mirror.example.org", REGISTRY_IMAGE),
        ((OWN_IMAGE,), "", "mirror.example.org", OWN_IMAGE),
        ((MIRRORED, OWN_IMAGE), "", "", OWN_IMAGE),
        ((OWN_IMAGE,), "example.org/debian:1", "mirror.example.org", "example.org/debian:1"),
    ],
)
def test_an_image_that_is_here_is_taken_and_no_registry_is_asked(
    present: tuple[str, ...], wanted: str, registry: str, image: str
) -> None:
    engine = Engine(*present)
    assert choose(engine, wanted, registry).image == image
    assert (engine.asked, engine.ran) == ([], [])


@pytest.mark.parametrize(("registry", "image"), [("", REGISTRY_IMAGE), ("mirror.example.org", MIRRORED)])
def test_a_registry_that_answers_is_pulled_from_under_the_name_that_it_has_there(registry: str, image: str) -> None:
    engine = Engine()
    assert choose(engine, registry=registry) == Base(image, "the image registry answers")
    assert (engine.asked, engine.ran) == ([image], [f"docker pull {image}"])


def test_a_registry_that_is_named_and_is_none_is_an_error_and_nothing_takes_its_place() -> None:
    engine = Engine(refusal=SHUT)
    with pytest.raises(TandemError) as caught:
        choose(engine, registry="mirror.example.org")
    assert str(caught.value) == (
        f"TANDEM_REGISTRY names mirror.example.org, but {SHUT}\n"
        "  'python -m orchestrator doctor network' shows which registries answer;"
        " TANDEM_BASE_IMAGE=tandem/base:bookworm in .env has debootstrap make the image."
    )
    assert engine.ran == []


def test_a_pull_that_breaks_off_is_an_error_with_what_docker_said() -> None:
    engine = Engine(says=("Pulling from library/debian", "filesystem layer verification failed", "=1"))
    with pytest.raises(
        TandemError, match=r"could not be pulled: filesystem layer verification failed\n.*doctor network"
    ):
        choose(engine, registry="mirror.example.org")


@pytest.mark.parametrize(
    "fault",
    [
        "E: Error executing gpgv to check Release signature",
        "E: Failed getting release file http://mirror.example.org/debian/dists/bookworm/Release",
    ],
)
def test_debootstrap_that_fails_is_quoted(programs: Path, fault: str) -> None:
    engine = Engine(refusal=SHUT, says=("I: Retrieving InRelease", fault, "=1"))
    with pytest.raises(TandemError) as caught:
        choose(engine)
    assert str(caught.value).startswith(f"{SHUT}, and debootstrap cannot make the base image: {fault}\n")
    assert "TANDEM_DEBIAN_MIRROR" in str(caught.value)
    assert engine.ran[0].endswith(" http://mirror.example.org/debian")


@pytest.mark.parametrize("user", [0, 1000])
def test_debootstrap_gets_the_proxies_with_their_password_which_no_command_line_shows(
    programs: Path, monkeypatch: pytest.MonkeyPatch, user: int
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: user)
    engine, said = Running(refusal=SHUT), list[str]()
    proxy = "http://me:it's $ecret@127.0.0.1:7890"
    with pytest.raises(TandemError) as caught:
        base.choose(engine, "", "", said.append, proxies={"http_proxy": proxy})  # type: ignore[arg-type]
    assert f" through {proxy}\n" in str(caught.value)
    assert "base image: mode 600" in said
    assert engine.ran[0].startswith("sudo sh " if user else "sh ")
    assert "7890" not in engine.ran[0]


def test_debootstrap_asks_this_machine_for_a_mirror_that_containers_find_outside(programs: Path) -> None:
    engine = Running(refusal=SHUT)
    with pytest.raises(TandemError, match=r"http://127\.0\.0\.1:3142/debian through \n"):
        choose(engine, mirror="http://host.docker.internal:3142/debian")


def test_a_user_without_sudo_is_told_what_else_there_is(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setenv("PATH", str(programs))
    (programs / "sudo").unlink()
    engine = Engine(refusal=SHUT)
    with pytest.raises(TandemError, match=r"there is no sudo\. Run this once as root, install sudo, or name"):
        choose(engine)
    assert engine.ran == []
