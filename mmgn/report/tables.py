"""The report's tables on a run: its figures, its classes, how it was made."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmgn.report.metrics import CLASS_FIGURES, IOU_TYPES
from mmgn.report.table import NONE, Table, count, decimal, duration, mebibytes, percent

SHAPES = ("Box", "Mask")
PERCENT = "AP and AR in per cent; – stands for no figure: no predictions, or no object of that size or class."
# Key, name, IoU, area in pixels, detections per image: https://cocodataset.org/#detection-eval
COCO_ROWS = (
    ("mAP", "AP", ".50:.95", "all", "100"),
    ("mAP_50", "AP50", ".50", "all", "100"),
    ("mAP_75", "AP75", ".75", "all", "100"),
    ("mAP_s", "AP small", ".50:.95", "below 32²", "100"),
    ("mAP_m", "AP medium", ".50:.95", "32² to 96²", "100"),
    ("mAP_l", "AP large", ".50:.95", "above 96²", "100"),
    ("AR_1", "AR@1", ".50:.95", "all", "1"),
    ("AR_10", "AR@10", ".50:.95", "all", "10"),
    ("AR_100", "AR@100", ".50:.95", "all", "100"),
    ("AR_s", "AR small", ".50:.95", "below 32²", "100"),
    ("AR_m", "AR medium", ".50:.95", "32² to 96²", "100"),
    ("AR_l", "AR large", ".50:.95", "above 96²", "100"),
)


def headline(metrics: Mapping[str, Any]) -> Table:
    """What a reader wants first, and where each figure comes from."""
    rows = []
    validation = metrics["logged_validation"] or {}
    for kind, name in zip(IOU_TYPES, ("Box AP", "Mask AP"), strict=True):
        value, file = metrics[f"{kind}_mAP"], metrics["results"].get(kind)
        made = "Not computable" if value is None else "Computed"
        source = f"{made} from {Path(file).name}" if file else "No predictions"
        rows.append((name, percent(value), source))
        logged = next((v for key, v in validation.items() if key.endswith(f"/{kind}_mAP")), None)
        if value is None and logged is not None:
            source = f"Logged after iteration {validation['after_iteration']}"
            rows.append((f"{name}, last validation", percent(logged), source))
    seconds, memory = metrics["train_seconds"], metrics["peak_memory_mb"]
    on_device = f"Measured on {metrics['device']}, validation included"
    kind_of_memory = f"Measured, {metrics['peak_memory_kind']}"
    rows += [
        ("Training time", duration(seconds), "Not recorded" if seconds is None else on_device),
        ("Peak memory", mebibytes(memory), "Not recorded" if memory is None else kind_of_memory),
        ("Images evaluated", count(metrics["num_images"]), _file_name(metrics["ann_file"])),
    ]
    return Table(("Figure", "Value", "Source"), rows, numeric=(1,))


def judged(metrics: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the IoU types that there are figures of, with the words for them."""
    return [(kind, shape) for kind, shape in zip(IOU_TYPES, SHAPES, strict=True) if kind in metrics["errors"]]


def coco(metrics: Mapping[str, Any]) -> Table:
    """The 12 standard figures for boxes and masks."""
    kinds = judged(metrics)
    rows = [
        (name, *(percent(metrics[f"{kind}_{key}"]) for kind, _ in kinds), *setting) for key, name, *setting in COCO_ROWS
    ]
    columns = ("Figure", *(shape for _, shape in kinds), "IoU", "Area", "Detections")
    return Table(columns, rows, numeric=(*range(1, 1 + len(kinds)), len(columns) - 1))


def per_class(metrics: Mapping[str, Any]) -> Table:
    """AP and AR of every class, in the annotation file's order."""
    kinds = judged(metrics)
    rows = [
        (
            row["name"],
            count(row["num_objects"]),
            *(percent(row[f"{kind}_{name}"]) for kind, _ in kinds for name in CLASS_FIGURES),
        )
        for row in metrics["per_class"]
    ]
    names = ("AP", "AP50", "AP75", "AP S", "AP M", "AP L", "AR")
    columns = ("Class", "Objects", *(f"{shape} {name}" for _, shape in kinds for name in names))
    return Table(columns, rows, numeric=range(1, len(columns)))


