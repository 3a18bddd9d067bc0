"""What a model works on when it is timed: synthetic images, objects and proposals, the same for every arm."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

#: A model to try the code with; its figures mean nothing.
TINY = {
    "backbone": {"depth": 18, "base_channels": 32},
    "neck": {"in_channels": [32, 64, 128, 256], "out_channels": 32},
    "rpn_head": {"in_channels": 32, "feat_channels": 32},
    "roi_head": {
        "bbox_roi_extractor": {"out_channels": 32},
        "bbox_head": {"in_channels": 32, "conv_out_channels": 32, "fc_out_channels": 32},
        "mask_roi_extractor": {"out_channels": 32},
        "mask_head": {"in_channels": 32, "conv_out_channels": 32},
    },
    "train_cfg": {"rcnn": {"sampler": {"num": 16}}},
}


@dataclass(frozen=True)
class Workload:
    """What an iteration works on: COCO's usual image after its usual resize, with COCO's usual number of objects."""

    images: int = 2
    height: int = 800
    width: int = 1333
    objects: int = 8
    proposals: int = 1000
    overrides: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        """Say what the work is."""
        model = "a smaller model, " if self.overrides else ""
        return (
            f"{model}{self.images} images of {self.height} x {self.width}, {self.objects} objects and "
            f"{self.proposals} proposals each"
        )


TINY_WORKLOAD = Workload(height=64, width=96, objects=3, proposals=60, overrides=TINY)


def make_batch(workload: Workload) -> dict[str, list[Any]]:
    """Make images (uint8, on the CPU, as a data loader leaves them), boxes, labels and bitmap masks."""
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks
    from mmengine.structures import InstanceData

    generator = np.random.default_rng(0)
    height, width = workload.height, workload.width
    batch: dict[str, list[Any]] = {"inputs": [], "data_samples": []}
    for _ in range(workload.images):
        image = generator.integers(0, 256, (3, height, width), dtype=np.uint8)
        boxes = _random_boxes(generator, workload.objects, workload)
        masks = np.zeros((len(boxes), height, width), np.uint8)
        for mask, (x1, y1, x2, y2) in zip(masks, boxes.astype(int), strict=True):
            mask[y1:y2, x1:x2] = 1
        meta = {"img_shape": (height, width), "ori_shape": (height, width), "scale_factor": (1.0, 1.0)}
        sample = DetDataSample(metainfo=meta)
        sample.gt_instances = InstanceData(
            bboxes=torch.from_numpy(boxes),
            labels=torch.from_numpy(generator.integers(0, 80, len(boxes))),
            masks=BitmapMasks(masks, height, width),
        )
        sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long))
        batch["inputs"].append(torch.from_numpy(image))
        batch["data_samples"].append(sample)
    return batch


def make_proposals(batch: dict[str, list[Any]], workload: Workload) -> list[Tensor]:
    """Make per image what a trained RPN gives: half its boxes about the objects, half elsewhere; (proposals, 4)."""
    generator = np.random.default_rng(1)
    proposals = []
    for sample in batch["data_samples"]:
        objects = sample.gt_instances.bboxes.numpy()
        about = objects[generator.integers(0, len(objects), workload.proposals // 2)]
        sides = (about[:, 2:] - about[:, :2])[:, [0, 1, 0, 1]]
        about = about + sides * generator.uniform(-0.08, 0.08, about.shape).astype(np.float32)
        elsewhere = _random_boxes(generator, workload.proposals - len(about), workload)
        proposals.append(torch.from_numpy(np.concatenate([about, elsewhere])))
    return proposals


def _random_boxes(generator: np.random.Generator, count: int, workload: Workload) -> np.ndarray:
    size = np.array([workload.width, workload.height])
    sides = size * generator.uniform(0.06, 0.5, (count, 2))
    corner = (size - sides) * generator.uniform(0, 1, (count, 2))
    return np.concatenate([corner, corner + sides], axis=1).astype(np.float32)
