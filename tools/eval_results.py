"""Evaluate predictions that were saved: COCO's figures without a model.

    python tools/eval_results.py work_dirs/.../predictions --ann-file data/coco/annotations/instances_val2017.json
    python tools/eval_results.py out.pkl --config configs/...  # what tools/test.py --out wrote

The 12 official figures for boxes and for masks, unrounded in --out. No code that a pickle may hold is run.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import mmgn  # noqa: F401  # before mmdet: it serves mmcv's ops
from mmgn.engine import data
from mmgn.engine.config import load_config
from mmgn.engine.disk import readable
from mmgn.engine.test_options import check_writable
from mmgn.evaluation import FIGURES, Analysis, analyse
from mmgn.evaluation.dumps import coco_results, read_dump
from mmgn.report.predictions import find_predictions, read_annotations, result_files
from mmgn.report.workdir import WorkDir

Truth = dict[str, Any]
Results = dict[str, list[dict[str, Any]]]


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "predictions",
        type=Path,
        help="COCO results: a .json, or the PREFIX of PREFIX.bbox.json and PREFIX.segm.json; or mmdet's .pkl",
    )
    parser.add_argument("--config", help="take annotation file and classes from this config's test data")
    parser.add_argument(
        "--ann-file", type=Path, help="COCO annotations; without --config all of their categories are the classes"
    )
    parser.add_argument("--data-root", help="folder of the data, in the place of the config's own")
    parser.add_argument("--out", type=Path, metavar="JSON", help="write the figures there, those of each class too")
    args = parser.parse_args()
    if args.config is None and args.ann_file is None:
        parser.error("give the annotations to judge by: --ann-file, or --config")
    return args


def find_truth(args: argparse.Namespace) -> tuple[Path, list[str]]:
    """Return the annotation file, and the names of the classes; no names stand for all.

    Raises:
        ValueError: the config has no annotation file for its test.
    """
    if args.config is None:
        return args.ann_file, []
    cfg = load_config(args.config, data_root=args.data_root)
    datasets = [dataset for _, dataset in data.datasets(cfg, "test")]
    files = [data.find_ann_file(entry) for entry in [*(metric for _, metric in data.metrics(cfg, "test")), *datasets]]
    ann_file = args.ann_file or next(filter(None, files), None)
    if ann_file is None:
        raise ValueError(f"config {cfg.filename} names no annotation file for its test; give --ann-file")
    return ann_file, list(data.find_classes(datasets[0], cfg) or []) if datasets else []


def read(predictions: Path, ann_file: Path, classes: list[str]) -> tuple[Truth, Results, list[dict[str, Any]]]:
    """Return annotations, COCO results by IoU type, and the categories judged.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is damaged, or they are not of one data set.
    """
    if not result_files(predictions):
        raise FileNotFoundError(f"no predictions: neither {predictions} is a file, nor PREFIX.bbox.json of that prefix")
    if predictions.suffix not in (".pkl", ".pickle"):
        found = find_predictions(
            WorkDir(Path(), record={"evaluation": {"classes": classes}}), ann_file, None, predictions
        )
        assert found is not None
        return found.truth, found.results, found.categories
    if not ann_file.is_file():
        raise FileNotFoundError(f"no annotation file {ann_file}; give the right one with --ann-file")
    truth = read_annotations(ann_file)
    categories = [entry for entry in truth["categories"] if entry["name"] in classes] or truth["categories"]
    dump = read_dump(predictions)
    try:
        return truth, coco_results(dump, truth, [entry["id"] for entry in categories]), categories
    except ValueError as error:
        raise ValueError(
            f"{predictions} was not made for {ann_file}: {error}. Give the right one with --ann-file, and --config "
            "where the classes are some of its categories."
        ) from None


def print_figures(judged: dict[str, Analysis]) -> None:
    """Print a row for each figure, a column for each IoU type."""
    print(f"{'':8}" + "".join(f"{kind:>8}" for kind in judged))
    for name in FIGURES:
        values = [analysis.stats[name] for analysis in judged.values()]
        print(f"{name:8}" + "".join("       -" if value is None else f"{value:8.4f}" for value in values))


@readable
def main() -> None:
    """Evaluate."""
    args = parse_args()
    try:
        if args.out is not None:
            check_writable(args.out)
        ann_file, classes = find_truth(args)
        truth, results, categories = read(args.predictions, ann_file, classes)
        cat_ids = [entry["id"] for entry in categories]
        judged = {kind: analyse(truth, entries, kind, cat_ids) for kind, entries in results.items()}
    except (ImportError, OSError, ValueError) as error:
        raise SystemExit(f"eval_results.py: {error}") from None
    counts = ", ".join(f"{len(entries)} {kind}" for kind, entries in results.items())
    predicted = {entry["image_id"] for entries in results.values() for entry in entries}
    print(
        f"{args.predictions}: {counts}, in {len(predicted)} of the {len(truth['images'])} images of {ann_file}; "
        f"{len(categories)} classes\n"
    )
    print_figures(judged)
    if args.out is not None:
        names = {entry["id"]: str(entry["name"]) for entry in categories}
        content = {"predictions": str(args.predictions), "ann_file": str(ann_file), "images": len(truth["images"])}
        figures = {
            kind: {**analysis.stats, "per_class": {names[key]: row for key, row in analysis.per_class.items()}}
            for kind, analysis in judged.items()
        }
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(content | figures, indent=2) + "\n", encoding="utf-8")
        print(f"\n{args.out}")


if __name__ == "__main__":
    main()
