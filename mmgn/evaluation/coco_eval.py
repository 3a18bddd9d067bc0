"""The COCO figures, computed by faster-coco-eval."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmgn.evaluation.instances import Instances
from mmgn.evaluation.library import require

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
IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
#: Detections per class and image that the official figures count.
MAX_DETECTIONS = (1, 10, 100)
#: Pairs of image and class that are judged at a time, ten classes of COCO's val: faster-coco-eval keeps about two KB of
#: each, empty or not.
PAIRS = 50_000
_AREAS = ("all", "s", "m", "l")


@dataclass(frozen=True)
class CocoEval:
    """What faster-coco-eval accumulates; -1 where there is no object to be found.

    T IoU thresholds, R = 101 recall levels, K classes by sorted id, A areas (all, small, medium, large), M counts of
    detections.

    Attributes:
        precision: (T, R, K, A, M), interpolated.
        scores: (T, R, K, A, M), the score threshold that reaches each recall level.
        recall: (T, K, A, M).
        iou_thrs: (T,).
        max_dets: M, rising.
    """

    precision: np.ndarray
    scores: np.ndarray
    recall: np.ndarray
    iou_thrs: np.ndarray
    max_dets: Sequence[int]

    def select(self, iou_thrs: Sequence[float] | np.ndarray, max_dets: Sequence[int]) -> "CocoEval":
        """Return the part at some of the IoU thresholds and counts of detections, as if it had been evaluated alone."""
        t = [int(np.abs(self.iou_thrs - threshold).argmin()) for threshold in iou_thrs]
        m = [self.max_dets.index(count) for count in sorted(max_dets)]
        return CocoEval(
            self.precision[t][..., m],
            self.scores[t][..., m],
            self.recall[t][..., m],
            self.iou_thrs[t],
            sorted(max_dets),
        )

    def ap(self, *, iou_thr: float | None = None, area: str = "all", max_dets: int, label: Any = slice(None)) -> float:
        """Return the mean precision, over all IoU thresholds or at one, over all classes or of one; -1 for none."""
        if max_dets not in self.max_dets:
            return -1.0
        values = self.precision[..., _AREAS.index(area), self.max_dets.index(max_dets)]
        return _mean(values[self._thresholds(iou_thr)][:, :, label])

    def ar(self, *, area: str = "all", max_dets: int, label: Any = slice(None)) -> float:
        """Return the mean recall, over all classes or of one; -1 for none."""
        return _mean(self.recall[..., _AREAS.index(area), self.max_dets.index(max_dets)][:, label])

    def stats(self) -> list[float]:
        """Return the 12 numbers of ``COCOeval.stats``; like there, the first counts 100 detections whatever M is."""
        low, middle, most = self.max_dets[:3]
        sizes = _AREAS[1:]
        return [
            self.ap(max_dets=100),
            self.ap(iou_thr=0.5, max_dets=most),
            self.ap(iou_thr=0.75, max_dets=most),
            *(self.ap(area=area, max_dets=most) for area in sizes),
            *(self.ar(max_dets=count) for count in (low, middle, most)),
            *(self.ar(area=area, max_dets=most) for area in sizes),
        ]

    def _thresholds(self, iou_thr: float | None) -> Any:
        return slice(None) if iou_thr is None else np.isclose(self.iou_thrs, iou_thr)


def evaluate(
    objects: Instances,
    detections: Instances,
    images: int,
    classes: int,
    *,
    iou_thrs: Sequence[float] | np.ndarray = IOU_THRESHOLDS,
    max_dets: Sequence[int] = MAX_DETECTIONS,
    by_class: bool = True,
) -> CocoEval:
    """Judge detections as pycocotools does.

    Args:
        objects: what there is to be found.
        detections: what was found; boxes if ``objects`` are boxes, masks if they are masks.
        images: number of images.
        classes: number of classes.
        iou_thrs: IoU from which on a detection fits an object.
        max_dets: detections per class and image that count, best scored first; at least three numbers.
        by_class: whether a detection fits objects of its own class only; otherwise, as for proposals, K = 1.
    """
    step = max(1, PAIRS // max(images, 1)) if by_class else max(classes, 1)
    judged = []
    for start in range(0, max(classes, 1), step):
        stop = min(start + step, classes)
        parts = objects.of_classes(start, stop), detections.of_classes(start, stop)
        judged.append(_judge(*parts, images, stop - start, iou_thrs, max_dets, by_class))
    return CocoEval(
        np.concatenate([found["precision"] for found in judged], axis=2),
        np.concatenate([found["scores"] for found in judged], axis=2),
        np.concatenate([found["recall"] for found in judged], axis=1),
        np.asarray(iou_thrs, dtype=float).reshape(-1),
        sorted(max_dets),
    )


def _judge(
    objects: Instances,
    detections: Instances,
    images: int,
    classes: int,
    iou_thrs: Sequence[float] | np.ndarray,
    max_dets: Sequence[int],
    by_class: bool,
) -> dict[str, Any]:
    coco = require("coco")
    judge = require("faster_eval_api").COCOeval_faster(
        coco.COCO(_dataset(objects, images, classes, _annotation_ids(objects))),
        # pycocotools numbers detections from 1.
        coco.COCO(_dataset(detections, images, classes, range(1, len(detections) + 1))),
        "segm" if objects.masks else "bbox",
    )
    judge.params.maxDets = sorted(max_dets)
    judge.params.iouThrs = np.asarray(iou_thrs, dtype=float).reshape(-1)
    judge.params.useCats = int(by_class)
    judge.evaluate()
    judge.accumulate()
    return {name: np.asarray(judge.eval[name]) for name in ("precision", "scores", "recall")}


def _annotation_ids(objects: Instances) -> Sequence[int]:
    # Ids are kept where they can be: pycocotools takes an object of id 0 for one that is never found, and so do we.
    whole = all(isinstance(number, int | np.integer) for number in objects.ids)
    return [int(number) for number in objects.ids] if whole else range(1, len(objects) + 1)


def _dataset(instances: Instances, images: int, classes: int, ids: Sequence[int]) -> dict[str, Any]:
    # Dicts of their own, because faster-coco-eval writes into what it is given; images and categories by position,
    # because it takes whole numbers only.
    shape = "segmentation" if instances.masks else "bbox"
    shapes = instances.shapes if instances.masks else instances.shapes.tolist()
    annotations = [
        {"id": number, "image_id": i, "category_id": k, shape: s, "area": a, "score": p, "iscrowd": c}
        for number, i, k, s, a, p, c in zip(
            ids,
            instances.image.tolist(),
            instances.label.tolist(),
            shapes,
            instances.area.tolist(),
            instances.score.tolist(),
            instances.crowd.astype(int).tolist(),
            strict=True,
        )
    ]
    return {
        "images": [{"id": number, "height": 0, "width": 0} for number in range(images)],
        "categories": [{"id": number} for number in range(classes)],
        "annotations": annotations,
    }


def _mean(values: np.ndarray) -> float:
    valid = values[values > -1]
    return float(valid.mean()) if valid.size else -1.0
