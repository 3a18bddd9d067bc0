"""One set of results judged against its annotations: figures, curves and errors, as plain data."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mmgn.evaluation.calibration import Calibration, calibration
from mmgn.evaluation.coco_eval import FIGURES, CocoEval, evaluate
from mmgn.evaluation.confusion import Confusion, confusion
from mmgn.evaluation.curves import ClassCurve, class_curves
from mmgn.evaluation.errors import ImageErrors, image_errors
from mmgn.evaluation.instances import read_detections, read_objects
from mmgn.evaluation.matching import Matches, match
from mmgn.evaluation.tide import tide


@dataclass(frozen=True)
class Analysis:
    """Everything about one IoU type; fractions of 1, None where no object is there to be found.

    Attributes:
        stats: the 12 official figures by their names in ``FIGURES``, unrounded.
        per_class: by category id ``AP``, ``AP_50``, ``AP_75``, ``AP_s``, ``AP_m``, ``AP_l``, ``AR_1``, ``AR_10``,
            ``AR_100``.
        curves: by category id; classes without objects have none.
        confusion: which class is taken for which.
        tide: by error type the AP at IoU 0.5 that its absence would give back.
        calibration: whether scores mean what they say.
        errors: of images with objects or detections.
        matches: what all this comes from, and :func:`mmgn.evaluation.bootstrap` goes by.
    """

    stats: dict[str, float | None]
    per_class: dict[Any, dict[str, float | None]]
    curves: dict[Any, ClassCurve]
    confusion: Confusion
    tide: dict[str, float]
    calibration: Calibration
    errors: list[ImageErrors]
    matches: Matches


def analyse(
    truth: dict[str, Any], results: Sequence[dict[str, Any]], iou_type: str, cat_ids: Sequence[Any]
) -> Analysis:
    """Judge results over all images of ``truth``, as mmdet's ``CocoMetric`` does.

    Args:
        truth: COCO annotations; left as they are.
        results: COCO results, possibly none; left as they are.
        iou_type: ``'bbox'`` or ``'segm'``. Small, medium and large go by the mask's area for ``'segm'``.
        cat_ids: categories to evaluate.

    Raises:
        ImportError: faster-coco-eval is not installed.
        ValueError: ``iou_type`` is neither; it is ``'segm'`` and an annotation has no mask; results are of other
            images.

    Example:
        >>> truth = {"images": [{"id": 1, "width": 64, "height": 64}], "categories": [{"id": 1, "name": "disc"}]}
        >>> box = {"image_id": 1, "category_id": 1, "bbox": [8, 8, 16, 16]}
        >>> truth["annotations"] = [box | {"id": 1, "area": 256, "iscrowd": 0}]
        >>> analyse(truth, [box | {"score": 0.9}], "bbox", [1]).stats["mAP"]
        1.0
    """
    if iou_type not in ("bbox", "segm"):
        raise ValueError(f"iou_type must be 'bbox' or 'segm', got {iou_type!r}")
    image_ids = sorted({image["id"] for image in truth["images"]})
    cat_ids = sorted(set(cat_ids))
    objects = read_objects(truth, iou_type, image_ids, cat_ids)
    detections = read_detections(results, iou_type, image_ids, cat_ids)
    figures = evaluate(objects, detections, len(image_ids), len(cat_ids))
    matches = match(objects, detections, image_ids, cat_ids)
    return Analysis(
        stats=dict(zip(FIGURES, map(_defined, figures.stats()), strict=True)),
        per_class={cat_id: _per_class(figures, label) for label, cat_id in enumerate(cat_ids)},
        curves=class_curves(matches, figures.precision[0, :, :, 0, -1]),
        confusion=confusion(matches),
        tide=tide(matches),
        calibration=calibration(matches),
        errors=image_errors(matches),
        matches=matches,
    )


def _per_class(figures: CocoEval, label: int) -> dict[str, float | None]:
    most = figures.max_dets[-1]
    values = {
        "AP": figures.ap(label=label, max_dets=most),
        "AP_50": figures.ap(label=label, max_dets=most, iou_thr=0.5),
        "AP_75": figures.ap(label=label, max_dets=most, iou_thr=0.75),
        **{f"AP_{area}": figures.ap(label=label, max_dets=most, area=area) for area in "sml"},
        **{f"AR_{count}": figures.ar(label=label, max_dets=count) for count in figures.max_dets},
    }
    return {name: _defined(value) for name, value in values.items()}


def _defined(value: float) -> float | None:
    return None if value < 0 else value
