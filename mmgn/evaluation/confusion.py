"""Which class is taken for which."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from mmgn.evaluation.errors import FOREGROUND_IOU, SCORE_THRESHOLD
from mmgn.evaluation.matching import Matches


@dataclass(frozen=True)
class Confusion:
    """Counts of objects and detections by class.

    Attributes:
        matrix: (K + 1, K + 1) int, rows the truth, columns the prediction, in the order of ``cat_ids``, then
            background: the last column counts missed objects, the last row detections on nothing.
        score_thr: detections from this score on count.
        iou_thr: a detection and an object belong together from this IoU on.
        cat_ids: K category ids.
    """

    matrix: np.ndarray
    score_thr: float
    iou_thr: float
    cat_ids: list[Any]


def confusion(matches: Matches) -> Confusion:
    """Count, each object and each detection once: right ones first, then what is left by falling score.

    Of several free objects of other classes a detection takes the one of the highest IoU. Crowds are left out, and
    the detections that found one.
    """
    classes = len(matches.cat_ids)
    matrix = np.zeros((classes + 1, classes + 1), dtype=int)
    detections = (matches.score >= SCORE_THRESHOLD) & ~matches.ignored[:, 0]
    objects = ~matches.crowd
    right = np.flatnonzero(detections & matches.found[:, 0])
    np.add.at(matrix, (matches.label[right], matches.label[right]), 1)
    detections[right] = False
    objects[matches.match[right, 0]] = False
    for d, o in zip(*matches.crossed, strict=True):
        if detections[d] and objects[o]:
            matrix[matches.object_label[o], matches.label[d]] += 1
            detections[d] = objects[o] = False
    matrix[:classes, classes] = np.bincount(matches.object_label[objects], minlength=classes)
    matrix[classes, :classes] = np.bincount(matches.label[detections], minlength=classes)
    return Confusion(matrix, SCORE_THRESHOLD, FOREGROUND_IOU, matches.cat_ids)
