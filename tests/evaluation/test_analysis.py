import copy

import numpy as np
import pytest

from mmgn.evaluation import FIGURES, analyse
from mmgn.evaluation.library import require


def as_number(value):
    return np.nan if value is None else value


def mean(values):
    return values[values > -1].mean() if (values > -1).any() else np.nan


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
def test_figures_of_all_and_of_each_class_equal_pycocotools(coco, iou_type, seed):
    truth, results = coco.random_set(seed)
    judge = coco.pycocotools(truth, results, iou_type)
    ours = analyse(truth, results, iou_type, coco.cat_ids)
    expected = np.where(judge.stats < 0, np.nan, judge.stats)
    assert [as_number(ours.stats[name]) for name in FIGURES] == pytest.approx(expected, abs=1e-9, rel=0, nan_ok=True)
    precision, recall = judge.eval["precision"], judge.eval["recall"]
    for k, cat_id in enumerate(sorted(coco.cat_ids)):
        reference = {
            "AP": mean(precision[:, :, k, 0, 2]),
            "AP_50": mean(precision[0, :, k, 0, 2]),
            "AP_75": mean(precision[5, :, k, 0, 2]),
            "AP_s": mean(precision[:, :, k, 1, 2]),
            "AP_m": mean(precision[:, :, k, 2, 2]),
            "AP_l": mean(precision[:, :, k, 3, 2]),
            "AR_1": mean(recall[:, k, 0, 0]),
            "AR_10": mean(recall[:, k, 0, 1]),
            "AR_100": mean(recall[:, k, 0, 2]),
        }
        own = {name: as_number(value) for name, value in ours.per_class[cat_id].items()}
        assert own == pytest.approx(reference, abs=1e-9, rel=0, nan_ok=True)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
def test_every_match_is_pycocotools_own(coco, iou_type, seed):
    truth, results = coco.random_set(seed)
    judge = coco.pycocotools(truth, results, iou_type)
    expected = {}
    for entry in judge.evalImgs:
        if entry is not None and entry["aRng"] == judge.params.areaRng[0]:
            for d, number in enumerate(entry["dtIds"]):
                expected[number - 1] = (entry["dtMatches"][:, d].tolist(), entry["dtIgnore"][:, d].tolist())
    matches = analyse(truth, results, iou_type, coco.cat_ids).matches
    ids = np.append(matches.object_id, 0)
    ours = {
        int(index): (ids[match].tolist(), ignored.tolist())
        for index, match, ignored in zip(matches.index, matches.match, matches.ignored, strict=True)
    }
    assert ours == expected
    assert matches.found.any()


def test_only_the_best_hundred_of_a_class_count(coco):
    truth, _ = coco.random_set(0, images=1, cat_ids=[1])
    truth["annotations"] = truth["annotations"][:1]
    box = {key: truth["annotations"][0][key] for key in ("image_id", "category_id", "segmentation", "bbox")}
    wrong = box | {"bbox": [0, 0, 1, 1], "score": 0.5}
    assert analyse(truth, [wrong] * 99 + [box | {"score": 0.5}], "bbox", [1]).stats["AR_100"] == 1
    assert analyse(truth, [wrong] * 100 + [box | {"score": 0.5}], "bbox", [1]).stats["AR_100"] == 0


def test_figures_by_hand():
    # Of two objects one is found exactly: precision is 1 up to recall 0.5, 51 of 101 recall levels.
    truth = {"images": [{"id": 0}, {"id": 1}], "categories": [{"id": 1, "name": "thing"}]}
    box = {"category_id": 1, "bbox": [10, 10, 20, 20]}
    truth["annotations"] = [box | {"id": i + 1, "image_id": i, "area": 400, "iscrowd": 0} for i in range(2)]
    stats = analyse(truth, [box | {"image_id": 0, "score": 0.9}], "bbox", [1]).stats
    assert stats["mAP"] == stats["mAP_50"] == stats["mAP_s"] == pytest.approx(51 / 101)
    assert {stats[name] for name in ("AR_1", "AR_10", "AR_100", "AR_s")} == {0.5}
    # There is no object of these sizes, so there is no figure.
    assert [stats[name] for name in ("mAP_m", "mAP_l", "AR_m", "AR_l")] == [None] * 4


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
def test_no_results_give_zero(coco, iou_type):
    truth, _ = coco.random_set(1)
    ours = analyse(truth, [], iou_type, coco.cat_ids)
    assert set(ours.stats.values()) == {0.0}
    assert ours.per_class[coco.cat_ids[0]]["AP"] == 0
    assert ours.per_class[coco.cat_ids[-1]]["AP"] is None
    assert sum(image.missed for image in ours.errors) == sum(not entry["iscrowd"] for entry in truth["annotations"])


def test_no_annotations_give_no_figure(coco):
    truth, results = coco.random_set(1)
    truth["annotations"] = []
    ours = analyse(truth, results, "bbox", coco.cat_ids)
    assert set(ours.stats.values()) == {None}
    assert ours.curves == {}
    assert {kind for image in ours.errors for kind in image.kinds.values()} == {"background"}


