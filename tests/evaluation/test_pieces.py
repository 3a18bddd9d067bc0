"""Curves, confusion and calibration against the same counted the slow way, one detection at a time."""

import numpy as np
import pytest

from mmgn.evaluation import SCORE_THRESHOLD, analyse

SEEDS = range(5)


def iou(a, b):
    w, h = (min(a[i] + a[i + 2], b[i] + b[i + 2]) - max(a[i], b[i]) for i in (0, 1))
    inter = max(w, 0) * max(h, 0)
    return inter / (a[2] * a[3] + b[2] * b[3] - inter)


def judged(coco, truth, results):
    """Return pycocotools' (class, score, right, object) of each detection that is not of a crowd, at IoU 0.5."""
    judge = coco.pycocotools(truth, results, "bbox")
    rows = {}
    for entry in judge.evalImgs:
        if entry is not None and entry["aRng"] == judge.params.areaRng[0]:
            for d, number in enumerate(entry["dtIds"]):
                if not entry["dtIgnore"][0, d]:
                    found = entry["dtMatches"][0, d]
                    rows[number - 1] = (entry["category_id"], entry["dtScores"][d], found > 0, int(found))
    return judge, rows


@pytest.mark.parametrize("seed", SEEDS)
def test_curves(coco, seed):
    truth, results = coco.random_set(seed)
    judge, rows = judged(coco, truth, results)
    curves = analyse(truth, results, "bbox", coco.cat_ids).curves
    objects = [entry["category_id"] for entry in truth["annotations"] if not entry["iscrowd"]]
    assert set(curves) == set(objects)
    for cat_id, curve in curves.items():
        k = sorted(coco.cat_ids).index(cat_id)
        assert curve.precision == pytest.approx(judge.eval["precision"][0, :, k, 0, 2], abs=1e-12)
        assert np.array_equal(curve.recall, judge.params.recThrs)

        def f1(threshold, cat_id=cat_id):
            kept = [right for own, score, right, _ in rows.values() if own == cat_id and score >= threshold]
            return 2 * sum(kept) / (len(kept) + objects.count(cat_id))

        assert curve.f1 == pytest.approx([f1(threshold) for threshold in curve.scores])
        by_score = {score: f1(score) for own, score, _, _ in rows.values() if own == cat_id}
        assert curve.best_f1 == pytest.approx(max(by_score.values(), default=0))
        if curve.best_f1:
            assert curve.best_score == max(s for s, value in by_score.items() if value == max(by_score.values()))
        else:
            assert curve.best_score is None


@pytest.mark.parametrize("seed", SEEDS)
def test_confusion(coco, seed):
    truth, results = coco.random_set(seed, ties=False)
    _, rows = judged(coco, truth, results)
    labels = {cat_id: k for k, cat_id in enumerate(sorted(coco.cat_ids))}
    expected = np.zeros((5, 5), dtype=int)
    objects = {entry["id"]: entry for entry in truth["annotations"] if not entry["iscrowd"]}
    left = []
    for number, (cat_id, score, right, found) in rows.items():
        if score >= SCORE_THRESHOLD and right:
            expected[labels[cat_id], labels[cat_id]] += 1
            del objects[found]
        elif score >= SCORE_THRESHOLD:
            left.append(results[number])
    for entry in sorted(left, key=lambda entry: -entry["score"]):
        near = {
            number: iou(entry["bbox"], other["bbox"])
            for number, other in objects.items()
            if other["image_id"] == entry["image_id"] and other["category_id"] != entry["category_id"]
        }
        best = max(near, key=near.get, default=None)
        if best is not None and near[best] >= 0.5:
            expected[labels[objects.pop(best)["category_id"]], labels[entry["category_id"]]] += 1
        else:
            expected[4, labels[entry["category_id"]]] += 1
    for entry in objects.values():
        expected[labels[entry["category_id"]], 4] += 1
    ours = analyse(truth, results, "bbox", coco.cat_ids).confusion
    assert np.array_equal(ours.matrix, expected)
    assert (ours.cat_ids, ours.score_thr, ours.iou_thr) == (sorted(coco.cat_ids), 0.3, 0.5)


def test_some_confusion_is_tested(coco):
    matrices = [
        analyse(*coco.random_set(seed, ties=False), "bbox", coco.cat_ids).confusion.matrix[:4, :4] for seed in SEEDS
    ]
    assert sum(matrix.sum() - matrix.trace() for matrix in matrices) >= 5


@pytest.mark.parametrize("seed", SEEDS)
def test_calibration(coco, seed):
    truth, results = coco.random_set(seed, ties=seed % 2)
    _, rows = judged(coco, truth, results)
    bins = [[] for _ in range(10)]
    for _, score, right, _ in rows.values():
        inside = [b for b in range(10) if np.linspace(0, 1, 11)[b] <= score]
        bins[inside[-1]].append((score, right))
    ours = analyse(truth, results, "bbox", coco.cat_ids).calibration
    assert ours.count.tolist() == [len(entries) for entries in bins]
    gap = 0
    for b, entries in enumerate(bins):
        if entries:
            score, precision = np.mean(entries, axis=0)
            assert (ours.mean_score[b], ours.precision[b]) == pytest.approx((score, precision))
            gap += abs(score - precision) * len(entries)
        else:
            assert np.isnan([ours.mean_score[b], ours.precision[b]]).all()
    assert ours.ece == pytest.approx(gap / len(rows))


def test_scores_without_detections_are_of_no_calibration(coco):
    truth, _ = coco.random_set(0)
    assert analyse(truth, [], "bbox", coco.cat_ids).calibration.ece is None


@pytest.mark.parametrize("seed", SEEDS)
def test_images_are_counted_as_pycocotools_matches(coco, seed):
    truth, results = coco.random_set(seed)
    _, rows = judged(coco, truth, results)
    shown = {number: row for number, row in rows.items() if row[1] >= SCORE_THRESHOLD}
    found = {number for _, _, right, number in shown.values() if right}
    errors = {image.image_id: image for image in analyse(truth, results, "bbox", coco.cat_ids).errors}
    for image in truth["images"]:
        own = {number: row for number, row in shown.items() if results[number]["image_id"] == image["id"]}
        objects = {e["id"] for e in truth["annotations"] if e["image_id"] == image["id"] and not e["iscrowd"]}
        if not own and not objects:
            assert image["id"] not in errors
            continue
        ours = errors.pop(image["id"])
        assert set(ours.kinds) == set(own)
        assert {n for n, kind in ours.kinds.items() if kind == "correct"} == {n for n, row in own.items() if row[2]}
        assert (set(ours.missed_ids), ours.missed) == (objects - found, len(objects - found))
        assert (ours.found, ours.false) == (len(objects & found), len(own) - len(objects & found))
    assert not errors
