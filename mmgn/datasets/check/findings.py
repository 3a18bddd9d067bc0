"""The kinds of defects that an annotation file can have, and what a check of one found."""

import reprlib
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

#: An error breaks training, or makes labels or AP wrong; after a warning, training leaves an object out or copes.
LEVELS = ("error", "warning", "info")
#: Kind -> level and meaning, in the order in which they are told.
KINDS = {
    "malformed_file": ("error", "not a COCO annotation file"),
    "malformed_image": ("error", "entry of images that lacks a valid id, file_name, width or height"),
    "malformed_annotation": ("error", "annotation that lacks a valid id, image_id, category_id, bbox or area"),
    "malformed_category": ("error", "category that lacks a valid id or name"),
    "duplicate_key": ("error", "key given twice in one object: JSON readers take the last, silently"),
    "duplicate_image_id": ("error", "image id used before"),
    "duplicate_annotation_id": ("error", "annotation id used before: mmdet refuses the file"),
    "duplicate_category_id": ("error", "category id used before"),
    "duplicate_category_name": ("error", "category name used before: labels shift"),
    "unknown_image_id": ("error", "annotation of an image that is not listed"),
    "unknown_category": ("error", "annotation of a category that is not listed: left out silently"),
    "no_common_class": ("error", "none of the config's classes is a category: nothing is learned"),
    "mislabelled_class": ("error", "label whose class in the config is not its category: mmdet counts in file order"),
    "box_not_finite": ("error", "box with NaN or infinity: the loss becomes NaN"),
    "box_negative": ("error", "box of negative width or height; boxes are x, y, width, height"),
    "box_outside_image": ("error", "box wholly outside its image"),
    "nothing_to_learn": ("error", "no annotation is left by mmdet's rules for training"),
    "iscrowd_missing": ("error", "annotation without iscrowd: COCO evaluation stops at it"),
    "iscrowd_value": ("error", "iscrowd that is neither 0 nor 1; mmdet ignores the object if it is true"),
    "malformed_segmentation": ("error", "segmentation that is neither polygons nor a run-length encoding"),
    "polygon_odd_count": ("error", "polygon with an odd count of numbers"),
    "polygon_few_points": ("error", "polygon of fewer than 3 points"),
    "rle_size_mismatch": ("error", "run-length encoding of another size than its image"),
    "rle_undecodable": ("error", "run-length encoding that cannot be decoded"),
    "rle_counts_mismatch": ("error", "run-length encoding whose counts do not sum to its size"),
    "mask_outside_box": ("error", "mask that does not touch its box"),
    "missing_image": ("error", "image file that is not there"),
    "unreadable_image": ("error", "image file that cannot be read"),
    "truncated_image": ("error", "image file that ends too early"),
    "mis_sized_image": ("error", "image of another size than annotated, EXIF rotation applied as OpenCV does"),
    "duplicate_file_name": ("warning", "file name used before"),
    "unsafe_file_name": ("warning", "file name that is absolute or leads out of the folder: not opened"),
    "unused_category": ("warning", "category that is no class of the config: its objects are left out"),
    "class_without_category": ("warning", "class of the config that the file has no category for"),
    "annotation_id_zero": ("warning", "annotation id 0: COCO evaluation counts the object as missed, always"),
    "box_empty": ("warning", "box without width or height; COCO's train2017 has 2"),
    "box_beyond_image": ("warning", "box that reaches more than a pixel out of its image"),
    "area_not_positive": ("warning", "object whose area is not above 0: left out of training"),
    "area_mismatch": ("warning", "area that is not the mask's, or is larger than the box"),
    "polygon_outside_image": ("warning", "polygon with a point more than a pixel out of the image"),
    "mask_empty": ("warning", "mask without a pixel"),
    "mask_missing": ("warning", "object without a mask, where others have one: mmdet's LoadAnnotations stops at it"),
    "mask_box_mismatch": ("warning", "mask whose extent differs from the box"),
    "image_without_objects": ("info", "image without annotations: a negative example, or left out"),
}


@dataclass
class Findings:
    """What a check found: how often each kind of defect, and where, and figures on the data set.

    Attributes:
        ann_file: the file.
        counts: kind -> how many, of ``KINDS``; only kinds that were found.
        examples: kind -> the first few, with ids and file names.
        statistics: figures by name.
        limit: how many examples are kept of each kind.
    """

    ann_file: str
    counts: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)
    statistics: dict[str, Any] = field(default_factory=dict)
    limit: int = 3

    def add(self, kind: str, places: Iterable[Any], tell: Callable[[Any], str] = str) -> None:
        """Count a defect at each of ``places``; ``tell`` puts the first of them into words."""
        places = list(places)
        if not places:
            return
        if kind not in KINDS:
            raise KeyError(f"unknown kind of defect {kind!r}")
        self.counts[kind] = self.counts.get(kind, 0) + len(places)
        examples = self.examples.setdefault(kind, [])
        examples += [tell(place) for place in places[: self.limit - len(examples)]]

    def of_level(self, level: str) -> dict[str, int]:
        """Return the counts of the kinds of a level."""
        return {kind: self.counts[kind] for kind in KINDS if kind in self.counts and KINDS[kind][0] == level}

    @property
    def errors(self) -> dict[str, int]:
        """The counts of the kinds that break training or corrupt AP."""
        return self.of_level("error")

    def lines(self, level: str) -> list[str]:
        """Return a level's kinds in words: how many of what, and examples below."""
        lines = []
        for kind, count in self.of_level(level).items():
            lines.append(f"{level}: {count} {kind}: {KINDS[kind][1]}")
            lines += [f"    {example}" for example in self.examples[kind]]
            if count > len(self.examples[kind]) > 0:
                lines.append(f"    ... and {count - len(self.examples[kind])} more")
        return lines

    def text(self) -> str:
        """Return all of it as text."""
        figures = [f"  {name.replace('_', ' ')}: {_figure(value)}" for name, value in self.statistics.items()]
        found = [line for level in LEVELS for line in self.lines(level)]
        errors, warnings = (sum(self.of_level(level).values()) for level in ("error", "warning"))
        verdict = f"{errors} errors, {warnings} warnings" if errors or warnings else "clean: no errors, no warnings"
        return "\n".join([self.ann_file, *figures, *found, verdict])

    def as_dict(self) -> dict[str, Any]:
        """Return all of it as plain data, for JSON."""
        data = asdict(self)
        del data["limit"]
        levels = {kind: KINDS[kind][0] for kind in self.counts}
        return {**data, "levels": levels, "clean": not self.errors}


def show(value: Any) -> str:
    """Return an untrusted value in a few printable characters."""
    text = _SHORT.repr(value)
    # Which is short at each level alone.
    return text if len(text) <= 300 else f"{text[:297]}..."


def printable(text: str, limit: int = 200) -> str:
    """Return a text that may quote what is untrusted, such as an error's, as part of a printable line."""
    return repr(text)[1:-1][:limit]


def _figure(value: Any) -> str:
    if isinstance(value, dict):
        shown = sorted(value.items(), key=lambda item: -item[1])
        text = ", ".join(f"{name} {count}" for name, count in shown[:5])
        return f"{text}, ... {shown[-1][0]} {shown[-1][1]}" if len(shown) > 5 else text
    return f"{value:.4g}" if isinstance(value, float) else str(value)


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80
_SHORT.maxlist = _SHORT.maxdict = 5
