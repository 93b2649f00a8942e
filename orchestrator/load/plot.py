"""Draws a chart into a PNG, with matplotlib, which nothing else needs and is installed only when asked for."""

import importlib
import io
import math
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.errors import TandemError
from orchestrator.load.chart import Chart, Panel, Point

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INSTALL = "scripts/setup --plot"
# In pixels, for the usual lines of text; what has more of them grows in height.
WIDTH, HEIGHT, DPI = 1200, 500, 100
USUAL_LINES = 5
EDGE = 12
# Points of 1/72 inch, signs in a line of that size across the picture, and pixels from line to line. Names and flags,
# beside the line that they are about, may be of wider letters than the words of the notes.
TITLE_POINTS, TITLE_SIGNS, TITLE_PIXELS = 11.5, 106, 21
TEXT_POINTS, NOTE_SIGNS, LABEL_SIGNS, TEXT_PIXELS = 9.0, 160, 140, 17
# A scale over more of them has a number at each power of ten alone, and not at 2 and 5 of each too.
MOST_DECADES = 4
SOFT = "#444444"
# How far two results are moved apart, in parts of a panel's width: their bars would cover each other.
ASIDE = 0.008


@dataclass(frozen=True)
class Style:
    """How a result is drawn. The two differ in colour, in brightness (so in grey too), in marker and in line."""

    color: str
    marker: str
    line: str


STYLES = (Style("#12396b", "o", "-"), Style("#ec8a2c", "s", "--"))


def prepare(path: Path) -> None:
    """See that a picture can be drawn into a new file. Raises TandemError when not: before, and not after."""
    if path.suffix.lower() != ".png":
        raise TandemError(f"--plot: {path}: should be a file whose name ends in .png")
    if not path.absolute().parent.is_dir():
        raise TandemError(f"--plot: {path}: should be a file in a folder that is there")
    if path.exists() or path.is_symlink():
        raise TandemError(f"--plot: {path}: is there already; name another, or remove it")
    try:
        # All that a PNG takes: it draws, and writes the file.
        importlib.import_module("matplotlib.backends.backend_agg")
    except ImportError as error:
        missing = error.name == "matplotlib"
        what = "needs matplotlib, which is not installed here" if missing else f"matplotlib cannot be loaded ({error})"
        raise TandemError(f"--plot: {what}: {INSTALL}") from None
    except ValueError as error:
        # A variable of the shell that it does not understand, such as MPLBACKEND.
        raise TandemError(f"--plot: matplotlib cannot be loaded: {' '.join(str(error).split())}") from None


def draw(chart: Chart, path: Path) -> None:
    """Draw into a new file. Raises TandemError when it cannot be written; then there is none."""
    picture = png(chart)
    try:
        with path.open("xb") as file:
            try:
                file.write(picture)
                file.flush()
            except BaseException:
                path.unlink()
                raise
    except OSError as error:
        raise TandemError(f"--plot: {path}: cannot be written: {error.strerror or error}") from None


def png(chart: Chart) -> bytes:
    """Draw a chart; the same one gives the same bytes."""
    buffer = io.BytesIO()
    with own_style():
        # Else matplotlib names itself and an address in it.
        figure(chart).savefig(buffer, format="png", metadata={"Title": chart.title, "Software": None})
    return buffer.getvalue()


