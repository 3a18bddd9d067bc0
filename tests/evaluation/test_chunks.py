"""Classes are judged a few at a time where there are many images: that changes no bit."""

import numpy as np
import pytest

from mmgn.evaluation import coco_eval
from mmgn.evaluation.coco_eval import evaluate
from mmgn.evaluation.instances import read_detections, read_objects


@pytest.mark.parametrize("by_class", [True, False])
@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
def test_chunks_change_nothing(coco, monkeypatch, iou_type, by_class):
    truth, results = coco.random_set(3)
    ids = sorted(image["id"] for image in truth["images"]), sorted(coco.cat_ids)
    read = read_objects(truth, iou_type, *ids), read_detections(results, iou_type, *ids)

    def judge(pairs):
        monkeypatch.setattr(coco_eval, "PAIRS", pairs)
        return evaluate(*read, len(ids[0]), len(ids[1]), by_class=by_class)

    whole = judge(len(ids[0]) * len(ids[1]))
    assert whole.ap(max_dets=100) > 0
    # A class at a time, though not one fits; three, and one that is left.
    for pairs in (1, 3 * len(ids[0])):
        parts = judge(pairs)
        for name in ("precision", "scores", "recall", "iou_thrs", "max_dets"):
            assert np.array_equal(getattr(parts, name), getattr(whole, name)), (pairs, name)


def test_no_class_is_no_figure():
    nothing = read_objects({"annotations": []}, "bbox", [1], []), read_detections([], "bbox", [1], [])
    assert evaluate(*nothing, 1, 0).stats() == [-1] * 12
