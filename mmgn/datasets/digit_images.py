"""An image-classification data set made on the spot: one handwritten digit an image, lit or plain.

The two forms hold the same digits, of the same shape at the same place, with the same noise; light alone differs:

* plain: full contrast on darkness;
* lit: each image has a contrast of its own, drawn log-uniformly from ``CONTRAST``, so sixteenfold between the faintest
  and the strongest, and lies on a background that runs linearly from one side to the opposite one, in a random
  direction, between two brightnesses drawn uniformly from what the contrast leaves of ``RANGE``.

So in the lit form mean and variance are an image's own far more than a pixel's: those of a handful of images tell
little about the next handful, which is what a norm over the batch has to go by.

The ranges are not the first ones: ``RANGE`` was 0 to 255 and the contrast 15 to 240, narrowed after pilots so that
noise does not clip, and place and size varied more until a first look, at which nothing had learned.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
from PIL import Image

from mmgn.datasets.handwriting import Handwriting, Pixels, load_handwriting, render
from mmgn.datasets.recipe import Recipe, check_int, is_made, make

STAMP = "digit_images.json"
# Raise it whenever the same arguments would give other bytes: a set made by an older version is not reused.
FORMAT = 1

# Standard deviation, of 255.
NOISE = 4.0
# Of 255, before the noise: three of its standard deviations are left on both sides, so next to no pixel clips.
RANGE = (12.0, 243.0)
# Of the ink to its background. The faintest is 3.6 times the noise's standard deviation, still plain to see.
CONTRAST = ((RANGE[1] - RANGE[0]) / 16, RANGE[1] - RANGE[0])
# Height of a digit as a share of the image's side: 18 to 22 pixels of 28.
DIGIT_HEIGHT = (0.65, 0.8)
# Of a digit's box from the image's middle, each way, where there is room: 2 pixels of 28.
SHIFT = 0.08


def make_digit_images(
    out_dir: str | os.PathLike[str],
    *,
    lit: bool,
    num_train: int = 2048,
    num_val: int = 1000,
    image_size: int = 28,
    seed: int = 0,
) -> Path:
    """Write the data set to ``out_dir``, or reuse it where the same arguments have written it before.

    Images lie as ImageNet's do, ``train/<class>/<index>.png`` and ``val/<class>/<index>.png``, grey, the class being
    the digit, 0 to 9. A split goes through its digits over and over, each time drawn anew: 1437 are train's, 360
    val's. The same arguments give the same bytes with the same versions of scikit-learn, numpy and Pillow. An image
    does not depend on how many there are, so a larger set begins with the smaller one.

    Args:
        out_dir: Folder to make. The set appears there complete or not at all.
        lit: Whether each image gets a light of its own.
        num_train: Number of training images, at least 10.
        num_val: Number of validation images, at least 10.
        image_size: Side of the square images in pixels, at least 16.
        seed: Non-negative seed.

    Returns:
        ``out_dir`` as a path.

    Raises:
        ValueError: An argument is out of range.
        ImportError: scikit-learn is missing.
        FileExistsError: ``out_dir`` holds something else, or digit images made with other arguments.

    Example:
        >>> make_digit_images("data/digits-lit", lit=True)  # doctest: +SKIP
        PosixPath('data/digits-lit')
    """
    check_int("num_train", num_train, 10)
    check_int("num_val", num_val, 10)
    check_int("image_size", image_size, 16)
    check_int("seed", seed, 0)
    arguments = {
        "format": FORMAT,
        "lit": bool(lit),
        "num_train": num_train,
        "num_val": num_val,
        "image_size": image_size,
        "seed": seed,
    }
    recipe = Recipe("digit images", STAMP, arguments, {"train/*/*.png": num_train, "val/*/*.png": num_val})
    root = Path(out_dir)
    if is_made(root, recipe):
        return root
    digits = load_handwriting()

    def write(folder: Path) -> None:
        for split, (name, num_images) in enumerate((("train", num_train), ("val", num_val))):
            for index in range(num_images):
                row = digits.splits[split][index % len(digits.splits[split])]
                image = _draw(np.random.default_rng((seed, split, index)), digits, int(row), image_size, lit)
                file = folder / name / str(digits.labels[row]) / f"{index:06d}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                image.save(file)

    make(root, recipe, write)
    return root


def _draw(rng: np.random.Generator, digits: Handwriting, row: int, side: int, lit: bool) -> Image.Image:
    alpha = render(rng, digits.ink[row], side * rng.uniform(*DIGIT_HEIGHT))
    ink = np.zeros((side, side), dtype=np.float32)
    window = tuple(_place(rng, extent, side) for extent in alpha.shape)
    ink[window] = alpha
    noise = rng.normal(0, NOISE, (side, side))
    # Light is drawn last, so that both forms draw the same digit.
    pixels = _light(rng, ink) if lit else RANGE[0] + CONTRAST[1] * ink
    return Image.fromarray((pixels + noise).round().clip(0, 255).astype(np.uint8))


def _place(rng: np.random.Generator, extent: int, side: int) -> slice:
    room = (side - extent) / 2
    start = round(room + min(room, SHIFT * side) * rng.uniform(-1, 1))
    return slice(start, start + extent)


def _light(rng: np.random.Generator, ink: Pixels) -> Pixels:
    contrast = math.exp(rng.uniform(*np.log(CONTRAST)))
    start, end = rng.uniform(RANGE[0], RANGE[1] - contrast, 2)
    angle = rng.uniform(0, 2 * math.pi)
    y, x = np.mgrid[-1 : 1 : len(ink) * 1j, -1 : 1 : len(ink) * 1j]
    reach = abs(math.cos(angle)) + abs(math.sin(angle))
    ramp = 0.5 + (x * math.cos(angle) + y * math.sin(angle)) / (2 * reach)
    return (start + (end - start) * ramp + contrast * ink).astype(np.float32)
