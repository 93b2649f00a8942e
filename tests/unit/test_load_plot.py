"""Pictures of results: what they say, that nothing in them overlaps, and what is refused before."""

import itertools
import math
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import TandemError
from orchestrator.load import chart, plot
from orchestrator.load.chart import Chart, Point, describe
from orchestrator.load.results import Result, Server, Spread, case
from tests.unit.loads import GIB, MACHINE, OPTIONS, result, run
from tests.unit.values import ROOT

NAMES = ("qwen-14b-20261122T030405", "qwen-14b-20261123T030405")
BAD = run(failed=1, faults=("1 failed: x",))


def server(*flags: str) -> Server:
    return Server(vllm="0.32.0", image="i", image_id="sha256:1", command=("vllm", "serve", "/models/q", *flags))


# --- what it says -----------------------------------------------------------------------------------------------------


def test_one_result_says_what_was_measured_of_what_where_and_when() -> None:
    found = describe((NAMES[0], result((1, [100, 90, 110]), (16, [900, 950, 1000]))))
    assert found.title == (
        "qwen-14b (Qwen/Qwen2.5-14B-Instruct) · vLLM 0.32.0 · NVIDIA GeForce RTX 4090 · 2026-11-22 03:04 UTC"
    )
    assert found.notes == (
        "prompts of 64 random tokens, answers of 16; 3 runs of 2 requests for each at once; "
        "points are medians, bars go from the least to the most of the runs",
    )
    assert (found.labels, found.ticks) == ((), (1, 16))
    assert [panel.title for panel in found.panels] == [
        "output tokens a second (more is better)",
        "time to first token, ms (less is better)",
        "time per token after it, ms (less is better)",
    ]
    assert found.panels[0].lines == (
        (Point(1, Spread(median=100, low=90, high=110)), Point(16, Spread(median=950, low=900, high=1000))),
    )


def test_two_results_say_together_what_is_the_same_and_each_what_is_not() -> None:
    a = result((1, [100]), server=server("--enforce-eager", "--max-num-seqs", "64", "--seed", "1"))
    b = result((1, [200]), server=server("--max-num-seqs", "64", "--seed", "2"), date="2026-11-23T03:04:05Z")
    found = describe((NAMES[0], a), (NAMES[1], b))
    assert found.title == "qwen-14b (Qwen/Qwen2.5-14B-Instruct) · vLLM 0.32.0 · NVIDIA GeForce RTX 4090"
    assert found.labels == (
        f"A  {NAMES[0]} · 2026-11-22 03:04 UTC · flags: --enforce-eager 1",
        f"B  {NAMES[1]} · 2026-11-23 03:04 UTC · flags: 2",
    )


def test_two_results_of_different_things_say_so() -> None:
    options = OPTIONS.model_copy(update={"input": 9, "runs": 1, "per": 1})
    other = result((4, [2]), model="x", profile="x", options=options, machine=MACHINE.model_copy(update={"gpus": ()}))
    found = describe((NAMES[0], result((1, [1]))), ("x-20261122T030405", other))
    assert found.title == "vLLM 0.32.0 · 2026-11-22 03:04 UTC"
    assert found.labels[1] == (
        "B  x-20261122T030405 · x (x) · AMD Ryzen 9 7950X 16-Core Processor (32 cores) · "
        "prompts of 9 random tokens, answers of 16 · a single run of 1 request for each at once"
    )
    assert found.ticks == (1, 4)


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ((), "AMD Ryzen 9 7950X 16-Core Processor (32 cores)"),
        (("RTX 4090", "RTX 4090"), "2x RTX 4090"),
        (("RTX 4090", "H100", "RTX 4090"), "2x RTX 4090 + H100"),
    ],
)
def test_gpus_are_counted_and_without_any_it_is_the_processor(names: Sequence[str], told: str) -> None:
    gpus = tuple({"index": place, "name": name, "memory": 24 * GIB} for place, name in enumerate(names))
    assert chart.hardware(type(MACHINE)(cpu=MACHINE.cpu, cores=32, driver="", gpus=gpus)) == told


def test_what_failed_has_no_point_and_a_line_that_breaks_and_is_named() -> None:
    cases = (case(16, [run(), run()]), case(4, [BAD]), case(1, [run(), BAD]))
    a = result(cases=cases)
    found = describe(("a", a))
    assert [point and point.at_once for point in found.panels[0].lines[0]] == [1, None, 16]
    assert found.notes[1:] == ("not drawn, as a request failed in every run: 4 at once",)
    assert describe(("a", a), ("b", result((1, [1]))) ).notes[1:] == (
        "not drawn, as a request failed in every run: 4 at once (A)",
    )  # fmt: skip


