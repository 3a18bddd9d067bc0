"""A COCO instance-segmentation data set made on the spot: handwritten digits on photographs.

Everything comes with scikit-learn, nothing is downloaded. The digits are the 1797 grey 8x8 images of
``load_digits`` (UCI, Optical Recognition of Handwritten Digits), the backgrounds are crops of the two
photographs of ``load_sample_images`` and, for one image in five, a noisy colour gradient. Train and val share
neither: every fifth digit of each class is val's, and so is the right-hand part of both photographs.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageFilter

from mmgn.datasets.handwriting import CLASSES, Handwriting, Mask, Pixels, box, load_handwriting, render
from mmgn.datasets.recipe import Recipe, check_int, is_made, make

STAMP = "digits.json"
# Raise it whenever the same arguments would give other bytes: a set made by an older version is not reused.
FORMAT = 1

PHOTOS = ("china.jpg", "flower.jpg")
# Columns [0, 448) of both 640-pixel-wide photographs belong to train, [448, 640) to val.
PHOTO_SPLIT = 448
GRADIENT_SHARE = 0.2

# Height of a digit as a share of the image's side: 26 to 67 pixels of 160.
DIGIT_HEIGHT = (0.16, 0.42)
# A digit that would leave less than this share of another one visible is placed elsewhere or left out.
MIN_VISIBLE = 0.75
PLACEMENT_TRIES = 20
# Wanted between a digit's brightness and the mean of the background and of each digit it covers, of 255.
MIN_CONTRAST = 50
# Bright ink on dimmed photographs: with ink of either polarity the same small network needs far longer to learn.
DIMMED = (0.3, 0.55)
INK_BRIGHTNESS = (140, 245)


class DigitsPaths(NamedTuple):
    """Where the data set lies; ``train`` and ``val`` are the image folders."""

    root: Path
    train: Path
    train_annotations: Path
    val: Path
    val_annotations: Path


def make_digits(
    out_dir: str | os.PathLike[str],
    *,
    num_train: int = 700,
    num_val: int = 200,
    image_size: int = 160,
    max_digits: int = 5,
    seed: int = 0,
) -> DigitsPaths:
    """Write the data set to ``out_dir``, or reuse it where the same arguments have written it before.

    The same arguments give the same bytes with the same versions of scikit-learn, numpy and Pillow. An image
    does not depend on how many there are, so a larger set begins with the smaller one. Every digit in an
    image is annotated: masks are the visible ink, as compressed RLE, and boxes are the masks' own. An
    annotation's ``source_index`` is the digit's row in ``load_digits``; an image's ``background`` and
    ``background_box`` (xywh) tell its photograph.

    Args:
        out_dir: Folder to make. The set appears there complete or not at all.
        num_train: Number of training images.
        num_val: Number of validation images.
        image_size: Side of the square images in pixels, at least 64.
        max_digits: Largest number of digits in an image, 1 to 8. Images have at least 2 where this allows it
            and there is room.
        seed: Non-negative seed.

    Returns:
        Paths of the images and annotations.

    Raises:
        ValueError: An argument is out of range.
        ImportError: scikit-learn or pycocotools is missing.
        FileExistsError: ``out_dir`` holds something else, or digits made with other arguments.

    Example:
        >>> paths = make_digits("data/digits", num_train=400, num_val=100)  # doctest: +SKIP
        >>> paths.train_annotations  # doctest: +SKIP
        PosixPath('data/digits/annotations/instances_train.json')
    """
    check_int("num_train", num_train, 1)
    check_int("num_val", num_val, 1)
    check_int("image_size", image_size, 64)
    check_int("max_digits", max_digits, 1, 8)
    check_int("seed", seed, 0)
    arguments = {
        "format": FORMAT,
        "num_train": num_train,
        "num_val": num_val,
        "image_size": image_size,
        "max_digits": max_digits,
        "seed": seed,
    }
    files = {"annotations/instances_*.json": 2, "train/*.jpg": num_train, "val/*.jpg": num_val}
    recipe = Recipe("digits", STAMP, arguments, files)
    root = Path(out_dir)
    if is_made(root, recipe):
        return _paths(root)
    sources = _load_sources()

    def write(folder: Path) -> None:
        for split, num_images in enumerate((num_train, num_val)):
            _write_split(_paths(folder), split, num_images, image_size, max_digits, seed, sources)

    make(root, recipe, write)
    return _paths(root)


def _paths(root: Path) -> DigitsPaths:
    annotations = root / "annotations"
    return DigitsPaths(
        root,
        root / "train",
        annotations / "instances_train.json",
        root / "val",
        annotations / "instances_val.json",
    )


class _Sources(NamedTuple):
    digits: Handwriting
    photos: dict[str, Image.Image]


def _load_sources() -> _Sources:
    digits = load_handwriting()
    from sklearn.datasets import load_sample_image

    return _Sources(digits, {name: Image.fromarray(load_sample_image(name)) for name in PHOTOS})


def _write_split(
    paths: DigitsPaths, split: int, num_images: int, side: int, max_digits: int, seed: int, sources: _Sources
) -> None:
    try:
        from pycocotools import mask as coco_mask
    except ImportError as error:
        raise ImportError('masks are written with pycocotools; pip install "mmgn[quickstart]"') from error
    folder = (paths.train, paths.val)[split]
    folder.mkdir(parents=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id in range(1, num_images + 1):
        rng = np.random.default_rng((seed, split, image_id))
        pixels, origin = _background(rng, sources.photos, split, side)
        instances = _draw_digits(rng, pixels, sources, split, max_digits)
        file_name = f"{image_id:06d}.jpg"
        noisy = pixels + rng.normal(0, rng.uniform(0, 5), pixels.shape)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / file_name, quality=95)
        images.append({"id": image_id, "file_name": file_name, "height": side, "width": side, **origin})
        for source, mask in instances:
            rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": int(sources.digits.labels[source]) + 1,
                    "bbox": box(mask),
                    "area": int(mask.sum()),
                    "segmentation": {"size": rle["size"], "counts": rle["counts"].decode("ascii")},
                    "iscrowd": 0,
                    "source_index": source,
                }
            )
    annotation_file = (paths.train_annotations, paths.val_annotations)[split]
    annotation_file.parent.mkdir(exist_ok=True)
    annotation_file.write_text(json.dumps(_coco(folder.name, images, annotations)))


def _coco(split: str, images: list[dict[str, Any]], annotations: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "info": {
            "description": f"handwritten digits on photographs, {split}",
            "version": str(FORMAT),
            "contributor": "digits: UCI Optical Recognition of Handwritten Digits (E. Alpaydin, C. Kaynak); "
            "photographs: danielbuechele, vultilion; all as shipped with scikit-learn",
        },
        "licenses": [
            {"id": 1, "name": "CC BY 2.0", "url": "https://creativecommons.org/licenses/by/2.0/"},
            {"id": 2, "name": "CC BY 4.0", "url": "https://creativecommons.org/licenses/by/4.0/"},
        ],
        "images": images,
        "annotations": annotations,
        "categories": [{"id": label + 1, "name": name, "supercategory": "digit"} for label, name in enumerate(CLASSES)],
    }


def _background(
    rng: np.random.Generator, photos: dict[str, Image.Image], split: int, side: int
) -> tuple[Pixels, dict[str, Any]]:
    """An image ``[side, side, 3]``, 0 to 255, and the entries of its COCO record that tell its origin."""
    if rng.random() < GRADIENT_SHARE:
        return _gradient(rng, side), {"license": 2, "background": "gradient"}
    name = PHOTOS[rng.integers(len(PHOTOS))]
    photo = photos[name]
    left, right = ((0, PHOTO_SPLIT), (PHOTO_SPLIT, photo.width))[split]
    size = int(rng.integers(96, min(right - left, photo.height, 256), endpoint=True))
    x = int(rng.integers(left, right - size, endpoint=True))
    y = int(rng.integers(0, photo.height - size, endpoint=True))
    crop = photo.crop((x, y, x + size, y + size)).resize((side, side), Image.Resampling.BICUBIC)
    if rng.random() < 0.5:
        crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    crop = crop.filter(ImageFilter.GaussianBlur(rng.uniform(0, side / 80)))
    pixels = np.asarray(crop, dtype=np.float32)
    mean = pixels.mean(axis=(0, 1))
    pixels = (pixels - mean) * np.float32(rng.uniform(0.4, 0.9)) + mean + np.float32(rng.uniform(-30, 30))
    pixels = pixels * np.float32(rng.uniform(*DIMMED))
    return pixels.clip(0, 255), {"license": 1, "background": name, "background_box": [x, y, size, size]}


def _gradient(rng: np.random.Generator, side: int) -> Pixels:
    angle = rng.uniform(0, 2 * math.pi)
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    ramp = 0.5 + (x * math.cos(angle) + y * math.sin(angle)) / (2 * math.sqrt(2))
    start, end = rng.uniform(10, 120, (2, 3))
    cells = int(rng.integers(4, side // 8))
    noise = Image.fromarray(rng.normal(0, 12, (cells, cells)).astype(np.float32))
    clouds = np.asarray(noise.resize((side, side), Image.Resampling.BICUBIC))
    pixels = start + (end - start) * ramp[..., None] + clouds[..., None]
    return pixels.clip(0, 255).astype(np.float32)


def _draw_digits(
    rng: np.random.Generator, pixels: Pixels, sources: _Sources, split: int, max_digits: int
) -> list[tuple[int, Mask]]:
    """Draw digits onto ``pixels``, in place.

    Returns:
        The row of each digit in ``load_digits`` and its visible mask ``[side, side]``.
    """
    side = len(pixels)
    chosen: list[int] = []
    visible: list[Mask] = []
    areas: list[int] = []
    for _ in range(rng.integers(min(2, max_digits), max_digits, endpoint=True)):
        source = int(rng.choice(sources.digits.splits[split]))
        alpha = render(rng, sources.digits.ink[source], side * rng.uniform(*DIGIT_HEIGHT))
        height, width = alpha.shape
        for _ in range(PLACEMENT_TRIES):
            y, x = (int(rng.integers(0, side - extent, endpoint=True)) for extent in alpha.shape)
            mask = np.zeros((side, side), dtype=bool)
            mask[y : y + height, x : x + width] = alpha >= 0.5
            left_over = [earlier & ~mask for earlier in visible]
            if all(m.sum() >= MIN_VISIBLE * area for m, area in zip(left_over, areas, strict=True)):
                break
        else:
            continue
        under = [earlier & mask for earlier in visible]
        under.append(mask & ~np.any(under, axis=0))
        brightness = _far_from(rng, [float(pixels[part].mean()) for part in under if part.any()])
        _paint(rng, pixels[y : y + height, x : x + width], alpha, brightness)
        chosen.append(source)
        visible = [*left_over, mask]
        areas.append(int(mask.sum()))
    return list(zip(chosen, visible, strict=True))


def _far_from(rng: np.random.Generator, means: list[float]) -> float:
    """The first of some random brightnesses that stands out from all ``means``, or the best of them."""
    options = rng.uniform(*INK_BRIGHTNESS, 32)
    contrast = np.abs(options[:, None] - means).min(axis=1)
    enough = np.flatnonzero(contrast >= MIN_CONTRAST)
    return float(options[enough[0] if enough.size else contrast.argmax()])


def _paint(rng: np.random.Generator, region: Pixels, alpha: Pixels, brightness: float) -> None:
    """Blend a digit of one random hue, shaded from top to bottom, into ``region`` ``[h, w, 3]``, in place."""
    hue = rng.uniform(-100, 100, 3)
    shading = np.linspace(-12, 12, len(region)) * rng.choice((-1, 1))
    colour = (brightness + hue - hue.mean() + shading[:, None, None]).clip(0, 255)
    region += alpha[..., None] * (colour - region)
