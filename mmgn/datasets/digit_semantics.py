"""The digits on photographs as a semantic-segmentation data set: a label map for each image."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from mmgn.datasets.digits import STAMP, DigitsPaths
from mmgn.datasets.recipe import Recipe, is_made, make

# Raise it whenever the same digits would give other maps: those made by an older version are not reused.
FORMAT = 1


def write_semantic_maps(paths: DigitsPaths) -> Path:
    """Write ``semantic/train/*.png`` and ``semantic/val/*.png`` into the digits' folder, or reuse them.

    A map has its image's size and name. A pixel is 0 where no digit is, and elsewhere the category id of the digit
    whose ink shows there, 1 to 10: masks are visible ink, so there is never more than one. mmseg's
    ``BaseSegDataset`` reads them, with ``data_prefix=dict(img_path="train", seg_map_path="semantic/train")``.

    Args:
        paths: What :func:`mmgn.datasets.digits.make_digits` returned.

    Returns:
        The folder ``semantic``.

    Raises:
        ImportError: pycocotools is missing.
        FileExistsError: ``semantic`` holds something else, or maps made by another version.

    Example:
        >>> write_semantic_maps(make_digits("data/digits"))  # doctest: +SKIP
        PosixPath('data/digits/semantic')
    """
    made_with = json.loads((paths.root / STAMP).read_text())
    files = {f"{split}/*.png": made_with[f"num_{split}"] for split in ("train", "val")}
    root = paths.root / "semantic"
    recipe = Recipe("label map", STAMP, {"map_format": FORMAT, **made_with}, files)
    if not is_made(root, recipe):
        make(root, recipe, lambda folder: _write(paths, folder))
    return root


def _write(paths: DigitsPaths, folder: Path) -> None:
    try:
        from pycocotools import mask as coco_mask
    except ImportError as error:
        raise ImportError('masks are read with pycocotools; pip install "mmgn[quickstart]"') from error
    for images, annotation_file in ((paths.train, paths.train_annotations), (paths.val, paths.val_annotations)):
        (folder / images.name).mkdir()
        truth = json.loads(annotation_file.read_text())
        maps = {image["id"]: np.zeros((image["height"], image["width"]), np.uint8) for image in truth["images"]}
        for annotation in truth["annotations"]:
            mask = np.asarray(coco_mask.decode(annotation["segmentation"]), dtype=bool)
            maps[annotation["image_id"]][mask] = annotation["category_id"]
        for image in truth["images"]:
            file = folder / images.name / Path(image["file_name"]).with_suffix(".png")
            Image.fromarray(maps[image["id"]]).save(file)
