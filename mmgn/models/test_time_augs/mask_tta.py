"""MaskTTAModel: mmdet's DetTTAModel for detectors that predict masks too."""

import torch
from mmcv.ops import batched_nms
from mmdet.models.test_time_augs import DetTTAModel
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch import Tensor

_FLIPPED_DIMS = {"horizontal": (-1,), "vertical": (-2,), "diagonal": (-2, -1)}


@MODELS.register_module()
class MaskTTAModel(DetTTAModel):
    """mmdet's DetTTAModel, which refuses masks, with masks; without them its results are DetTTAModel's.

    Boxes are merged as there: those of all views go through one NMS. Each box that stays brings the mask of the view
    it was found in, flipped back. Detectron and detectron2 merge masks otherwise: they predict them again for the
    merged boxes in every view, and average.
    """

    def _merge_single_sample(self, data_samples: list[DetDataSample]) -> DetDataSample:
        views = [sample.pred_instances for sample in data_samples]
        if any("masks" not in view for view in views):
            return super()._merge_single_sample(data_samples)
        bboxes, scores = self.merge_aug_bboxes(
            [view.bboxes for view in views],
            [view.scores for view in views],
            [sample.metainfo for sample in data_samples],
        )
        labels = torch.cat([view.labels for view in views])
        masks = torch.cat([_flipped_back(sample) for sample in data_samples])
        merged = data_samples[0]
        if bboxes.numel() == 0:
            return merged
        dets, keep = batched_nms(bboxes, scores, labels, self.tta_cfg.nms)
        dets, keep = dets[: self.tta_cfg.max_per_img], keep[: self.tta_cfg.max_per_img]
        merged.pred_instances = InstanceData(bboxes=dets[:, :-1], scores=dets[:, -1], labels=labels[keep])
        merged.pred_instances.masks = masks[keep]
        return merged


def _flipped_back(sample: DetDataSample) -> Tensor:
    """Return a view's masks, (N, H, W) of the original image, as that image has them."""
    masks: Tensor = sample.pred_instances.masks
    return masks.flip(_FLIPPED_DIMS[sample.flip_direction]) if sample.flip else masks
