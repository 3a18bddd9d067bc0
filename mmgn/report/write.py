"""write_report and write_comparison: from runs to index.html, report.md and metrics.json."""

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmgn.engine.files import write_whole
from mmgn.report import comparison_tables, markdown, page, tables
from mmgn.report.comparison import REPLICATES, compare
from mmgn.report.curves import draw_curves
from mmgn.report.gallery import draw_gallery
from mmgn.report.metrics import collect_metrics
from mmgn.report.run import read_run

PathLike = str | os.PathLike[str]


def write_report(
    source: PathLike,
    out_dir: PathLike | None = None,
    *,
    ann_file: PathLike | None = None,
    img_dir: PathLike | None = None,
    results_prefix: PathLike | None = None,
    max_images: int = 24,
) -> Path:
    """Write the report of a run, or of COCO results alone.

    The COCO figures are computed anew from the results and annotation files that the run's ``RunRecordHook``
    recorded, that its configuration names, or that are given. Files are written after everything was computed, each
    at one stroke.

    Args:
        source: An MMEngine ``work_dir``; or COCO results, one file or the prefix of ``.bbox.json`` and ``.segm.json``.
        out_dir: Where to write; by default ``report`` in the ``work_dir``, ``<prefix>.report`` beside results.
        ann_file: COCO annotations, instead of the recorded ones.
        img_dir: Folder of the images, instead of the recorded one.
        results_prefix: Results of the ``work_dir`` lie in ``<results_prefix>.bbox.json`` and ``.segm.json``.
        max_images: Largest number of images in the gallery.

    Returns:
        Path of ``index.html``; ``report.md``, its pictures and ``metrics.json`` (docs/report.md) lie beside it.

    Raises:
        FileNotFoundError: ``source`` or a file that was given does not exist.
        ValueError: A file is damaged or does not belong to the others, or there is nothing to report.

    Example:
        >>> index = write_report("work_dirs/digits")  # doctest: +SKIP
        >>> print(read_headline(index))  # doctest: +SKIP
    """
    if max_images < 0:
        raise ValueError(f"max_images must not be negative, got {max_images}; 0 leaves the gallery empty")
    source = Path(source)
    run = read_run(source, *(Path(path) if path else None for path in (ann_file, img_dir, results_prefix)))
    gallery, curves = draw_gallery(run, max_images), draw_curves(run.work)
    metrics = collect_metrics(run)
    text, pictures = markdown.render_run(metrics, curves, gallery, run.kind)
    out = Path(out_dir) if out_dir else source / "report" if source.is_dir() else Path(f"{source}.report")
    _write(out, pictures, metrics, text, page.render_run(run, metrics, curves, gallery))
    return out / "index.html"


def write_comparison(
    sources: Sequence[PathLike],
    out_dir: PathLike,
    *,
    ann_file: PathLike | None = None,
    replicates: int = REPLICATES,
) -> Path:
    """Write the comparison of several runs with the first of them.

    Args:
        sources: Two or more, each as in :func:`write_report`.
        out_dir: Where to write.
        ann_file: COCO annotations for all of them, instead of the recorded ones.
        replicates: Resamples of the images behind each interval.

    Returns:
        Path of ``index.html``; ``report.md`` and ``metrics.json`` lie beside it.

    Raises:
        FileNotFoundError: A source or a file that was given does not exist.
        ValueError: There are fewer than two, a file is damaged or does not belong to the others, or one of them has
            nothing to report.
    """
    if len(sources) < 2:
        raise ValueError(f"a comparison needs two runs or more, got {len(sources)}; write_report reports on one")
    runs = [read_run(Path(source), Path(ann_file) if ann_file else None) for source in sources]
    comparison = compare(runs, replicates)
    _write(Path(out_dir), {}, comparison, markdown.render_comparison(comparison), page.render_comparison(comparison))
    return Path(out_dir) / "index.html"


def read_headline(index: PathLike) -> str:
    """Return the headline as text, of the report or comparison whose ``index.html`` this is."""
    metrics = json.loads(Path(index).with_name("metrics.json").read_text(encoding="utf-8"))
    text = (comparison_tables if metrics["kind"] == "comparison" else tables).headline_text(metrics)
    # A terminal obeys what a name says.
    return "".join(sign if sign.isprintable() or sign == "\n" else repr(sign)[1:-1] for sign in text)


def _write(folder: Path, pictures: dict[str, bytes], metrics: dict[str, Any], text: str, html: str) -> None:
    files = pictures | {
        "metrics.json": (json.dumps(metrics, indent=2, allow_nan=False) + "\n").encode(),
        # JSON, which names come from, has halves of characters that no file does.
        "report.md": text.encode(errors="replace"),
        "index.html": html.encode(errors="replace"),
    }
    folder.mkdir(parents=True, exist_ok=True)
    replaced = _pictures(folder)
    for name, content in files.items():
        write_whole(folder / name, content)
    for name in replaced - set(files):
        (folder / name).unlink(missing_ok=True)


def _pictures(folder: Path) -> set[str]:
    """Return the names of the pictures of the report that lies there; others' files are not ours to remove."""
    report = folder / "report.md"
    text = report.read_text(encoding="utf-8", errors="replace") if report.is_file() else ""
    return set(re.findall(r"\]\(((?:curve|gallery)-[\w-]+\.(?:png|jpg))\)", text))
