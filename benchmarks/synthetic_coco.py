"""COCO annotation files of any size, written as they are drawn: what the scale benchmarks read."""

import json
from pathlib import Path

import numpy as np

import mmgn  # noqa: F401  # before mmdet

WIDTH, HEIGHT = 640, 480
CATEGORIES = 80
#: Of instances_train2017.json.
COCO_IMAGES, COCO_OBJECTS = 118_287, 860_001
# A polygon's corners; with their mean the file of COCO's size has its size too, 0.45 GiB.
CORNERS = (6, 44)
_CHUNK = 10_000


def write(path: Path, images: int, objects: int, *, polygons: bool = False, seed: int = 0) -> None:
    """Write ``images`` images of 640 x 480 with ``objects`` objects between them, some with none, some with many.

    Categories are drawn as unevenly as COCO's (the first has three in ten), sides of boxes from 8 pixels to the image.

    Args:
        path: the file; its folder is made.
        images: their number.
        objects: their number over all images.
        polygons: give each object one polygon inside its box.
        seed: the same one gives the same bytes.
    """
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(objects, rng.dirichlet(np.full(images, 1.2)))
    shares = np.append(0.3, 0.7 * rng.dirichlet(np.full(CATEGORIES - 1, 1.0)))
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as file:
        file.write('{"categories": ')
        json.dump([{"id": i, "name": name} for i, name in enumerate(class_names(), 1)], file)
        file.write(', "images": [')
        for start in range(0, images, _CHUNK):
            numbers = range(start, min(start + _CHUNK, images))
            file.write(", " * (start > 0) + ", ".join(map(_image, numbers)))
        file.write('], "annotations": [')
        owners = np.repeat(np.arange(images), counts)
        for start in range(0, objects, _CHUNK):
            file.write(", " * (start > 0))
            file.write(", ".join(_annotations(rng, start, owners[start : start + _CHUNK], shares, polygons)))
        file.write("]}")


def class_names() -> tuple[str, ...]:
    """Return COCO's own names, so that mmdet's configs need no ``metainfo``."""
    from mmdet.datasets import CocoDataset

    return tuple(CocoDataset.METAINFO["classes"])


def _image(i: int) -> str:
    return f'{{"id": {i}, "file_name": "{i:012}.jpg", "width": {WIDTH}, "height": {HEIGHT}}}'


def _annotations(
    rng: np.random.Generator, start: int, owners: np.ndarray, shares: np.ndarray, polygons: bool
) -> list[str]:
    n = len(owners)
    sizes = np.exp(rng.uniform(np.log(8), np.log([WIDTH, HEIGHT]), (n, 2)))
    corners = rng.uniform(0, [WIDTH, HEIGHT] - sizes)
    boxes = np.round(np.hstack([corners, sizes]), 2)
    categories = rng.choice(CATEGORIES, n, p=shares) + 1
    outlines = [_polygon(rng, box) for box in boxes] if polygons else [""] * n
    rows = zip(owners.tolist(), categories.tolist(), boxes.tolist(), outlines, strict=True)
    return [
        f'{{"id": {start + i + 1}, "image_id": {owner}, "category_id": {category}, "bbox": {box}, '
        f'"area": {box[2] * box[3]:.4f}, "iscrowd": 0{outline}}}'
        for i, (owner, category, box, outline) in enumerate(rows)
    ]


def _polygon(rng: np.random.Generator, box: np.ndarray) -> str:
    angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(*CORNERS)))
    unit = np.stack([np.cos(angles), np.sin(angles)], 1) * rng.uniform(0.7, 1, (len(angles), 1))
    points = np.round(box[:2] + box[2:] * (1 + unit) / 2, 2)
    return f', "segmentation": [{points.ravel().tolist()}]'
