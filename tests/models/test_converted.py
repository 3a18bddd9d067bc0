import subprocess
import sys

import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS, DefaultScope

from mmgn.layers import FusedGN
from mmgn.models.norms import norm_layers

# An hourglass of one stack, whose blocks get no norm_cfg.
CORNERNET = """
_base_ = 'mmdet::cornernet/cornernet_hourglass104_8xb6-210e-mstest_coco.py'
model = dict(
    type='NormConverted',
    detector='CornerNet',
    convert=dict(to='FusedGN'),
    backbone=dict(num_stacks=1, downsample_times=1, stage_channels=[32, 32], stage_blocks=[1, 1], feat_channel=32),
    bbox_head=dict(num_feat_levels=1, in_channels=32))
"""


@pytest.fixture(scope="module")
def cfg(tmp_path_factory):
    path = tmp_path_factory.mktemp("converted") / "config.py"
    path.write_text(CORNERNET)
    return Config.fromfile(path)


@pytest.fixture(scope="module")
def scope():
    with DefaultScope.overwrite_default_scope("mmdet"):
        yield


@pytest.fixture(scope="module")
def model(cfg, scope):
    return MODELS.build(cfg.model)


def test_it_is_the_model_itself_with_other_norms(cfg, scope, model):
    plain = MODELS.build(
        ConfigDict({**{k: v for k, v in cfg.model.items() if k not in ("detector", "convert")}, "type": "CornerNet"})
    )
    assert type(model) is type(plain)
    assert {layer.kind for layer in norm_layers(plain)} == {"BN"}
    assert {layer.kind for layer in norm_layers(model)} == {"FusedGN"}
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    assert list(model.state_dict()) == [key for key in plain.state_dict() if not key.endswith(statistics)]


def test_where_leaves_the_rest(cfg, scope):
    part = MODELS.build(ConfigDict({**cfg.model, "convert": {"to": "GN", "num_groups": 16, "where": ["bbox_head"]}}))
    kinds = {(layer.name.split(".")[0], layer.kind, layer.num_groups) for layer in norm_layers(part)}
    assert kinds == {("backbone", "BN", None), ("bbox_head", "GN", 16)}


def test_the_config_does_not_change(cfg, scope):
    before = cfg.model.to_dict()
    MODELS.build(cfg.model)
    assert cfg.model.to_dict() == before


def test_import_mmgn_is_all_it_takes_even_without_a_default_scope(tmp_path):
    # mmengine notes the base's scope in the model; not all configs have such a base.
    build = """
import mmgn
from mmdet.registry import MODELS
from mmengine.config import Config
model = Config.fromfile("config.py").model
model.pop("_scope_")
model = MODELS.build(model)
names = {type(module).__name__ for module in model.modules()}
print(type(model).__name__, [name for name in names if "Norm" in name or "GN" in name])
"""
    (tmp_path / "config.py").write_text(CORNERNET)
    result = subprocess.run([sys.executable, "-c", build], cwd=tmp_path, capture_output=True, text=True)
    assert result.stdout.strip() == "CornerNet ['FusedGN']", result.stderr


def test_mmdets_inference_api_builds_it(cfg):
    from mmdet.apis import init_detector

    model = init_detector(
        cfg, device="cpu", cfg_options={"model.backbone.feat_channel": 64, "model.bbox_head.in_channels": 64}
    )
    assert sum(isinstance(module, FusedGN) for module in model.modules()) > 10
    assert model.backbone.out_convs[0].out_channels == 64


def test_it_trains(model):
    model.train()
    features = model.extract_feat(torch.rand(1, 3, 64, 64))
    sum(feature.square().mean() for feature in features).backward()
    norm = model.backbone.stem[0].bn
    assert isinstance(norm, FusedGN)
    assert norm.weight.grad.abs().sum() > 0


def test_errors(cfg, scope):
    with pytest.raises(KeyError, match="NoSuchDetector"):
        MODELS.build(ConfigDict(type="NormConverted", detector="NoSuchDetector", convert={}))
    with pytest.raises(ValueError, match="BatchRenorm"):
        MODELS.build(ConfigDict({**cfg.model, "convert": {"to": "BatchRenorm"}}))
