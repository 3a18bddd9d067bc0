"""COCO annotations and results as arrays, checked on the way."""

import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from mmgn.datasets.check.rle import sum_runs
from mmgn.evaluation.library import require

# Pixels; the library keeps some numbers for each.
_LONGEST_OUTLINE = 2**25


@dataclass(frozen=True)
class Instances:
    """Objects or detections, in the order of the file they come from; N of them.

    Attributes:
        image: (N,) position of each one's image among the sorted image ids.
        label: (N,) position of its category among the sorted category ids.
        shapes: (N, 4) boxes as x, y, width, height, or N run-length encoded masks.
        area: (N,) in pixels; an object's as annotated.
        ids: N annotation ids; for detections their positions in the results.
        score: (N,) of detections; ones for objects.
        crowd: (N,) bool, objects that stand for a crowd.
    """

    image: np.ndarray
    label: np.ndarray
    shapes: Any
    area: np.ndarray
    ids: list[Any]
    score: np.ndarray
    crowd: np.ndarray

    def __len__(self) -> int:
        return len(self.image)

    @property
    def masks(self) -> bool:
        """Whether the shapes are masks."""
        return isinstance(self.shapes, list)

    def of_classes(self, start: int, stop: int) -> "Instances":
        """Return those with labels from ``start`` to before ``stop``, which are then counted from 0."""
        kept = np.flatnonzero((start <= self.label) & (self.label < stop))
        return Instances(
            image=self.image[kept],
            label=self.label[kept] - start,
            shapes=[self.shapes[k] for k in kept] if self.masks else self.shapes[kept],
            area=self.area[kept],
            ids=[self.ids[k] for k in kept],
            score=self.score[kept],
            crowd=self.crowd[kept],
        )


def read_objects(truth: dict[str, Any], iou_type: str, image_ids: Sequence[Any], cat_ids: Sequence[Any]) -> Instances:
    """Return the annotations of these images and categories.

    Args:
        truth: COCO annotations.
        iou_type: ``'bbox'`` or ``'segm'``.
        image_ids: sorted.
        cat_ids: sorted.

    Raises:
        ValueError: annotations lack what the IoU type needs.
    """
    entries = truth.get("annotations", [])
    kept, image, label = _place(entries, image_ids, cat_ids)
    entries = [entries[number] for number in kept]
    _require_key(entries, "segmentation" if iou_type == "segm" else "bbox", "annotations")
    _require_key(entries, "area", "annotations")
    shapes: Any
    if iou_type == "segm":
        sizes = {entry["id"]: (entry["height"], entry["width"]) for entry in truth["images"]}
        encode = require("mask").segmToRle
        try:
            require_bounded(entries)
            shapes = [
                encode(entry["segmentation"], w=sizes[entry["image_id"]][1], h=sizes[entry["image_id"]][0])
                for entry in entries
            ]
        # What pybind11 and the library make of other types and broken text.
        except (RuntimeError, LookupError, TypeError, ValueError) as error:
            raise ValueError(f"annotations have masks that cannot be read ({error})") from error
        require_decodable(shapes, [f"id {entry['id']}" for entry in entries], "annotations")
    else:
        shapes = _boxes(entries, "annotations")
    return Instances(
        image=image,
        label=label,
        shapes=shapes,
        area=np.array([entry["area"] for entry in entries], dtype=float),
        ids=[entry["id"] for entry in entries],
        score=np.ones(len(entries)),
        crowd=np.array([entry.get("iscrowd", 0) for entry in entries], dtype=bool),
    )


def read_detections(
    results: Sequence[dict[str, Any]], iou_type: str, image_ids: Sequence[Any], cat_ids: Sequence[Any]
) -> Instances:
    """Return the detections of these categories; the arguments are those of :func:`read_objects`.

    Raises:
        ValueError: results are of other images, or lack what the IoU type needs.
    """
    known = set(image_ids)
    require_known([entry["image_id"] for entry in results if entry["image_id"] not in known], len(results))
    for key in ("score", "segmentation" if iou_type == "segm" else "bbox"):
        _require_key(results, key, "results")
    kept, image, label = _place(results, image_ids, cat_ids)
    entries = [results[number] for number in kept]
    shapes: Any
    if iou_type == "segm":
        shapes = [entry["segmentation"] for entry in entries]
        require_decodable(shapes, [f"number {number}" for number in kept], "results")
        # Small, medium and large go by the mask, whatever box comes with it.
        area = np.asarray(require("mask").area(shapes), dtype=float) if shapes else np.zeros(0)
    else:
        shapes = _boxes(entries, "results")
        area = shapes[:, 2] * shapes[:, 3]
    return Instances(
        image=image,
        label=label,
        shapes=shapes,
        area=area,
        ids=kept,
        score=np.array([entry["score"] for entry in entries], dtype=float),
        crowd=np.zeros(len(entries), dtype=bool),
    )


