"""Random COCO data sets with everything that makes evaluation hard, and pycocotools to judge them."""

import contextlib
import io
import json
from types import SimpleNamespace

import numpy as np
import pytest
from pycocotools import mask as mask_api
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

SIZE = 160
#: Unsorted on purpose, as their order in a file is.
CAT_IDS = [7, 3, 90, 11]


@pytest.fixture(scope="session")
def coco():
    """Return what a test module needs; with pytest's importlib mode a conftest cannot be imported."""
    return SimpleNamespace(random_set=random_set, pycocotools=pycocotools, rle=rle, cat_ids=CAT_IDS)


def random_set(seed, *, images=12, cat_ids=CAT_IDS, objects=6, detections=18, ties=True, crowds=True, polygons=True):
    """Return COCO annotations and results, both with boxes and masks.

    Half of the objects have sizes on the borders of small, medium and large, half of the masks are polygons (of crowds
    none). With detections of other classes, shifted, repeated or on nothing; images without objects, detections or
    both; a class without objects and one without detections where there are more than two.
    """
    rng = np.random.default_rng(seed)
    truth = {
        "images": [
            {"id": i, "file_name": f"{i}.png", "width": SIZE, "height": SIZE} for i in rng.permutation(images).tolist()
        ],
        "categories": [{"id": cat_id, "name": f"class {cat_id}"} for cat_id in cat_ids],
        "annotations": [],
    }
    results = []
    for image_id in range(images):
        own = [_object(rng, image_id, cat_ids, crowds, polygons) for _ in range(rng.integers(0, objects + 1))]
        truth["annotations"] += own
        for _ in range(rng.integers(0, detections + 1)):
            results.append(_detection(rng, image_id, own, cat_ids, ties))
    for number, entry in enumerate(truth["annotations"], 1):
        entry["id"] = number
    if len(cat_ids) > 2:
        truth["annotations"] = [entry for entry in truth["annotations"] if entry["category_id"] != cat_ids[-1]]
        results = [entry for entry in results if entry["category_id"] != cat_ids[0]]
    return truth, results


def pycocotools(truth, results, iou_type, cat_ids=CAT_IDS):
    """Return the reference's ``COCOeval``, summarised."""
    with contextlib.redirect_stdout(io.StringIO()):
        gt = COCO()
        gt.dataset = json.loads(json.dumps(truth))
        gt.createIndex()
        # With a box in it, loadRes takes the box's area for the mask's.
        dropped = "bbox" if iou_type == "segm" else "segmentation"
        dt = gt.loadRes([{k: v for k, v in entry.items() if k != dropped} for entry in results])
        judge = COCOeval(gt, dt, iou_type)
        judge.params.catIds = list(cat_ids)
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return judge


def rle(x, y, w, h):
    """Return the mask of a box, its corners cut off, as in a results file."""
    mask = np.zeros((SIZE, SIZE), dtype=np.uint8)
    mask[y : y + h, x : x + w] = 1
    mask[y : y + h // 4, x : x + w // 4] = 0
    encoded = mask_api.encode(np.asfortranarray(mask))
    return encoded | {"counts": encoded["counts"].decode()}


def _object(rng, image_id, cat_ids, crowds, polygons):
    # 32 x 32 and 96 x 96 are the borders between small, medium and large.
    side = int(rng.choice([32, 96]) if rng.random() < 0.5 else rng.integers(6, 110))
    w, h = side, side if rng.random() < 0.5 else max(4, side // 2)
    x, y = (int(rng.integers(0, SIZE - length)) for length in (w, h))
    crowd = crowds and rng.random() < 0.15
    polygon = [[x + w / 4, y, x + w, y, x + w, y + h, x, y + h, x, y + h / 4]]
    return {
        "image_id": image_id,
        "category_id": int(rng.choice(cat_ids)),
        "bbox": [x, y, w, h],
        "area": w * h,
        "segmentation": polygon if polygons and not crowd and rng.random() < 0.5 else rle(x, y, w, h),
        "iscrowd": int(crowd),
    }


def _detection(rng, image_id, own, cat_ids, ties):
    if own and rng.random() < 0.8:
        target = own[rng.integers(len(own))]
        x, y, w, h = target["bbox"]
        spread = int(rng.choice([0, 1, max(1, w // 8), max(1, w // 3)]))
        x, y, w, h = (v + int(rng.integers(-spread, spread + 1)) for v in (x, y, w, h))
        w, h = max(w, 3), max(h, 3)
        x, y = min(max(x, 0), SIZE - w), min(max(y, 0), SIZE - h)
        cat_id = target["category_id"] if rng.random() < 0.8 else int(rng.choice(cat_ids))
    else:
        w, h = (int(rng.integers(4, 100)) for _ in range(2))
        x, y = (int(rng.integers(0, SIZE - length)) for length in (w, h))
        cat_id = int(rng.choice(cat_ids))
    score = rng.random()
    return {
        "image_id": image_id,
        "category_id": cat_id,
        "bbox": [x, y, w, h],
        "segmentation": rle(x, y, w, h),
        "score": float(round(score, 1) if ties else score),
    }
