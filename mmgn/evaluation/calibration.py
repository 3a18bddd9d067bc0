"""Whether scores mean what they say: of detections with score 0.8, eight in ten should be right."""

from dataclasses import dataclass

import numpy as np

from mmgn.evaluation.matching import Matches


@dataclass(frozen=True)
class Calibration:
    """Scores against precision at IoU 0.5, in B bins of equal width from 0 to 1.

    Attributes:
        mean_score: (B,) of the detections in each bin, NaN in an empty one.
        precision: (B,) share of them that are right, NaN in an empty one.
        count: (B,) number of detections.
        ece: expected calibration error (Naeini et al., AAAI 2015): the mean distance between the two, weighted by
            count; None without detections. Low scores, the bulk of a detector's output, weigh accordingly.
    """

    mean_score: np.ndarray
    precision: np.ndarray
    count: np.ndarray
    ece: float | None


def calibration(matches: Matches, bins: int = 10) -> Calibration:
    """Compare scores with precision; detections of crowds are left out. A bin holds its lower border.

    Scores beyond 0 and 1, which such as Mask Scoring R-CNN may give, count as these.
    """
    counted = ~matches.ignored[:, 0]
    score, found = np.clip(matches.score[counted], 0, 1), matches.found[counted, 0]
    number = np.clip(np.searchsorted(np.linspace(0, 1, bins + 1), score, side="right") - 1, 0, bins - 1)
    count = np.bincount(number, minlength=bins)
    with np.errstate(invalid="ignore"):
        mean_score = np.bincount(number, score, bins) / count
        precision = np.bincount(number, found, bins) / count
    gap = np.nansum(np.abs(mean_score - precision) * count)
    return Calibration(mean_score, precision, count, float(gap / len(score)) if len(score) else None)
