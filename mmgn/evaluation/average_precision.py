"""Average precision of one class from running counts, as COCO defines it."""

import numpy as np

#: Recall levels at which COCO reads the precision.
RECALL_LEVELS = np.linspace(0.0, 1.0, 101)


def running_counts(found: np.ndarray, counted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return, at each true positive, how many true positives and how many detections there are up to it.

    Args:
        found: (D,) bool, by falling score.
        counted: (D,) bool; a detection that is not counted is as if it were not there.
    """
    positives = np.flatnonzero(found & counted)
    return np.arange(1, len(positives) + 1), np.cumsum(counted)[positives]


def average_precision(positives: np.ndarray, detections: np.ndarray, objects: np.ndarray | int) -> np.ndarray:
    """Return the average precision over the 101 recall levels.

    Only true positives matter: in between precision falls and recall stands still.

    Args:
        positives: (..., P) number of true positives up to each true positive.
        detections: (..., P) number of detections up to each true positive.
        objects: (...) number of objects to be found, above 0.

    Returns:
        (...) values in [0, 1].
    """
    precision = positives / (detections + np.spacing(1))
    envelope = np.maximum.accumulate(precision[..., ::-1], axis=-1)[..., ::-1]
    recall = positives / np.asarray(objects)[..., None]
    levels = np.searchsorted(RECALL_LEVELS, recall, side="right")
    reached = np.diff(levels, prepend=0, axis=-1)
    return (envelope * reached).sum(axis=-1) / len(RECALL_LEVELS)
