"""Precision over recall and F1 over the score threshold, per class at IoU 0.5."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from mmgn.evaluation.average_precision import RECALL_LEVELS
from mmgn.evaluation.matching import Matches

#: Score thresholds at which F1 is given.
SCORES = np.linspace(0.0, 1.0, 101)


@dataclass(frozen=True)
class ClassCurve:
    """Curves of a class at IoU 0.5.

    Attributes:
        recall: (101,) COCO's recall levels.
        precision: (101,) COCO's interpolated precision at each, 0 where that recall is not reached.
        scores: (101,) score thresholds 0, 0.01, ..., 1.
        f1: (101,) harmonic mean of precision and recall of the detections from each score threshold on.
        best_f1: the highest F1 of any threshold, those between the 101 included.
        best_score: the highest threshold that gives it, a detection's score; None without any true positive.
    """

    recall: np.ndarray
    precision: np.ndarray
    scores: np.ndarray
    f1: np.ndarray
    best_f1: float
    best_score: float | None


def class_curves(matches: Matches, precision: np.ndarray) -> dict[Any, ClassCurve]:
    """Return the curves by category id, of classes that have objects.

    Args:
        matches: of the evaluation.
        precision: (101, K) COCO's interpolated precision at IoU 0.5.
    """
    return {
        matches.cat_ids[label]: _class_curve(matches, int(label), precision[:, label])
        for label in np.flatnonzero(matches.objects_of)
    }


def _class_curve(matches: Matches, label: int, precision: np.ndarray) -> ClassCurve:
    own = matches.of_class(label)
    counted = ~matches.ignored[own, 0]
    score, found = matches.score[own][counted], matches.found[own, 0][counted]
    objects = int(matches.objects_of[label])
    # One threshold per distinct score: all detections of that score pass it.
    last = np.flatnonzero(np.diff(score, append=-np.inf))
    f1 = 2 * np.cumsum(found)[last] / (last + 1 + objects)
    # How many distinct scores pass each of SCORES; the F1 of none is 0.
    passing = np.searchsorted(-score[last], -SCORES, side="right")
    best = int(f1.argmax()) if len(f1) else 0
    best_f1 = float(f1[best]) if len(f1) else 0.0
    return ClassCurve(
        recall=RECALL_LEVELS,
        precision=precision,
        scores=SCORES,
        f1=np.r_[0.0, f1][passing],
        best_f1=best_f1,
        best_score=float(score[last][best]) if best_f1 > 0 else None,
    )