def norms(metrics: Mapping[str, Any]) -> Table | None:
    """What training does to each norm, as recorded; None where it was not."""
    rows = (metrics["norms"] or {}).get("rows")
    if not rows:
        return None
    # What names a row comes first.
    columns = ("where", *(column for column in rows[0] if column != "where"))
    return Table(columns, [tuple(row[column] for column in columns) for row in rows], numeric=(1, 3, 4))


def published(metrics: Mapping[str, Any]) -> Table:
    """The published figures for a run of this setup, with their sources."""
    kinds = judged(metrics)
    keys = [f"{kind}_{name}" for kind, _ in kinds for name in ("mAP", "mAP_50", "mAP_75")]
    own = ("This run, measured", *(percent(metrics[key]) for key in keys))
    rows = [(f"Quoted: {row['source']}", *(percent(row.get(key)) for key in keys)) for row in metrics["quoted"]]
    columns = ("Source", *(f"{shape} {name}" for _, shape in kinds for name in ("AP", "AP50", "AP75")))
    quoted = dict.fromkeys(range(1, len(rows) + 1), "quoted")
    return Table(columns, [own, *rows], numeric=range(1, len(columns)), kinds=quoted)


def run(metrics: Mapping[str, Any]) -> Table:
    """How the run was made and what it was judged on."""
    checkpoint = metrics["checkpoint"]
    if not checkpoint and metrics["checkpoint_iteration"] is not None:
        checkpoint = f"in memory, after iteration {metrics['checkpoint_iteration']}"
    values = {
        "Model": metrics["model"],
        **setup_texts(metrics["setup"]),
        "Configuration": metrics["config"],
        "Work directory": metrics["work_dir"],
        "Trained iterations": _of(metrics["iterations"], metrics["max_iterations"]),
        "Epochs": metrics["epochs"],
        "Seconds per iteration": decimal(metrics["seconds_per_iteration"], 3),
        "Milliseconds per image": _timed(metrics),
        "Device": metrics["device"],
        "Processes": metrics["world_size"],
        "Seed": metrics["seed"],
        "Checkpoint evaluated": checkpoint,
        "Evaluated on": metrics["evaluation_device"],
        "Evaluated at": metrics["evaluation_ended"],
        "Annotations": metrics["ann_file"],
        "Images": metrics["img_dir"],
        **{f"Predictions, {kind}": file for kind, file in metrics["results"].items()},
    }
    rows = [(name, NONE if value is None else str(value)) for name, value in values.items()]
    return Table(("Setting", "Value"), rows)


def _timed(metrics: Mapping[str, Any]) -> str | None:
    if metrics["ms_per_image"] is None:
        return None
    return f"{decimal(metrics['ms_per_image'], 1)} ({metrics['ms_per_image_kind']})"


def setup_texts(setup: Mapping[str, Any]) -> dict[str, str | None]:
    """Return norm, backbone and schedule as a table has them."""
    backbone = "-".join(filter(None, (setup["backbone"], setup["neck"]))) or None
    return {"Norm": setup["norm"], "Backbone": backbone, "Schedule": setup["schedule"]}


def versions(metrics: Mapping[str, Any]) -> Table:
    """The environment of the run, as recorded with it."""
    return Table(("Part", "As recorded"), _flatten("", metrics["versions"]))


def headline_text(metrics: Mapping[str, Any]) -> str:
    """Return the headline table for a terminal."""
    table = headline(metrics)
    widths = [max(len(row[i]) for row in table.rows) for i in range(2)]
    return "\n".join(f"{name:<{widths[0]}}  {value:>{widths[1]}}  {source}" for name, value, source in table.rows)


def _flatten(prefix: str, value: Any) -> list[tuple[str, str]]:
    if isinstance(value, Mapping):
        return [row for key, item in value.items() for row in _flatten(f"{prefix}.{key}".lstrip("."), item)]
    if isinstance(value, (list, tuple)):
        value = ", ".join(map(str, value)) or "none"
    return [(prefix, NONE if value is None else str(value))]


def _file_name(path: str | None) -> str:
    return Path(path).name if path else "No predictions"


def _of(number: int | None, total: int | None) -> str | None:
    return count(number) if total is None else f"{count(number)} of {count(total)}"
