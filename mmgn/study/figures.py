"""The paper's two figures, drawn from study.csv: a metric by batch size, and by the number of groups."""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import NullLocator

from mmgn.engine.files import write_whole
from mmgn.report.curves import STYLE, clear, png
from mmgn.study import quoted
from mmgn.study.results import GROUP_KINDS, METRICS, Row, by_seed, group_series, read_csv, settings_over_batches

# Okabe and Ito's colours, told apart with any colour vision; markers differ as well.
LOOKS = {
    "GN": ("#0072B2", "o"),
    "BN": ("#D55E00", "s"),
    "BN*": ("#E69F00", "D"),
    "SyncBN": ("#000000", "P"),
    "LN": ("#009E73", "^"),
    "IN": ("#CC79A7", "v"),
}
#: Of several group numbers or batch sizes; what is quoted is dashed.
DASHES: tuple[Any, ...] = ("-", ":", "-.", (0, (1, 4)))
QUOTED = "--"
#: Between the lines of a panel, in octaves of x.
ASIDE = 0.05
WIDTH_INCHES, ROW_INCHES, COLUMNS = 9.0, 3.0, 3


@dataclass(frozen=True)
class Line:
    """The seeds' figures at each x; ``look`` is a norm's colour and marker."""

    label: str
    cells: Mapping[int, Sequence[float]]
    look: tuple[str, str]
    dashes: Any = "-"


@dataclass(frozen=True)
class Panel:
    """Lines over a logarithmic axis, largest left as in the paper; ``names`` are those of x that have one."""

    title: str
    x_label: str
    y_label: str
    lines: Sequence[Line]
    names: Mapping[int, str]


def draw(csv_path: Path, out_dir: Path) -> list[Path]:
    """Draw ``batch_sizes.png`` and ``groups.png`` from a study.csv, and return the paths of those written.

    Lines are means over seeds, bars their sample standard deviations, small dots the seeds. What is not measured yet
    is a gap, and a picture in which nothing would be measured is not drawn.

    Raises:
        ValueError: the file is no study.csv.
    """
    _, rows = read_csv(Path(csv_path))
    panels = batch_panels(rows)
    batches = [panels[start : start + COLUMNS] for start in range(0, len(panels), COLUMNS)]
    written = []
    for name, grid, share_y in (("batch_sizes", batches, False), ("groups", group_panels(rows), True)):
        if grid:
            path = Path(out_dir) / f"{name}.png"
            with matplotlib.rc_context(STYLE):
                write_whole(path, png(figure_of(grid, share_y)))
            written.append(path)
    return written


def batch_panels(rows: Sequence[Row]) -> list[Panel]:
    """Return a panel for each metric on each data set, a line a norm, and the paper's beside classification."""
    panels = []
    for own, metric in _measured(rows):
        lines = []
        settings = settings_over_batches(own)
        sizes = sorted({row.batch_size for row in own})
        for setting in settings:
            same = [s for s in settings if s.norm == setting.norm]
            cells = {size: list(by_seed(own, setting, size, metric).values()) for size in sizes}
            label = setting.norm if len(same) == 1 else str(setting)
            if any(cells.values()):
                lines.append(Line(label, cells, LOOKS[setting.norm], DASHES[same.index(setting) % len(DASHES)]))
        panels.append(Panel(own[0].data, "batch size of a process", str(METRICS[metric]), lines, {}))
    if panels and any(row.task == "classification" for row in rows):
        lines = [Line(norm, _single(errors), LOOKS[norm], QUOTED) for norm, errors in quoted.batch_sizes().items()]
        panels.append(Panel(quoted.MARK, "batch size of a GPU", str(METRICS["top1_error"]), lines, {}))
    return panels


