"""An annotation file read without trust: its well-formed entries as columns, and what is malformed."""

import gc
import itertools
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmgn.datasets.check.findings import Findings, show

Entry = dict[str, Any]

# What float64 and int64 hold without loss or overflow.
_LARGEST = 2**53
# No bracket within the brackets: of text that opens again and again, each opening would be read to the end.
_POLYGONS = re.compile(rb'"segmentation":\s*\[\s*\[[^\[\]]*\](?:\s*,\s*\[[^\[\]]*\])*\s*\]')


@dataclass
class Table:
    """The entries of a file that are well formed, and columns of them.

    Attributes:
        images: entries with id, file_name, width, height.
        annotations: entries with id, image_id, category_id, bbox, area.
        categories: entries with id, name.
        image_of: [M] row in ``images`` of each annotation, -1 where there is none.
        boxes: [M, 4] x, y, width, height.
        areas: [M].
        sizes: [M, 2] width, height of each annotation's image, NaN where there is none.
    """

    images: list[Entry]
    annotations: list[Entry]
    categories: list[Entry]
    image_of: NDArray[np.int64] = field(init=False)
    boxes: NDArray[np.float64] = field(init=False)
    areas: NDArray[np.float64] = field(init=False)
    sizes: NDArray[np.float64] = field(init=False)

    def __post_init__(self) -> None:
        count = len(self.annotations)
        rows = {image["id"]: row for row, image in enumerate(self.images)}
        self.image_of = np.fromiter((rows.get(a["image_id"], -1) for a in self.annotations), np.int64, count)
        numbers = itertools.chain.from_iterable(a["bbox"] for a in self.annotations)
        self.boxes = np.fromiter(numbers, np.float64, 4 * count).reshape(count, 4)
        self.areas = np.fromiter((a["area"] for a in self.annotations), np.float64, count)
        # The last row stands for no image: it is what -1 picks.
        sizes = [(image["width"], image["height"]) for image in self.images]
        self.sizes = np.array([*sizes, (np.nan, np.nan)], np.float64)[self.image_of]

    def tell(self, row: int) -> str:
        """Return which annotation that is."""
        annotation, image = self.annotations[row], self.image_of[row]
        name = f" ({show(self.images[image]['file_name'])})" if image >= 0 else ""
        return f"annotation {annotation['id']} of image {show(annotation['image_id'])}{name}"


def read_table(ann_file: str | os.PathLike[str], findings: Findings, polygons: bool = True) -> Table | None:
    """Read the well-formed entries of an annotation file; None if it is none.

    Args:
        ann_file: the file.
        findings: to add what is malformed to.
        polygons: without, ``true`` stands in the place of each segmentation by polygons, nine tenths of a file,
            which more than halves the time and takes a quarter of the memory.

    Raises:
        OSError: it cannot be read.
    """
    data = Path(ann_file).read_bytes()
    repeated: list[str] = []
    try:
        content = _parse(data, polygons, repeated)
    except (ValueError, RecursionError) as error:
        why = "nested too deeply" if isinstance(error, RecursionError) else error
        findings.add("malformed_file", [f"not JSON: {why}"])
        return None
    findings.add("duplicate_key", repeated, show)
    return find_entries(content, findings)


def _parse(data: bytes, polygons: bool, repeated: list[str]) -> Any:
    """Return what a file holds; the keys that stand twice in an object are added to ``repeated``, of a whole file."""
    if not polygons:
        # A text that this cuts wrongly is not COCO's; the whole one tells what is the matter.
        with suppress(ValueError, RecursionError):
            return json.loads(_POLYGONS.sub(b'"segmentation": true', data))

    def make(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) < len(pairs):
            repeated.extend(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        return made

    return json.loads(data, object_pairs_hook=make)


@contextmanager
def large_and_hostile() -> Iterator[None]:
    """Set Python and numpy up for large files of any content.

    The collector would go through millions of new objects again and again, a quarter of the time. Numbers that overflow
    become infinite, which comparisons take as they should.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            yield
    finally:
        if enabled:
            gc.enable()


def find_entries(content: Any, findings: Findings) -> Table | None:
    """Return the well-formed entries of a file's content; None if it is no COCO annotation file."""
    if not isinstance(content, dict):
        findings.add("malformed_file", [f"must hold an object, got {type(content).__name__}"])
        return None
    sections = {}
    # mmdet leaves "annotations" out of a set without objects.
    for name, default in (("images", None), ("annotations", []), ("categories", None)):
        entries = content.get(name, default)
        if not isinstance(entries, list):
            what = "has no list" if name not in content else f"{show(entries)} in the place of the list"
            findings.add("malformed_file", [f"{what} {name!r}"])
            return None
        sections[name] = _well_formed(name, entries, findings)
    return Table(**sections)


def _is_int(value: Any) -> bool:
    return type(value) is int and -_LARGEST < value < _LARGEST


def _is_id(value: Any) -> bool:
    # Not COCO's own, but mmdet and pycocotools take names for images and categories.
    return _is_int(value) or type(value) is str


def _is_side(value: Any) -> bool:
    return type(value) is int and 0 < value < 2**31


def _is_name(value: Any) -> bool:
    return type(value) is str and value != ""


def is_number(value: Any) -> bool:
    """Whether a value is a number that a float holds; NaN is."""
    return type(value) is float or _is_int(value)


def _is_box(value: Any) -> bool:
    return type(value) is list and len(value) == 4 and all(map(is_number, value))


_FIELDS: dict[str, dict[str, tuple[Callable[[Any], bool], str]]] = {
    "images": {
        "id": (_is_id, "an integer"),
        "file_name": (_is_name, "a name"),
        "width": (_is_side, "a positive integer"),
        "height": (_is_side, "a positive integer"),
    },
    "annotations": {
        "id": (_is_int, "an integer"),
        "image_id": (_is_id, "an integer"),
        "category_id": (_is_id, "an integer"),
        "bbox": (_is_box, "a list of 4 numbers"),
        "area": (is_number, "a number"),
    },
    "categories": {"id": (_is_id, "an integer"), "name": (_is_name, "a name")},
}
_SINGULAR = {"images": "image", "annotations": "annotation", "categories": "category"}


def _well_formed(section: str, entries: list[Any], findings: Findings) -> list[Entry]:
    flaws = {i: f"must be an object, got {show(entry)}" for i, entry in enumerate(entries) if type(entry) is not dict}
    for key, (is_sound, what) in _FIELDS[section].items():
        for i, entry in enumerate(entries):
            if i not in flaws and not is_sound(entry.get(key)):
                got = f"got {show(entry[key])}" if key in entry else "it has none"
                flaws[i] = f"{key} must be {what}, {got} (id {show(entry.get('id'))})"
    findings.add(f"malformed_{_SINGULAR[section]}", sorted(flaws), lambda i: f"{section}[{i}]: {flaws[i]}")
    return [entry for i, entry in enumerate(entries) if i not in flaws] if flaws else entries
