"""study.csv read, and its figures over seeds; a grid that is not finished is read as far as it is."""

import csv
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path


@dataclass(frozen=True)
class Metric:
    """A column of figures in per cent: its name in words, and whether more of it is better."""

    name: str
    higher_is_better: bool

    def __str__(self) -> str:
        return f"{self.name} in %, {'higher' if self.higher_is_better else 'lower'} is better"


METRICS = {
    "top1_error": Metric("top-1 error", higher_is_better=False),
    "box_AP": Metric("box AP", higher_is_better=True),
    "mask_AP": Metric("mask AP", higher_is_better=True),
    "mIoU": Metric("mIoU", higher_is_better=True),
}
#: Ways to say a group norm's groups: in words, and the norm that stands at 1.
GROUP_KINDS = {"num_groups": ("groups", "LN"), "channels_per_group": ("channels a group", "IN")}


@dataclass(frozen=True)
class Setting:
    """A norm and, for GN, its groups."""

    norm: str
    num_groups: int | None = None
    channels_per_group: int | None = None

    def __str__(self) -> str:
        if self.num_groups is not None:
            return f"{self.norm}, {self.num_groups} group{'s' * (self.num_groups > 1)}"
        if self.channels_per_group is not None:
            return f"{self.norm}, {self.channels_per_group} channel{'s' * (self.channels_per_group > 1)} a group"
        return self.norm


@dataclass(frozen=True)
class Row:
    """A cell of the grid, trained or not.

    Attributes:
        status: ``done``, ``skipped``, ``failed`` or ``missing``; ``reason`` is why it is not done.
        figures: by column of :data:`METRICS`, those that there are.
    """

    task: str
    data: str
    setting: Setting
    batch_size: int
    seed: int
    status: str
    reason: str
    figures: Mapping[str, float]


@dataclass(frozen=True)
class Summary:
    """A figure over the seeds of a cell.

    Attributes:
        n: seeds that have one, of ``planned``.
        mean: None without any.
        spread: sample standard deviation; None for fewer than two.
    """

    task: str
    data: str
    setting: Setting
    batch_size: int
    metric: str
    planned: int
    n: int
    mean: float | None
    spread: float | None


def read_csv(path: Path) -> tuple[list[str], list[Row]]:
    """Return the head's lines, without their ``#``, and the rows.

    Raises:
        ValueError: a column is missing, or what it holds is no number or no new cell.
    """
    with path.open(newline="", encoding="utf-8") as file:
        lines = list(file)
    head = [line.removeprefix("#").strip() for line in takewhile(lambda line: line.startswith("#"), lines)]
    rows: dict[tuple[str, str, Setting, int, int], Row] = {}
    for number, cells in enumerate(csv.DictReader(lines[len(head) :]), 1):
        try:
            row = _row(cells)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path}, row {number}: {type(error).__name__}: {error}; tools/study.py writes it anew"
            ) from error
        if rows.setdefault((row.task, row.data, row.setting, row.batch_size, row.seed), row) is not row:
            raise ValueError(
                f"{path}, row {number}: {row.setting} at batch {row.batch_size} with seed {row.seed} on {row.data} is "
                "there twice; tools/study.py writes it anew"
            )
    return head, list(rows.values())


def summarise(rows: Iterable[Row]) -> list[Summary]:
    """Return the figures over seeds in the order of the rows; each column that a task has a figure in."""
    rows = list(rows)
    measured = dict.fromkeys((row.task, metric) for row in rows for metric in METRICS if metric in row.figures)
    summaries = []
    for task, data, setting, batch_size in dict.fromkeys((r.task, r.data, r.setting, r.batch_size) for r in rows):
        own = [r for r in rows if (r.task, r.data, r.setting, r.batch_size) == (task, data, setting, batch_size)]
        for metric in (metric for of, metric in measured if of == task):
            values = [row.figures[metric] for row in own if metric in row.figures]
            mean = statistics.fmean(values) if values else None
            spread = statistics.stdev(values) if len(values) > 1 else None
            summaries.append(Summary(task, data, setting, batch_size, metric, len(own), len(values), mean, spread))
    return summaries


def by_seed(rows: Iterable[Row], setting: Setting, batch_size: int, metric: str) -> dict[int, float]:
    """Return a cell's figures by seed, of rows of one data set."""
    return {
        row.seed: row.figures[metric]
        for row in rows
        if (row.setting, row.batch_size) == (setting, batch_size) and metric in row.figures
    }


def settings_over_batches(rows: Iterable[Row]) -> list[Setting]:
    """Return the settings whose batch size is varied on a data set: of each norm those planned at the most sizes.

    What is left are group numbers planned at fewer, which :func:`group_series` has.
    """
    sizes: dict[Setting, set[int]] = {}
    for row in rows:
        sizes.setdefault(row.setting, set()).add(row.batch_size)
    most = {norm: max(len(own) for s, own in sizes.items() if s.norm == norm) for norm in {s.norm for s in sizes}}
    return [setting for setting, own in sizes.items() if len(own) == most[setting.norm]]


@dataclass(frozen=True)
class GroupSeries:
    """Settings by number of one of :data:`GROUP_KINDS`, largest first, as in the paper's table 3."""

    kind: str
    batch_size: int
    settings: Mapping[int, Setting]


def group_series(rows: Sequence[Row]) -> list[GroupSeries]:
    """Return the series of a data set: at each batch size for which at least two settings of GN are planned."""
    found = []
    for batch_size in dict.fromkeys(row.batch_size for row in rows):
        settings = dict.fromkeys(row.setting for row in rows if row.batch_size == batch_size)
        if sum(setting.norm == "GN" for setting in settings) < 2:
            continue
        for kind, (_, extreme) in GROUP_KINDS.items():
            own = {getattr(setting, kind): setting for setting in settings if getattr(setting, kind) is not None}
            if own and Setting(extreme) in settings:
                own.setdefault(1, Setting(extreme))
            if own:
                found.append(GroupSeries(kind, batch_size, dict(sorted(own.items(), reverse=True))))
    return found


def _row(cells: Mapping[str, str]) -> Row:
    done = cells["status"] == "done"
    figures = {metric: float(cells[metric]) for metric in METRICS if done and cells.get(metric)}
    return Row(
        task=cells["task"],
        data=cells["data"],
        setting=Setting(cells["norm"], *(_groups(cells, kind) for kind in GROUP_KINDS)),
        batch_size=int(cells["batch_size"]),
        seed=int(cells["seed"]),
        status=cells["status"],
        reason=cells["reason"],
        # A training that left the finite numbers may leave them in its figures, too.
        figures={metric: figure for metric, figure in figures.items() if math.isfinite(figure)},
    )


def _groups(cells: Mapping[str, str], kind: str) -> int | None:
    # LN and IN say by their names what their groups are.
    return int(cells[kind]) if cells["norm"] == "GN" and cells[kind] else None
