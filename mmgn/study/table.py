"""summary.md: a study's figures over seeds, which statements on norms show in them, and what is not measured yet."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmgn.engine.files import write_whole
from mmgn.report.markdown import escaped, render_table
from mmgn.report.table import NONE, Table
from mmgn.study import quoted
from mmgn.study.results import (
    GROUP_KINDS,
    METRICS,
    GroupSeries,
    Row,
    Summary,
    by_seed,
    group_series,
    read_csv,
    settings_over_batches,
    summarise,
)
from mmgn.study.verdict import RULE, Difference, change, paired, spans, statements


def write_summary(csv_path: Path) -> Path:
    """Write ``summary.md`` beside a study.csv, of a finished grid or of what there is of one, and return its path.

    Raises:
        ValueError: the file is no study.csv.
    """
    path = Path(csv_path).with_name("summary.md")
    write_whole(path, markdown(*read_csv(Path(csv_path))).encode())
    return path


def markdown(head: Sequence[str], rows: Sequence[Row]) -> str:
    """Return the summary of a study as Markdown."""
    summaries = summarise(rows)
    parts = ["# " + ", ".join(dict.fromkeys(row.task for row in rows)).capitalize() + ": norm against norm"]
    parts += ["\n".join(f"- {escaped(line)}" for line in head)] * bool(head)
    parts.append(
        "Each figure is the mean over seeds ± their sample standard deviation, and (n of N) where only n of N seeds "
        "have one. Batch sizes are those of one process."
    )
    for task, data, metric in dict.fromkeys((s.task, s.data, s.metric) for s in summaries):
        own = [row for row in rows if (row.task, row.data) == (task, data)]
        parts += [f"## {escaped(data)}: {METRICS[metric]}", *_data_set(own, metric)]
    parts += _not_measured(rows)
    parts += ["## How a verdict is made", RULE] if summaries else []
    if any(row.task == "classification" for row in rows):
        parts += _quoted()
    return "\n\n".join(parts) + "\n"


def _data_set(rows: Sequence[Row], metric: str) -> list[str]:
    """Return the tables of one metric on one data set."""
    parts = [render_table(over_batches(rows, metric))]
    if found := verdicts(rows, metric):
        unit = "points lost" if METRICS[metric].higher_is_better else "points of error"
        parts += [f"Statements, and whether they show, in {unit}:", render_table(found)]
    if any(span["small"] < span["large"] for span in spans(rows)):
        parts += ["Change over batch sizes, paired by seed:", render_table(changes(rows, metric))]
    if (from_gn := differences_from_gn(rows, metric)) is not None:
        parts += ["Difference from GN, paired by seed:", render_table(from_gn)]
    return parts + [render_table(over_groups(rows, metric, series)) for series in group_series(rows)]


def over_batches(rows: Sequence[Row], metric: str) -> Table:
    """A metric by norm and batch size."""
    found = {(s.setting, s.batch_size): s for s in summarise(rows) if s.metric == metric}
    sizes = _sizes(rows)
    lines = [
        (str(setting), *(_mean(found.get((setting, size))) for size in sizes))
        for setting in settings_over_batches(rows)
    ]
    return _by_batch(lines, sizes)


def differences_from_gn(rows: Sequence[Row], metric: str) -> Table | None:
    """What each norm's figure has over GN's, the first of several, by batch size; None without GN or another."""
    settings = settings_over_batches(rows)
    gn = next((setting for setting in settings if setting.norm == "GN"), None)
    sizes = _sizes(rows)
    lines = []
    for setting in settings:
        if gn and setting != gn:
            pairs = [paired(*([by_seed(rows, s, size, metric)] for s in (setting, gn))) for size in sizes]
            lines.append((str(setting), *(_difference(pair, rows) for pair in pairs)))
    return _by_batch(lines, sizes) if lines else None


def changes(rows: Sequence[Row], metric: str) -> Table:
    """What is added to each norm's figure from the largest batch size to the smallest."""
    lines = []
    for setting in settings_over_batches(rows):
        pairs = [change(rows, setting, span, metric) for span in spans(rows)]
        cells = [(_difference(pair, rows), _interval(pair)) for pair in pairs]
        lines.append((str(setting), *(text for cell in cells for text in cell)))
    columns = [(f"batch {span['large']} to {span['small']}", "95 % interval") for span in spans(rows)]
    names = ("Norm", *(name for column in columns for name in column))
    return Table(names, lines, numeric=range(1, len(names)))


