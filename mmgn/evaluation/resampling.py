"""How sure a difference in AP is: the bootstrap over images."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from mmgn.evaluation.analysis import Analysis
from mmgn.evaluation.average_precision import average_precision
from mmgn.evaluation.matching import Matches

#: Entries of the largest intermediate array, so that memory stays bounded: 4 MiB as int32.
_BLOCK = 2**20
#: Share of the resamples in an interval.
_LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A difference in mAP and where it lies if the images were drawn anew.

    Attributes:
        difference: mAP of the second less that of the first, on the images as they are.
        low: lower end of the interval.
        high: upper end.
        level: share of the resamples between the two.
        replicates: number of resamples.
    """

    difference: float
    low: float
    high: float
    level: float
    replicates: int


def bootstrap(a: Analysis, b: Analysis, replicates: int = 1000, seed: int = 0) -> Interval:
    """Return the percentile interval of the difference in mAP, b less a, over resamples of the images.

    Each resample draws as many images as there are, with replacement, the same for both. Its mAP is computed
    exactly, over all ten IoU thresholds, as if the images drawn twice were in the data set twice; a class without
    objects in a resample is left out of its mean.

    Args:
        a: the baseline.
        b: what is compared with it, on the same annotations.
        replicates: number of resamples.
        seed: of the random numbers.

    Raises:
        ValueError: the two are of different annotations, or there is no object.
    """
    draws = _draws(a, b, replicates, seed)
    if a.stats["mAP"] is None:
        raise ValueError("there is no object to be found, so there is no mAP to compare")
    return _interval(a.stats["mAP"], b.stats["mAP"], mean_ap(b.matches, draws) - mean_ap(a.matches, draws))


def bootstrap_classes(a: Analysis, b: Analysis, replicates: int = 1000, seed: int = 0) -> dict[Any, Interval]:
    """Return :func:`bootstrap`'s interval over all classes under None, and that of each class's AP by category id.

    Classes without objects are left out.

    Raises:
        ValueError: the two are of different annotations, or there is no object.
    """
    draws = _draws(a, b, replicates, seed)
    labels = np.flatnonzero(a.matches.objects_of)
    if not len(labels):
        raise ValueError("there is no object to be found, so there is no mAP to compare")
    before, after = (np.stack([class_ap(own.matches, draws, int(label)) for label in labels]) for own in (a, b))
    change = after - before
    classes = (~np.isnan(change)).sum(axis=0)
    overall = np.divide(np.nansum(change, axis=0), classes, out=np.full(replicates, np.nan), where=classes > 0)
    intervals = {None: _interval(a.stats["mAP"], b.stats["mAP"], overall)}
    for label, differences in zip(labels, change, strict=True):
        cat_id = a.matches.cat_ids[label]
        intervals[cat_id] = _interval(a.per_class[cat_id]["AP"], b.per_class[cat_id]["AP"], differences)
    return intervals


def mean_ap(matches: Matches, weights: np.ndarray) -> np.ndarray:
    """Return the mAP with images counted several times, NaN where that leaves no object.

    Args:
        matches: of the data set.
        weights: (B, I) int32, how many times each image is there.

    Returns:
        (B,) values. Copies of an image lie next to each other in the order of equal scores, copies of a detection
        too.
    """
    total, classes = np.zeros(len(weights)), np.zeros(len(weights))
    for label in np.flatnonzero(matches.objects_of):
        ap = class_ap(matches, weights, int(label))
        total += np.nan_to_num(ap)
        classes += ~np.isnan(ap)
    return np.divide(total, classes, out=np.full(len(weights), np.nan), where=classes > 0)


def class_ap(matches: Matches, weights: np.ndarray, label: int) -> np.ndarray:
    """Return (B,) the AP of one class, as :func:`mean_ap` does of all."""
    own = matches.of_class(label)
    mine = matches.object_image[(matches.object_label == label) & ~matches.crowd]
    ap = np.full(len(weights), np.nan)
    rows = max(1, _BLOCK // max(own.stop - own.start, len(mine), 1))
    for start in range(0, len(weights), rows):
        block = slice(start, start + rows)
        objects = weights[block][:, mine].sum(axis=1)
        values = _class_ap(matches, own, weights[block][:, matches.image[own]], np.maximum(objects, 1))
        ap[block] = np.where(objects > 0, values, np.nan)
    return ap


def _draws(a: Analysis, b: Analysis, replicates: int, seed: int) -> np.ndarray:
    """Return (B, I) int32, how many times each resample has each image of two analyses of the same annotations."""
    for name in ("image_ids", "cat_ids", "object_id"):
        ours, theirs = getattr(a.matches, name), getattr(b.matches, name)
        if ours != theirs:
            raise ValueError(
                f"results on different annotations cannot be compared: {name} differ ({len(ours)} and {len(theirs)} "
                "of them); judge both with the same annotation file and categories"
            )
    images = len(a.matches.image_ids)
    draws = np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), size=replicates)
    return draws.astype(np.int32)


def _interval(before: float | None, after: float | None, differences: np.ndarray) -> Interval:
    # Where there are objects there is AP.
    assert before is not None
    assert after is not None
    # A resample may be without any object, and then without AP.
    low, high = np.nanquantile(differences, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return Interval(after - before, float(low), float(high), _LEVEL, len(differences))


def _class_ap(matches: Matches, own: slice, weights: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """Return (B,) the AP of a class, averaged over the IoU thresholds; weights are (B, D) of its detections."""
    running = np.cumsum(weights, axis=1, dtype=np.int32)
    match, ignored = matches.match[own], matches.ignored[own]
    total = np.zeros(len(weights))
    for t in range(match.shape[1]):
        positives = np.flatnonzero((match[:, t] >= 0) & ~ignored[:, t])
        detections = running[:, positives]
        dropped = np.flatnonzero(ignored[:, t])
        if len(dropped):
            less = np.cumsum(np.pad(weights[:, dropped], ((0, 0), (1, 0))), axis=1, dtype=np.int32)
            detections = detections - less[:, np.searchsorted(dropped, positives)]
        total += average_precision(np.cumsum(weights[:, positives], axis=1, dtype=np.int32), detections, objects)
    return total / match.shape[1]
