"""Each image of versions.toml, as it is really built: gigabytes and minutes for each, so only when asked for."""

import contextlib
import os

import pytest

from orchestrator import cli_verify, versions
from orchestrator.engine import Engine
from orchestrator.versions import Build
from tests.checkout import ROOT, Checkout
from tests.integration.conftest import BUILD_SECONDS

pytestmark = [pytest.mark.docker, pytest.mark.slow]

LISTED = versions.load((ROOT / "docker/vllm/versions.toml").read_text(encoding="utf-8"))
BUILDS = [build for found in LISTED.builds.values() for build in found.values()]


@pytest.mark.parametrize("build", BUILDS, ids=lambda build: build.tag)
def test_an_image_can_be_built_and_is_as_it_should_be(images: Checkout, build: Build) -> None:
    inspect = ["docker", "image", "inspect", build.image]
    was_there = images.run(inspect).returncode == 0
    try:
        arguments = ["--vllm", build.version, "--target", build.variant]
        done = images.tandem("build", "demo", *arguments, seconds=BUILD_SECONDS)
        assert done.returncode == 0, done.stderr[-3000:]
        with contextlib.closing(Engine(ROOT, "tandem-test-verify", os.environ)) as engine:
            found = cli_verify.examine(engine, ROOT, build.image, build, print, profile="demo")
        assert [check for check in found if not check.ok] == []
        assert {check.name for check in found} >= {"vllm", "modelscope", "torch", "vllm serve --help", "compiler"}
    finally:
        if not was_there:
            images.run(["docker", "image", "rm", build.image])
