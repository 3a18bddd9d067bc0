"""Hooks that do to a study's cells what happens to trainings: configs of the tests import them."""

import os
import signal
import time
from pathlib import Path

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS


@HOOKS.register_module()
class FailingCellsHook(Hook):
    """An error in BN's cells, a loss that is NaN in LN's, and an end by the kernel in IN's."""

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        norm = runner.cfg.model.backbone.norm_cfg
        if norm.type == "BN":
            torch.nn.functional.batch_norm(torch.zeros(1, 2), None, None, training=True)
        if norm.get("num_groups") == 1:
            for parameter in runner.model.parameters():
                parameter.data.fill_(float("nan"))
        if norm.get("channels_per_group") == 1:
            os.kill(os.getpid(), signal.SIGKILL)


@HOOKS.register_module()
class SlowCellsHook(Hook):
    """The first cell trains as it does, the others would not end their second epoch while a test looks on."""

    def before_train(self, runner):
        folder = Path(runner.work_dir)
        self.is_first = not list(folder.parent.glob("*/first"))
        if self.is_first:
            (folder / "first").touch()

    def before_train_epoch(self, runner):
        if runner.epoch and not self.is_first and "STUDY_TEST_FAST" not in os.environ:
            (Path(runner.work_dir) / "slow.pid").write_text(str(os.getpid()))
            time.sleep(600)