def group_panels(rows: Sequence[Row]) -> list[list[Panel]]:
    """Return a row of panels for each metric on each data set, and the paper's below classification.

    In a row are the number of groups and that of channels a group, as far as they are varied.
    """
    grid: list[list[Panel]] = []
    for own, metric in _measured(rows):
        lines: dict[str, list[Line]] = {}
        for series in group_series(own):
            cells = {
                number: list(by_seed(own, setting, series.batch_size, metric).values())
                for number, setting in series.settings.items()
            }
            if any(cells.values()):
                same = lines.setdefault(series.kind, [])
                same.append(Line(f"batch {series.batch_size}", cells, LOOKS["GN"], DASHES[len(same) % len(DASHES)]))
        if lines:
            grid.append([_group_panel(own[0].data, kind, metric, same) for kind, same in lines.items()])
    if grid and any(row.task == "classification" for row in rows):
        label = f"batch {quoted.NORMS_BATCH_SIZE}, quoted"
        lines = {kind: [Line(label, _single(errors), LOOKS["GN"], QUOTED)] for kind, errors in quoted.groups().items()}
        grid.append([_group_panel(quoted.MARK, kind, "top1_error", same) for kind, same in lines.items()])
    return grid


def figure_of(grid: Sequence[Sequence[Panel]], share_y: bool = False) -> Figure:
    """Draw rows of panels, which may share their y axis, with one legend below."""
    columns = max(map(len, grid))
    width = WIDTH_INCHES if columns > 1 else WIDTH_INCHES / 2
    layout = ConstrainedLayoutEngine(w_pad=0.08, wspace=0.02)
    figure = Figure(figsize=(width, ROW_INCHES * len(grid) + 0.3), layout=layout)
    handles: dict[str, Any] = {}
    for index, panels in enumerate(grid):
        axes = None
        for column, panel in enumerate(panels, 1):
            axes = figure.add_subplot(len(grid), columns, index * columns + column, sharey=axes if share_y else None)
            _draw_panel(axes, panel)
            for line, drawn in zip(panel.lines, axes.lines, strict=True):
                handles.setdefault(line.label, drawn)
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=6, frameon=False)
    return figure


def _draw_panel(axes: Axes, panel: Panel) -> None:
    for index, line in enumerate(panel.lines):
        color, marker = line.look
        # Side by side, as bars would hide each other.
        aside = 2 ** (ASIDE * ((len(panel.lines) - 1) / 2 - index))
        places = sorted(line.cells, reverse=True)
        x, values = [place * aside for place in places], [line.cells[place] for place in places]
        # A gap in the line stands for what is not measured.
        means = [statistics.fmean(own) if own else math.nan for own in values]
        spreads = [statistics.stdev(own) if len(own) > 1 else 0.0 for own in values]
        axes.plot(x, means, color=color, marker=marker, markersize=5, linewidth=1.5, linestyle=line.dashes)
        axes.errorbar(x, means, spreads, fmt="none", ecolor=color, elinewidth=1.2)
        seeds = [(place, value) for place, own in zip(x, values, strict=True) for value in own if len(own) > 1]
        axes.scatter([place for place, _ in seeds], [value for _, value in seeds], s=6, color=color, alpha=0.6)
    places = sorted({place for line in panel.lines for place in line.cells})
    axes.set_xscale("log", base=2)
    axes.set_xticks(places, [panel.names.get(place, str(place)) for place in places])
    axes.xaxis.set_minor_locator(NullLocator())
    # Half a step beyond the ends, so that a single place has an axis, too.
    axes.set_xlim(places[-1] * 2**0.5, places[0] / 2**0.5)
    axes.set_title(panel.title, loc="left", fontsize=9)
    axes.set_xlabel(panel.x_label)
    axes.set_ylabel(panel.y_label)
    clear(axes)


def _group_panel(title: str, kind: str, metric: str, lines: Sequence[Line]) -> Panel:
    words, extreme = GROUP_KINDS[kind]
    return Panel(title, words, str(METRICS[metric]), lines, {1: f"1 ({extreme})"})


def _single(figures: Mapping[int, float]) -> dict[int, list[float]]:
    return {place: [figure] for place, figure in figures.items()}


def _measured(rows: Sequence[Row]) -> Iterator[tuple[list[Row], str]]:
    """Yield the rows of a task's data set with each metric that some of them have."""
    for task, data in dict.fromkeys((row.task, row.data) for row in rows):
        own = [row for row in rows if (row.task, row.data) == (task, data)]
        yield from ((own, metric) for metric in METRICS if any(metric in row.figures for row in own))
