"""A training of milliseconds: a linear model on eight numbers, by mmengine's own runner."""

import functools
import time

import pytest
import torch

pytest.importorskip("mmengine")
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.runner import Runner


class Numbers(torch.utils.data.Dataset):
    """The numbers 0 to 7."""

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return {"inputs": torch.tensor([float(index)])}


class Linear(BaseModel):
    """Has the parts of a detector; keeps the numbers that it has trained on, batch by batch."""

    def __init__(self):
        super().__init__()
        self.backbone = torch.nn.Linear(1, 3)
        self.head = torch.nn.Linear(3, 1)
        self.seen = []

    def forward(self, inputs, mode):
        numbers = torch.stack(inputs) if isinstance(inputs, (list, tuple)) else inputs
        y = self.head(self.backbone(numbers / 8))
        if mode == "predict":
            return [{"y": value} for value in y]
        self.seen.append(sorted(int(n) for n in numbers))
        return {"loss": (y - 1).square().mean()}


class Score(BaseMetric):
    """Gives the next of some scores at each evaluation."""

    def __init__(self, scores):
        super().__init__(prefix="coco")
        self.scores = iter(scores)

    def process(self, data_batch, data_samples):
        self.results += data_samples

    def compute_metrics(self, results):
        return {"segm_mAP": next(self.scores)}


def toy_runner(work_dir, epochs=3, hooks=(), dataset=None, model=None, scores=None, checkpoint=None, workers=0, **more):
    """Build a runner.

    Args:
        work_dir: its folder.
        epochs, hooks, dataset, model: of training.
        scores: of the validations, None for no validation.
        checkpoint: more settings of the checkpoint hook.
        workers: that load data.
        **more: the runner's own arguments.
    """
    loader = {"batch_size": 2, "num_workers": workers, "dataset": dataset or Numbers()}
    settings = {
        "work_dir": str(work_dir),
        # Every runner needs a name of its own in a process.
        "experiment_name": f"toy{time.perf_counter_ns()}",
        "default_scope": "mmengine",
        "log_level": "ERROR",
        "randomness": {"seed": 3},
        "train_dataloader": loader | {"sampler": {"type": "DefaultSampler", "shuffle": True}},
        "train_cfg": {"type": "ResumableEpochLoop", "max_epochs": epochs},
        "optim_wrapper": {"optimizer": {"type": "SGD", "lr": 0.1, "momentum": 0.9}},
        "param_scheduler": [{"type": "LinearLR", "start_factor": 0.1, "by_epoch": False, "end": 10}],
        "default_hooks": {"checkpoint": {"type": "SafeCheckpointHook", "interval": 1} | (checkpoint or {})},
        "custom_hooks": list(hooks),
    }
    if scores is not None:
        settings |= {
            "val_dataloader": loader | {"sampler": {"type": "DefaultSampler", "shuffle": False}},
            "val_cfg": {},
            "val_evaluator": [Score(scores)],
        }
    return Runner(model or Linear(), **(settings | more))


@pytest.fixture
def build_runner(tmp_path):
    """Return :func:`toy_runner` for the folder tmp_path/work."""
    return functools.partial(toy_runner, tmp_path / "work")
