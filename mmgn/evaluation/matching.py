"""Which detection finds which object: COCO's matching, kept for every detection."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmgn.evaluation.coco_eval import IOU_THRESHOLDS, MAX_DETECTIONS
from mmgn.evaluation.instances import Instances, ranked
from mmgn.evaluation.library import require


@dataclass(frozen=True)
class Matches:
    """Detections and objects of a data set, and which belong together.

    D detections: of each class in each image the best scored 100, which are all that count; sorted by class, there
    by falling score, equal ones by image and then as in the results. O objects, as in the annotations, T IoU
    thresholds.

    Attributes:
        image_ids: sorted; the other fields give an image by its position here.
        cat_ids: sorted; the other fields give a class by its position here.
        index: (D,) positions in the results.
        image: (D,).
        label: (D,).
        score: (D,).
        match: (D, T) position of the object found, -1 if none; each object is found once, a crowd any number of times.
        ignored: (D, T) bool, matched to a crowd: neither right nor wrong.
        own_iou: (D,) the highest IoU with an object of the detection's class, crowds left out.
        own_object: (D,) that object.
        other_iou: (D,) the same among objects of other classes.
        other_object: (D,) that object.
        crossed: two arrays (P,), detections and objects of different classes with an IoU of at least 0.5, crowds left
            out; by falling score, there by falling IoU.
        object_id: O annotation ids.
        object_image: (O,).
        object_label: (O,).
        crowd: (O,) bool.
    """

    image_ids: list[Any]
    cat_ids: list[Any]
    index: np.ndarray
    image: np.ndarray
    label: np.ndarray
    score: np.ndarray
    match: np.ndarray
    ignored: np.ndarray
    own_iou: np.ndarray
    own_object: np.ndarray
    other_iou: np.ndarray
    other_object: np.ndarray
    crossed: tuple[np.ndarray, np.ndarray]
    object_id: list[Any]
    object_image: np.ndarray
    object_label: np.ndarray
    crowd: np.ndarray

    @property
    def found(self) -> np.ndarray:
        """(D, T) bool, the true positives."""
        return (self.match >= 0) & ~self.ignored

    @property
    def objects_of(self) -> np.ndarray:
        """(K,) number of objects to be found of each class."""
        return np.bincount(self.object_label[~self.crowd], minlength=len(self.cat_ids))

    def of_class(self, label: int) -> slice:
        """Return where the detections of a class are."""
        start, stop = np.searchsorted(self.label, [label, label + 1])
        return slice(int(start), int(stop))


def match(objects: Instances, detections: Instances, image_ids: list[Any], cat_ids: list[Any]) -> Matches:
    """Match detections with objects at every IoU threshold of COCO, as pycocotools does for objects of any size.

    One thing differs: pycocotools never counts an object of annotation id 0 as found.
    """
    order = ranked(detections, MAX_DETECTIONS[-1])
    count, thresholds = len(order), len(IOU_THRESHOLDS)
    found = np.full((count, thresholds), -1, dtype=np.int32)
    nearest = {name: (np.zeros(count), np.zeros(count, dtype=np.int32)) for name in ("own", "other")}
    crossed = []
    for rows, columns, iou in _overlaps(objects, detections, order):
        own = detections.label[order[rows]][:, None] == objects.label[columns][None]
        crowd = objects.crowd[columns]
        for name, of_interest in (("own", own & ~crowd), ("other", ~own & ~crowd)):
            masked = np.where(of_interest, iou, 0.0)
            best = masked.argmax(axis=1)
            nearest[name][0][rows] = np.take_along_axis(masked, best[:, None], axis=1)[:, 0]
            nearest[name][1][rows] = columns[best]
        d, o = np.nonzero(~own & ~crowd & (iou >= IOU_THRESHOLDS[0]))
        crossed.append(np.stack([d + rows.start, columns[o], iou[d, o]]))
        local = _match_image(np.where(own, iou, -1.0), crowd)
        found[rows] = np.where(local >= 0, columns[local], -1)
    by_class = np.lexsort((-detections.score[order], detections.label[order]))
    order, found = order[by_class], found[by_class]
    new_place = np.argsort(by_class)
    crossed_detection, crossed_object, crossed_iou = np.concatenate([np.zeros((3, 0)), *crossed], axis=1)
    crossed_detection = new_place[crossed_detection.astype(int)]
    by_score = np.lexsort((-crossed_iou, crossed_detection, -detections.score[order][crossed_detection]))
    return Matches(
        image_ids=image_ids,
        cat_ids=cat_ids,
        index=np.array(detections.ids, dtype=np.int64)[order],
        image=detections.image[order],
        label=detections.label[order],
        score=detections.score[order],
        match=found,
        ignored=(found >= 0) & np.append(objects.crowd, False)[found],
        own_iou=nearest["own"][0][by_class],
        own_object=nearest["own"][1][by_class],
        other_iou=nearest["other"][0][by_class],
        other_object=nearest["other"][1][by_class],
        crossed=(crossed_detection[by_score], crossed_object[by_score].astype(int)),
        object_id=objects.ids,
        object_image=objects.image,
        object_label=objects.label,
        crowd=objects.crowd,
    )


def _overlaps(
    objects: Instances, detections: Instances, order: np.ndarray
) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Yield per image the rows of its detections in ``order``, its objects (crowds last), and their IoU."""
    iou = require("mask").iou
    # Crowds last, as ``_match_image`` wants them.
    by_image = np.lexsort((objects.crowd, objects.image))
    images = np.unique(objects.image)
    detection_ends = np.searchsorted(detections.image[order], np.stack([images, images + 1]))
    object_ends = np.searchsorted(objects.image[by_image], np.stack([images, images + 1]))
    for first, last, start, stop in zip(*detection_ends, *object_ends, strict=True):
        if first < last:
            columns = by_image[start:stop]
            rows = order[first:last]
            if objects.masks:
                shapes = [detections.shapes[d] for d in rows], [objects.shapes[o] for o in columns]
            else:
                shapes = detections.shapes[rows], objects.shapes[columns]
            yield slice(first, last), columns, iou(*shapes, objects.crowd[columns].astype(int).tolist())


def _match_image(iou: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """Return (D, T) the object that each detection finds, -1 for none.

    Args:
        iou: (D, G), detections by falling score; -1 where the classes differ.
        crowd: (G,) bool, False before True.
    """
    # pycocotools' own guard for a threshold of 1.
    thresholds = np.minimum(IOU_THRESHOLDS, 1 - 1e-10)
    single = int((~crowd).sum())
    every = np.arange(len(thresholds))
    free = np.ones((len(thresholds), len(crowd)), dtype=bool)
    matches = np.full((len(iou), len(thresholds)), -1)
    for d in np.flatnonzero(iou.max(axis=1) >= thresholds.min()):
        fits = np.where(free & (iou[d] >= thresholds[:, None]), iou[d], -1.0)
        # Crowds take only what no single object takes; of equal ones the last wins, as in pycocotools.
        for part in (slice(single, None), slice(0, single)):
            reversed_part = fits[:, part][:, ::-1]
            if reversed_part.shape[1]:
                best = reversed_part.argmax(axis=1)
                hit = reversed_part[every, best] >= 0
                matches[d, hit] = (part.start + reversed_part.shape[1] - 1 - best)[hit]
        taken = every[(matches[d] >= 0) & (matches[d] < single)]
        free[taken, matches[d, taken]] = False
    return matches
