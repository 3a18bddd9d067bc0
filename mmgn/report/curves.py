"""Curves of a run: loss, parts of the loss, AP, learning rate."""

import io
import math
import re
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mmgn.report.workdir import WorkDir

# Of middling lightness: legible on white and on near-black.
COLORS = ("#3b7dd8", "#d9770a", "#2a9d6f", "#c2528b", "#7c6fd0", "#14919b", "#b5651d", "#858c96")
# Everything that is no data is drawn in this colour, which the page replaces by that of its text.
INK = "#1c2128"
STYLE: Any = {
    "text.parse_math": False,
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}
SIZE_INCHES = (4.6, 3.0)
MARKER_LIMIT = 40

Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Curve:
    """A drawn figure: ``svg`` takes the colour of the surrounding text, ``png`` is dark on white."""

    name: str
    title: str
    caption: str
    svg: str
    png: bytes


def draw_curves(work: WorkDir) -> list[Curve]:
    """Draw the curves that the logs have points for; points that are not finite are gaps."""
    parts = [key for key in _keys(work.train) if "loss" in key and key != "loss"]
    rates = [key for key in _keys(work.train) if key == "lr" or key.endswith(".lr")]
    scores = [key for key in _keys(work.val) if key.endswith(("_mAP", "_mAP_50"))]
    position, unit = _val_axis(work)
    plans: list[tuple[str, str, str, list[dict[str, Any]], str, list[str]]] = [
        ("loss", "Total loss", "iteration", work.train, "step", ["loss"]),
        ("loss-parts", "Parts of the loss", "iteration", work.train, "step", parts),
        ("val-ap", "AP in per cent, validations as logged", unit, work.val, position, scores),
        ("lr", "Learning rate", "iteration", work.train, "step", rates),
    ]
    curves = []
    for name, title, x_label, lines, x_key, keys in plans:
        series = {key: _points(lines, x_key, key) for key in keys}
        series = {key: points for key, points in series.items() if points}
        if series:
            caption = f"{title} by {x_label}. {_last(series, x_label)}"
            curves.append(Curve(name, title, caption, *_draw(name, x_label, series)))
    return curves


def _keys(lines: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(key for line in lines for key in line))


def _points(lines: list[dict[str, Any]], x_key: str, key: str) -> Points:
    points = [(line[x_key], line[key]) for line in lines if isinstance(line.get(key), (int, float))]
    # pycocotools' -1 stands for no figure.
    return [(x, 100 * y) for x, y in points if y >= 0] if "_mAP" in key else points


def _val_axis(work: WorkDir) -> tuple[str, str]:
    """Return the key and the unit of a validation's place.

    LoggerHook writes the epoch as ``step``; when training by iterations that stays 0, unless
    ``log_metric_by_epoch=False`` makes it the iteration.
    """
    steps = [line["step"] for line in work.val]
    if len(set(steps)) < len(steps):
        return "after", "iteration"
    return "step", "epoch" if any("epoch" in line for line in work.train) else "iteration"


def _last(series: dict[str, Points], x_label: str) -> str:
    last = "; ".join(f"{key} {points[-1][1]:.4g}" for key, points in series.items())
    return f"Last, at {x_label} {next(iter(series.values()))[-1][0]}: {last}."


def _draw(name: str, x_label: str, series: dict[str, Points]) -> tuple[str, bytes]:
    with matplotlib.rc_context(STYLE | {"svg.fonttype": "none", "svg.hashsalt": name}):
        height = SIZE_INCHES[1] + 0.18 * max(0, (len(series) - 1) // 2)
        figure = Figure(figsize=(SIZE_INCHES[0], height), layout="constrained")
        axes = figure.add_subplot()
        for index, points in enumerate(series.values()):
            marker = "o" if len(points) <= MARKER_LIMIT else None
            # Non-finite values break the line where they are.
            y = [value if math.isfinite(value) else math.nan for _, value in points]
            axes.plot(
                [x for x, _ in points],
                y,
                color=COLORS[index % len(COLORS)],
                linestyle="-" if index < len(COLORS) else "--",
                linewidth=1.5,
                marker=marker,
                markersize=3,
            )
        axes.set_xlabel(x_label)
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
        places = {x for points in series.values() for x, _ in points}
        if len(places) == 1:
            axes.set_xlim(min(places) - 1, min(places) + 1)
        clear(axes)
        if len(series) > 1:
            figure.legend(axes.lines, list(series), loc="outside lower center", ncols=2, frameon=False, fontsize=8.5)
        return _svg(figure), png(figure)


def clear(axes: Axes) -> None:
    """Take the frame away, and leave a faint grid."""
    axes.grid(color=INK, alpha=0.12, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    svg = buffer.getvalue()
    # Neither a prolog nor repeated ids belong into a page; only definitions are referred to.
    svg = re.sub(r'<g id="[^"]*"', "<g", svg[svg.index("<svg") :])
    return svg.replace(INK, "currentColor")


def png(figure: Figure) -> bytes:
    """Return a figure as PNG, dark on white, without what differs from machine to machine."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=160, facecolor="white", metadata={"Software": None})
    return buffer.getvalue()
