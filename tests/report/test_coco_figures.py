import copy
import json

import numpy as np
import pytest
from pycocotools import mask as mask_api

from mmgn.report.coco_figures import FIGURES, evaluate


def cat_ids(truth):
    return [category["id"] for category in truth["categories"]]


def box_entry(image_id, box, **more):
    return {"image_id": image_id, "category_id": 1, "bbox": box, **more}


def boxes(annotations, images=2):
    return {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 100, "height": 100} for i in range(images)],
        "categories": [{"id": 1, "name": "thing"}],
        "annotations": [
            box_entry(image_id, box, id=number, area=box[2] * box[3], iscrowd=0)
            for number, (image_id, box) in enumerate(annotations, 1)
        ],
    }


def test_equal_to_mmdets_coco_metric(coco_set, tmp_path):
    pytest.importorskip("mmdet")
    import torch
    from mmdet.evaluation import CocoMetric

    # mmdet 3.3.0 swaps the names of classes whose ids are not in order.
    coco_set.truth["categories"].sort(key=lambda category: category["id"])
    coco_set.ann_file.write_text(json.dumps(coco_set.truth))
    names = [category["name"] for category in coco_set.truth["categories"]]
    metric = CocoMetric(
        ann_file=str(coco_set.ann_file),
        metric=["bbox", "segm"],
        outfile_prefix=str(tmp_path / "mmdet"),
        classwise=True,
    )
    metric.dataset_meta = {"classes": names}
    samples = []
    for image in coco_set.truth["images"]:
        own = [entry for entry in coco_set.results["segm"] if entry["image_id"] == image["id"]]
        box = np.array([entry["bbox"] for entry in own], dtype=np.float64).reshape(-1, 4)
        box[:, 2:] += box[:, :2]
        labels = [cat_ids(coco_set.truth).index(entry["category_id"]) for entry in own]
        instances = {
            "bboxes": torch.from_numpy(box),
            "scores": torch.tensor([entry["score"] for entry in own], dtype=torch.float64),
            "labels": torch.tensor(labels, dtype=torch.long),
            "masks": [entry["segmentation"] for entry in own],
        }
        samples.append({"img_id": image["id"], "ori_shape": (320, 320), "pred_instances": instances})
    metric.process({}, samples)
    expected = metric.evaluate(len(samples))
    for kind in ("bbox", "segm"):
        figures = evaluate(coco_set.truth, coco_set.results[kind], kind, cat_ids(coco_set.truth))
        for name in FIGURES[:6]:
            assert round(figures.stats[name], 3) == expected[f"coco/{kind}_{name}"], (kind, name)
            assert 0.01 < figures.stats[name] < 0.99
    # Under the same key mmdet writes the classes' mask AP over their box AP.
    for category in coco_set.truth["categories"]:
        assert round(figures.per_class[category["id"]]["AP"], 3) == expected[f"coco/{category['name']}_precision"]


def test_figures_by_hand():
    # Of two objects one is found exactly: precision is 1 up to recall 0.5, 51 of 101 recall levels.
    truth = boxes([(0, [10, 10, 20, 20]), (1, [10, 10, 20, 20])])
    stats = evaluate(truth, [box_entry(0, [10, 10, 20, 20], score=0.9)], "bbox", [1]).stats
    assert stats["mAP"] == pytest.approx(51 / 101)
    assert stats["mAP_50"] == pytest.approx(51 / 101)
    assert stats["mAP_s"] == pytest.approx(51 / 101)
    assert {stats[name] for name in ("AR_1", "AR_10", "AR_100", "AR_s")} == {0.5}
    # There is no object of these sizes, so there is no figure.
    assert [stats[name] for name in ("mAP_m", "mAP_l", "AR_m", "AR_l")] == [None] * 4


def test_classes_keep_their_figures_in_any_order_of_ids(coco_set):
    discs = [entry | {"score": 1.0} for entry in coco_set.truth["annotations"] if entry["category_id"] == 7]
    figures = evaluate(coco_set.truth, discs, "segm", cat_ids(coco_set.truth))
    assert cat_ids(coco_set.truth) == [7, 3, 90]
    assert {cat_id: own["AP"] for cat_id, own in figures.per_class.items()} == {3: 0, 7: 1, 90: 0}


def test_no_predictions_give_zero(coco_set):
    for kind in ("bbox", "segm"):
        figures = evaluate(coco_set.truth, [], kind, cat_ids(coco_set.truth))
        assert set(figures.stats.values()) == {0.0}
        assert {value for own in figures.per_class.values() for value in own.values()} == {0.0}
        assert sum(counts.missed for counts in figures.images) == len(coco_set.truth["annotations"])


def test_counts_per_image():
    truth = boxes([(0, [10, 10, 20, 20]), (0, [60, 60, 20, 20]), (1, [10, 10, 20, 20])], images=3)
    results = [
        box_entry(0, [10, 10, 20, 20], score=0.9),
        box_entry(0, [60, 60, 20, 20], score=0.1),  # right, but not sure enough to count
        box_entry(1, [50, 10, 20, 20], score=0.8),
    ]
    counts = evaluate(truth, results, "bbox", [1]).images
    assert [(c.image_id, c.found, c.false, c.missed) for c in counts] == [(0, 1, 0, 1), (1, 0, 1, 1)]
    assert [c.f1 for c in counts] == [pytest.approx(2 / 3), 0]


def test_arguments_are_left_alone(coco_set):
    before = copy.deepcopy((coco_set.truth, coco_set.results))
    evaluate(coco_set.truth, coco_set.results["segm"], "segm", cat_ids(coco_set.truth))
    assert (coco_set.truth, coco_set.results) == before


def test_masks_need_annotated_masks(coco_set):
    del coco_set.truth["annotations"][3]["segmentation"]
    with pytest.raises(ValueError, match=r"1 of \d+ annotations have no 'segmentation' \(first: id 4\)"):
        evaluate(coco_set.truth, coco_set.results["segm"], "segm", cat_ids(coco_set.truth))


def test_size_of_a_mask_is_its_own_not_its_boxs():
    def rle(*corners):
        mask = np.zeros((100, 100), dtype=np.uint8)
        for x, y in corners:
            mask[y : y + 10, x : x + 10] = 1
        encoded = mask_api.encode(np.asfortranarray(mask))
        return encoded | {"counts": encoded["counts"].decode()}

    truth = boxes([(0, [0, 0, 10, 10])], images=1)
    truth["annotations"][0]["segmentation"] = rle((0, 0))
    # The surer one is wrong, and small only as a mask: were it medium, it would not count among the small.
    wrong = box_entry(0, [40, 40, 60, 60], segmentation=rle((40, 40), (90, 90)), score=0.9)
    right = box_entry(0, [0, 0, 10, 10], segmentation=rle((0, 0)), score=0.5)
    assert evaluate(truth, [wrong, right], "segm", [1]).stats["mAP_s"] == pytest.approx(0.5)