def test_where_nothing_is_whole_there_is_nothing_to_draw() -> None:
    with pytest.raises(TandemError, match="nothing to draw: in every run of a and b a request failed"):
        describe(("a", result(cases=(case(1, [BAD]),))), ("b", result(cases=(case(4, [BAD]),))))


@pytest.mark.parametrize(
    ("throughputs", "ends", "log"),
    [
        ([[100, 100], [1900, 2000]], (0, 2120), False),
        ([[90, 100], [1900, 2000]], (50, 2000), True),
        ([[0.3, 0.3], [1234, 1234]], (0.2, 2000), True),
        ([[100, 100], [10000, 10000]], (100, 10000), True),
        ([[1e-3, 1e-3], [6e6, 6e6]], (1e-3, 1e7), True),
    ],
)
def test_a_wide_range_gets_a_logarithmic_scale_whose_ends_are_numbers(
    throughputs: list[list[float]], ends: tuple[float, float], log: bool
) -> None:
    panel = describe(("a", result((1, throughputs[0]), (4, throughputs[1])))).panels[0]
    assert (panel.low, panel.high) == pytest.approx(ends)
    assert panel.log == log


def test_times_of_nothing_have_a_scale_too() -> None:
    none = run(metrics=run().metrics | {"ttft_ms": 0.0})
    panel = describe(("a", result(cases=(case(1, [none]),)))).panels[1]
    assert (panel.low, panel.high, panel.log) == (0, 1, False)


@pytest.mark.parametrize(
    ("there", "told"),
    [
        ((8,), (8,)),
        ((1, 4, 16, 64), (1, 4, 16, 64)),
        ((1, 2, 4, 8, 16, 32, 64, 128), (1, 2, 4, 8, 16, 32, 64, 128)),
        (tuple(2**n for n in range(11)), (1, 4, 16, 64, 256, 1024)),
        (tuple(range(1, 33)), (1, 2, 3, 5, 8, 12, 18, 27)),
        ((1, 1000, 1024), (1, 1000)),
    ],
)
def test_numbers_below_the_axis_leave_room_for_one_another(there: tuple[int, ...], told: tuple[int, ...]) -> None:
    assert chart.ticks(there) == told


# --- how it is drawn --------------------------------------------------------------------------------------------------


def steps(*at_once: int, factor: float = 1.0) -> list[tuple[int, list[float]]]:
    return [(each, [factor * each * 10, factor * each * 11, factor * each * 13]) for each in at_once]


USUAL = result(*steps(1, 4, 16, 64))
FASTER = result(*steps(1, 4, 16, 64, factor=3.2), date="2026-11-23T03:04:05Z")
# As much text as there may be, of signs that are none of the font's, begin formulas elsewhere, or never end.
OTHER_GPU = MACHINE.gpus[0].model_copy(update={"name": "x" * 99})
LONG = result(
    *steps(*(2**n for n in range(11)), factor=1e3),
    profile="p" * 63,
    model="深度求索/" + "a-model_of$money$" * 30,
    machine=MACHINE.model_copy(update={"gpus": (*MACHINE.gpus, OTHER_GPU)}),
    server=server(*(f"--flag-{n} {'v' * n}" for n in range(60))),
)  # fmt: skip
CHARTS: dict[str, Chart] = {
    "one": describe((NAMES[0], USUAL)),
    "two": describe((NAMES[0], USUAL), (NAMES[1], FASTER)),
    "a single point": describe(("a", result((8, [100.0])))),
    "two single points": describe(("a", result((8, [100.0]))), ("b", result((1024, [1.0])))),
    "many": describe(("a", result(*steps(*range(1, 65))))),
    "up to 1024": describe(("a", result(*steps(*(2**n for n in range(11)))))),
    "large and small": describe(("a", result((1, [1e-4, 2e-4]), (1024, [3e6, 4e6])))),
    "all of one size": describe(("a", result((1, [123456.0, 123457.0]), (2, [123456.5])))),
    "a gap": describe(("a", result(cases=(case(1, [run()]), case(4, [BAD]), case(16, [run()]))))),
    "long": describe(("name-of-20" * 25, USUAL), ("another_one" * 22, LONG)),
}  # fmt: skip


