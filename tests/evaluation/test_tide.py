import numpy as np
import pytest

from mmgn.evaluation import analyse

SHORT_NAMES = {"Cls", "Loc", "Both", "Dupe", "Bkg", "Miss"}


def authors(truth, results, iou_type):
    """Return the figures of the paper's own implementation."""
    tidecv = pytest.importorskip("tidecv")
    gt, dt = tidecv.Data("truth", max_dets=100), tidecv.Data("results")
    for image in truth["images"]:
        gt.add_image(image["id"], image["file_name"])
    for entry in truth["annotations"]:
        add = gt.add_ignore_region if entry["iscrowd"] else gt.add_ground_truth
        add(entry["image_id"], entry["category_id"], entry["bbox"], entry["segmentation"])
    for entry in results:
        dt.add_detection(*(entry[k] for k in ("image_id", "category_id", "score", "bbox", "segmentation")))
    tide = tidecv.TIDE(mode=tidecv.TIDE.BOX if iou_type == "bbox" else tidecv.TIDE.MASK)
    tide.evaluate(gt, dt)
    main, special = tide.get_main_errors()["results"], tide.get_special_errors()["results"]
    figures = main | {"FP": special["FalsePos"], "FN": special["FalseNeg"]}
    return {name: value / 100 for name, value in figures.items()}


@pytest.mark.parametrize("crowds", [False, True])
@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
@pytest.mark.parametrize("seed", range(6))
def test_equal_to_the_authors_implementation(coco, monkeypatch, seed, iou_type, crowds):
    # It reads the precision at recall i / 100, COCO at 0.01 * i, which may be a bit above a recall and then misses it.
    monkeypatch.setattr("mmgn.evaluation.average_precision.RECALL_LEVELS", np.arange(101) / 100)
    # Of what the two treat differently there is nothing: equal scores, classes without objects, half a box in a crowd.
    truth, results = coco.random_set(seed, images=25, cat_ids=[7, 3], ties=False, crowds=crowds, polygons=False)
    for entry in results:
        entry["bbox"][2] += 0.01
    ours = analyse(truth, results, iou_type, [3, 7]).tide
    assert ours == pytest.approx(authors(truth, results, iou_type), abs=1e-12)
    assert all(gain > 0 for gain in ours.values())


def box(x, cat_id=1, width=20, **more):
    return {"image_id": 0, "category_id": cat_id, "bbox": [x, 0, width, 20], **more}


def test_each_kind_by_hand():
    truth = {"images": [{"id": 0}], "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]}
    objects = [box(0), box(100), box(200, 2), box(300)]
    truth["annotations"] = [e | {"id": n, "area": 400, "iscrowd": 0} for n, e in enumerate(objects, 1)]
    results = [
        box(0, score=0.9),
        box(1, score=0.8),  # the same object again
        box(110, score=0.7),  # IoU 1/3
        box(200, 1, score=0.6),  # a box of the other class
        box(210, 1, score=0.5),  # both a bad box and the other class
        box(400, score=0.4),
        box(300, score=0.2),  # right, but not sure enough to be shown
    ]
    ours = analyse(truth, results, "bbox", [1, 2])
    (image,) = ours.errors
    names = ["correct", "duplicate", "localisation", "classification", "both", "background"]
    assert image.kinds == dict(enumerate(names))
    assert image.missed_ids == [2, 3, 4]
    assert (image.found, image.false, image.missed) == (1, 5, 3)
    assert image.f1 == pytest.approx(2 / 10)


def test_nothing_to_be_found_gives_nothing_back(coco):
    truth, results = coco.random_set(0)
    truth["annotations"] = []
    gains = analyse(truth, results, "bbox", coco.cat_ids).tide
    assert set(gains) == SHORT_NAMES | {"FP", "FN"}
    assert not np.any(list(gains.values()))
