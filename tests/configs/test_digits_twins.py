"""The digits twins train: a few iterations each, on four images."""

import copy

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from torch import nn

from mmgn.datasets.digits import make_digits
from mmgn.engine.config import CONFIGS

NAME = "mask-rcnn_r18-mini_fpn_{}_digits"
TRAINS_HERE = ["fusedgn-all", "fusedgn-1g-ln", "fusedgn-1cpg-in"]
FROM_BN = ["bn-frozen", "bn-frozen_fusedgn-box-head"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with data/digits: one batch."""
    folder = tmp_path_factory.mktemp("twins")
    make_digits(folder / "data/digits", num_train=4, num_val=2)
    return folder


def train(twin, folder, monkeypatch, epochs):
    """Train in the folder, as tools/train.py does; returns the checkpoint's weights."""
    monkeypatch.chdir(folder)
    name = NAME.format(twin)
    cfg = Config.fromfile(CONFIGS / f"digits/{name}.py")
    cfg.work_dir = f"work_dirs/{name}"
    cfg.train_cfg.max_epochs = epochs
    cfg.train_dataloader.update(num_workers=0, persistent_workers=False)
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.test_cfg = cfg.test_dataloader = cfg.test_evaluator = None
    # The fixed warm-up is longer than these runs, and moves nothing in its first iteration.
    cfg.param_scheduler = []
    cfg.randomness = dict(seed=0)
    # What a runner builds from is changed by the building.
    runner = Runner.from_cfg(copy.deepcopy(cfg))
    model = runner.train()
    assert all(torch.isfinite(p).all() for p in model.parameters())
    path = folder / cfg.work_dir / f"epoch_{epochs}.pth"
    return model, torch.load(path, map_location="cpu", weights_only=True)["state_dict"]


@pytest.fixture(scope="module")
def bn_twin(folder):
    """The weights of the BN twin, where its config leaves them."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        cfg = Config.fromfile(CONFIGS / f"digits/{NAME.format('bn')}.py")
        return train("bn", folder, monkeypatch, cfg.train_cfg.max_epochs)[1]


@pytest.mark.parametrize("twin", TRAINS_HERE)
def test_trains_from_scratch(twin, folder, monkeypatch):
    _, weights = train(twin, folder, monkeypatch, 1)
    gammas = {k: v for k, v in weights.items() if ".gn" in k and k.endswith("weight")}
    moved = {
        part for part in ("backbone", "neck", "roi_head") for k, v in gammas.items() if part in k and (v != 1).any()
    }
    assert moved == {"backbone", "neck", "roi_head"}


def test_bn_twin_learns_statistics(bn_twin):
    means = [v for k, v in bn_twin.items() if k.startswith("backbone.") and k.endswith("running_mean")]
    assert len(means) == 20
    assert all((mean != 0).any() for mean in means)


@pytest.mark.parametrize("twin", FROM_BN)
def test_bn_star_starts_from_the_bn_twin(twin, folder, bn_twin, monkeypatch):
    model, weights = train(twin, folder, monkeypatch, 1)
    norms = [f"backbone.{n}." for n, m in model.backbone.named_modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 20
    stays = (*norms, "backbone.conv1.", "backbone.layer1.")
    for key in (key for key in bn_twin if key.startswith("backbone.")):
        # bit for bit
        assert torch.equal(weights[key], bn_twin[key]) == key.startswith(stays), key


def test_without_the_bn_twin_there_is_nothing_to_freeze(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = Config.fromfile(CONFIGS / f"digits/{NAME.format('bn-frozen')}.py")
    init_default_scope("mmdet")
    with pytest.raises(FileNotFoundError, match=r"mask-rcnn_r18-mini_fpn_bn_digits/epoch_4\.pth"):
        MODELS.build(cfg.model).init_weights()


def test_syncbn_twin_is_bn_in_one_process(folder, monkeypatch):
    """mmengine reverts SyncBN where training is not distributed, so that it needs no GPU there."""
    model, _ = train("syncbn-all", folder, monkeypatch, 1)
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert len(norms) == 20 + 8 + 4 + 4
    assert not any(isinstance(m, nn.SyncBatchNorm) for m in norms)
    assert all((m.running_mean != 0).any() for m in norms)
