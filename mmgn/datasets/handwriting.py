"""The handwritten digits that the embedded data sets are made of, and how one is drawn.

They are the 1797 grey 8x8 images of scikit-learn's ``load_digits`` (UCI, Optical Recognition of Handwritten
Digits; E. Alpaydin, C. Kaynak). Every fifth digit of each class is val's, so no data set's train and val share one.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

#: Names in label order, as mmdet's ``metainfo=dict(classes=CLASSES)`` takes them.
CLASSES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

# Of the 8x8 images' full ink; strokes come out about a fifth of the digit's height wide.
INK_THRESHOLD = 0.4

Pixels = NDArray[np.float32]
Mask = NDArray[np.bool_]


class Handwriting(NamedTuple):
    """The digits."""

    ink: NDArray[np.float64]  # [1797, 8, 8], 0 to 1
    labels: NDArray[np.int64]  # [1797]
    splits: tuple[NDArray[np.int64], NDArray[np.int64]]  # rows of train and of val


def load_handwriting() -> Handwriting:
    """Read the digits.

    Raises:
        ImportError: scikit-learn is missing.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(
            'the digits data set is made from images that scikit-learn ships; pip install "mmgn[quickstart]"'
        ) from error
    digits = load_digits()
    is_val = np.zeros(len(digits.target), dtype=bool)
    for label in range(len(CLASSES)):
        is_val[np.flatnonzero(digits.target == label)[4::5]] = True
    return Handwriting(digits.images / 16, digits.target, (np.flatnonzero(~is_val), np.flatnonzero(is_val)))


def render(rng: np.random.Generator, ink: NDArray[np.float64], height: float) -> Pixels:
    """Opacity ``[h, w]``, 0 to 1, of an 8x8 digit scaled, rotated and sheared; at least 0.5 in its mask."""
    angle, shear, stretch = rng.uniform(-0.15, 0.15), rng.uniform(-0.1, 0.1), rng.uniform(0.9, 1.1)
    scale = 8 / height
    cos, sin = math.cos(angle), math.sin(angle)
    # Output (x, y) to source (x, y): rotate back, unshear, then from pixels to cells.
    matrix = scale * np.array([[1 / stretch, -shear], [0, 1]]) @ np.array([[cos, sin], [-sin, cos]])
    size = math.ceil(1.8 * height)
    offset = 8 - matrix @ (size / 2, size / 2)
    padded = Image.fromarray(np.pad(ink, 4).astype(np.float32))
    data = (*matrix[0], offset[0], *matrix[1], offset[1])
    smooth = padded.transform((size, size), Image.Transform.AFFINE, data, Image.Resampling.BICUBIC)
    # Ink falls by about 0.6 a cell at a stroke's edge, so this slope spreads the edge over about one pixel.
    alpha = ((np.asarray(smooth) - INK_THRESHOLD) / (0.6 * scale) + 0.5).clip(0, 1)
    x, y, width, tall = box(alpha > 0)
    return alpha[y : y + tall, x : x + width]


def box(mask: Mask) -> list[int]:
    """The smallest box around ``mask``, xywh."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    x, y = int(columns[0]), int(rows[0])
    return [x, y, int(columns[-1]) - x + 1, int(rows[-1]) - y + 1]
