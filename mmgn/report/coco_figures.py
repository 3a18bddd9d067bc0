"""The standard COCO figures, computed from results and annotations with pycocotools."""

import contextlib
import copy
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

#: Names of the 12 figures in the order of ``COCOeval.stats`` (https://cocodataset.org/#detection-eval).
FIGURES = (
    "mAP",
    "mAP_50",
    "mAP_75",
    "mAP_s",
    "mAP_m",
    "mAP_l",
    "AR_1",
    "AR_10",
    "AR_100",
    "AR_s",
    "AR_m",
    "AR_l",
)

#: Detections from this score on are drawn and counted per image; mmdet's visualizer draws from the same one.
SCORE_THRESHOLD = 0.3


@dataclass(frozen=True)
class ImageCounts:
    """Detections of one image with a score of at least ``SCORE_THRESHOLD``, judged at IoU 0.5."""

    image_id: Any
    found: int
    false: int
    missed: int

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; there is at least one object or detection."""
        return 2 * self.found / (2 * self.found + self.false + self.missed)


@dataclass(frozen=True)
class CocoFigures:
    """Figures of one IoU type as fractions of 1; None where no object is there to be found."""

    stats: dict[str, float | None]
    #: By category id: ``AP``, ``AP_50``, ``AP_75``.
    per_class: dict[Any, dict[str, float | None]]
    #: Images with objects or detections.
    images: list[ImageCounts]


def evaluate(
    truth: dict[str, Any], results: Sequence[dict[str, Any]], iou_type: str, cat_ids: Sequence[Any]
) -> CocoFigures:
    """Compute the figures over all images of ``truth``, as mmdet's ``CocoMetric`` does.

    Args:
        truth: COCO annotations.
        results: COCO results, possibly none.
        iou_type: ``'bbox'`` or ``'segm'``. Small, medium and large go by the mask's area for ``'segm'``.
        cat_ids: Categories to evaluate.

    Raises:
        ValueError: ``iou_type`` is ``'segm'`` and an annotation has no mask.
    """
    if iou_type == "segm":
        maskless = [entry["id"] for entry in truth["annotations"] if not entry.get("segmentation")]
        if maskless:
            raise ValueError(
                f"{len(maskless)} of {len(truth['annotations'])} annotations have no 'segmentation' "
                f"(first: id {maskless[0]})"
            )
        # With a box in it, loadRes takes the box's area for the object's.
        results = [{key: value for key, value in entry.items() if key != "bbox"} for entry in results]
    # pycocotools prints its progress, and writes into what it is given.
    with open(os.devnull, "w") as devnull, contextlib.redirect_stdout(devnull):
        gt = index_coco(copy.deepcopy(truth))
        # loadRes asserts on an empty list.
        dt = gt.loadRes(copy.deepcopy(results)) if results else index_coco(truth | {"annotations": []})
        judge = COCOeval(gt, dt, iou_type)
        judge.params.catIds = list(cat_ids)
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    # catIds are sorted by evaluate().
    per_class = {
        cat_id: {
            "AP": _mean(judge.eval["precision"][:, :, k, 0, 2]),
            "AP_50": _mean(judge.eval["precision"][0, :, k, 0, 2]),
            "AP_75": _mean(judge.eval["precision"][5, :, k, 0, 2]),
        }
        for k, cat_id in enumerate(judge.params.catIds)
    }
    values = (None if value < 0 else float(value) for value in judge.stats)
    stats = dict(zip(FIGURES, values, strict=True))
    return CocoFigures(stats, per_class, _count(judge))


def index_coco(dataset: dict[str, Any]) -> COCO:
    """Return pycocotools' index of annotations that were read already."""
    coco = COCO()
    coco.dataset = dataset
    with open(os.devnull, "w") as devnull, contextlib.redirect_stdout(devnull):
        coco.createIndex()
    return coco


def _mean(precision: np.ndarray) -> float | None:
    valid = precision[precision > -1]
    return float(valid.mean()) if valid.size else None


def _count(judge: COCOeval) -> list[ImageCounts]:
    """Count per image over all categories and areas.

    Detections are matched by falling score, so those above the threshold match as if the rest were not there.
    """
    counts = {image_id: np.zeros(3, dtype=int) for image_id in judge.params.imgIds}
    all_areas = judge.params.areaRng[0]
    for entry in judge.evalImgs:
        if entry is None or entry["aRng"] != all_areas:
            continue
        kept = (np.array(entry["dtScores"]) >= SCORE_THRESHOLD) & ~entry["dtIgnore"][0].astype(bool)
        found = int((entry["dtMatches"][0] > 0)[kept].sum())
        objects = int((np.array(entry["gtIgnore"]) == 0).sum())
        counts[entry["image_id"]] += (found, int(kept.sum()) - found, objects - found)
    return [ImageCounts(image_id, *map(int, row)) for image_id, row in counts.items() if row.any()]
