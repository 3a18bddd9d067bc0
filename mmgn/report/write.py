"""write_report: from a work directory to index.html, report.md and metrics.json."""

import json
import os
from pathlib import Path

from mmgn.report.coco_figures import CocoFigures, evaluate
from mmgn.report.curves import draw_curves
from mmgn.report.gallery import draw_gallery
from mmgn.report.markdown import render_markdown
from mmgn.report.metrics import collect_metrics
from mmgn.report.notes import evaluation_notes, training_notes
from mmgn.report.page import render_page
from mmgn.report.predictions import Predictions, find_predictions
from mmgn.report.tables import headline_text
from mmgn.report.workdir import read_work_dir

PathLike = str | os.PathLike[str]


def write_report(
    work_dir: PathLike,
    out_dir: PathLike | None = None,
    *,
    ann_file: PathLike | None = None,
    img_dir: PathLike | None = None,
    results_prefix: PathLike | None = None,
    max_images: int = 12,
) -> Path:
    """Write the report of an MMEngine work directory.

    The COCO figures are computed anew from the results and annotation files that the run's ``RunRecordHook``
    recorded, or that are given. Files are written after everything was computed, each at one stroke.

    Args:
        work_dir: The run's ``work_dir``, with ``*/vis_data/scalars.json``, ``run.json`` or both.
        out_dir: Where to write; ``work_dir/report`` by default.
        ann_file: COCO annotations, instead of the recorded ones.
        img_dir: Folder of the images, instead of the recorded one.
        results_prefix: Results lie in ``<results_prefix>.bbox.json`` and ``.segm.json``.
        max_images: Largest number of images in the gallery.

    Returns:
        Path of ``index.html``; ``report.md``, its pictures and ``metrics.json`` lie beside it.

    Raises:
        FileNotFoundError: ``work_dir`` or a file that was given does not exist.
        ValueError: A file is damaged or does not belong to the others, or there is nothing to report.

    Example:
        >>> index = write_report("work_dirs/digits")  # doctest: +SKIP
        >>> print(read_headline(index))  # doctest: +SKIP
    """
    if max_images < 0:
        raise ValueError(f"max_images must not be negative, got {max_images}; 0 leaves the gallery empty")
    work = read_work_dir(Path(work_dir))
    if not work.train and not work.record and results_prefix is None:
        raise ValueError(
            f"{work.path} is no work directory of a run: it has neither training lines in "
            "*/vis_data/scalars.json nor run.json; give the work_dir of an MMEngine run, or --results-prefix "
            "and --ann-file"
        )
    given = (Path(path) if path else None for path in (ann_file, img_dir, results_prefix))
    predictions = find_predictions(work, *given)
    work.notes += training_notes(work)
    figures: dict[str, CocoFigures] = {}
    gallery = None
    if predictions:
        figures = _evaluate(predictions, work.notes)
        work.notes += evaluation_notes(work, predictions, figures)
        gallery = draw_gallery(predictions, figures, max_images)
    curves = draw_curves(work)
    metrics = collect_metrics(work, predictions, figures)
    title = Path(metrics["config"]).stem if metrics["config"] else work.path.resolve().name
    markdown, pictures = render_markdown(title, metrics, curves, gallery)
    files = pictures | {
        "metrics.json": (json.dumps(metrics, indent=2, allow_nan=False) + "\n").encode(),
        "report.md": markdown.encode(),
        "index.html": render_page(title, metrics, curves, gallery).encode(),
    }
    out = Path(out_dir) if out_dir else work.path / "report"
    _write(out, files)
    return out / "index.html"


def read_headline(index: PathLike) -> str:
    """Return the headline table as text, of the report whose ``index.html`` this is."""
    return headline_text(json.loads(Path(index).with_name("metrics.json").read_text(encoding="utf-8")))


def _write(folder: Path, files: dict[str, bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        temporary = folder / f".{name}.{os.getpid()}"
        temporary.write_bytes(content)
        os.replace(temporary, folder / name)


def _evaluate(predictions: Predictions, notes: list[str]) -> dict[str, CocoFigures]:
    cat_ids = [category["id"] for category in predictions.categories]
    figures = {}
    for kind, results in predictions.results.items():
        try:
            figures[kind] = evaluate(predictions.truth, results, kind, cat_ids)
        except ValueError as error:
            notes.append(f"No {kind} figures: {error} in {predictions.ann_file}.")
    return figures
