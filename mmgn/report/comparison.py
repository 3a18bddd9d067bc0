"""Several runs side by side: what differs, and whether the images that it was measured on can tell."""

from collections.abc import Mapping, Sequence
from typing import Any

from mmgn.evaluation import Interval, bootstrap_classes
from mmgn.report.metrics import IOU_TYPES, SCHEMA_VERSION, collect_metrics
from mmgn.report.run import Run

#: Resamples of the images behind each interval.
REPLICATES = 1000


def compare(runs: Sequence[Run], replicates: int = REPLICATES) -> dict[str, Any]:
    """Compare runs with the first of them.

    Returns:
        Plain data: the ``runs``' own metrics, with names of their own; ``differences`` in AP over all classes and
        per class, each with its interval over images; ``notes`` on what could not be compared.
    """
    metrics = [collect_metrics(run) for run in runs]
    for own, name in zip(metrics, _names(metrics), strict=True):
        own["name"] = name
    notes = [f"{own['name']}: {note}" for own in metrics for note in own["notes"]]
    differences: list[dict[str, Any]] = []
    for run, own in zip(runs[1:], metrics[1:], strict=True):
        for kind in IOU_TYPES:
            if kind in runs[0].analyses and kind in run.analyses:
                try:
                    found = bootstrap_classes(runs[0].analyses[kind], run.analyses[kind], replicates)
                except ValueError as error:
                    notes.append(f"{own['name']}, {kind}: {error}.")
                    continue
                label = {"run": own["name"], "iou_type": kind}
                differences += [label | {"category_id": key, **_plain(interval)} for key, interval in found.items()]
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "comparison",
        "baseline": metrics[0]["name"],
        "runs": metrics,
        "differences": differences,
        "notes": notes,
    }


def _names(metrics: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a name for each run that no other has: its config's, or else its folder's, path or number."""
    for key in ("name", "folder", "work_dir"):
        names = [own["work_dir"].rstrip("/").rpartition("/")[2] if key == "folder" else own[key] for own in metrics]
        if len(set(names)) == len(names):
            return names
    # The same run twice.
    return [f"{name} #{number}" for number, name in enumerate(names, 1)]


def _plain(interval: Interval) -> dict[str, Any]:
    low, high = interval.low, interval.high
    verdict = "within noise" if low <= 0 <= high else "higher" if low > 0 else "lower"
    return {
        "difference": interval.difference,
        "low": low,
        "high": high,
        "level": interval.level,
        "replicates": interval.replicates,
        "verdict": verdict,
    }
