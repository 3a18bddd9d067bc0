"""The report as Markdown, with its pictures as files beside it."""

import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from mmgn.report import comparison_tables, error_tables, tables
from mmgn.report.curves import Curve
from mmgn.report.gallery import Gallery
from mmgn.report.metrics import IOU_TYPES
from mmgn.report.tables import PERCENT, Table


def render_run(
    metrics: Mapping[str, Any], curves: Sequence[Curve], gallery: Gallery | None, errors_kind: str | None
) -> tuple[str, dict[str, bytes]]:
    """Return the text and the pictures by the file name that it refers to."""
    pictures = {f"curve-{curve.name}.png": curve.png for curve in curves}
    parts = [f"# {escaped(metrics['name'])}", f"Evaluation report of {escaped(metrics['work_dir'])}"]
    parts += _notes(metrics["notes"])
    parts += ["## Headline", render_table(tables.headline(metrics)), PERCENT]
    if metrics["quoted"]:
        parts += ["### Published results for this setup, quoted", render_table(tables.published(metrics))]
    if errors_kind:
        parts += ["## COCO figures", render_table(tables.coco(metrics)), f"Computed from the predictions. {PERCENT}"]
        parts += ["## Classes", render_table(tables.per_class(metrics))]
        parts += [f"{error_tables.OPERATING_POINTS}:", render_table(error_tables.operating_points(metrics))]
        parts += ["## Errors", error_tables.TIDE, render_table(error_tables.tide(metrics))]
        parts += [f"{error_tables.CONFUSIONS}:", render_table(error_tables.confusions(metrics, errors_kind))]
        parts += [f"{error_tables.CALIBRATION}:", render_table(error_tables.calibration(metrics))]
    gallery_parts, gallery_pictures = _gallery(gallery)
    pictures |= gallery_pictures
    parts += ["## Predictions beside the truth", *gallery_parts, "## Training"]
    parts += [f"![{escaped(curve.title)}](curve-{curve.name}.png)\n\n{escaped(curve.caption)}" for curve in curves]
    parts += [] if curves else ["No scalars were logged."]
    if (norms := tables.norms(metrics)) is not None:
        parts += ["## Norms", render_table(norms), *_notes(metrics["norms"]["warnings"])]
    parts += ["## Run", render_table(tables.run(metrics))]
    for what in ("train", "evaluation"):
        if metrics[f"{what}_command"]:
            parts += [f"Command ({what}):", _fenced("sh", metrics[f"{what}_command"])]
    parts += ["## Environment", render_table(tables.versions(metrics))] if metrics["versions"] else []
    parts.append(_config(metrics["config_text"]))
    return "\n\n".join(parts) + "\n", pictures


def render_comparison(comparison: Mapping[str, Any]) -> str:
    """Return the text of a comparison."""
    parts = [f"# {len(comparison['runs'])} runs compared", *_notes(comparison["notes"]), "## Results"]
    parts += [render_table(comparison_tables.results(comparison)), f"{PERCENT} {comparison_tables.RESULTS}"]
    differences = comparison_tables.differences(comparison)
    parts.append("## Differences in AP")
    parts += [render_table(differences), comparison_tables.NOISE] if differences.rows else ["None, see the notes."]
    for kind, shape in zip(IOU_TYPES, tables.SHAPES, strict=True):
        if (classes := comparison_tables.per_class(comparison, kind)) is not None:
            parts += [f"## {shape} AP by class", render_table(classes), comparison_tables.CLASSES]
    parts.append("## Runs")
    for own in comparison["runs"]:
        parts += [f"### {escaped(own['name'])}", render_table(tables.run(own))]
        parts += [_fenced("sh", own["train_command"])] if own["train_command"] else []
    return "\n\n".join(parts) + "\n"


def render_table(table: Table) -> str:
    """Return a table as Markdown."""
    rule = ["---:" if index in table.numeric else "---" for index in range(len(table.columns))]
    lines = [[escaped(cell) for cell in row] for row in (table.columns, *table.rows)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (lines[0], rule, *lines[1:]))


def escaped(text: str) -> str:
    """Return a text with what Markdown or HTML would take for markup escaped; underscores inside a word are none."""
    text = re.sub(r"\s+", " ", escape(text, quote=False))
    return re.sub(r"([\\|*`\[\]~#]|(?<!\w)_|_(?!\w))", r"\\\1", text)


def _gallery(gallery: Gallery | None) -> tuple[list[str], dict[str, bytes]]:
    if gallery is None:
        return ["None without predictions, see the notes."], {}
    parts = [escaped(gallery.selection)]
    parts += ["Not shown:\n\n" + "\n".join(f"- {escaped(item)}" for item in gallery.missing)] * bool(gallery.missing)
    pictures: dict[str, bytes] = {}
    rows = []
    for number, pair in enumerate(gallery.pairs, 1):
        names = [f"gallery-{number:02d}-{kind}.jpg" for kind in ("truth", "predictions")]
        pictures |= dict(zip(names, (pair.truth, pair.prediction), strict=True))
        rows.append(f"| ![truth]({names[0]}) | ![predictions]({names[1]}) | {escaped(pair.caption)} |")
    parts += ["\n".join(["| Truth | Predictions | |", "|---|---|---|", *rows])] if rows else []
    return parts, pictures


def _notes(notes: Sequence[str]) -> list[str]:
    return ["**Notes**", "\n".join(f"- {escaped(note)}" for note in notes)] if notes else []


def _fenced(language: str, text: str) -> str:
    # A fence must be longer than any in the text.
    fence = "`" * (1 + max(map(len, re.findall(r"`{2,}", text)), default=2))
    return f"{fence}{language}\n{text}\n{fence}"


def _config(text: str | None) -> str:
    if text is None:
        return "No configuration was found."
    return f"<details><summary>Configuration</summary>\n\n{_fenced('python', text)}\n\n</details>"
