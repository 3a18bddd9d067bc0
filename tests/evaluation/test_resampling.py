import copy
import tracemalloc
from collections import Counter

import numpy as np
import pytest

from mmgn.evaluation import analyse, bootstrap, bootstrap_classes
from mmgn.evaluation.resampling import class_ap, mean_ap


def duplicated(truth, results, weights):
    """Return the data set with each image there as often as its weight says, copies next to each other."""
    copies = {
        image["id"]: [100 * image["id"] + c for c in range(weight)]
        for image, weight in zip(sorted(truth["images"], key=lambda image: image["id"]), weights, strict=True)
    }
    out = {
        "images": [image | {"id": c} for image in truth["images"] for c in copies[image["id"]]],
        "categories": truth["categories"],
        "annotations": [e | {"image_id": c} for e in truth["annotations"] for c in copies[e["image_id"]]],
    }
    out["annotations"] = [entry | {"id": number} for number, entry in enumerate(out["annotations"], 1)]
    return out, [entry | {"image_id": c} for entry in results for c in copies[entry["image_id"]]]


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
@pytest.mark.parametrize("seed", range(4))
def test_counting_an_image_twice_is_having_it_twice(coco, iou_type, seed):
    truth, results = coco.random_set(seed, ties=False)
    matches = analyse(truth, results, iou_type, coco.cat_ids).matches
    images = len(truth["images"])
    draws = np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), size=5).astype(np.int32)
    expected = [analyse(*duplicated(truth, results, w), iou_type, coco.cat_ids).stats["mAP"] for w in draws]
    assert mean_ap(matches, draws) == pytest.approx(expected, abs=1e-12)
    assert len(set(expected)) > 1


def test_blocks_change_nothing(coco, monkeypatch):
    truth, results = coco.random_set(0)
    matches = analyse(truth, results, "bbox", coco.cat_ids).matches
    draws = np.random.default_rng(0).multinomial(12, np.full(12, 1 / 12), size=50).astype(np.int32)
    whole = mean_ap(matches, draws)
    monkeypatch.setattr("mmgn.evaluation.resampling._BLOCK", 64)
    assert np.array_equal(mean_ap(matches, draws), whole)


def test_memory_stays_bounded_where_objects_are_many_and_detections_none():
    box = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], "area": 81, "iscrowd": 0}
    truth = {
        "images": [{"id": 1, "width": 10, "height": 10}],
        "categories": [{"id": 1, "name": "thing"}],
        "annotations": [box | {"id": number} for number in range(1, 20_001)],
    }
    matches = analyse(truth, [], "bbox", [1]).matches
    weights = np.ones((500, 1), dtype=np.int32)
    tracemalloc.start()
    try:
        assert not class_ap(matches, weights, 0).any()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # All at once they would take 40 MB.
    assert peak < 8e6


def test_interval_is_of_paired_resamples(coco):
    truth, results = coco.random_set(1, images=30)
    better = [e | {"score": min(1, e["score"] + 0.2 * (e["category_id"] == 3))} for e in results]
    a, b = (analyse(truth, entries, "bbox", coco.cat_ids) for entries in (results, better))
    interval = bootstrap(a, b, replicates=400, seed=3)
    assert interval.difference == b.stats["mAP"] - a.stats["mAP"]
    # Drawn one by one, with the same images for both.
    rng = np.random.default_rng(8)
    differences = []
    for _ in range(400):
        counts = Counter(rng.integers(0, 30, size=30).tolist())
        weights = np.array([[counts[i] for i in range(30)]], dtype=np.int32)
        differences.append((mean_ap(b.matches, weights) - mean_ap(a.matches, weights))[0])
    spread = np.std(differences)
    assert interval.low == pytest.approx(np.quantile(differences, 0.025), abs=0.5 * spread)
    assert interval.high == pytest.approx(np.quantile(differences, 0.975), abs=0.5 * spread)


def test_equal_results_differ_in_no_resample(coco):
    truth, results = coco.random_set(2)
    a = analyse(truth, results, "bbox", coco.cat_ids)
    interval = bootstrap(a, analyse(truth, copy.deepcopy(results), "bbox", coco.cat_ids), replicates=50)
    assert (interval.difference, interval.low, interval.high, interval.replicates) == (0, 0, 0, 50)


def test_a_classs_interval_is_that_of_judging_it_alone(coco):
    truth, results = coco.random_set(4, images=30)
    worse = [entry | {"score": entry["score"] ** 2} for entry in results[::2]]
    both = [analyse(truth, own, "bbox", coco.cat_ids) for own in (results, worse)]
    found = bootstrap_classes(*both, 40)
    whole, overall = bootstrap(*both, 40), found.pop(None)
    assert overall.difference == whole.difference
    assert (overall.low, overall.high) == pytest.approx((whole.low, whole.high), abs=1e-12)
    # The last class has no objects, the first no detections.
    assert sorted(found) == sorted(coco.cat_ids[:-1])
    for cat_id, interval in found.items():
        assert interval == bootstrap(*(analyse(truth, own, "bbox", [cat_id]) for own in (results, worse)), 40)
        assert (interval.low < interval.high) == (cat_id != coco.cat_ids[0])


def test_other_annotations_are_refused(coco):
    truth, results = coco.random_set(3)
    a = analyse(truth, results, "bbox", coco.cat_ids)
    del truth["annotations"][0]
    with pytest.raises(ValueError, match="results on different annotations cannot be compared: object_id differ"):
        bootstrap(a, analyse(truth, results, "bbox", coco.cat_ids))
    truth["annotations"] = []
    nothing = analyse(truth, results, "bbox", coco.cat_ids)
    with pytest.raises(ValueError, match="no object to be found"):
        bootstrap(nothing, nothing)