def boxes(made: Any) -> dict[str, Any]:
    """The texts that are seen, each with where it is, in pixels."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text

    canvas = FigureCanvasAgg(made)
    canvas.draw()
    hidden = beyond(made)
    return {
        f"{place}: {text.get_text()}": text.get_window_extent(canvas.get_renderer())
        for place, text in enumerate(made.findobj(Text))
        if text.get_visible() and text.get_text() and text not in hidden
    }


def beyond(made: Any) -> list[Any]:
    """The numbers beyond the ends of their axis, which are not drawn."""
    return [
        label
        for axes in made.axes
        for axis, (low, high) in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim()))
        for at, label in zip(axis.get_ticklocs(), axis.get_ticklabels(), strict=True)
        if not low <= at <= high
    ]


@pytest.mark.parametrize("name", CHARTS)
def test_nothing_overlaps_and_nothing_runs_out_of_the_picture(name: str) -> None:
    with plot.own_style():
        made = plot.figure(CHARTS[name])
        found = boxes(made)
    assert len(found) > 15
    for text, box in found.items():
        assert 0 <= box.x0 <= box.x1 <= made.bbox.x1, text
        assert 0 <= box.y0 <= box.y1 <= made.bbox.y1, text
    for (one, here), (other, there) in itertools.combinations(found.items(), 2):
        assert not here.overlaps(there), f"{one!r} and {other!r}"
    panels = [axes.get_window_extent() for axes in made.axes]
    assert all(panel.height > 200 and panel.width > 200 for panel in panels)
    for text, box in found.items():
        # In the panels themselves nothing is written.
        assert not [panel for panel in panels if panel.overlaps(box)], text
    # Markers and the ends of bars are drawn whole.
    for axes, panel in zip(made.axes, panels, strict=True):
        for line, _, _ in axes.containers:
            points = axes.transData.transform(line.get_xydata())
            assert all(panel.y0 + 3 <= y <= panel.y1 - 3 for _, y in points if not math.isnan(y)), name


def test_a_picture_is_a_png_of_1200_by_500_and_grows_for_long_texts() -> None:
    sizes = {}
    for name in ("one", "two", "long"):
        picture = plot.png(CHARTS[name])
        assert picture.startswith(b"\x89PNG\r\n")
        sizes[name] = struct.unpack(">II", picture[16:24])
        # Nobody's address and nobody's name but ours is in it.
        assert b"matplotlib" not in picture
    assert sizes["one"] == sizes["two"] == (1200, 500)
    assert sizes["long"][0] == 1200
    assert sizes["long"][1] > 500


def test_the_same_chart_is_the_same_picture() -> None:
    assert plot.png(CHARTS["two"]) == plot.png(CHARTS["two"])


def test_bars_and_points_are_where_they_belong() -> None:
    with plot.own_style():
        made = plot.figure(CHARTS["two"])
    [lower, upper] = made.axes[0].containers
    for drawn, factor, aside in ((lower, 1.0, -1), (upper, 3.2, 1)):
        line, _, [bars] = drawn
        assert list(line.get_ydata()) == pytest.approx([each * 11 * factor for each in (1, 4, 16, 64)])
        for at, x in zip((1, 4, 16, 64), line.get_xdata(), strict=True):
            # Beside its number, and close to it.
            assert (x > at) == (aside > 0)
            assert x == pytest.approx(at, rel=0.06)
        ends = [(segment[0][1], segment[1][1]) for segment in bars.get_segments()]
        assert ends == [pytest.approx((each * 10 * factor, each * 13 * factor)) for each in (1, 4, 16, 64)]
    assert made.axes[0].get_xscale() == "log"
    single = plot.figure(CHARTS["one"]).axes[0].containers[0]
    assert list(single[0].get_xdata()) == [1, 4, 16, 64]


def test_the_two_differ_also_without_colour() -> None:
    def grey(color: str) -> float:
        # Rec. 601's luma, from 0 to 1.
        red, green, blue = (int(color[at : at + 2], 16) / 255 for at in (1, 3, 5))
        return 0.299 * red + 0.587 * green + 0.114 * blue

    one, other = plot.STYLES
    assert one.marker != other.marker
    assert one.line != other.line
    assert abs(grey(one.color) - grey(other.color)) > 0.3
    # And both from the paper.
    assert max(grey(one.color), grey(other.color)) < 0.7


def test_what_a_user_set_for_matplotlib_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\nfont.size: 40\nfigure.dpi: 30\naxes.grid: True\n")
    program = (
        "import sys; from tests.unit.test_load_plot import CHARTS; from orchestrator.load import plot; "
        "sys.stdout.buffer.write(plot.png(CHARTS['two']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env={"PYTHONPATH": str(ROOT), "HOME": str(tmp_path)},
        capture_output=True, check=True,
    )  # fmt: skip
    assert done.stdout == plot.png(CHARTS["two"])


# --- where it goes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "fact"),
    [
        ("there.png", "is there already; name another, or remove it"),
        ("link.png", "is there already; name another, or remove it"),
        ("folder.png", "is there already; name another, or remove it"),
        ("none/new.png", "should be a file in a folder that is there"),
        ("there.png/new.png", "should be a file in a folder that is there"),
        ("new.jpg", "should be a file whose name ends in .png"),
        ("new", "should be a file whose name ends in .png"),
        (".png", "should be a file whose name ends in .png"),
        ("", "should be a file whose name ends in .png"),
    ],
)
def test_a_file_that_cannot_be_is_refused(tmp_path: Path, name: str, fact: str) -> None:
    (tmp_path / "there.png").write_text("kept")
    (tmp_path / "link.png").symlink_to("nowhere")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(TandemError) as caught:
        plot.prepare(tmp_path / name)
    assert str(caught.value) == f"--plot: {tmp_path / name}: {fact}"
    assert (tmp_path / "there.png").read_text() == "kept"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.png", "link.png", "there.png"]


def test_a_file_that_can_be_is_not_made_before_it_is_drawn(tmp_path: Path) -> None:
    path = tmp_path / "new.PNG"
    plot.prepare(path)
    assert not path.exists()
    plot.draw(CHARTS["one"], path)
    assert path.read_bytes() == plot.png(CHARTS["one"])


def test_what_came_into_its_place_meanwhile_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "new.png"
    path.write_text("another's")
    with pytest.raises(TandemError, match=r"--plot: .*new\.png: cannot be written: File exists"):
        plot.draw(CHARTS["one"], path)
    assert path.read_text() == "another's"


def test_a_full_disk_leaves_no_half_picture(tmp_path: Path) -> None:
    path = tmp_path / "new.png"
    # A limit of the kernel's on a file's size stands for a disk that is full.
    program = (
        "import resource, signal, sys; from pathlib import Path; from tests.unit.test_load_plot import CHARTS; "
        "from orchestrator.load import plot; plot.png(CHARTS['one']); signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)); plot.draw(CHARTS['one'], Path(sys.argv[1]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], env={"PYTHONPATH": str(ROOT), "HOME": str(tmp_path)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stderr.splitlines()[-1] == (
        f"orchestrator.errors.TandemError: --plot: {path}: cannot be written: File too large"
    )
    assert not path.exists()


@pytest.mark.parametrize(
    ("module", "told"),
    [
        ("raise ModuleNotFoundError('no', name='matplotlib')", "needs matplotlib, which is not installed here"),
        ("raise ImportError('libz.so.1: no such file')", "matplotlib cannot be loaded (libz.so.1: no such file)"),
    ],
)  # fmt: skip
def test_without_matplotlib_the_line_says_what_installs_it(tmp_path: Path, module: str, told: str) -> None:
    (tmp_path / "matplotlib.py").write_text(f"{module}\n")
    program = "import sys; from pathlib import Path; from orchestrator.load import plot; plot.prepare(Path('x.png'))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env={"PYTHONPATH": f"{tmp_path}:{ROOT}"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stderr.splitlines()[-1] == f"orchestrator.errors.TandemError: --plot: {told}: scripts/setup --plot"


def test_a_backend_that_there_is_not_is_named_by_its_variable(tmp_path: Path) -> None:
    program = "from pathlib import Path; from orchestrator.load import plot; plot.prepare(Path('x.png'))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env={"PYTHONPATH": str(ROOT), "MPLBACKEND": "nonsense"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    last = done.stderr.splitlines()[-1]
    assert last.startswith("orchestrator.errors.TandemError: --plot: matplotlib cannot be loaded: ")
    assert "'nonsense'" in last


def test_results_of_one_kind_are_not_changed_by_being_drawn() -> None:
    before = USUAL.model_dump()
    plot.png(CHARTS["one"])
    assert Result(**before) == USUAL
