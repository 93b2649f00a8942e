"""A disk that is too small for a model, and one that fills while it comes."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.checkout import PATIENCE
from tests.integration.conftest import Stack, stack
from tests.integration.hub import Hub, hub, prepare
from tests.integration.test_failures import fault
from tests.integration.test_pull import MEGABYTE, STALL, under_way

pytestmark = pytest.mark.docker
pytest_plugins = ("tests.integration.engine",)

MODELS = """
[models.fits]
model = "Tandem/fits"
image = "cpu"

[models.too-large]
model = "Tandem/too-large"
image = "cpu"
"""
MEGABYTES = 50


@pytest.fixture
def tight(root: None, images: Any, tmp_path: Path) -> Iterator[tuple[Stack, Hub]]:
    """A stack whose weights are on a really small disk, and its hub."""
    for made in stack(tmp_path, "tandem-test-tight"):
        weights = made.folder / "weights"
        weights.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={MEGABYTES}000k,uid=1000", "tmpfs", weights], check=True)
        try:
            prepare(made, MODELS, MODELSCOPE_ENDPOINT="http://hub:8080")
            with hub(made) as beside:
                yield made, beside
        finally:
            made.take_away()
            subprocess.run(["umount", weights], check=True)


def test_space_is_checked_first_and_a_disk_that_fills_all_the_same_loses_nothing(tight: tuple[Stack, Hub]) -> None:
    tandem, beside = tight
    weights = tandem.folder / "weights"
    beside.make("Tandem/too-large", a=30 * MEGABYTE, b=40 * MEGABYTE)
    said = fault(tandem.tandem("pull", "too-large"), 1)
    assert "Tandem/too-large takes 70.0 MB more, and 51" in said
    assert "'models remove NAME' makes room" in said
    assert beside.by_file() == {}
    files = beside.make("Tandem/fits", model=40 * MEGABYTE)
    beside.start_over(stall_after=STALL)
    started = under_way(tandem, "fits", least=3 * MEGABYTE)
    # Another program takes what was free.
    with (weights / "other").open("wb") as other:
        other.write(bytes(25 * MEGABYTE))
    # Slowly: what was on its way when the disk was full is asked for again.
    beside.control(stall_after=None, rate=8 * MEGABYTE)
    _, told = started.communicate(timeout=PATIENCE)
    assert started.returncode == 1
    assert "the disk with the weights is full. 'python -m orchestrator models' shows what is there." in told
    assert "Traceback" not in told
    (weights / "other").unlink()
    again = tandem.tandem("pull", "fits")
    assert again.returncode == 0, again.stderr
    assert (weights / "Tandem/fits/model.safetensors").read_bytes() == files["model.safetensors"]
    assert beside.total() < 42 * MEGABYTE
