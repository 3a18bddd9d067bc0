"""FastCocoMetric: mmdet's CocoMetric on faster-coco-eval, with the official figures beside mmdet's."""

from collections import OrderedDict
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from mmdet.datasets.api_wrappers import COCO
from mmdet.evaluation import CocoMetric
from mmdet.registry import METRICS
from mmengine.logging import MMLogger
from terminaltables import AsciiTable  # type: ignore[import-untyped]

from mmgn.evaluation.coco_eval import FIGURES, IOU_THRESHOLDS, MAX_DETECTIONS, CocoEval, evaluate
from mmgn.evaluation.instances import Instances, read_objects, require_known
from mmgn.evaluation.library import require

#: mmdet's names of the 12 numbers; what AR@100 and the others count is ``proposal_nums``.
_ITEMS = ("mAP", "mAP_50", "mAP_75", "mAP_s", "mAP_m", "mAP_l")
_PROPOSAL_ITEMS = ("AR@100", "AR@300", "AR@1000", "AR_s@1000", "AR_m@1000", "AR_l@1000")


@METRICS.register_module()
class FastCocoMetric(CocoMetric):
    """``CocoMetric`` with the same options, keys and values, faster, and with the official figures beside them.

    * ``coco/bbox_mAP`` and mmdet's other keys: mmdet's values, rounded to three decimals, counting up to
      ``proposal_nums`` detections per class and image (100, 300, 1000; its ``mAP`` counts 100, ``mAP_50`` and those by
      size 1000).
    * ``coco/official_bbox_AP``, ``..._AP_50``, ``..._AP_75``, ``..._AP_s``, ``..._AP_m``, ``..._AP_l``, ``..._AR_1``,
      ``..._AR_10``, ``..._AR_100``, ``..._AR_s``, ``..._AR_m``, ``..._AR_l``, and the same with ``segm``: the 12
      numbers of pycocotools' ``COCOeval.stats``, unrounded, at its own IoU thresholds and 1, 10 and 100 detections,
      whatever the options say. -1 where there is no object.
    * With ``classwise`` mmdet's ``coco/<class>_precision``, and ``coco/official_bbox_<class>_AP``,
      ``coco/official_bbox_<class>_AR_100``, and the same with ``segm``, unrounded.

    Where mmdet 3.3.0 goes wrong, this does not:

    * ``classwise`` swaps the names of classes whose category ids are not in order; here each has its own figure.
    * mask AP overwrites box AP in ``<class>_precision``; that key still holds the last metric's, but the official ones
      tell them apart.
    * Without a single detection there are no figures at all; here they are 0.
    * ``iou_thrs`` as a list makes ``mAP_50`` and ``mAP_75`` -1, as one number it fails; here both work.

    ``use_mp_eval`` changes nothing; ``proposal_fast`` is refused, as mmdet's own fails with today's numpy. Results
    files are written only if ``outfile_prefix`` is given.

    Raises:
        ImportError: faster-coco-eval is not installed.
        ValueError: ``metric`` is ``'proposal_fast'``, or there are fewer than three ``proposal_nums``.

    Example:
        >>> val_evaluator = dict(type="FastCocoMetric", ann_file="annotations/instances_val2017.json",
        ...                      metric=["bbox", "segm"])
    """

    # CocoMetric's, which has no types.
    iou_thrs: Any
    _coco_api: Any
    cat_ids: Any
    img_ids: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        require("faster_eval_api")
        super().__init__(*args, **kwargs)
        if "proposal_fast" in self.metrics:
            raise ValueError(
                "mmdet's metric='proposal_fast' fails with numpy 1.24 and later, on images that differ in their number "
                "of objects; use metric='proposal'"
            )
        if len(self.proposal_nums) < 3:
            raise ValueError(f"proposal_nums must be three numbers, such as (100, 300, 1000), got {self.proposal_nums}")
        self.iou_thrs = np.asarray(self.iou_thrs, dtype=float).reshape(-1)

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Return the figures by key, of all images' (truth, prediction) pairs."""
        logger: MMLogger = MMLogger.get_current_instance()
        truths, predictions = zip(*results, strict=True)
        self._load_truth(truths)
        if self.outfile_prefix is not None:
            self.results2json(predictions, self.outfile_prefix)
        figures: OrderedDict[str, float] = OrderedDict()
        if self.format_only:
            logger.info(f"results are saved in {Path(self.outfile_prefix).parent}")
            return figures
        for metric in self.metrics:
            logger.info(f"Evaluating {metric}...")
            if metric == "proposal":
                figures |= self._proposal_figures(self._evaluate(predictions, metric))
            else:
                figures |= self._figures(metric, self._evaluate(predictions, metric), logger)
        return figures

    def _load_truth(self, truths: Sequence[dict[str, Any]]) -> None:
        with ExitStack() as stack:
            if self._coco_api is None:
                # The data set's own annotations, by way of a file, as CocoMetric does it.
                prefix = self.outfile_prefix or f"{stack.enter_context(TemporaryDirectory())}/results"
                self._coco_api = COCO(self.gt_to_coco_json(gt_dicts=truths, outfile_prefix=prefix))
        if self.cat_ids is None:
            self.cat_ids = self._coco_api.get_cat_ids(cat_names=self.dataset_meta["classes"])
        if self.img_ids is None:
            self.img_ids = self._coco_api.get_img_ids()

    def _evaluate(self, predictions: Sequence[dict[str, Any]], metric: str) -> CocoEval:
        by_class = metric != "proposal"
        iou_type = "segm" if metric == "segm" else "bbox"
        if iou_type == "segm" and "masks" not in predictions[0]:
            raise KeyError(f"{metric} is not in results")
        image_ids = sorted(set(self.img_ids))
        # Without classes pycocotools goes through them in the file's order, which decides between equal scores.
        cat_ids = sorted(self.cat_ids) if by_class else self.cat_ids
        return evaluate(
            read_objects(self._coco_api.dataset, iou_type, image_ids, cat_ids),
            self._detections(predictions, iou_type, image_ids, cat_ids),
            len(image_ids),
            len(cat_ids),
            iou_thrs=np.union1d(self.iou_thrs, IOU_THRESHOLDS) if by_class else self.iou_thrs,
            max_dets=sorted({*self.proposal_nums, *MAX_DETECTIONS}) if by_class else self.proposal_nums,
            by_class=by_class,
        )

    def _detections(
        self, predictions: Sequence[dict[str, Any]], iou_type: str, image_ids: list[Any], cat_ids: list[Any]
    ) -> Instances:
        images = {image_id: number for number, image_id in enumerate(image_ids)}
        own_ids = [result.get("img_id", number) for number, result in enumerate(predictions)]
        counts = [len(result["labels"]) for result in predictions]
        require_known([i for i, count in zip(own_ids, counts, strict=True) if count and i not in images], len(own_ids))
        labels = np.concatenate([result["labels"] for result in predictions]).astype(int)
        if labels.size and labels.max() >= len(self.cat_ids):
            raise ValueError(
                f"the model predicts label {labels.max()}, but the annotations have only {len(self.cat_ids)} of the "
                f"data set's {len(self.dataset_meta['classes'])} classes: their names in the config's metainfo and in "
                "the annotation file must be the same"
            )
        positions = np.array([cat_ids.index(cat_id) for cat_id in self.cat_ids], dtype=np.int32)
        scores = "mask_scores" if iou_type == "segm" and "mask_scores" in predictions[0] else "scores"
        shapes: Any = np.concatenate([result["bboxes"] for result in predictions]).astype(float).reshape(-1, 4)
        shapes[:, 2:] -= shapes[:, :2]
        area = shapes[:, 2] * shapes[:, 3]
        if iou_type == "segm":
            shapes = [mask for result in predictions for mask in result["masks"]]
            area = np.asarray(require("mask").area(shapes), dtype=float) if shapes else np.zeros(0)
        return Instances(
            image=np.repeat([images.get(i, -1) for i in own_ids], counts).astype(np.int32),
            label=positions[labels],
            shapes=shapes,
            area=area,
            ids=list(range(len(area))),
            score=np.concatenate([result[scores] for result in predictions]).astype(float),
            crowd=np.zeros(len(area), dtype=bool),
        )

    def _proposal_figures(self, found: CocoEval) -> dict[str, float]:
        values = dict(zip((*_ITEMS, *_PROPOSAL_ITEMS), found.stats(), strict=True))
        return {item: float(f"{values[item]:.3f}") for item in self._items(_PROPOSAL_ITEMS)}

    def _figures(self, metric: str, found: CocoEval, logger: MMLogger) -> dict[str, float]:
        mmdets = found.select(self.iou_thrs, self.proposal_nums)
        official = found.select(IOU_THRESHOLDS, MAX_DETECTIONS)
        figures = self._classwise(metric, mmdets, official, logger) if self.classwise else {}
        values = dict(zip((*_ITEMS, *_PROPOSAL_ITEMS), mmdets.stats(), strict=True))
        figures |= {f"{metric}_{item}": _rounded(values[item]) for item in self._items(_ITEMS)}
        # AP, as COCO itself calls it: nothing that looks for keys on mAP finds two.
        names = [f"official_{metric}_{name.removeprefix('m')}" for name in FIGURES]
        figures |= dict(zip(names, official.stats(), strict=True))
        logger.info(f"{metric}_mAP_copypaste: {' '.join(f'{values[item]:.3f}' for item in _ITEMS)}")
        return figures

    def _classwise(self, metric: str, mmdets: CocoEval, official: CocoEval, logger: MMLogger) -> dict[str, float]:
        most = mmdets.max_dets[-1]
        choices: list[dict[str, Any]] = [{}, {"iou_thr": 0.5}, {"iou_thr": 0.75}, *({"area": a} for a in "sml")]
        figures, rows = {}, []
        for label, cat_id in enumerate(sorted(self.cat_ids)):
            name = self._coco_api.loadCats(cat_id)[0]["name"]
            values = [mmdets.ap(label=label, max_dets=most, **choice) for choice in choices]
            # mmdet's sign for a class without objects.
            row = [_rounded(np.nan if value < 0 else value) for value in values]
            figures[f"{name}_precision"] = row[0]
            figures[f"official_{metric}_{name}_AP"] = official.ap(label=label, max_dets=official.max_dets[-1])
            figures[f"official_{metric}_{name}_AR_100"] = official.ar(label=label, max_dets=official.max_dets[-1])
            rows.append([name, *map(str, row)])
        logger.info("\n" + AsciiTable([["category", *_ITEMS], *rows]).table)
        return figures

    def _items(self, default: Sequence[str]) -> Sequence[str]:
        for item in self.metric_items or ():
            if item not in (*_ITEMS, *_PROPOSAL_ITEMS):
                raise KeyError(f'metric item "{item}" is not supported')
        return default if self.metric_items is None else self.metric_items


def _rounded(value: float) -> float:
    # numpy's rounding, which is mmdet's, and not always Python's.
    return float(np.round(value, 3))
