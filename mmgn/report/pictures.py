"""Draws boxes and masks with their labels onto an image."""

import contextlib
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from pycocotools import mask as mask_api
from pycocotools.coco import COCO

from mmgn.evaluation.instances import require_bounded, require_decodable

#: Longer side of a picture in pixels; smaller images are enlarged so that labels can be read.
LONG_SIDE = 440
LABEL_SIZE = 14
MASK_OPACITY = 0.4
# Light enough for black text; told apart by people of any colour vision (Okabe & Ito), and errors are dashed.
COLORS = {"correct": (86, 180, 233), "missed": (240, 228, 66)}
FALSE_COLOR = (255, 150, 90)
# Neighbours of one colour are told apart by lightness.
SHADES = (1.0, 0.84, 0.7)
DASH = 9


@dataclass(frozen=True)
class Drawn:
    """An annotation or detection, what it is, and its label; ``text`` says more where there is room."""

    entry: Mapping[str, Any]
    kind: str
    label: str
    text: str


def index_coco(dataset: dict[str, Any]) -> COCO:
    """Return pycocotools' index of annotations that were read already."""
    coco = COCO()
    coco.dataset = dataset
    # It prints its progress.
    with open(os.devnull, "w") as devnull, contextlib.redirect_stdout(devnull):
        coco.createIndex()
    return coco


def entry_box(entry: Mapping[str, Any]) -> Sequence[float]:
    """Return x, y, width and height."""
    return entry.get("bbox") or mask_api.toBbox(entry["segmentation"]).tolist()


def draw_entries(picture: Image.Image, entries: Sequence[Drawn], coco: COCO) -> bytes:
    """Return the picture as JPEG with all entries on it, the last on top."""
    pixels = np.array(picture, dtype=np.float32)
    for number, drawn in enumerate(entries):
        if drawn.entry.get("segmentation"):
            mask = _mask(drawn.entry, coco, picture.size)
            pixels[mask] += MASK_OPACITY * (np.array(_color(drawn, number)) - pixels[mask])
    scale = LONG_SIDE / max(picture.size)
    # Boxes and labels are drawn after resizing, to be sharp at any image size.
    small = Image.fromarray(pixels.astype(np.uint8)).resize(
        (max(1, round(picture.width * scale)), max(1, round(picture.height * scale))),
        Image.Resampling.BICUBIC,
    )
    draw = ImageDraw.Draw(small)
    font = ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"), LABEL_SIZE)
    for number, drawn in enumerate(entries):
        _draw_box(draw, drawn, scale, _color(drawn, number))
    taken: list[tuple[float, float, float, float]] = []
    for number, drawn in reversed(list(enumerate(entries))):
        _draw_label(draw, font, drawn, scale, _color(drawn, number), taken)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=82)
    return buffer.getvalue()


def _mask(entry: Mapping[str, Any], coco: COCO, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Return an entry's mask; what pycocotools would run out of memory or out of its array with raises ValueError."""
    require_bounded([entry])
    rle = coco.annToRLE(entry)
    require_decodable([rle], [f"id {entry.get('id')}"], "entries")
    if tuple(rle["size"]) != size[::-1]:
        raise ValueError(f"a mask of {rle['size'][1]}×{rle['size'][0]} pixels")
    return mask_api.decode(rle).astype(bool)


def _draw_box(draw: ImageDraw.ImageDraw, drawn: Drawn, scale: float, color: tuple[int, int, int]) -> None:
    x, y, w, h = (value * scale for value in entry_box(drawn.entry))
    right, bottom = x + max(w, 0), y + max(h, 0)
    if drawn.kind == "correct":
        draw.rectangle((x, y, right, bottom), outline=color, width=2)
    else:
        for line in ((x, y, right, y), (right, y, right, bottom), (right, bottom, x, bottom), (x, bottom, x, y)):
            _draw_dashed(draw, line, color)


def _draw_label(
    draw: ImageDraw.ImageDraw,
    font: ImageFont.FreeTypeFont,
    drawn: Drawn,
    scale: float,
    color: tuple[int, int, int],
    taken: list[tuple[float, float, float, float]],
) -> None:
    x, y, *_ = (value * scale for value in entry_box(drawn.entry))
    width, height = font.getlength(drawn.label) + 6, LABEL_SIZE + 4
    left = max(0, min(x, draw.im.size[0] - width))
    # Above the box, or inside where there is no room, and there below the labels that are there already.
    top = y - height if y >= height else y
    while any(left < box[2] and box[0] < left + width and top < box[3] and box[1] < top + height for box in taken):
        top += height
    taken.append((left, top, left + width, top + height))
    draw.rectangle(taken[-1], fill=color)
    draw.text((left + 3, top), drawn.label, fill=(0, 0, 0), font=font)


def _draw_dashed(draw: ImageDraw.ImageDraw, line: tuple[float, ...], color: tuple[int, int, int]) -> None:
    start, end = np.array(line[:2]), np.array(line[2:])
    length = float(np.hypot(*(end - start)))
    for begin in np.arange(0, length, 2 * DASH):
        points = [start + (end - start) * place / length for place in (begin, min(begin + DASH, length))]
        draw.line([tuple(point) for point in points], fill=color, width=3)


def _color(drawn: Drawn, number: int) -> tuple[int, int, int]:
    shade = SHADES[number % len(SHADES)]
    red, green, blue = COLORS.get(drawn.kind, FALSE_COLOR)
    return round(shade * red), round(shade * green), round(shade * blue)
