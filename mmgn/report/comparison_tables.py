"""The tables of a comparison: the runs as this field publishes them, and what differs."""

from collections.abc import Mapping
from typing import Any

from mmgn.report.metrics import IOU_TYPES
from mmgn.report.table import NONE, Table, decimal, percent
from mmgn.report.tables import SHAPES, setup_texts

FIGURES = {"AP": "mAP", "AP50": "mAP_50", "AP75": "mAP_75", "S": "mAP_s", "M": "mAP_m", "L": "mAP_l"}
RESULTS = (
    "Memory is the peak of training, of CUDA's allocator or, where marked RSS, of the process. Seconds per iteration "
    "are the training log's median. Milliseconds per image are the model's as tools/test.py times it or, where marked "
    "loop, the validation loop's, data loading included. Quoted rows are published for the same detector, "
    "backbone, norms and schedule, on their authors' machines."
)
NOISE = (
    "The interval holds 95 % of the differences when the images are drawn anew, with replacement and the same for both "
    "runs. Where it holds 0 the difference is within noise: these images cannot tell the runs apart. Another seed of "
    "training would add noise of its own, which no interval over images knows of."
)
CLASSES = (
    "AP of the first run, and the differences of the others from it; those in parentheses are within noise. Of 20 "
    "classes that do not differ, about one stands without parentheses by chance."
)


def results(comparison: Mapping[str, Any]) -> Table:
    """The runs, and behind each the published rows for its setup."""
    rows: list[tuple[str, ...]] = []
    kinds: dict[int, str] = {}
    told = set()
    for own in comparison["runs"]:
        rows.append(_row(own["name"], own["setup"], own, _memory(own), _pace(own), _speed(own)))
        for quoted in own["quoted"]:
            # Two runs of one setup have the same.
            if (key := (quoted["source"], quoted["setup"]["backbone"], quoted["bbox_mAP"])) not in told:
                told.add(key)
                kinds[len(rows)] = "quoted"
                cost = decimal(quoted.get("memory_gb"), 1), NONE, decimal(quoted.get("ms_per_image"), 1)
                rows.append(_row(f"Quoted: {quoted['source']}", quoted["setup"], quoted, *cost))
    figures = [f"{shape} {name}" for shape in SHAPES for name in FIGURES]
    columns = ("Run", "Norm", "Backbone", "Schedule", *figures, "Memory, GiB", "s/iter", "ms/image")
    return Table(columns, rows, numeric=range(4, len(columns)), kinds=kinds)


def differences(comparison: Mapping[str, Any]) -> Table:
    """The differences in AP over all classes, with intervals in words and figures."""
    rows = [
        (
            entry["run"],
            f"{_shape(entry)} AP",
            _signed(entry["difference"]),
            f"{_signed(entry['low'])} to {_signed(entry['high'])}",
            entry["verdict"],
        )
        for entry in overall(comparison)
    ]
    columns = ("Run", "Figure", "Difference", "95 % interval", "In words")
    return Table(columns, rows, numeric=(2, 3))


def overall(comparison: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the differences over all classes."""
    return [entry for entry in comparison["differences"] if entry["category_id"] is None]


def per_class(comparison: Mapping[str, Any], kind: str) -> Table | None:
    """AP per class, and the differences; None where no run can be compared in it."""
    found = {
        (entry["run"], entry["category_id"]): entry for entry in comparison["differences"] if entry["iou_type"] == kind
    }
    others = list(dict.fromkeys(name for name, _ in found))
    if not others:
        return None
    rows = []
    for row in comparison["runs"][0]["per_class"]:
        cells = [_delta(found.get((name, row["id"]))) for name in others]
        rows.append((row["name"], f"{row['num_objects']:,}", percent(row[f"{kind}_AP"]), *cells))
    columns = ("Class", "Objects", comparison["baseline"], *others)
    return Table(columns, rows, numeric=range(1, len(columns)))


def headline_text(comparison: Mapping[str, Any]) -> str:
    """Return the runs' AP and the differences for a terminal."""
    lines = [
        f"{own['name']}: box AP {percent(own['bbox_mAP'])}, mask AP {percent(own['segm_mAP'])}"
        for own in comparison["runs"]
    ]
    lines += [
        f"{name}: {figure} {difference} from {comparison['baseline']}, 95 % within {interval}: {words}"
        for name, figure, difference, interval, words in differences(comparison).rows
    ]
    return "\n".join(lines)


def _row(name: str, setup: Mapping[str, Any], figures: Mapping[str, Any], *cost: str) -> tuple[str, ...]:
    values = [percent(figures.get(f"{kind}_{key}")) for kind in IOU_TYPES for key in FIGURES.values()]
    return (name, *(text or NONE for text in setup_texts(setup).values()), *values, *cost)


def _memory(own: Mapping[str, Any]) -> str:
    if own["peak_memory_mb"] is None:
        return NONE
    # A process's own memory is not to be read as a GPU's.
    return f"{own['peak_memory_mb'] / 1024:.1f}" + ("" if own["peak_memory_kind"].startswith("CUDA") else " RSS")


def _pace(own: Mapping[str, Any]) -> str:
    return decimal(own["seconds_per_iteration"], 3)


def _speed(own: Mapping[str, Any]) -> str:
    loop = (own["ms_per_image_kind"] or "").startswith("validation loop")
    return decimal(own["ms_per_image"], 1) + (" loop" if loop else "")


def _shape(entry: Mapping[str, Any]) -> str:
    return SHAPES[IOU_TYPES.index(entry["iou_type"])]


def _signed(fraction: float) -> str:
    return f"{100 * fraction:+.1f}".replace("-", "−")


def _delta(entry: Mapping[str, Any] | None) -> str:
    if entry is None:
        return NONE
    text = _signed(entry["difference"])
    return f"({text})" if entry["verdict"] == "within noise" else text
