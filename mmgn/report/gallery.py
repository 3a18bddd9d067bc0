"""Pictures of predictions beside the truth, of the worst and the best images."""

import colorsys
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps
from pycocotools import mask as mask_api
from pycocotools.coco import COCO

from mmgn.report.coco_figures import SCORE_THRESHOLD, CocoFigures, ImageCounts, index_coco
from mmgn.report.predictions import Predictions

#: Longer side of a picture in pixels; smaller images are enlarged so that labels can be read.
LONG_SIDE = 480
LABEL_SIZE = 17
MASK_OPACITY = 0.45


@dataclass(frozen=True)
class Pair:
    """One image twice, as JPEG: with the truth and with the predictions."""

    counts: ImageCounts
    file_name: str
    truth: bytes
    prediction: bytes

    @property
    def caption(self) -> str:
        """What is to be seen, in words."""
        c = self.counts
        return f"{self.file_name}: {c.found} found, {c.false} false, {c.missed} missed, F1 {c.f1:.2f}"


@dataclass(frozen=True)
class Gallery:
    """The pairs from worst to best, how they were chosen, and what could not be shown."""

    pairs: list[Pair]
    selection: str
    missing: list[str]


def draw_gallery(predictions: Predictions, figures: dict[str, CocoFigures], max_images: int) -> Gallery | None:
    """Draw the worst and the best images by F1, ``max_images`` in all; None without figures to rank by."""
    kind = next((kind for kind in ("segm", "bbox") if kind in figures), None)
    if kind is None:
        return None
    truth = index_coco(predictions.truth)
    names = {entry["id"]: str(entry["name"]) for entry in predictions.categories}
    # Lowest score first, so that the surest detection is drawn on top.
    sure = sorted(
        (e for e in predictions.results[kind] if e["score"] >= SCORE_THRESHOLD), key=lambda entry: entry["score"]
    )
    chosen, selection = _select(figures[kind].images, max_images, "masks" if kind == "segm" else "boxes")
    if not sure:
        selection += f" No detection has a score of {SCORE_THRESHOLD} or more."
    pairs, missing = [], []
    for counts in chosen:
        info = truth.imgs[counts.image_id]
        try:
            picture = _open(predictions.img_dir, info)
        except (OSError, ValueError) as error:
            missing.append(f"{info['file_name']}: {error}")
            continue
        drawn = [
            _draw(picture, [e for e in entries if e["category_id"] in names], names, truth)
            for entries in (truth.imgToAnns[info["id"]], [e for e in sure if e["image_id"] == info["id"]])
        ]
        pairs.append(Pair(counts, str(info["file_name"]), *drawn))
    return Gallery(pairs, selection, missing)


def _select(images: Sequence[ImageCounts], max_images: int, what: str) -> tuple[list[ImageCounts], str]:
    # Ids are numbers or text; padded, both sort as they read.
    ranked = sorted(images, key=lambda counts: (counts.f1, str(counts.image_id).zfill(20)))
    rule = f"by F1 of {what} at IoU 0.5 and score ≥ {SCORE_THRESHOLD}; equals by image id."
    total, best = len(ranked), max_images // 2
    if total <= max_images:
        return ranked, f"All {total} images with objects or detections, worst first, {rule}"
    worst = max_images - best
    return (
        ranked[:worst] + ranked[total - best :],
        f"The {worst} worst and the {best} best of {total} images {rule}",
    )


def _open(img_dir: Path | None, info: dict[str, Any]) -> Image.Image:
    path = (img_dir or Path()) / info["file_name"]
    if not path.is_file():
        raise FileNotFoundError(f"not in {img_dir or 'the current folder'}")
    with Image.open(path) as file:
        # mmcv's loader turns images by their EXIF orientation too.
        picture = ImageOps.exif_transpose(file).convert("RGB")
    size = (info["width"], info["height"])
    if picture.size != size:
        raise ValueError(f"is {picture.size[0]}×{picture.size[1]}, annotated as {size[0]}×{size[1]}")
    return picture


def _draw(picture: Image.Image, entries: list[dict[str, Any]], names: dict[Any, str], truth: COCO) -> bytes:
    pixels = np.asarray(picture, dtype=np.float32).copy()
    colors = {cat_id: _color(index) for index, cat_id in enumerate(names)}
    for entry in entries:
        if entry.get("segmentation"):
            mask = mask_api.decode(truth.annToRLE(entry)).astype(bool)
            pixels[mask] += MASK_OPACITY * (np.array(colors[entry["category_id"]]) - pixels[mask])
    scale = LONG_SIDE / max(picture.size)
    # Boxes and labels are drawn after resizing, to be sharp at any image size.
    small = Image.fromarray(pixels.astype(np.uint8)).resize(
        (max(1, round(picture.width * scale)), max(1, round(picture.height * scale))),
        Image.Resampling.BICUBIC,
    )
    draw = ImageDraw.Draw(small)
    font = ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"), LABEL_SIZE)
    for entry in entries:
        color = colors[entry["category_id"]]
        label = names[entry["category_id"]] + (f" {entry['score']:.2f}" if "score" in entry else "")
        _draw_box(draw, font, _box(entry), scale, color, label)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def _draw_box(
    draw: ImageDraw.ImageDraw,
    font: ImageFont.FreeTypeFont,
    box: Sequence[float],
    scale: float,
    color: tuple[int, int, int],
    label: str,
) -> None:
    x, y, w, h = (value * scale for value in box)
    draw.rectangle((x, y, x + max(w, 0), y + max(h, 0)), outline=color, width=2)
    width, height = font.getlength(label) + 6, LABEL_SIZE + 5
    # Above the box, or inside where there is no room.
    left = max(0, min(x, draw.im.size[0] - width))
    top = y - height if y >= height else y
    draw.rectangle((left, top, left + width, top + height), fill=color)
    draw.text((left + 3, top + 1), label, fill=(0, 0, 0), font=font)


def _box(entry: dict[str, Any]) -> Sequence[float]:
    return entry["bbox"] if "bbox" in entry else mask_api.toBbox(entry["segmentation"]).tolist()


def _color(index: int) -> tuple[int, int, int]:
    # Steps of the golden ratio keep any number of hues apart; light enough for black text.
    red, green, blue = colorsys.hsv_to_rgb((0.58 + index * 0.618034) % 1.0, 0.55, 1.0)
    return round(red * 255), round(green * 255), round(blue * 255)
