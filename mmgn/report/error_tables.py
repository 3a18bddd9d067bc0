"""The report's tables on errors: where AP is lost, what is taken for what, which scores to trust."""

from collections.abc import Mapping, Sequence
from typing import Any

from mmgn.report.table import Table, count, decimal, percent
from mmgn.report.tables import COCO_ROWS, judged

TIDE = (
    "AP50 in points that would come back, were all errors of one type put right. Types as in TIDE (Bolya et al., ECCV "
    "2020); each is put right by itself, so they do not add up."
)
OPERATING_POINTS = "Best F1 at IoU 0.5, and the score threshold that gives it"
CONFUSIONS = "Which class is taken for which, the most frequent first"
CALIBRATION = "How often detections of a score are right, at IoU 0.5"
# In the order of TIDE's own tables, with what each would have taken (Bolya et al., ECCV 2020).
TIDE_ROWS = (
    ("Cls", "Classification", "right place, wrong class"),
    ("Loc", "Localisation", "right class, IoU from 0.1 to 0.5"),
    ("Both", "Both", "wrong class, IoU from 0.1 to 0.5"),
    ("Dupe", "Duplicate", "object found already by a surer detection"),
    ("Bkg", "Background", "no object there, IoU up to 0.1"),
    ("Miss", "Missed", "object that no detection comes near"),
    ("FP", "All false positives", "were there none"),
    ("FN", "All false negatives", "were there none"),
)


def operating_points(metrics: Mapping[str, Any]) -> Table:
    """The best F1 of every class, and the score threshold that gives it."""
    kinds = judged(metrics)
    keys = [f"{kind}_{name}" for kind, _ in kinds for name in ("best_f1", "best_score")]
    rows = [(row["name"], *(decimal(row[key]) for key in keys)) for row in metrics["per_class"]]
    columns = ("Class", *(f"{shape} {name}" for _, shape in kinds for name in ("best F1", "at score")))
    return Table(columns, rows, numeric=range(1, len(columns)))


def sizes(metrics: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, float | None, str]]]]:
    """AP by object size, for bars: size, and for boxes and masks name, fraction and text."""
    return [
        (
            f"{name.removeprefix('AP ').capitalize()} ({area} pixels)",
            [(shape, metrics[f"{kind}_{key}"], percent(metrics[f"{kind}_{key}"])) for kind, shape in judged(metrics)],
        )
        for key, name, _, area, _ in COCO_ROWS[3:6]
    ]


def tide(metrics: Mapping[str, Any]) -> Table:
    """The AP at IoU 0.5 that each type of error costs, in points."""
    kinds = judged(metrics)
    rows = [
        (name, what, *(percent(metrics["errors"][kind]["tide"][key]) for kind, _ in kinds))
        for key, name, what in TIDE_ROWS
    ]
    columns = ("Error", "What it is", *(f"{shape} AP50 lost" for _, shape in kinds))
    return Table(columns, rows, numeric=range(2, len(columns)))


def confusions(metrics: Mapping[str, Any], kind: str, most: int = 15) -> Table:
    """Which class is taken for which, the most frequent first; background is in the matrix alone."""
    confusion = metrics["errors"][kind]["confusion"]
    names = class_names(metrics, confusion["category_ids"])
    matrix = confusion["matrix"]
    pairs = [(row, column) for row in range(len(names)) for column in range(len(names)) if row != column]
    found = sorted((pair for pair in pairs if matrix[pair[0]][pair[1]]), key=lambda pair: -matrix[pair[0]][pair[1]])
    rows = [
        (names[i], names[j], count(matrix[i][j]), f"{100 * matrix[i][j] / sum(matrix[i]):.1f} %")
        for i, j in found[:most]
    ]
    return Table(("Truth", "Predicted as", "Count", "Of that truth"), rows, numeric=(2, 3))


def class_names(metrics: Mapping[str, Any], cat_ids: Sequence[Any]) -> list[str]:
    """Return the names of categories."""
    names = {row["id"]: row["name"] for row in metrics["per_class"]}
    return [names[cat_id] for cat_id in cat_ids]


def calibration(metrics: Mapping[str, Any]) -> Table:
    """How often detections of a score are right."""
    rows = [
        (shape, decimal(entry["score"]), decimal(entry["precision"]), count(entry["count"]))
        for kind, shape in judged(metrics)
        for entry in metrics["errors"][kind]["calibration"]["bins"]
        if entry["count"]
    ]
    return Table(("Shape", "Mean score", "Precision", "Detections"), rows, numeric=(1, 2, 3))


def hardest(metrics: Mapping[str, Any]) -> Table:
    """The images with the lowest F1."""
    found = metrics["hardest_images"] or {"images": ()}
    rows = [
        (image["file_name"], *(count(image[key]) for key in ("found", "false", "missed")), decimal(image["f1"]))
        for image in found["images"]
    ]
    return Table(("Image", "Found", "False", "Missed", "F1"), rows, numeric=range(1, 5))
