"""The report as Markdown, with its pictures as files beside it."""

import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from mmgn.report import tables
from mmgn.report.curves import Curve
from mmgn.report.gallery import Gallery
from mmgn.report.tables import PERCENT, Table


def render_markdown(
    title: str, metrics: Mapping[str, Any], curves: Sequence[Curve], gallery: Gallery | None
) -> tuple[str, dict[str, bytes]]:
    """Return the text and the pictures by the file name that it refers to."""
    pictures = {f"curve-{curve.name}.png": curve.png for curve in curves}
    parts = [f"# {_text(title)}", f"Evaluation report of {_text(metrics['work_dir'])}"]
    if metrics["notes"]:
        parts += ["**Notes**", "\n".join(f"- {_text(note)}" for note in metrics["notes"])]
    parts += ["## Headline", _table(tables.headline(metrics)), PERCENT, "## Training"]
    parts += [f"![{_text(curve.title)}](curve-{curve.name}.png)\n\n{_text(curve.caption)}" for curve in curves]
    parts += [] if curves else ["No scalars were logged."]
    if metrics["results"]:
        parts += ["## COCO figures", _table(tables.coco(metrics)), f"Computed with pycocotools. {PERCENT}"]
        parts += ["## Classes", _table(tables.per_class(metrics))]
    parts.append("## Predictions beside the truth")
    if gallery is None:
        parts.append("None without predictions, see the notes.")
    else:
        parts += [_text(gallery.selection)]
        parts += ["Not shown:\n\n" + "\n".join(f"- {_text(item)}" for item in gallery.missing)] * bool(gallery.missing)
        rows = []
        for number, pair in enumerate(gallery.pairs, 1):
            names = [f"gallery-{number:02d}-{kind}.jpg" for kind in ("truth", "predictions")]
            pictures |= dict(zip(names, (pair.truth, pair.prediction), strict=True))
            rows.append(f"| ![truth]({names[0]}) | ![predictions]({names[1]}) | {_text(pair.caption)} |")
        parts += ["\n".join(["| Truth | Predictions | |", "|---|---|---|", *rows])] if rows else []
    parts += ["## Run", _table(tables.run(metrics))]
    parts += ["## Environment", _table(tables.versions(metrics))] if metrics["versions"] else []
    parts.append(_config(metrics["config_text"]))
    return "\n\n".join(parts) + "\n", pictures


def _text(text: str) -> str:
    """Escape what Markdown or HTML would take for markup; underscores inside a word are none."""
    text = re.sub(r"\s+", " ", escape(text, quote=False))
    return re.sub(r"([\\|*`\[\]~#]|(?<!\w)_|_(?!\w))", r"\\\1", text)


def _table(table: Table) -> str:
    rule = ["---:" if index in table.numeric else "---" for index in range(len(table.columns))]
    lines = [[_text(cell) for cell in row] for row in (table.columns, *table.rows)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (lines[0], rule, *lines[1:]))


def _config(text: str | None) -> str:
    if text is None:
        return "The work directory holds no configuration."
    # A fence must be longer than any in the text.
    fence = "`" * (1 + max(map(len, re.findall(r"`{2,}", text)), default=2))
    return f"<details><summary>Configuration</summary>\n\n{fence}python\n{text}\n{fence}\n\n</details>"
