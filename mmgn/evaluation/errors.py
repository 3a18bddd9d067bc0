"""What kind of error each detection is, and what each image missed."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from mmgn.evaluation.matching import Matches

#: Detections from this score on are drawn and counted per image; mmdet's visualizer draws from the same one.
SCORE_THRESHOLD = 0.3
#: A detection's kinds; all but the first are errors (Bolya et al., "TIDE", ECCV 2020, section 2.2).
KINDS = ("correct", "localisation", "classification", "duplicate", "background", "both")
#: From which IoU on a detection finds an object, and up to which it has nothing to do with it (there t_f and t_b).
FOREGROUND_IOU = 0.5
BACKGROUND_IOU = 0.1


@dataclass(frozen=True)
class ImageErrors:
    """Detections of one image with a score of at least ``SCORE_THRESHOLD``, judged at IoU 0.5.

    Attributes:
        image_id: of the image.
        found: number of objects found.
        false: number of detections that found none.
        missed: number of objects not found.
        kinds: by position in the results, what each detection is, of ``KINDS``; those of crowds are left out.
        missed_ids: annotation ids of the objects not found.
    """

    image_id: Any
    found: int
    false: int
    missed: int
    kinds: dict[int, str]
    missed_ids: list[Any]

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; there is at least one object or detection."""
        return 2 * self.found / (2 * self.found + self.false + self.missed)


def kinds(matches: Matches) -> np.ndarray:
    """Return (D,) positions in ``KINDS``, tested in TIDE's order; crowds are as if they were not there."""
    found = matches.found[:, 0]
    own, other = matches.own_iou, matches.other_iou
    conditions = [
        found,
        (own >= BACKGROUND_IOU) & (own <= FOREGROUND_IOU),
        other >= FOREGROUND_IOU,
        # It has enough of an object, but did not get it: another detection did.
        own >= FOREGROUND_IOU,
        np.maximum(own, other) <= BACKGROUND_IOU,
    ]
    return np.select(conditions, range(len(conditions)), default=len(conditions))


def image_errors(matches: Matches) -> list[ImageErrors]:
    """Return the images that have objects or detections.

    Detections are matched by falling score, so those above the threshold match as if the rest were not there.
    """
    kept = np.flatnonzero((matches.score >= SCORE_THRESHOLD) & ~matches.ignored[:, 0])
    kind = kinds(matches)
    missed = ~matches.crowd
    missed[matches.match[kept, 0][matches.found[kept, 0]]] = False
    by_image: dict[int, tuple[dict[int, str], list[Any]]] = {}
    for d in kept:
        own, _ = by_image.setdefault(int(matches.image[d]), ({}, []))
        own[int(matches.index[d])] = KINDS[kind[d]]
    objects = np.bincount(matches.object_image[~matches.crowd], minlength=len(matches.image_ids))
    for o in np.flatnonzero(missed):
        by_image.setdefault(int(matches.object_image[o]), ({}, []))[1].append(matches.object_id[o])
    return [
        ImageErrors(
            image_id=matches.image_ids[image],
            found=int(objects[image]) - len(missed_ids),
            false=len(own) - (int(objects[image]) - len(missed_ids)),
            missed=len(missed_ids),
            kinds=own,
            missed_ids=missed_ids,
        )
        for image, (own, missed_ids) in sorted(by_image.items())
    ]
