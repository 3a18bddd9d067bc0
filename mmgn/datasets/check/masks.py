"""The segmentations of an annotation file: polygons and run-length encodings, against their boxes and images."""

from collections.abc import Iterator
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from mmgn.datasets.check.annotations import SLACK, Flags
from mmgn.datasets.check.findings import Findings, show
from mmgn.datasets.check.rle import sum_runs
from mmgn.datasets.check.table import Table, is_number

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

# Annotations looked at together: what numpy needs to be fast, and few enough to bound the memory.
_BLOCK = 20_000
# By how much a mask's extent may differ from its box: pixels, and a share of the box's sides.
_OFF_PIXELS, _OFF_SHARE = 2.0, 0.05
# By how much areas may differ beside half the box's perimeter, which polygons through pixel centres lose.
_AREA_SHARE = 0.1


def check_masks(table: Table, left_out: Flags, findings: Findings) -> None:
    """Check every segmentation, and compare its extent and area with the annotation's.

    Args:
        table: of :func:`mmgn.datasets.check.table.read_table`.
        left_out: of :func:`mmgn.datasets.check.annotations.check_entries`; these may go without a mask.
        findings: to add to.
    """
    kinds = {"polygons": 0, "run-length encodings": 0}
    bare: list[int] = []
    for start in range(0, len(table.annotations), _BLOCK):
        polygons, encodings = [], []
        for row in range(start, min(start + _BLOCK, len(table.annotations))):
            segmentation = table.annotations[row].get("segmentation")
            if not segmentation:
                bare.append(row)
            elif type(segmentation) is list:
                polygons.append(row)
            else:
                encodings.append(row)
        kinds["polygons"] += len(polygons)
        kinds["run-length encodings"] += len(encodings)
        for rows, extents, areas in (
            _check_polygons(table, polygons, findings),
            _check_encodings(table, encodings, findings),
        ):
            _compare(table, rows, extents, areas, findings)
    if len(bare) < len(table.annotations):
        findings.add("mask_missing", [row for row in bare if not left_out[row]], table.tell)
        findings.statistics["masks"] = kinds
    _compare_boxes(table, np.array(bare, np.int64), findings)


def _check_polygons(table: Table, rows: list[int], findings: Findings) -> tuple[Ints, Array, Array]:
    """Return the rows whose polygons are all sound, their extents [K, 4] as x1, y1, x2, y2, and areas [K]."""
    sound: list[int] = []
    broken: dict[str, list[int]] = {"malformed_segmentation": [], "polygon_odd_count": [], "polygon_few_points": []}
    for row in rows:
        flaw = _flaw(table.annotations[row]["segmentation"])
        (broken[flaw] if flaw else sound).append(row)
    for kind, ill in broken.items():
        findings.add(kind, ill, lambda row: _tell(table, row))
    if not sound:
        return np.empty(0, np.int64), np.empty((0, 4)), np.empty(0)
    polygons = [polygon for row in sound for polygon in table.annotations[row]["segmentation"]]
    points = np.fromiter(map(len, polygons), np.int64, len(polygons)) // 2
    x, y = np.fromiter(chain.from_iterable(polygons), np.float64, 2 * points.sum()).reshape(-1, 2).T
    ends = np.cumsum(points)
    following = np.arange(1, len(x) + 1)
    following[ends - 1] = ends - points
    twice = np.add.reduceat(x * y[following] - x[following] * y, ends - points)

    parts = np.fromiter((len(table.annotations[row]["segmentation"]) for row in sound), np.int64, len(sound))
    first = np.cumsum(parts) - parts
    areas = np.add.reduceat(np.abs(twice) / 2, first)
    starts = (ends - points)[first]
    low = [np.minimum.reduceat(side, starts) for side in (x, y)]
    high = [np.maximum.reduceat(side, starts) for side in (x, y)]
    extents = np.stack([*low, *high], axis=1)
    where = np.array(sound, np.int64)
    # Minimum and maximum keep NaN.
    finite = np.isfinite(extents).all(axis=1)
    findings.add("malformed_segmentation", where[~finite].tolist(), lambda row: _tell(table, row))
    sizes = table.sizes[where]
    beyond = finite & ((extents[:, :2] < -SLACK).any(axis=1) | (extents[:, 2:] > sizes + SLACK).any(axis=1))
    findings.add("polygon_outside_image", where[beyond].tolist(), table.tell)
    return where[finite], extents[finite], areas[finite]


def _flaw(polygons: list[Any]) -> str:
    """Return the kind of the first defect of an annotation's polygons, '' for none."""
    for polygon in polygons:
        if type(polygon) is not list or not _are_numbers(polygon):
            return "malformed_segmentation"
        if len(polygon) % 2:
            return "polygon_odd_count"
        if len(polygon) < 6:
            return "polygon_few_points"
    return ""


def _are_numbers(values: list[Any]) -> bool:
    # Nearly always floats, tens of millions of them.
    types = set(map(type, values))
    return types <= {float} or (types <= {int, float} and all(map(is_number, values)))


