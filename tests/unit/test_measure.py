"""scripts/measure: bytes are counted once, medians shown, and an image that there is not is named."""

import os
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import TandemError
from tests.unit.values import profile, project, script

measure, inside = script("scripts/measure.py"), script("docker/vllm/verify/measure.py")
FOUND: dict[str, Any] = {
    "image": "tandem/vllm:0.32.0-cu130",
    "again": [0.7, 0.5, 0.6],
    "changed patch": [1.0, 30.0, 2.0],
    "size": 10_400_000_000,
    "packages": 10_000_000_000,
    "compiled": 500_000_000,
    "of": {f"package{number}": 10**9 - number for number in range(9)},
    "help": {"compiled": [9.0, 8.0, 10.0], "not compiled": [16.0, 16.0, 16.0]},
}


def test_the_table_shows_medians_and_what_is_beside_the_packages() -> None:
    shown = measure.table(FOUND).splitlines()
    assert shown[0] == "tandem/vllm:0.32.0-cu130"
    assert shown[1:5] == [
        "  build, nothing cached   not measured (--empty-build-cache)",
        "  build again             0.6 s (0.5 to 0.7, 3 runs)",
        "  build, a patch changed  2.0 s (1.0 to 30.0, 3 runs)",
        "  size                    10.40 GB",
    ]
    assert "  all else              400 MB, 4.0 % of the packages" in "\n".join(shown)
    assert len([line for line in shown if line.startswith("      package")]) == measure.SHOWN
    assert shown[-2:] == [
        "  vllm serve --help       9.0 s (8.0 to 10.0, 3 runs)",
        "    not byte-compiled     16.0 s (16.0 to 16.0, 3 runs)",
    ]
    assert max(map(len, shown)) <= 80


def test_a_first_build_and_an_image_without_patches_are_told_of() -> None:
    shown = measure.table(FOUND | {"cold": 93.0, "changed patch": []})
    assert "  build, nothing cached   93.0 s\n" in shown
    assert "  build, a patch changed  it has no patch\n" in shown


def test_the_default_versions_images_are_measured_unless_others_are_named() -> None:
    whole = project(profile())
    assert [build.tag for build in measure.chosen(whole, [])] == ["0.32.0-cu130", "0.32.0-cpu"]
    assert [build.tag for build in measure.chosen(whole, ["0.7.3-cu124"])] == ["0.7.3-cu124"]
    with pytest.raises(TandemError) as caught:
        measure.chosen(whole, ["0.7.3"])
    assert str(caught.value) == "0.7.3: no such image; there are: 0.32.0-cu130, 0.32.0-cpu, 0.7.3-cu124"


@pytest.mark.parametrize("runs", ["0", "-1", "many"])
def test_a_number_of_runs_that_is_none_is_refused(runs: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        measure.options([f"--runs={runs}"])
    assert ended.value.code == 2
    assert "--runs" in capsys.readouterr().err


def test_every_file_counts_once(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/one.py").write_bytes(bytes(1000))
    (tmp_path / "a/b/one.pyc").write_bytes(bytes(300))
    os.link(tmp_path / "a/one.py", tmp_path / "a/b/same.py")
    (tmp_path / "c.py").write_bytes(bytes(20))
    assert inside.sizes(tmp_path) == (1320, 300)
    assert list(inside.packages(tmp_path).items()) == [("a", 1300), ("c.py", 20)]
