"""Which images the gallery shows, and what is found, false and missed on each."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from mmgn.evaluation import SCORE_THRESHOLD, Analysis, ImageErrors
from mmgn.report.pictures import Drawn, draw_entries, entry_box, index_coco
from mmgn.report.run import Run

#: What all pictures together may weigh, in bytes; a page holds them as base64, a third more.
MAX_BYTES = 5_000_000
MISSED = "missed"
CORRECT = "correct"


@dataclass(frozen=True)
class Mark:
    """One error of an image: an object that was missed, or a detection that found none."""

    #: ``missed``, or one of ``mmgn.evaluation.KINDS``.
    error: str
    #: Position of its class among the run's categories.
    label: int
    text: str
    #: x, y, width and height in per cent of the image.
    box: tuple[float, ...]


@dataclass(frozen=True)
class Pair:
    """One image twice, as JPEG: with the truth and with the predictions."""

    counts: ImageErrors
    file_name: str
    truth: bytes
    prediction: bytes
    marks: list[Mark]

    @property
    def caption(self) -> str:
        """What is to be seen, in words."""
        c = self.counts
        return f"{self.file_name}: {c.found} found, {c.false} false, {c.missed} missed, F1 {c.f1:.2f}"


@dataclass(frozen=True)
class Gallery:
    """The pairs from hardest on, how they were chosen, and what could not be shown."""

    pairs: list[Pair]
    selection: str
    missing: list[str]


def draw_gallery(run: Run, max_images: int) -> Gallery | None:
    """Draw the hardest images by F1, and others that have errors which those do not; None without figures.

    Fewer than ``max_images`` are drawn where their pictures would weigh more than ``MAX_BYTES``.
    """
    if run.kind is None or run.predictions is None:
        return None
    scene = _Scene(run)
    what = "masks" if run.kind == "segm" else "boxes"
    rule = f"by F1 of {what} at IoU 0.5 and score ≥ {SCORE_THRESHOLD}; equals by image id."
    chosen, selection = _select(run.ranked, scene, max_images, rule)
    pairs: list[Pair] = []
    missing, size = [], 0
    for counts in chosen:
        info = scene.images[counts.image_id]
        try:
            pair = scene.draw(counts, _open(run.predictions.img_dir, info))
        # Decoders raise what they like at images and masks that are none.
        except Exception as error:
            kind = "" if isinstance(error, (OSError, ValueError)) else f"{type(error).__name__}: "
            missing.append(f"{info['file_name']}: {kind}{error}")
            continue
        size += len(pair.truth) + len(pair.prediction)
        if size > MAX_BYTES:
            selection += f" After {len(pairs)} of them the pictures weigh {MAX_BYTES / 1e6:.0f} MB, the most here."
            break
        pairs.append(pair)
    if not any(counts.kinds for counts in scene.analysis.errors):
        selection += f" No detection has a score of {SCORE_THRESHOLD} or more."
    return Gallery(pairs, selection, missing)


class _Scene:
    """The data set and its results, by image."""

    def __init__(self, run: Run) -> None:
        assert run.predictions is not None
        assert run.kind is not None
        self.analysis: Analysis = run.analyses[run.kind]
        self.results = run.predictions.results[run.kind]
        self.coco = index_coco(run.predictions.truth)
        self.images = self.coco.imgs
        self.labels = {entry["id"]: label for label, entry in enumerate(run.predictions.categories)}
        self.names = [str(entry["name"]) for entry in run.predictions.categories]
        self.confused = _confused_with(self.analysis)

    def errors(self, counts: ImageErrors) -> set[tuple[Any, str]]:
        """Return the pairs of category and error that an image shows."""
        false = {(self.results[i]["category_id"], kind) for i, kind in counts.kinds.items() if kind != CORRECT}
        return false | {(self.coco.anns[number]["category_id"], MISSED) for number in counts.missed_ids}

    def draw(self, counts: ImageErrors, picture: Image.Image) -> Pair:
        """Draw an image; missed objects first in the list, then what is false by falling score."""
        missed = set(counts.missed_ids)
        objects = [e for e in self.coco.imgToAnns[counts.image_id] if e["category_id"] in self.labels]
        truth = [self._drawn(entry, MISSED if entry["id"] in missed else CORRECT) for entry in objects]
        # Lowest score first, so that the surest detection is drawn on top.
        sure = sorted(counts.kinds.items(), key=lambda item: self.results[item[0]]["score"])
        found = [self._drawn(self.results[index], kind, self.confused.get(index)) for index, kind in sure]
        marks = [self._mark(drawn, picture) for drawn in (*truth, *reversed(found)) if drawn.kind != CORRECT]
        name = str(self.images[counts.image_id]["file_name"])
        before, after = (draw_entries(picture, drawn, self.coco) for drawn in (truth, found))
        return Pair(counts, name, before, after, marks)

    def _drawn(self, entry: Mapping[str, Any], kind: str, is_really: Any = None) -> Drawn:
        label = self._name(entry["category_id"])
        if "score" in entry:
            label += f" {entry['score']:.2f}"
        text = label if kind == CORRECT else f"{label} {kind}"
        return Drawn(entry, kind, label, text if is_really is None else f"{text}, is {self._name(is_really)}")

    def _name(self, cat_id: Any) -> str:
        return self.names[self.labels[cat_id]]

    def _mark(self, drawn: Drawn, picture: Image.Image) -> Mark:
        width, height = picture.size
        x, y, w, h = entry_box(drawn.entry)
        box = tuple(round(100 * part, 1) for part in (x / width, y / height, w / width, h / height))
        return Mark(drawn.kind, self.labels[drawn.entry["category_id"]], drawn.text, box)


def _confused_with(analysis: Analysis) -> dict[int, Any]:
    """Return, by position in the results, the category of the object that a wrongly classified detection is on."""
    matches = analysis.matches
    wrong = {index for own in analysis.errors for index, kind in own.kinds.items() if kind == "classification"}
    return {
        int(index): matches.cat_ids[matches.object_label[other]]
        for index, other in zip(matches.index, matches.other_object, strict=True)
        if int(index) in wrong
    }


def _select(ranked: list[ImageErrors], scene: _Scene, max_images: int, rule: str) -> tuple[list[ImageErrors], str]:
    if len(ranked) <= max_images:
        return ranked, f"All {len(ranked)} images with objects or detections, hardest first, {rule}"
    hardest = max_images - max_images // 2
    chosen, rest = ranked[:hardest], ranked[hardest:]
    shown: set[tuple[Any, str]] = set().union(*(scene.errors(own) for own in chosen))
    errors = {id(own): scene.errors(own) for own in rest}
    for _ in range(max_images - hardest):
        # The first of equals, which is the hardest.
        best = max(rest, key=lambda own: len(errors[id(own)] - shown))
        chosen.append(best)
        rest.remove(best)
        shown |= errors[id(best)]
    order = {id(own): place for place, own in enumerate(ranked)}
    return (
        sorted(chosen, key=lambda own: order[id(own)]),
        f"The {hardest} hardest of {len(ranked)} images and {max_images - hardest} that show other classes with other "
        f"errors, hardest first, {rule}",
    )


def _open(img_dir: Path | None, info: Mapping[str, Any]) -> Image.Image:
    path = (img_dir or Path()) / info["file_name"]
    # A page is passed on: it must not show what an annotation file of unknown origin points at.
    if img_dir and not Path(os.path.abspath(path)).is_relative_to(os.path.abspath(img_dir)):
        raise ValueError(f"not below {img_dir}")
    if not os.path.isfile(path):
        raise FileNotFoundError(f"not in {img_dir or 'the current folder'}")
    size = (info["width"], info["height"])
    with Image.open(path) as file:
        # What is of another size, even turned, need not be decoded. mmcv's loader turns by the EXIF orientation too.
        picture = ImageOps.exif_transpose(file).convert("RGB") if sorted(file.size) == sorted(size) else file
    if picture.size != size:
        raise ValueError(f"is {picture.size[0]}×{picture.size[1]}, annotated as {size[0]}×{size[1]}")
    return picture


def error_kinds(pairs: Sequence[Pair]) -> list[str]:
    """Return the errors that pictures show, the most frequent first."""
    return [kind for kind, _ in Counter(mark.error for pair in pairs for mark in pair.marks).most_common()]