def test_ids_may_be_text(coco):
    truth, results = coco.random_set(2)
    expected = analyse(truth, results, "bbox", coco.cat_ids)
    for entry in truth["images"]:
        entry["id"] = f"{entry['id']:03}.png"
    for entry in truth["annotations"] + results:
        entry["image_id"] = f"{entry['image_id']:03}.png"
    assert analyse(truth, results, "bbox", coco.cat_ids).stats == expected.stats


def test_arguments_are_left_alone(coco):
    truth, results = coco.random_set(3)
    before = copy.deepcopy((truth, results))
    for iou_type in ("bbox", "segm"):
        analyse(truth, results, iou_type, coco.cat_ids)
    assert (truth, results) == before


def test_size_of_a_mask_is_its_own_not_its_boxs(coco):
    truth, _ = coco.random_set(0, images=1, cat_ids=[1], objects=0)
    own = {"image_id": 0, "category_id": 1, "bbox": [0, 0, 10, 10], "segmentation": coco.rle(0, 0, 10, 10)}
    truth["annotations"] = [own | {"id": 1, "area": 94, "iscrowd": 0}]
    # The surer one is wrong, and small only as a mask: were it medium, it would not count among the small.
    wrong = {"image_id": 0, "category_id": 1, "bbox": [40, 40, 60, 60], "segmentation": coco.rle(40, 40, 10, 10)}
    results = [wrong | {"score": 0.9}, own | {"score": 0.5}]
    assert analyse(truth, results, "segm", [1]).stats["mAP_s"] == pytest.approx(0.5)


def test_results_of_another_data_set_are_refused(coco):
    truth, results = coco.random_set(4)
    results[5]["image_id"] = 4711
    with pytest.raises(ValueError, match=r"1 of \d+ results are of images .* \(first: image_id 4711\)"):
        analyse(truth, results, "bbox", coco.cat_ids)


def test_arguments_that_make_no_sense_are_refused(coco):
    truth, results = coco.random_set(4)
    with pytest.raises(ValueError, match="iou_type must be 'bbox' or 'segm', got 'mask'"):
        analyse(truth, results, "mask", coco.cat_ids)
    # Annotations in the place of results.
    with pytest.raises(ValueError, match=r"results have no 'score' \(first: id \d+\)"):
        analyse(truth, truth["annotations"], "bbox", coco.cat_ids)


def test_masks_are_needed_to_judge_masks(coco):
    truth, results = coco.random_set(5)
    del results[2]["segmentation"]
    with pytest.raises(ValueError, match=r"1 of \d+ results have no 'segmentation' \(first: number 2\)"):
        analyse(truth, results, "segm", coco.cat_ids)
    truth["annotations"][3]["segmentation"] = []
    number = truth["annotations"][3]["id"]
    with pytest.raises(ValueError, match=rf"1 of \d+ annotations have no 'segmentation' \(first: id {number}\)"):
        analyse(truth, results, "segm", coco.cat_ids)


@pytest.mark.parametrize(
    ("side", "entry", "iou_type", "told"),
    [
        (0, {"bbox": {}}, "bbox", "annotations have boxes that are not four numbers"),
        (1, {"bbox": [1, 2, 3]}, "bbox", "results have boxes that are not four numbers"),
        (0, {"segmentation": ["a"]}, "segm", "annotations have masks that cannot be read"),
        (1, {"segmentation": {"size": [160, 160], "counts": [0, 25600]}}, "segm", r"1 of \d+ .*\(first: number 0\)"),
        # Masks that end before their size would have the library compare them for ever.
        (1, {"segmentation": {"size": [160, 160], "counts": "1X3"}}, "segm", r"1 of \d+ results have masks .* size"),
        (0, {"segmentation": {"size": [160, 160], "counts": "1X3"}}, "segm", r"1 of \d+ annotations have .* size"),
        (0, {"segmentation": {"size": [160, 160], "counts": [7, 8]}}, "segm", r"1 of \d+ annotations have .* size"),
        # Its outline would take 20 GB.
        (0, {"segmentation": [[0, 0, 1e9, 0, 0, 1e9]]}, "segm", "a polygon of 3 points is over 33554432 pixels long"),
        (0, {"segmentation": {"counts": "1X3"}}, "segm", "annotations have masks that cannot be read"),
    ],
)
def test_the_side_that_is_broken_is_named(coco, side, entry, iou_type, told):
    both = coco.random_set(4)
    (both[0]["annotations"], both[1])[side][0] |= entry
    with pytest.raises(ValueError, match=told):
        analyse(*both, iou_type, coco.cat_ids)


def test_fine_outlines_of_large_images_are_short_enough():
    """Points times coordinates would be over the limit; the outline is not."""
    turns = np.linspace(0, 2 * np.pi, 2500, endpoint=False)
    circle = 8000 + 7900 * np.stack([np.cos(turns), np.sin(turns)], axis=1)
    segmentation = [circle.ravel().tolist()]
    truth = {
        "images": [{"id": 1, "width": 16000, "height": 16000}],
        "categories": [{"id": 1, "name": "a"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "segmentation": segmentation, "area": np.pi * 7900**2}
        ],
    }
    mask = require("mask").segmToRle(segmentation, w=16000, h=16000)
    # As numpy has sizes.
    mask["size"] = np.int32(16000), np.int32(16000)
    results = [{"image_id": 1, "category_id": 1, "segmentation": mask, "score": 0.5}]
    assert analyse(truth, results, "segm", [1]).stats["mAP"] == pytest.approx(1)
