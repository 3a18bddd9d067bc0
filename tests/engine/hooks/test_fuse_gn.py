import time

import pytest

import mmgn

pytest.importorskip("mmcv")
import torch
from mmcv.cnn import ConvModule
from mmengine.evaluator import BaseMetric
from mmengine.hooks import EMAHook
from mmengine.model import BaseModel, MMDistributedDataParallel
from mmengine.runner import Runner
from torch import nn

from mmgn.testing.calls import counted_calls

FUSED = "FuseGNHook: 1 of 1 FusedGN apply the activation that follows them"


class Model(BaseModel):
    def __init__(self):
        super().__init__()
        self.conv = ConvModule(3, 8, 3, norm_cfg=dict(type="FusedGN", num_groups=4))

    def forward(self, inputs, mode):
        y = self.conv(torch.stack(inputs))
        return list(y) if mode == "predict" else {"loss": y.square().mean()}


class Images(torch.utils.data.Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        return {"inputs": torch.randn(3, 6, 6, generator=torch.Generator().manual_seed(index))}


class Count(BaseMetric):
    def process(self, data_batch, data_samples):
        self.results += data_samples

    def compute_metrics(self, results):
        return {"images": len(results)}


def run(tmp_path, *hooks, stages=("train",), wrap=lambda model: model):
    """Run the stages; return the runner, the calls of each class of module, and the log."""
    loader = dict(dataset=Images(), batch_size=2, sampler=dict(type="DefaultSampler", shuffle=False))
    # Every runner needs a name of its own in a process.
    name = f"fuse{time.perf_counter_ns()}"
    runner = Runner(
        wrap(Model()),
        work_dir=str(tmp_path / name),
        experiment_name=name,
        default_scope="mmengine",
        custom_hooks=list(hooks),
        train_dataloader=loader,
        train_cfg=dict(by_epoch=True, max_epochs=1),
        optim_wrapper=dict(optimizer=dict(type="SGD", lr=0.1)),
        val_dataloader=loader,
        val_cfg={},
        val_evaluator=[Count()],
        test_dataloader=loader,
        test_cfg={},
        test_evaluator=[Count()],
        randomness=dict(seed=0),
    )
    with counted_calls() as calls:
        for stage in stages:
            getattr(runner, stage)()
    (log,) = (tmp_path / name).glob("*/*.log")
    return runner, calls, log.read_text()


@pytest.mark.parametrize("stage", ["train", "val", "test"])
def test_every_stage_runs_fused(tmp_path, stage):
    _, calls, log = run(tmp_path, dict(type="FuseGNHook"), stages=[stage])
    assert calls[nn.ReLU] == 0
    assert calls[mmgn.FusedGN] >= 2
    assert FUSED in log


def test_the_summary_is_logged_once(tmp_path):
    *_, log = run(tmp_path, dict(type="FuseGNHook"), stages=["train", "test"])
    assert log.count(FUSED) == 1
    assert "1  relu  ConvModule  conv.gn" in log


def test_trains_what_it_trains_without(tmp_path):
    plain, calls, _ = run(tmp_path)
    fused, _, _ = run(tmp_path, dict(type="FuseGNHook"))
    assert calls[nn.ReLU]
    torch.testing.assert_close(fused.model.state_dict(), plain.model.state_dict())


def test_emas_copy_is_fused_whatever_the_order(tmp_path):
    runner, calls, _ = run(tmp_path, dict(type="EMAHook"), dict(type="FuseGNHook"))
    (ema,) = (hook for hook in runner.hooks if isinstance(hook, EMAHook))
    assert calls[nn.ReLU] == 0
    assert type(ema.ema_model.module.conv) is type(runner.model.conv) is not ConvModule


def test_reaches_into_ddp(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    try:
        runner, calls, log = run(tmp_path, dict(type="FuseGNHook"), wrap=MMDistributedDataParallel)
    finally:
        torch.distributed.destroy_process_group()
    assert isinstance(runner.model, MMDistributedDataParallel)
    assert calls[nn.ReLU] == 0
    assert "ConvModule  conv.gn" in log
