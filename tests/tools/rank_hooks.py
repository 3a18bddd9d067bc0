"""Parts of the configs that test_launchers.py runs: what each rank ends with, one that fails, one that finds a lot."""

import math
import os
from pathlib import Path

import torch
from mmdet.models import MaskRCNN
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, MODELS
from mmengine.structures import InstanceData

from mmgn import FusedGN


@HOOKS.register_module()
class RecordRankHook(Hook):
    """Leaves the rank's process id, and after training its parameters and its norms' outputs for one input."""

    def before_train(self, runner):
        Path(runner.work_dir, f"rank_{get_rank()}.pid").write_text(str(os.getpid()))

    def after_train(self, runner):
        model = runner.model.module
        norms = {name: module for name, module in model.named_modules() if isinstance(module, FusedGN)}
        noise = torch.Generator().manual_seed(0)
        with torch.no_grad():
            outputs = {n: m(torch.randn(2, m.num_channels, 5, 7, generator=noise)) for n, m in norms.items()}
        state = {"params": model.state_dict(), "norms": outputs}
        torch.save(state, Path(runner.work_dir, f"rank_{get_rank()}.pt"))


@HOOKS.register_module()
class FailingRankHook(Hook):
    """Raises on one rank before its second epoch."""

    def __init__(self, rank):
        self.rank = rank

    def before_train_epoch(self, runner):
        if runner.epoch == 1 and get_rank() == self.rank:
            raise ZeroDivisionError("an error of one rank")


@HOOKS.register_module()
class NanRankHook(Hook):
    """Has one rank's neck give NaN from the second iteration on."""

    def __init__(self, rank):
        self.rank = rank

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == 1 and get_rank() == self.rank:
            runner.model.module.neck.register_forward_hook(lambda module, args, maps: tuple(x * math.nan for x in maps))


@MODELS.register_module()
class ShiftedTruth(MaskRCNN):
    """Finds every object beside its place, by as many pixels as the image's number: no two images weigh the same."""

    def predict(self, batch_inputs, batch_data_samples, rescale=True):
        for sample in batch_data_samples:
            truth, shift = sample.gt_instances, sample.img_id
            sample.pred_instances = InstanceData(
                bboxes=truth.bboxes + shift,
                labels=truth.labels,
                scores=torch.linspace(0.9, 0.1, len(truth)),
                masks=truth.masks.to_tensor(torch.bool, "cpu").roll((shift, shift), (1, 2)),
            )
        return batch_data_samples