def ranked(detections: Instances, limit: int) -> np.ndarray:
    """Return which detections count, by image and there by falling score: the ``limit`` best of each class.

    Equal scores keep their order, as in pycocotools.
    """
    order = np.lexsort((-detections.score, detections.label, detections.image))
    image, label = detections.image[order], detections.label[order]
    new = np.r_[True, (image[1:] != image[:-1]) | (label[1:] != label[:-1])][: len(order)]
    starts = np.flatnonzero(new)
    rank = np.arange(len(order)) - np.repeat(starts, np.diff(np.r_[starts, len(order)]))
    # Back to the order of the file first: between classes, too, equal scores keep it.
    kept = np.sort(order[rank < limit])
    return kept[np.lexsort((-detections.score[kept], detections.image[kept]))]


def require_known(strange: Sequence[Any], total: int) -> None:
    """Raise ValueError if there are results of images that are not in the annotations."""
    if strange:
        raise ValueError(
            f"{len(strange)} of {total} results are of images that the annotations do not have (first: image_id "
            f"{strange[0]!r}): the results are of another data set"
        )


def _place(
    entries: Sequence[dict[str, Any]], image_ids: Sequence[Any], cat_ids: Sequence[Any]
) -> tuple[list[int], np.ndarray, np.ndarray]:
    images = {image_id: number for number, image_id in enumerate(image_ids)}
    labels = {cat_id: number for number, cat_id in enumerate(cat_ids)}
    kept = [
        number for number, entry in enumerate(entries) if entry["category_id"] in labels and entry["image_id"] in images
    ]
    image = np.array([images[entries[number]["image_id"]] for number in kept], dtype=np.int32)
    return kept, image, np.array([labels[entries[number]["category_id"]] for number in kept], dtype=np.int32)


def _boxes(entries: Sequence[dict[str, Any]], what: str) -> np.ndarray:
    try:
        return np.array([entry["bbox"] for entry in entries], dtype=float).reshape(len(entries), 4)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{what} have boxes that are not four numbers") from error


def require_bounded(entries: Sequence[Mapping[str, Any]]) -> None:
    """Raise ValueError for polygons whose outline would fill the memory, pixel by pixel as the library takes it."""
    for entry in entries:
        polygons = entry["segmentation"]
        for polygon in polygons if isinstance(polygons, list) else ():
            reach = max(map(abs, polygon), default=0)
            # Most are so short that their sides need not be added up.
            if len(polygon) * reach > _LONGEST_OUTLINE and max(reach, _outline(polygon)) > _LONGEST_OUTLINE:
                raise ValueError(
                    f"id {entry.get('id')}: a polygon of {len(polygon) // 2} points is over {_LONGEST_OUTLINE} pixels "
                    "long, or as far away"
                )
            # To max it is neither more nor less.
            if math.isnan(sum(polygon)):
                raise ValueError(f"id {entry.get('id')}: a polygon has points that are NaN")


def _outline(polygon: Sequence[float]) -> float:
    sides = (polygon[axis::2] for axis in (0, 1))
    return sum(abs(end - start) for side in sides for start, end in pairwise([*side, *side[:1]]))


def require_decodable(masks: Sequence[Any], names: Sequence[str], what: str) -> None:
    """Raise ValueError unless masks are in COCO's compression and of their size's pixels: the library trusts them.

    Of two masks that end at different pixels it would look for the end of the shorter one for ever.
    """
    texts, areas = [], []
    for mask in masks:
        counts, size = (mask.get("counts"), mask.get("size")) if isinstance(mask, dict) else (None, ())
        text = counts.decode("latin-1") if isinstance(counts, bytes) else counts
        areas.append(_area(size))
        # No list of run lengths either: pycocotools refuses them in results.
        texts.append(text if areas[-1] and isinstance(text, str) else "")
    sums = sum_runs(texts)
    broken = [number for number, area in enumerate(areas) if area != sums[number]]
    if broken:
        raise ValueError(
            f"{len(broken)} of {len(masks)} {what} have masks whose counts are not COCO's compressed run lengths, or "
            f"are of another size than the mask (first: {names[broken[0]]})"
        )


def _area(size: Any) -> int:
    """Return the pixels of a mask's size, 0 where it is none; numpy's integers are such as well."""
    try:
        height, width = map(operator.index, size) if isinstance(size, (list, tuple)) else (0, 0)
    except (TypeError, ValueError):
        return 0
    return height * width if min(height, width) > 0 else 0


def _require_key(entries: Sequence[dict[str, Any]], key: str, what: str) -> None:
    # An empty list is no mask; an area of 0 is an area.
    without = [number for number, entry in enumerate(entries) if entry.get(key) in (None, [])]
    if without:
        first = entries[without[0]]
        name = f"id {first['id']}" if "id" in first else f"number {without[0]}"
        raise ValueError(f"{len(without)} of {len(entries)} {what} have no {key!r} (first: {name})")
