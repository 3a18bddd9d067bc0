"""The configs for the embedded data, on a few of their images, in mmpretrain's and mmseg's own runner."""

from pathlib import Path

import numpy as np
import pytest
from mmengine import Config
from mmengine.runner import Runner
from torch import nn

from mmgn import FusedGN
from mmgn.datasets.digit_images import make_digit_images
from mmgn.datasets.digit_semantics import write_semantic_maps
from mmgn.datasets.digits import make_digits

CONFIGS = Path(__file__).parents[2] / "configs"
CASES = {
    "classification/resnet-mini_fusedgn_digits.py": ("mmpretrain", "accuracy/top1"),
    "segmentation/fcn_r18-mini_fusedgn_digits.py": ("mmseg", "mIoU"),
}

# pycocotools' RLE decoder has not followed numpy 2 yet; mmseg warns of its own defaults.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


def make_data(framework: str, folder: Path) -> Path:
    if framework == "mmpretrain":
        return make_digit_images(folder, lit=True, num_train=32, num_val=10)
    return write_semantic_maps(make_digits(folder, num_train=32, num_val=4)).parent


@pytest.mark.parametrize("name", CASES)
def test_a_config_learns_a_few_images_by_heart(name, tmp_path):
    framework, metric = CASES[name]
    pytest.importorskip(framework)
    cfg = Config.fromfile(CONFIGS / name)
    cfg.work_dir = str(tmp_path / "work")
    cfg.randomness = {"seed": 0}
    cfg.experiment_name = framework
    data = make_data(framework, tmp_path / "data")
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.dataset.data_root = str(data)
    cfg.train_dataloader.batch_size = 8
    cfg.merge_from_dict({"train_cfg.max_epochs": 15, "train_cfg.val_interval": 15, "param_scheduler.1.end": 15})
    runner = Runner.from_cfg(cfg)
    runner.call_hook("before_run")
    runner.load_or_resume()
    before = {key: value.detach().clone() for key, value in runner.model.named_parameters()}
    model = runner.train()

    norms = [m for m in model.modules() if isinstance(m, nn.GroupNorm | nn.BatchNorm2d)]
    assert norms and all(type(m) is FusedGN and m.num_groups == 8 for m in norms)
    losses = np.array(runner.message_hub.get_scalar("train/loss").data[0])
    assert len(losses) == 60 and losses[-8:].mean() < 0.8 * losses[:8].mean()
    assert all((value != before[key]).any() for key, value in model.named_parameters())
    assert 0 <= runner.message_hub.get_scalar(f"val/{metric}").current() <= 100


@pytest.mark.parametrize("name", CASES)
def test_the_schedule_ends_with_training_and_its_rate_is_for_the_batch_it_trains_with(name):
    cfg = Config.fromfile(CONFIGS / name)
    assert cfg.auto_scale_lr.base_batch_size == cfg.train_dataloader.batch_size
    assert cfg.param_scheduler[-1].end == cfg.train_cfg.max_epochs == cfg.train_cfg.val_interval
    assert not cfg.optim_wrapper.optimizer.get("weight_decay")
