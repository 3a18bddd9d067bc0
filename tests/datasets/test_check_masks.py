"""Polygons and run-length encodings: each defect is found by its name and count, hostile ones included."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from mmgn.datasets.check import check_dataset
from mmgn.datasets.check.rle import sum_runs

SQUARE = [4, 4, 14, 4, 14, 14, 4, 14]
SIZE = [48, 64]
FULL = coco_mask.encode(np.ones((48, 64), np.uint8, order="F"))["counts"].decode()
EMPTY = coco_mask.encode(np.zeros((48, 64), np.uint8, order="F"))["counts"].decode()
OTHER = coco_mask.encode(np.ones((64, 48), np.uint8, order="F"))["counts"].decode()


@pytest.mark.parametrize(
    ("segmentation", "counts"),
    [
        ("polygon", {"malformed_segmentation": 1}),
        ([4, 4, 14, 4, 14, 14], {"malformed_segmentation": 1}),
        ([["4"] * 8], {"malformed_segmentation": 1}),
        ([[[4, 4], [14, 4], [14, 14]]], {"malformed_segmentation": 1}),
        ([[4, 4, 14, 4, 14, float("nan")]], {"malformed_segmentation": 1}),
        ([[4, 4, 14, 4, 14, float("inf")]], {"malformed_segmentation": 1}),
        ([[4, 4, 14, 4, 14, 10**400]], {"malformed_segmentation": 1}),
        ([[4, 4, 14, 4, 14, True]], {"malformed_segmentation": 1}),
        ([[*SQUARE, 4]], {"polygon_odd_count": 1}),
        ([SQUARE, [4, 4, 14, 14]], {"polygon_few_points": 1}),
        ([SQUARE, []], {"polygon_few_points": 1}),
        ([[4, 4, 14, 4, 14, 14, 4, 14, 4, -3]], {"polygon_outside_image": 1, "mask_box_mismatch": 1}),
        ([[30, 20, 40, 20, 40, 30, 30, 30]], {"mask_outside_box": 1}),
        ([[4, 4, 24, 4, 24, 14, 4, 14]], {"mask_box_mismatch": 1, "area_mismatch": 1}),
        ([[4, 4, 4, 4, 4, 4]], {"mask_empty": 1}),
        ([], {"mask_missing": 1}),
        (None, {"mask_missing": 1}),
        ({"size": SIZE}, {"malformed_segmentation": 1}),
        ({"counts": FULL}, {"malformed_segmentation": 1}),
        ({"size": [48.0, 64.0], "counts": FULL}, {"malformed_segmentation": 1}),
        ({"size": [2**40, 2**40], "counts": FULL}, {"malformed_segmentation": 1}),
        ({"size": SIZE, "counts": 7}, {"malformed_segmentation": 1}),
        ({"size": [64, 48], "counts": OTHER}, {"rle_size_mismatch": 1}),
        ({"size": SIZE, "counts": "\x7f"}, {"rle_undecodable": 1}),
        ({"size": SIZE, "counts": "é"}, {"rle_undecodable": 1}),
        ({"size": SIZE, "counts": "P"}, {"rle_undecodable": 1}),
        ({"size": SIZE, "counts": "o" * 100_000}, {"rle_undecodable": 1}),
        ({"size": SIZE, "counts": ""}, {"rle_undecodable": 1}),
        ({"size": SIZE, "counts": [10, -5, 3067]}, {"rle_undecodable": 1}),
        ({"size": SIZE, "counts": [10, "5"]}, {"rle_undecodable": 1}),
        ({"size": SIZE, "counts": [2**64]}, {"rle_undecodable": 1}),
        ({"size": SIZE, "counts": [0, 2**31]}, {"rle_counts_mismatch": 1}),
        ({"size": SIZE, "counts": [3071]}, {"rle_counts_mismatch": 1}),
        ({"size": SIZE, "counts": "0"}, {"rle_counts_mismatch": 1}),
        ({"size": SIZE, "counts": []}, {"rle_counts_mismatch": 1}),
        ({"size": SIZE, "counts": EMPTY}, {"mask_empty": 1}),
        ({"size": SIZE, "counts": [3072]}, {"mask_empty": 1}),
        ({"size": SIZE, "counts": FULL}, {"mask_box_mismatch": 1, "area_mismatch": 1}),
    ],
)
def test_a_seeded_defect_is_found_and_nothing_else(segmentation, counts, coco, write):
    coco["annotations"][0]["segmentation"] = segmentation
    found = check_dataset(write(coco)[0])
    assert found.counts == counts
    assert len(found.text()) < 3000


def test_area_of_another_shape(coco, write):
    coco["annotations"][1]["area"] = 300.0
    found = check_dataset(write(coco)[0])
    assert found.counts == {"area_mismatch": 1}
    assert "annotation 2 of image 1 ('1.jpg'): area 300, mask 200" in found.text()


def test_an_area_without_mask_may_be_smaller_than_the_box_and_not_larger(coco, write):
    for annotation in coco["annotations"]:
        del annotation["segmentation"]
    assert check_dataset(write(coco)[0]).counts == {}
    coco["annotations"][0]["area"] = 1000
    assert check_dataset(write(coco)[0]).counts == {"area_mismatch": 1}


def test_many_annotations_in_blocks(coco, write, monkeypatch):
    monkeypatch.setattr("mmgn.datasets.check.masks._BLOCK", 3)
    first = coco["annotations"]
    coco["annotations"] = [{**first[i % 4], "id": i + 1} for i in range(40)]
    for i in (0, 12, 36):
        coco["annotations"][i]["segmentation"] = [[1, 2, 3]]
    found = check_dataset(write(coco)[0])
    assert found.counts == {"polygon_odd_count": 3}
    assert found.statistics["masks"] == {"polygons": 20, "run-length encodings": 20}


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1)), min_size=1, max_size=6))
def test_encodings_of_pycocotools_sum_to_their_size_among_broken_ones(shapes):
    rng = np.random.default_rng(shapes[0][2])
    masks = [rng.random((h, w)) < rng.random() for h, w, _ in shapes]
    texts = [coco_mask.encode(np.asfortranarray(mask, np.uint8))["counts"].decode() for mask in masks]
    broken = ["o", "~", "oooooooooo0", "O", "oooooo?oooooo?oooooo?"]
    mixed = [text for i, whole in enumerate(texts) for text in (whole, broken[i % len(broken)])]
    assert sum_runs(mixed)[::2].tolist() == [h * w for h, w, _ in shapes]
    assert sum_runs(texts).tolist() == [h * w for h, w, _ in shapes]
