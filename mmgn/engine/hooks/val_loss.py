"""ValLossHook: the losses on the validation images, beside their AP."""

import random
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.dist import all_reduce_dict
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.structures import PixelData

from mmgn.engine.model import unwrapped


@HOOKS.register_module()
class ValLossHook(Hook):
    """Adds ``val_loss`` and its parts, means over the validation images, to the metrics of each validation.

    The model is as it is for predicting: in evaluation mode, so dropout is off, norms with running statistics take
    those, and an EMA's weights are in place where there is one. Each batch passes through it once more. What is
    drawn at random, as RoIs are, is the same in each validation, and training draws what it would have without.

    mmdet's test pipelines load the ground truth after they resize the image, for metrics that compare in its
    original frame. For the loss it is scaled as the image was.

    Example:
        >>> custom_hooks = [dict(type="ValLossHook")]
    """

    # Its losses are metrics for all other hooks, RuntimeInfoHook first.
    priority = "HIGHEST"

    def __init__(self) -> None:
        self._sums: dict[str, float] = defaultdict(float)

    def before_val_epoch(self, runner: Any) -> None:
        """Begin anew."""
        self._sums.clear()
        # Of what has "loss" in its name LogProcessor logs a mean with the validations before.
        for name in [name for name in runner.message_hub.log_scalars if name.startswith("val/val_loss")]:
            del runner.message_hub.log_scalars[name]
        self._scales = _loads_unscaled(runner.val_dataloader.dataset)

    @torch.no_grad()
    def after_val_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Add up a batch's losses."""
        model: Any = unwrapped(runner.model)
        with _own_randomness(batch_idx):
            batch = model.data_preprocessor(data_batch, False)
            samples = batch["data_samples"]
            if not all(any(name in s for name in _TRUTH) for s in samples):
                raise ValueError(_NO_TRUTH)
            if self._scales:
                for sample in samples:
                    scale_truth(sample)
            _pad_truth(model.data_preprocessor, samples)
            _, losses = model.parse_losses(model(batch["inputs"], samples, mode="loss"))
        for name, loss in losses.items():
            # Beside them are accuracies.
            if "loss" in name:
                self._sums[name] += float(loss) * len(samples)
        self._sums["images"] += len(samples)

    def after_val_epoch(self, runner: Any, metrics: Mapping[str, Any] | None = None) -> None:
        """Add the means to the metrics."""
        sums = {name: torch.tensor(value, dtype=torch.float64) for name, value in self._sums.items()}
        all_reduce_dict(sums)
        images = float(sums.pop("images"))
        if isinstance(metrics, dict):
            metrics |= {f"val_{name}": float(value) / images for name, value in sums.items()}


# Of a sample, in mmdet, mmsegmentation and mmpretrain.
_TRUTH = ("gt_instances", "gt_sem_seg", "gt_label")
_NO_TRUTH = (
    "--val-loss needs ground truth, and the pipeline of val_dataloader loads none: add LoadAnnotations to it, as "
    "mmdet's data set configs have it, or leave --val-loss."
)


def scale_truth(sample: Any) -> None:
    """Bring a sample's ground truth, in place, from the frame of the original image into that of the resized one."""
    width, height = sample.scale_factor
    for instances in (sample.get("gt_instances"), sample.get("ignored_instances")):
        if instances is None:
            continue
        if "bboxes" in instances:
            boxes = getattr(instances.bboxes, "tensor", instances.bboxes)
            instances.bboxes = boxes * boxes.new_tensor([width, height] * 2)
        if "masks" in instances:
            instances.masks = instances.masks.resize(sample.img_shape)
    if "gt_sem_seg" in sample:
        # mmdet's has one map, sem_seg, and mmsegmentation's another, data.
        maps = {
            name: F.interpolate(classes[None].float(), size=tuple(sample.img_shape), mode="nearest")[0].to(
                classes.dtype
            )
            for name, classes in sample.gt_sem_seg.items()
        }
        sample.gt_sem_seg = PixelData(**maps, metainfo=sample.gt_sem_seg.metainfo)


def _pad_truth(preprocessor: Any, samples: list[Any]) -> None:
    """Do what the preprocessor does in training alone, but for its augmentations of batches."""
    if getattr(preprocessor, "pad_mask", False):
        preprocessor.pad_gt_masks(samples)
    if getattr(preprocessor, "pad_seg", False):
        preprocessor.pad_gt_sem_seg(samples)


def _loads_unscaled(dataset: Any) -> bool:
    """Whether a pipeline resizes the image before it loads the ground truth, which it then does not resize."""
    while not hasattr(dataset, "pipeline") and hasattr(dataset, "dataset"):
        dataset = dataset.dataset
    if hasattr(dataset, "datasets"):
        return _loads_unscaled(dataset.datasets[0])
    names = [type(transform).__name__ for transform in dataset.pipeline.transforms]
    loads = [i for i, name in enumerate(names) if "Annotations" in name]
    resizes = [i for i, name in enumerate(names) if "Resize" in name]
    if not loads:
        # mmpretrain's data sets know the labels, no transform loads them.
        if hasattr(dataset, "get_gt_labels"):
            return False
        raise ValueError(_NO_TRUTH)
    return any(i < loads[0] for i in resizes)


@contextmanager
def _own_randomness(seed: int) -> Iterator[None]:
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng([torch.cuda.current_device()] if torch.cuda.is_available() else []):
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])
