"""Every config loads, builds, and runs forward and backward on small images, and trains what it says it trains."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from torch import nn

from mmgn import FusedGN
from mmgn.engine.config import CONFIGS, find_config

NAMES = sorted(str(p.relative_to(CONFIGS)) for p in CONFIGS.rglob("*.py") if "_base_" not in p.parts)
FUSED_R50 = "mask_rcnn/mask-rcnn_r50_fpn_fusedgn-all_2x_coco.py"
FROZEN_R50 = "mask_rcnn/mask-rcnn_r50_fpn_bn-frozen_2x_coco.py"
DIGITS = "digits/mask-rcnn_r18-mini_fpn_fusedgn-all_digits.py"


def build(cfg):
    from mmdet.registry import MODELS

    init_default_scope("mmdet")
    # Pretrained weights are on a hub.
    cfg.model.backbone.init_cfg = None
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.init_weights()
    return model


def step(model, size=64):
    from mmdet.testing import demo_mm_inputs

    num_classes = model.roi_head.bbox_head.num_classes
    batch = demo_mm_inputs(
        1, [(3, size, size)], num_items=[2], num_classes=num_classes, with_mask=True, use_box_type=True
    )
    data = model.data_preprocessor(batch, True)
    loss, log = model.parse_losses(model(**data, mode="loss"))
    loss.backward()
    return loss, log


@pytest.mark.parametrize("name", NAMES)
def test_builds_and_trains(name):
    model = build(Config.fromfile(CONFIGS / name)).train()
    loss, log = step(model)
    assert torch.isfinite(loss)
    assert {"loss_rpn_cls", "loss_cls", "loss_bbox", "loss_mask"} <= set(log)
    for key, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, f"{key} trains but got no gradient"
            assert torch.isfinite(parameter.grad).all(), key


@pytest.mark.parametrize("name", [FUSED_R50, DIGITS])
def test_every_norm_is_fused_and_undecayed(name):
    cfg = Config.fromfile(CONFIGS / name)
    model = build(cfg)
    norms = {n: m for n, m in model.named_modules() if isinstance(m, (nn.GroupNorm, nn.modules.batchnorm._BatchNorm))}
    assert {type(m) for m in norms.values()} == {FusedGN}
    for part in ("backbone", "neck", "roi_head.bbox_head", "roi_head.mask_head"):
        assert any(n.startswith(part) for n in norms), f"no norm in {part}"
    assert not any(n.startswith("rpn_head") for n in norms)

    cfg.optim_wrapper.pop("_scope_", None)
    groups = build_optim_wrapper(model, cfg.optim_wrapper).param_groups
    decay = {id(p): g["weight_decay"] for g in groups for p in g["params"]}
    parameters = dict(model.named_parameters())
    trained = [f"{key}.{kind}" for key in norms for kind in ("weight", "bias")]
    trained = [key for key in trained if parameters[key].requires_grad]
    assert trained
    assert {decay[id(parameters[key])] for key in trained} == {0}
    assert decay[id(parameters["roi_head.bbox_head.fc_cls.weight"])] > 0


@pytest.mark.parametrize("name", [FUSED_R50, DIGITS])
def test_runs_are_fused_and_recorded(name):
    cfg = Config.fromfile(CONFIGS / name)
    assert [hook["type"] for hook in cfg.custom_hooks] == ["RunRecordHook", "FuseGNHook"]


def test_frozen_bn_is_frozen_all_through():
    model = build(Config.fromfile(CONFIGS / FROZEN_R50)).train()
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 53
    before = [m.running_mean.clone() for m in norms]
    step(model)
    for norm, mean in zip(norms, before, strict=True):
        assert not norm.training
        assert norm.weight.grad is None
        assert not norm.weight.requires_grad
        assert torch.equal(norm.running_mean, mean)


def test_both_arms_share_one_architecture():
    """The comparison is of norms only: the same convolutions, the same 4conv1fc head."""
    shapes = []
    for name in (FUSED_R50, FROZEN_R50):
        model = build(Config.fromfile(CONFIGS / name))
        convs = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
        shapes.append({n: m.weight.shape for n, m in model.named_modules() if isinstance(m, convs)})
    assert shapes[0] == shapes[1]


def test_state_dict_keys_are_those_of_mmdets_gn_config():
    ours = build(Config.fromfile(CONFIGS / FUSED_R50))
    theirs_cfg = Config.fromfile(CONFIGS / FUSED_R50)
    norm = dict(type="GN", num_groups=32)
    for part in (theirs_cfg.model.backbone, theirs_cfg.model.neck, *theirs_cfg.model.roi_head.values()):
        if isinstance(part, dict) and "norm_cfg" in part:
            part.norm_cfg = norm
    theirs = build(theirs_cfg)
    assert not any(isinstance(m, FusedGN) for m in theirs.modules())
    theirs.load_state_dict(ours.state_dict(), strict=True)
    x = torch.randn(1, 3, 64, 64)
    for got, want in zip(ours.eval().extract_feat(x), theirs.eval().extract_feat(x), strict=True):
        assert torch.equal(got, want)


def test_a_user_can_inherit_from_the_package(tmp_path):
    child = tmp_path / "child.py"
    child.write_text(f"_base_ = 'mmgn::{DIGITS}'\nmodel = dict(backbone=dict(depth=34))\n")
    cfg = Config.fromfile(child)
    assert cfg.model.backbone.depth == 34
    assert cfg.model.neck.norm_cfg.type == "FusedGN"


def test_find_config_names_close_ones():
    assert find_config(DIGITS) == CONFIGS / DIGITS
    assert find_config(str(CONFIGS / DIGITS)) == Path(CONFIGS / DIGITS)
    with pytest.raises(FileNotFoundError, match=r"mask-rcnn_r50_fpn_fusedgn-all_2x_coco\.py"):
        find_config("mask-rcnn_r50_fpn_fusedgn_2x_coco.py")