def verdicts(rows: Sequence[Row], metric: str) -> Table | None:
    """The statements on a data set; None where it has too few norms for any."""
    found = statements(rows, metric)
    lines: list[tuple[str, ...]] = []
    for own in found:
        text, difference = own.text + ", which the paper denies" * own.denied, own.difference
        lines.append((text, _signed(difference.mean), _interval(difference), _seeds(difference, rows), own.verdict))
    columns: tuple[str, ...] = ("Statement", "By", "95 % interval", "Seeds", "Verdict")
    if metric == "top1_error":
        # What the paper's figures are of.
        columns += (f"{quoted.MARK[0].upper()}{quoted.MARK[1:]}",)
        lines = [(*line, _signed(own.quoted, digits=1)) for line, own in zip(lines, found, strict=True)]
    return Table(columns, lines, numeric=(1, 2, 3, 5)) if lines else None


def over_groups(rows: Sequence[Row], metric: str, series: GroupSeries) -> Table:
    """A metric by number of groups or of channels a group."""
    found = {(s.setting, s.batch_size): s for s in summarise(rows) if s.metric == metric}
    cells = [_mean(found.get((setting, series.batch_size))) for setting in series.settings.values()]
    head = _groups_head(series.kind, series.settings, f", batch {series.batch_size}")
    return Table(head, [(METRICS[metric].name, *cells)], numeric=range(1, len(head)))


def _quoted() -> list[str]:
    """Return the paper's tables 1, 2 and 3, errors in per cent as printed there."""
    by_size = quoted.batch_sizes()
    tables: list[tuple[str, tuple[str, ...], Mapping[str, Mapping[Any, float]]]] = [
        ("norms", ("Norm", *quoted.norms()), {"error": quoted.norms()}),
        ("batch_sizes", ("Images per GPU", *map(str, by_size["GN"])), by_size),
        *(("groups", _groups_head(kind, errors), {"error": errors}) for kind, errors in quoted.groups().items()),
    ]
    parts = [f"## Not measured here: {quoted.MARK}"]
    for name, head, lines in tables:
        rows = [(line, *(f"{error:.1f}" for error in errors.values())) for line, errors in lines.items()]
        table = Table(head, rows, numeric=range(1, len(head)))
        parts.append(f"{escaped(quoted.source(name))}.\n\n{render_table(table)}")
    return parts


def _not_measured(rows: Sequence[Row]) -> list[str]:
    """Count the cells without a figure by what they are and why."""
    without = Counter(
        (
            row.data,
            row.setting.norm,
            row.status if row.status != "done" else "done, without a finite figure",
            row.reason,
        )
        for row in rows
        if not row.figures
    )
    if not without:
        return []
    lines = [
        (data, norm, str(count), status, reason or NONE) for (data, norm, status, reason), count in without.items()
    ]
    said = f"## Not measured: {sum(without.values())} of {len(rows)} cells"
    return [said, render_table(Table(("Data", "Norm", "Cells", "State", "Why"), lines, numeric=(2,)))]


def _sizes(rows: Sequence[Row]) -> list[int]:
    return sorted({row.batch_size for row in rows}, reverse=True)


def _by_batch(lines: Sequence[tuple[str, ...]], sizes: Sequence[int]) -> Table:
    return Table(("Norm", *(f"batch {size}" for size in sizes)), lines, numeric=range(1, 1 + len(sizes)))


def _groups_head(kind: str, numbers: Iterable[int], where: str = "") -> tuple[str, ...]:
    words, extreme = GROUP_KINDS[kind]
    return words.capitalize() + where, *(f"1 ({extreme})" if number == 1 else str(number) for number in numbers)


def _mean(summary: Summary | None) -> str:
    if summary is None or summary.mean is None:
        return NONE
    spread = "" if summary.spread is None else f" ± {summary.spread:.2f}"
    return f"{summary.mean:.2f}{spread}" + _few(summary.n, summary.planned)


def _difference(pair: Difference, rows: Sequence[Row]) -> str:
    if pair.mean is None:
        return NONE
    spread = "" if pair.spread is None else f" ± {pair.spread:.2f}"
    return _signed(pair.mean) + spread + _few(pair.n, len({row.seed for row in rows}))


def _seeds(pair: Difference, rows: Sequence[Row]) -> str:
    planned = len({row.seed for row in rows})
    return f"{pair.n} of {planned}" if pair.n < planned else str(pair.n)


def _few(n: int, planned: int) -> str:
    return f" ({n} of {planned})" if n < planned else ""


def _interval(pair: Difference) -> str:
    return NONE if pair.interval is None else " to ".join(map(_signed, pair.interval))


def _signed(points: float | None, digits: int = 2) -> str:
    # Adding 0 takes the sign of what rounds to zero.
    return NONE if points is None else f"{round(points, digits) + 0.0:+.{digits}f}".replace("-", "−")
