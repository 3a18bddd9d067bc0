"""The engines that evaluate as COCO does, side by side in the benchmarks."""

from typing import Any


def with_pycocotools(truth: dict[str, Any], results: list[dict[str, Any]], iou_type: str) -> list[float]:
    """Return the 12 figures as everybody computes them."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    gt = COCO()
    gt.dataset = truth
    gt.createIndex()
    judge = COCOeval(gt, gt.loadRes(results), iou_type)
    judge.evaluate()
    judge.accumulate()
    judge.summarize()
    return [float(value) for value in judge.stats]


def with_mmgn(truth: dict[str, Any], results: list[dict[str, Any]], iou_type: str) -> list[float]:
    """Return the 12 figures as FastCocoMetric and reports do."""
    from mmgn.evaluation.coco_eval import evaluate
    from mmgn.evaluation.instances import read_detections, read_objects

    ids = [sorted(entry["id"] for entry in truth[key]) for key in ("images", "categories")]
    objects, detections = read_objects(truth, iou_type, *ids), read_detections(results, iou_type, *ids)
    return evaluate(objects, detections, *map(len, ids)).stats()


ENGINES = {"pycocotools": with_pycocotools, "mmgn": with_mmgn}