def _check_encodings(table: Table, rows: list[int], findings: Findings) -> tuple[Ints, Array, Array]:
    """As :func:`_check_polygons`, of run-length encodings."""
    formed = [row for row in rows if _is_encoding(table.annotations[row]["segmentation"])]
    ill = sorted(set(rows).difference(formed))
    findings.add("malformed_segmentation", ill, lambda row: _tell(table, row))
    encodings = [table.annotations[row]["segmentation"] for row in formed]
    where = np.array(formed, np.int64)
    sizes = np.array([encoding["size"] for encoding in encodings], np.int64).reshape(-1, 2)
    wanted = table.sizes[where][:, ::-1]
    other = ~np.isnan(wanted).any(axis=1) & (sizes != wanted).any(axis=1)
    findings.add(
        "rle_size_mismatch",
        where[other].tolist(),
        lambda row: f"{_tell(table, row)}, image {table.sizes[row][::-1].tolist()}",
    )
    sums = sum_runs([encoding["counts"] for encoding in encodings])
    undecodable = sums < 0
    unequal = ~undecodable & (sums != sizes.prod(axis=1))
    findings.add("rle_undecodable", where[undecodable].tolist(), lambda row: _tell(table, row))
    findings.add("rle_counts_mismatch", where[unequal].tolist(), lambda row: _tell(table, row))
    fit = ~other & ~undecodable & ~unequal
    rles = list(_compressed(encoding for encoding, keep in zip(encodings, fit, strict=True) if keep))
    if not rles:
        return np.empty(0, np.int64), np.empty((0, 4)), np.empty(0)
    areas = coco_mask.area(rles).astype(np.float64)
    extents = coco_mask.toBbox(rles).astype(np.float64)
    extents[:, 2:] += extents[:, :2]
    return where[fit], extents, areas


def _is_encoding(value: Any) -> bool:
    if type(value) is not dict:
        return False
    size, counts = value.get("size"), value.get("counts")
    if type(size) is not list or len(size) != 2 or not all(type(side) is int and side > 0 for side in size):
        return False
    # pycocotools counts in 32 bits.
    return size[0] * size[1] < 2**32 and type(counts) in (str, list)


def _compressed(encodings: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for encoding in encodings:
        if type(encoding["counts"]) is list:
            yield coco_mask.frPyObjects(encoding, *encoding["size"])
        else:
            yield {"size": encoding["size"], "counts": encoding["counts"].encode("ascii")}


def _compare(table: Table, rows: Ints, extents: Array, areas: Array, findings: Findings) -> None:
    """Compare the extents and areas of masks with what the annotations say."""
    empty = areas == 0
    findings.add("mask_empty", rows[empty].tolist(), table.tell)
    rows, extents, areas = rows[~empty], extents[~empty], areas[~empty]
    boxes = table.boxes[rows]
    # Broken boxes and areas have been told.
    sound = np.isfinite(boxes).all(axis=1) & (boxes[:, 2:] > 0).all(axis=1) & np.isfinite(table.areas[rows])
    rows, extents, areas, boxes = rows[sound], extents[sound], areas[sound], boxes[sound]
    sides = boxes[:, 2:]
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + sides], axis=1)
    apart = ((extents[:, :2] > corners[:, 2:]) | (extents[:, 2:] < corners[:, :2])).any(axis=1)
    allowed = _OFF_PIXELS + _OFF_SHARE * np.concatenate([sides, sides], axis=1)
    off = ~apart & (np.abs(extents - corners) > allowed).any(axis=1)

    def tell(row: int) -> str:
        place = int(np.flatnonzero(rows == row)[0])
        x1, y1, x2, y2 = extents[place]
        mask = f"mask [{x1:.1f}, {y1:.1f}, {x2 - x1:.1f}, {y2 - y1:.1f}]"
        return f"{table.tell(row)}: bbox {show(table.annotations[row]['bbox'])}, {mask}"

    findings.add("mask_outside_box", rows[apart].tolist(), tell)
    findings.add("mask_box_mismatch", rows[off].tolist(), tell)
    said = table.areas[rows]
    differ = np.abs(said - areas) > _AREA_SHARE * np.maximum(said, areas) + sides.sum(axis=1)
    measured = dict(zip(rows[differ].tolist(), areas[differ].tolist(), strict=True))
    findings.add(
        "area_mismatch", measured, lambda row: f"{table.tell(row)}: area {table.areas[row]:g}, mask {measured[row]:g}"
    )


def _compare_boxes(table: Table, rows: Ints, findings: Findings) -> None:
    """Check that objects without a mask are no larger than their boxes; the area may be a left-out mask's."""
    sides = table.boxes[rows, 2:]
    larger = table.areas[rows] > (1 + _AREA_SHARE) * sides.prod(axis=1) + sides.sum(axis=1)
    larger &= (sides > 0).all(axis=1)
    findings.add(
        "area_mismatch",
        rows[larger].tolist(),
        lambda row: f"{table.tell(row)}: area {table.areas[row]:g}, bbox {show(table.annotations[row]['bbox'])}",
    )


def _tell(table: Table, row: int) -> str:
    return f"{table.tell(row)}: {show(table.annotations[row]['segmentation'])}"
