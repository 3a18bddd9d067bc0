"""The report as one HTML page that asks the network for nothing."""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from mmgn.report import comparison_tables, error_tables, tables
from mmgn.report.curves import Curve
from mmgn.report.gallery import Gallery, error_kinds
from mmgn.report.metrics import IOU_TYPES
from mmgn.report.run import Run

#: Shades of the confusion matrix.
LEVELS = 4
#: Classes of the largest confusion matrix on a page: its cells grow with their square, 15 MB for LVIS.
MATRIX_CLASSES = 150


def render_run(run: Run, metrics: Mapping[str, Any], curves: Sequence[Curve], gallery: Gallery | None) -> str:
    """Return the page of one run; every string that is not ours is escaped."""
    pairs = gallery.pairs if gallery else []
    return _render(
        "run.html",
        tables=tables,
        error_tables=error_tables,
        title=metrics["name"],
        subtitle=f"Evaluation report of {metrics['work_dir']}",
        sections=_sections(metrics),
        data=_chart_data(run, metrics),
        metrics=metrics,
        curves=curves,
        gallery=gallery,
        shown_labels={mark.label for pair in pairs for mark in pair.marks},
        shown_errors=error_kinds(pairs),
        errors_kind=run.kind,
        confusion=_confusion(metrics, run.kind) if run.kind else None,
        norms=tables.norms(metrics),
    )


def render_comparison(comparison: Mapping[str, Any]) -> str:
    """Return the page of several runs."""
    overall = comparison_tables.overall(comparison)
    classes = {f"classes-{kind}": f"{shape} AP by class" for kind, shape in zip(IOU_TYPES, tables.SHAPES, strict=True)}
    shown = {f"classes-{entry['iou_type']}" for entry in overall}
    return _render(
        "comparison.html",
        title=f"{len(comparison['runs'])} runs compared",
        subtitle=f"Evaluation report; the runs are held against {comparison['baseline']}",
        sections=[
            ("results", "Results"),
            ("differences", "Differences in AP"),
            *((key, heading) for key, heading in classes.items() if key in shown),
            ("runs", "Runs"),
        ],
        data={},
        comparison=comparison,
        tables=comparison_tables,
        run_tables=tables,
        percent=tables.PERCENT,
        overall=overall,
        # What the end of an axis of 100 stands for.
        scale=max((abs(entry[end]) for entry in overall for end in ("low", "high")), default=0) / 95 or 1,
    )


def _sections(metrics: Mapping[str, Any]) -> list[tuple[str, str]]:
    judged = {"coco": "COCO figures", "classes": "Classes", "curves": "Precision, recall, F1", "errors": "Errors"}
    return [
        ("headline", "Headline"),
        *(judged.items() if metrics["errors"] else []),
        ("gallery", "Predictions"),
        ("training", "Training"),
        *([("norms", "Norms")] if tables.norms(metrics) else []),
        ("run", "Run"),
    ]


def _render(template: str, *, data: Mapping[str, Any], **variables: Any) -> str:
    environment = Environment(
        loader=PackageLoader("mmgn.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters["jpeg"] = lambda picture: f"data:image/jpeg;base64,{base64.b64encode(picture).decode()}"
    assert environment.loader is not None
    style, script = (environment.loader.get_source(environment, name)[0] for name in ("page.css", "page.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    # Nothing else may run and nothing may be fetched, whatever a class name or a configuration holds.
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    page = environment.get_template(template)
    return page.render(policy=policy, css=style, script=script, data=_embedded(data), **variables)


def _embedded(data: Mapping[str, Any]) -> str:
    """Return JSON that can stand in a script element: no tag or comment begins in it."""
    return json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _chart_data(run: Run, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the page draws: curves in thousandths, by category id, and calibration."""
    return {
        "curves": {
            kind: {
                str(cat_id): {
                    "precision": [round(1000 * float(value)) for value in curve.precision],
                    "f1": [round(1000 * float(value)) for value in curve.f1],
                    "best": [curve.best_f1, curve.best_score],
                }
                for cat_id, curve in analysis.curves.items()
            }
            for kind, analysis in run.analyses.items()
        },
        "calibration": {
            kind: [[entry["score"], entry["precision"]] for entry in own["calibration"]["bins"] if entry["count"]]
            for kind, own in metrics["errors"].items()
        },
    }


def _confusion(metrics: Mapping[str, Any], kind: str) -> dict[str, Any] | None:
    """Return the confusion matrix, a shade for each count (``d`` on the diagonal, ``x`` off it); None if too large."""
    confusion = metrics["errors"][kind]["confusion"]
    if len(confusion["category_ids"]) > MATRIX_CLASSES:
        return None
    names = [*error_tables.class_names(metrics, confusion["category_ids"]), "background"]
    rows = []
    for number, (name, counts) in enumerate(zip(names, confusion["matrix"], strict=True)):
        total = max(1, sum(counts))
        rows.append((name, [(count, _shade(count / total, column == number)) for column, count in enumerate(counts)]))
    return confusion | {"names": names, "rows": rows}


def _shade(share: float, diagonal: bool) -> str:
    level = min(LEVELS, 1 + int(LEVELS * share))
    return f"{'d' if diagonal else 'x'}{level}" if share else ""
