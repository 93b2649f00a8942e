"""Which base image is taken, and why; what a registry that is none leads to."""

import pytest

from orchestrator import base, host
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


def choose(engine: Engine, wanted: str = "", registry: str = "", **proxies: str) -> Base:
    mirror = "http://mirror.example.org/debian"
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


@pytest.mark.skipif(not host.debootstrap(), reason="debootstrap is not installed")
@pytest.mark.parametrize(
    "fault",
    [
        "E: Error executing gpgv to check Release signature",
        "E: Failed getting release file http://mirror.example.org/debian/dists/bookworm/Release",
    ],
)
def test_debootstrap_that_fails_is_quoted_and_goes_through_the_proxies(fault: str) -> None:
    engine = Engine(refusal=SHUT, says=("I: Retrieving InRelease", fault, "=1"))
    with pytest.raises(TandemError) as caught:
        choose(engine, http_proxy="http://127.0.0.1:7890")
    assert str(caught.value).startswith(f"{SHUT}, and debootstrap cannot make the base image: {fault}\n")
    assert "TANDEM_DEBIAN_MIRROR" in str(caught.value)
    assert " http_proxy=http://127.0.0.1:7890 debootstrap " in engine.ran[0]
    assert engine.ran[0].endswith(" http://mirror.example.org/debian")
