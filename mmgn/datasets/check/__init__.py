"""Checks of COCO annotation files and their images: what would break training or corrupt AP, before it does."""

import os
from collections.abc import Sequence

import numpy as np

from mmgn.datasets.check.annotations import check_classes, check_entries
from mmgn.datasets.check.findings import KINDS, Findings
from mmgn.datasets.check.images import check_images
from mmgn.datasets.check.masks import check_masks
from mmgn.datasets.check.table import large_and_hostile, read_table

__all__ = ["KINDS", "Findings", "check_dataset", "check_quickly"]


def check_dataset(
    ann_file: str | os.PathLike[str],
    img_dir: str | os.PathLike[str] | None = None,
    *,
    classes: Sequence[str] | None = None,
    decode: bool = False,
    jobs: int | None = None,
    examples: int = 3,
) -> Findings:
    """Check an annotation file and its images.

    Args:
        ann_file: COCO annotations; trusted in nothing.
        img_dir: the images' folder; None leaves the images out.
        classes: those of a config, to be checked against the categories.
        decode: read every pixel of the images, not the headers alone.
        jobs: threads that read images; None for one a core.
        examples: how many to keep of each kind of defect.

    Raises:
        OSError: the annotation file cannot be read.

    Example:
        >>> found = check_dataset("data/coco/annotations/instances_val2017.json", "data/coco/val2017")  # doctest: +SKIP
        >>> print(found.text())  # doctest: +SKIP
    """
    findings = Findings(str(ann_file), limit=examples)
    with large_and_hostile():
        table = read_table(ann_file, findings)
        if table is None:
            return findings
        check_masks(table, check_entries(table, findings), findings)
    if classes is not None:
        check_classes(table, classes, findings)
    if img_dir is not None:
        check_images(table.images, img_dir, findings, decode, jobs)
    return findings


def check_quickly(
    ann_file: str | os.PathLike[str],
    img_dir: str | os.PathLike[str] | None = None,
    *,
    classes: Sequence[str] | None = None,
    masks: bool = True,
    images: int = 32,
) -> Findings:
    """Check what seconds allow: all but the shapes of masks, and the headers of a few images spread over the file.

    Args:
        ann_file: COCO annotations.
        img_dir: the images' folder; None leaves the images out.
        classes: those of a config, to be checked against the categories.
        masks: whether every object that is not left out of training needs one.
        images: how many.

    Raises:
        OSError: the annotation file cannot be read.
    """
    findings = Findings(str(ann_file))
    with large_and_hostile():
        table = read_table(ann_file, findings, polygons=False)
        if table is None:
            return findings
        left_out = check_entries(table, findings)
        if masks:
            used = np.flatnonzero(~left_out).tolist()
            bare = [row for row in used if not table.annotations[row].get("segmentation")]
            findings.add("mask_missing", bare, table.tell)
    if classes is not None:
        check_classes(table, classes, findings)
    if img_dir is not None:
        spread = np.linspace(0, len(table.images) - 1, min(images, len(table.images)), dtype=int)
        check_images([table.images[number] for number in spread], img_dir, findings)
    return findings
