"""The entries of an annotation file: their ids and references, categories, boxes, areas and crowds."""

from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from mmgn.datasets.check.findings import Findings, show
from mmgn.datasets.check.table import Entry, Table

Flags = NDArray[np.bool_]

#: Pixels by which a box or polygon may reach out of its image: COCO's own do by fractions.
SLACK = 1.0
# COCO's borders between small, medium and large, in pixels.
_SMALL, _MEDIUM = 32**2, 96**2


def check_entries(table: Table, findings: Findings) -> Flags:
    """Check ids, references, boxes, areas and crowds, and take the figures.

    Returns:
        Which annotations mmdet's CocoDataset leaves out.
    """
    _check_ids(table, findings)
    left_out = _check_boxes(table, findings)
    _check_crowds(table, findings)
    if len(left_out) and left_out.all():
        findings.add("nothing_to_learn", [f"all {len(left_out)} annotations"])
    _take_figures(table, left_out, findings)
    return left_out


def check_classes(table: Table, classes: Sequence[str], findings: Findings) -> None:
    """Check a config's classes against the categories; mmdet numbers labels in the order of the file's categories."""
    names = [category["name"] for category in table.categories]
    labels = [name for name in names if name in classes]
    if not labels:
        findings.add("no_common_class", [f"classes are {show(list(classes))}, categories {show(names)}"])
        return
    findings.add("unused_category", (name for name in names if name not in classes), show)
    findings.add("class_without_category", (name for name in classes if name not in names), show)
    wrong = [label for label, name in enumerate(labels) if label >= len(classes) or classes[label] != name]

    def tell(label: int) -> str:
        return f"label {label} is category {show(labels[label])}, but classes[{label}] is {show(classes[label])}"

    findings.add("mislabelled_class", [label for label in wrong if label < len(classes)], tell)


def _repeated(values: list[Hashable]) -> list[int]:
    """Return the rows of values that came before."""
    if len(set(values)) == len(values):
        return []
    seen: set[Hashable] = set()
    # add() returns None.
    return [row for row, value in enumerate(values) if value in seen or seen.add(value)]  # type: ignore[func-returns-value]


def _check_ids(table: Table, findings: Findings) -> None:
    images, annotations, categories = table.images, table.annotations, table.categories
    repeated = _repeated([image["id"] for image in images])
    findings.add("duplicate_image_id", repeated, lambda i: f"image {show(images[i]['id'])}: {_name(images[i])}")
    findings.add("duplicate_file_name", _repeated([i["file_name"] for i in images]), lambda i: _name(images[i]))
    findings.add("duplicate_annotation_id", _repeated([a["id"] for a in annotations]), table.tell)
    repeated = _repeated([category["id"] for category in categories])
    findings.add("duplicate_category_id", repeated, lambda i: show(categories[i]["id"]))
    repeated = _repeated([category["name"] for category in categories])
    findings.add("duplicate_category_name", repeated, lambda i: show(categories[i]["name"]))
    findings.add("unknown_image_id", np.flatnonzero(table.image_of < 0).tolist(), table.tell)
    known = {category["id"] for category in categories}
    findings.add(
        "unknown_category",
        [row for row, a in enumerate(annotations) if a["category_id"] not in known],
        lambda row: f"{table.tell(row)}: category_id {show(annotations[row]['category_id'])}",
    )
    findings.add("annotation_id_zero", [row for row, a in enumerate(annotations) if a["id"] == 0], table.tell)


def _name(image: Entry) -> str:
    return show(image["file_name"])


def _check_boxes(table: Table, findings: Findings) -> Flags:
    """As :func:`check_entries`, of boxes and areas."""

    def add(kind: str, rows: Flags) -> None:
        findings.add(kind, np.flatnonzero(rows).tolist(), tell)

    def tell(row: int) -> str:
        width, height = table.sizes[row]
        image = "" if np.isnan(width) else f", image {width:.0f}x{height:.0f}"
        return f"{table.tell(row)}: bbox {show(table.annotations[row]['bbox'])}{image}"

    finite = np.logical_and.reduce(np.isfinite(table.boxes), axis=1)
    x, y, w, h = np.where(finite[:, None], table.boxes, 0.0).T
    width, height = table.sizes.T
    negative = (w < 0) | (h < 0)
    empty = finite & ~negative & ((w == 0) | (h == 0))
    sound = finite & ~negative & ~empty
    # Comparisons with NaN, of unknown images, are false.
    right, bottom = x + w, y + h
    outside = sound & ((x >= width) | (y >= height) | (right <= 0) | (bottom <= 0))
    beyond = (x < -SLACK) | (y < -SLACK) | (right > width + SLACK) | (bottom > height + SLACK)
    add("box_not_finite", ~finite)
    add("box_negative", negative)
    add("box_empty", empty)
    add("box_outside_image", outside)
    add("box_beyond_image", sound & ~outside & beyond & ~np.isnan(width))
    # NaN is not above 0.
    flat = sound & ~(table.areas > 0)
    findings.add(
        "area_not_positive",
        np.flatnonzero(flat).tolist(),
        lambda row: f"{table.tell(row)}: area {show(table.annotations[row]['area'])}",
    )
    known = {category["id"] for category in table.categories}
    others = np.array([a["category_id"] not in known or bool(a.get("ignore")) for a in table.annotations], bool)
    small = finite & ((w < 1) | (h < 1))
    return negative | empty | small | outside | (table.areas <= 0) | others | (table.image_of < 0)


def _check_crowds(table: Table, findings: Findings) -> None:
    annotations = table.annotations
    findings.add("iscrowd_missing", [row for row, a in enumerate(annotations) if "iscrowd" not in a], table.tell)
    findings.add(
        "iscrowd_value",
        [
            row
            for row, a in enumerate(annotations)
            if type(a.get("iscrowd", 0)) not in (int, bool) or a.get("iscrowd", 0) not in (0, 1)
        ],
        lambda row: f"{table.tell(row)}: iscrowd {show(annotations[row]['iscrowd'])}",
    )


def _take_figures(table: Table, left_out: Flags, findings: Findings) -> None:
    per_image = np.bincount(table.image_of[table.image_of >= 0], minlength=len(table.images))
    bare = np.flatnonzero(per_image == 0).tolist()
    findings.add("image_without_objects", bare, lambda row: _name(table.images[row]))
    names = {category["id"]: show(category["name"])[1:-1] for category in table.categories}
    objects = Counter(a["category_id"] for a in table.annotations)
    areas = table.areas
    small, medium = areas < _SMALL, (areas >= _SMALL) & (areas < _MEDIUM)
    figures = findings.statistics
    figures["images"] = len(table.images)
    if table.images:
        sides = np.array([(image["width"], image["height"]) for image in table.images])
        low, high = sides.min(axis=0), sides.max(axis=0)
        figures["image_sizes"] = f"{low[0]} to {high[0]} wide, {low[1]} to {high[1]} high"
        figures["objects_per_image"] = f"{per_image.mean():.2f} on average, {per_image.max()} at most"
    figures["categories"] = len(table.categories)
    figures["annotations"] = len(table.annotations)
    figures["crowds"] = sum(bool(a.get("iscrowd")) for a in table.annotations)
    figures["left_out_of_training"] = int(left_out.sum())
    figures["objects_by_size"] = {
        "small": int(small.sum()),
        "medium": int(medium.sum()),
        "large": len(areas) - int(small.sum()) - int(medium.sum()),
    }
    figures["objects_by_category"] = {name: objects[key] for key, name in names.items()}
