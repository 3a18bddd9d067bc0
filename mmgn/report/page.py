"""The report as one HTML page that asks the network for nothing."""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from mmgn.report import tables
from mmgn.report.curves import Curve
from mmgn.report.gallery import Gallery
from mmgn.report.tables import PERCENT, Table

# Nothing may run and nothing may be fetched, whatever a class name or a configuration holds.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def render_page(title: str, metrics: Mapping[str, Any], curves: Sequence[Curve], gallery: Gallery | None) -> str:
    """Return the page; every string that is not ours is escaped."""
    css = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
    body = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="soft">Evaluation report of {escape(metrics["work_dir"])}</p>',
        _notes(metrics["notes"]),
        _section("Headline", _table(tables.headline(metrics), "headline"), f'<p class="caption">{PERCENT}</p>'),
        _section("Training", _curves(curves)),
    ]
    if metrics["results"]:
        caption = '<p class="caption">Standard COCO evaluation, computed from the predictions with pycocotools. '
        body += [
            _section("COCO figures", _table(tables.coco(metrics), "coco"), f"{caption}{PERCENT}</p>"),
            _section("Classes", _table(tables.per_class(metrics), "classes")),
        ]
    body += [
        _section("Predictions beside the truth", _gallery(gallery)),
        _section("Run", _table(tables.run(metrics), "facts")),
        _folded("Environment", _table(tables.versions(metrics), "facts")) if metrics["versions"] else "",
        _config(metrics["config_text"]),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{css}</style>\n</head>\n<body>\n"
        + "\n".join(body)
        + "\n</body>\n</html>\n"
    )


def _section(heading: str, *content: str) -> str:
    return f"<section>\n<h2>{heading}</h2>\n" + "\n".join(content) + "\n</section>"


def _notes(notes: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return f'<div class="notes"><strong>Notes</strong><ul>{items}</ul></div>' if notes else ""


def _table(table: Table, kind: str) -> str:
    def line(tag: str, cells: Sequence[str]) -> str:
        marks = [' class="n"' if index in table.numeric else "" for index in range(len(cells))]
        inner = "".join(f"<{tag}{mark}>{escape(cell)}</{tag}>" for mark, cell in zip(marks, cells, strict=True))
        return f"<tr>{inner}</tr>"

    body = "\n".join(line("td", row) for row in table.rows)
    return (
        f'<div class="scroll"><table class="{kind}">\n<thead>{line("th", table.columns)}</thead>\n'
        f"<tbody>\n{body}\n</tbody>\n</table></div>"
    )


def _curves(curves: Sequence[Curve]) -> str:
    if not curves:
        return '<p class="soft">No scalars were logged.</p>'
    figures = [
        f"<figure><h3>{escape(curve.title)}</h3>"
        f'<div role="img" aria-label="{escape(curve.caption)}">{curve.svg}</div>'
        f"<figcaption>{escape(curve.caption)}</figcaption></figure>"
        for curve in curves
    ]
    return '<div class="curves">\n' + "\n".join(figures) + "\n</div>"


def _gallery(gallery: Gallery | None) -> str:
    if gallery is None:
        return '<p class="soft">None without predictions, see the notes.</p>'
    missing = "".join(f"<li>{escape(reason)}</li>" for reason in gallery.missing)
    pairs = [
        '<figure class="pair">'
        f"<div><span>Truth</span>{_image(pair.truth, 'truth')}</div>"
        f"<div><span>Predictions</span>{_image(pair.prediction, 'predictions')}</div>"
        f"<figcaption>{escape(pair.caption)}</figcaption></figure>"
        for pair in gallery.pairs
    ]
    return (
        f'<p class="caption">{escape(gallery.selection)}</p>\n'
        + (f"<p>Not shown:</p><ul>{missing}</ul>\n" if missing else "")
        + '<div class="pairs">\n'
        + "\n".join(pairs)
        + "\n</div>"
    )


def _image(jpeg: bytes, what: str) -> str:
    return f'<img alt="{what}" src="data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}">'


def _config(text: str | None) -> str:
    if text is None:
        return '<p class="soft">The work directory holds no configuration.</p>'
    return _folded("Configuration", f"<pre>{escape(text)}</pre>")


def _folded(heading: str, content: str) -> str:
    return f"<details><summary>{heading}</summary>\n{content}\n</details>"