@contextmanager
def own_style() -> Iterator[None]:
    """Draw as it is meant here, whatever this user's matplotlibrc says."""
    import matplotlib

    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        # A dollar in a name begins no formula.
        matplotlib.rcParams.update({"text.parse_math": False, "axes.titlesize": 10, "font.size": TEXT_POINTS})
        # Signs that its font lacks become boxes, which is all that it would say.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def figure(chart: Chart) -> "Figure":
    """Lay a chart out: title and notes above, a panel for each metric, and below which line is which result."""
    from matplotlib.figure import Figure

    titles = textwrap.wrap(chart.title, TITLE_SIGNS)
    notes = [line for note in chart.notes for line in textwrap.wrap(note, NOTE_SIGNS)]
    labels = [textwrap.wrap(label, LABEL_SIGNS) for label in chart.labels]
    rows = sum(map(len, labels))
    height = HEIGHT + TEXT_PIXELS * max(0, len(titles) + len(notes) + rows - USUAL_LINES)
    above = EDGE + len(titles) * TITLE_PIXELS + len(notes) * TEXT_PIXELS + EDGE // 2
    below = rows * TEXT_PIXELS + (EDGE if rows else 0)
    made = Figure(figsize=(WIDTH / DPI, height / DPI), dpi=DPI)
    made.set_layout_engine("constrained", rect=(0, below / height, 1, 1 - (above + below) / height), w_pad=0.12)
    _above(made, titles, notes, height)
    drawn: list[Any] = []
    for axes, panel in zip(made.subplots(1, len(chart.panels)), chart.panels, strict=True):
        drawn = _panel(axes, panel, chart.ticks)
    if labels:
        made.legend(
            drawn, ["\n".join(lines) for lines in labels], loc="lower left", bbox_to_anchor=(0, 0), frameon=False,
            fontsize=TEXT_POINTS, handlelength=3.5, borderaxespad=0.3, labelspacing=0.3,
        )  # fmt: skip
    return made


def _above(made: "Figure", titles: Sequence[str], notes: Sequence[str], height: int) -> None:
    """Write title and notes, each line below the one before."""
    down = EDGE
    for line in titles:
        made.text(EDGE / WIDTH, 1 - down / height, line, va="top", fontsize=TITLE_POINTS, fontweight="bold")
        down += TITLE_PIXELS
    for line in notes:
        made.text(EDGE / WIDTH, 1 - down / height, line, va="top", fontsize=TEXT_POINTS, color=SOFT)
        down += TEXT_PIXELS


def _panel(axes: "Axes", panel: Panel, ticks: Sequence[int]) -> list[Any]:
    """Draw a panel; what it drew for each result, for the legend."""
    points = [point.at_once for line in panel.lines for point in line if point is not None]
    left, right = math.log2(min(points)), math.log2(max(points))
    # A single concurrency stands in the middle.
    edge = max(0.4, (right - left) * 0.06)
    width = right - left + 2 * edge
    drawn = []
    for place, (line, style) in enumerate(zip(panel.lines, STYLES, strict=False)):
        aside = ASIDE * width * (2 * place - 1) if len(panel.lines) > 1 else 0
        drawn.append(_line(axes, line, style, 2.0**aside, place))
    axes.set_title(panel.title)
    axes.set_xlabel("requests at once")
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.set_xlim(2 ** (left - edge), 2 ** (right + edge))
    _values(axes, panel)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(visible=True, color="#dddddd", linewidth=0.7)
    axes.set_axisbelow(True)
    return drawn


def _line(axes: "Axes", line: Sequence[Point | None], style: Style, aside: float, place: int) -> Any:
    nothing = float("nan")
    spreads = [point and point.spread for point in line]
    return axes.errorbar(
        [point.at_once * aside if point else nothing for point in line],
        [spread.median if spread else nothing for spread in spreads],
        yerr=[
            [spread.median - spread.low if spread else nothing for spread in spreads],
            [spread.high - spread.median if spread else nothing for spread in spreads],
        ],
        color=style.color, marker=style.marker, linestyle=style.line, linewidth=1.6, markersize=6, capsize=4,
        elinewidth=1.2, zorder=3 + place,
    )  # fmt: skip


def _values(axes: "Axes", panel: Panel) -> None:
    """Scale the axis of the values; its numbers stand there whole, with no power of ten beside them."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    if panel.log:
        few = math.log10(panel.high / panel.low) < MOST_DECADES
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.set_ylabel("log scale", color=SOFT)
    # Room for a marker that stands at an end.
    beyond = (panel.high / panel.low) ** 0.03 if panel.log else 1
    axes.set_ylim(panel.low / beyond, panel.high * beyond)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
