import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

WIDTH, HEIGHT = 64, 48


def square(x, y, side):
    return [x, y, x + side, y, x + side, y + side, x, y + side]


@pytest.fixture
def coco():
    """Annotations without a defect: polygons in image 1, both run-length encodings in image 2, and a crowd."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
    mask[10:30, 20:50] = 1
    rle = coco_mask.encode(mask)
    runs = np.diff(np.flatnonzero(np.diff(mask.ravel(order="F"), prepend=2, append=2))).tolist()
    shapes = [
        (1, 1, [4, 4, 10, 10], 100.0, [square(4, 4, 10)], 0),
        (1, 2, [20, 4, 30, 10], 200.0, [square(20, 4, 10), square(40, 4, 10)], 0),
        (2, 1, [20, 10, 30, 20], 600, {"size": rle["size"], "counts": rle["counts"].decode()}, 0),
        (2, 2, [20, 10, 30, 20], 600, {"size": [HEIGHT, WIDTH], "counts": runs}, 1),
    ]
    return {
        "images": [{"id": i, "file_name": f"{i}.jpg", "width": WIDTH, "height": HEIGHT} for i in (1, 2)],
        "annotations": [
            dict(id=i, image_id=image, category_id=category, bbox=box, area=area, segmentation=shape, iscrowd=crowd)
            for i, (image, category, box, area, shape, crowd) in enumerate(shapes, 1)
        ],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }


@pytest.fixture
def write(tmp_path):
    """Write annotations, and their images; returns both paths."""

    def write(content):
        (tmp_path / "images").mkdir(exist_ok=True)
        noise = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
        for image in content["images"] if isinstance(content, dict) and "images" in content else ():
            Image.fromarray(noise).save(tmp_path / "images" / image["file_name"])
        (tmp_path / "annotations.json").write_text(json.dumps(content))
        return tmp_path / "annotations.json", tmp_path / "images"

    return write
