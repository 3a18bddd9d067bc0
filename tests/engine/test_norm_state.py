import copy

import pytest
import torchvision
from mmengine.config import ConfigDict
from torch import nn

import mmgn  # noqa: F401  # before mmdet: it serves mmcv's ops
from mmgn import FusedGN
from mmgn.engine.norm_state import norm_rows

OPTIMIZER = dict(type="SGD", lr=0.02, weight_decay=0.01)
# Decay is known without the GPU that the wrapper wants.
AMP = dict(type="AmpOptimWrapper", optimizer=OPTIMIZER)


def resnet(norm_cfg, **kwargs):
    from mmdet.models.backbones import ResNet

    stages = dict(num_stages=2, strides=(1, 2), dilations=(1, 1), out_indices=(0, 1))
    return ResNet(depth=18, base_channels=16, norm_cfg=norm_cfg, **stages, **kwargs)


def states(rows):
    return {(row.kind, row.trains, row.decays, row.updates_statistics) for row in rows}


def decaying(model, **paramwise):
    """Return the names of the norms that decay."""
    rows = norm_rows(model, dict(optim_wrapper=dict(AMP, paramwise_cfg=paramwise)))
    assert {row.decays for row in rows} <= {False, True}
    return [row.name for row in rows if row.decays]


def test_rows_tell_kind_channels_and_groups_in_the_models_order():
    rows = norm_rows(resnet(dict(type="FusedGN", num_groups=8), frozen_stages=0))
    assert [(row.name, row.num_channels) for row in rows[:2]] == [("gn1", 16), ("layer1.0.gn1", 16)]
    assert [(row.name, row.num_channels) for row in rows[-1:]] == [("layer2.1.gn2", 32)]
    assert {row.num_groups for row in rows} == {8}
    # The stem is frozen, and no optimizer known.
    assert states(rows[:1]) == {("FusedGN", False, None, None)}
    assert states(rows[1:]) == {("FusedGN", True, None, None)}


def test_statistics_and_parameters_apart():
    model = nn.Sequential(nn.BatchNorm2d(8), nn.LayerNorm(8, elementwise_affine=False))
    assert states(norm_rows(model)) == {("BN", True, None, True), ("LN", False, None, None)}
    # What training does is asked in training mode.
    assert states(norm_rows(model.eval())) == {("BN", True, None, True), ("LN", False, None, None)}
    for requires_grad in (False, True):
        bn = resnet(dict(type="BN", requires_grad=requires_grad), norm_eval=True)
        assert states(norm_rows(bn)) == {("BN", requires_grad, None, False)}


def test_a_frozen_norm_by_its_class():
    model = torchvision.models.resnet18(norm_layer=torchvision.ops.FrozenBatchNorm2d)
    assert states(norm_rows(model)) == {("FrozenBN", False, None, False)}


def test_decay_is_what_the_optimizer_does():
    model = nn.ModuleDict({"a": nn.Sequential(nn.Conv2d(3, 8, 3), FusedGN(8, 2)), "b": nn.Sequential(FusedGN(8, 2))})
    assert decaying(model) == ["a.1", "b.0"]
    assert decaying(model, norm_decay_mult=0.0) == []
    assert decaying(model, custom_keys={"b": dict(decay_mult=0.0)}) == ["a.1"]
    model["a"][1].requires_grad_(False)
    assert decaying(model) == ["b.0"]


def test_leaves_the_model_as_it_is_and_the_log_alone(capfd):
    model = resnet(dict(type="BN"), frozen_stages=1)
    model.conv1.weight.requires_grad = True
    model.layer2.eval()
    before = [m.training for m in model.modules()], [p.requires_grad for p in model.parameters()]
    weights = copy.deepcopy(model.state_dict())
    norm_rows(model, dict(optim_wrapper=dict(AMP, paramwise_cfg=dict(norm_decay_mult=0.0))))
    assert ([m.training for m in model.modules()], [p.requires_grad for p in model.parameters()]) == before
    assert all(value.equal(weights[key]) for key, value in model.state_dict().items())
    assert "paramwise_options" not in "".join(capfd.readouterr())


def test_bad_input():
    with pytest.raises(TypeError, match="got ConfigDict"):
        norm_rows(ConfigDict(type="ResNet"))
    with pytest.raises(ValueError, match=r"the optimizer of optim_wrapper=.*Sgd.* cannot be built"):
        norm_rows(nn.Sequential(FusedGN(8, 2)), dict(optim_wrapper=dict(optimizer=dict(OPTIMIZER, type="Sgd"))))
