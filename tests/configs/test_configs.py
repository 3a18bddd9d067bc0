"""What the configs derive, take over from mmdet, and share with each other."""

import json
from pathlib import Path

import mmengine
import pytest
import torch
from mmengine.config import Config
from torch import nn

from mmgn import FusedGN
from mmgn.engine import config
from mmgn.engine.config import CONFIGS, find_config

ALL = {str(p.relative_to(CONFIGS)): p for p in sorted(CONFIGS.rglob("*.py")) if "_base_" not in p.parts}
FUSED_R50 = "mask_rcnn/mask-rcnn_r50_fpn_fusedgn-all_2x_coco.py"
FROZEN_R50 = "mask_rcnn/mask-rcnn_r50_fpn_bn-frozen_2x_coco.py"
DIGITS = "digits/mask-rcnn_r18-mini_fpn_fusedgn-all_digits.py"
# Detectron's, of which the images lose their BGR mean and nothing else.
BGR = dict(mean=[103.530, 116.280, 123.675], std=[1.0, 1.0, 1.0], bgr_to_rgb=False)
RGB = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True)

OF_MMDET = {
    **{
        f"mask_rcnn/mask-rcnn_{net}_fpn_fusedgn-all_{time}_coco": f"gn/mask-rcnn_{net}_fpn_gn-all_{time}_coco"
        for net in ("r50", "r101")
        for time in ("2x", "3x")
    },
    **{
        f"gn_ws/mask-rcnn_{net}_fpn_fusedgn-ws-all_{time}_coco": f"gn+ws/mask-rcnn_{net}_fpn_gn-ws-all_{time}_coco"
        for net in ("r50", "r101", "x101-32x4d")
        for time in ("2x", "20-23-24e")
    },
    "scratch/mask-rcnn_r50-scratch_fpn_fusedgn-all_6x_coco": "scratch/mask-rcnn_r50-scratch_fpn_gn-all_6x_coco",
}


def with_gn(part):
    """Return the part of a config with mmdet's GN for FusedGN, and without the keys that change nothing."""
    if isinstance(part, dict):
        kept = {k: with_gn(v) for k, v in part.items() if k not in ("_scope_", "requires_grad")}
        return {**kept, "type": "GN"} if kept.get("type") == "FusedGN" else kept
    return [with_gn(v) for v in part] if isinstance(part, (list, tuple)) else part


@pytest.mark.parametrize("name", OF_MMDET)
def test_is_mmdets_own_but_for_the_norm_and_its_decay(name, load_config):
    import mmdet

    ours = load_config(f"{name}.py")
    theirs = Config.fromfile(Path(mmdet.__file__).parent / ".mim/configs" / f"{OF_MMDET[name]}.py")
    if name.startswith("scratch/"):
        # The README tells of it.
        assert {key: ours.model.data_preprocessor.pop(key) for key in BGR} == BGR
        assert {key: theirs.model.data_preprocessor.pop(key) for key in RGB} == RGB
        del theirs.default_hooks.checkpoint.max_keep_ckpts
    assert ours.optim_wrapper.pop("paramwise_cfg") == dict(norm_decay_mult=0)
    theirs.optim_wrapper.pop("paramwise_cfg", None)
    for key in ("model", "train_cfg", "param_scheduler", "optim_wrapper", "train_dataloader", "default_hooks"):
        assert with_gn(ours[key]) == with_gn(theirs[key]), key


@pytest.mark.parametrize("batch", [1, 4, 8])
def test_learning_rate_goes_with_the_batch(batch, load_config):
    base = load_config(FUSED_R50)
    assert (base.optim_wrapper.optimizer.lr, base.train_dataloader.batch_size) == (0.02, 2)
    cfg = load_config(f"ablations/mask-rcnn_r50_fpn_fusedgn-all_8xb{batch}-2x_coco.py")
    assert cfg.train_dataloader.batch_size == batch
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(batch * 0.01)
    assert cfg.auto_scale_lr == dict(enable=False, base_batch_size=8 * batch)
    assert cfg.param_scheduler == base.param_scheduler
    assert cfg.train_cfg == base.train_cfg


@pytest.mark.parametrize(
    ("name", "epochs", "milestones"),
    [
        ("mask_rcnn/mask-rcnn_r50-c4_fusedgn-all_2x_coco.py", 24, [16, 22]),
        ("scratch/mask-rcnn_r50-scratch_fpn_fusedgn-all_3x_coco.py", 36, [28, 34]),
        ("scratch/mask-rcnn_r101-scratch_fpn_fusedgn-all_3x_coco.py", 36, [28, 34]),
        ("scratch/mask-rcnn_r50-scratch_fpn_syncbn-all_3x_coco.py", 36, [28, 34]),
        ("ablations/mask-rcnn_r50-scratch_fpn_fusedgn-8g_3x_coco.py", 36, [28, 34]),
        ("cascade_rcnn/cascade-mask-rcnn_r50_fpn_fusedgn-all_20e_coco.py", 20, [16, 19]),
        ("retinanet/retinanet_r50_fpn_fusedgn-all_2x_coco.py", 24, [16, 22]),
        ("fcos/fcos_r50_fpn_fusedgn-all_1x_coco.py", 12, [8, 11]),
    ],
)
def test_schedules(name, epochs, milestones, load_config):
    cfg = load_config(name)
    assert cfg.train_cfg.max_epochs == epochs
    assert cfg.param_scheduler[1].end == epochs
    assert cfg.param_scheduler[1].milestones == milestones
    assert cfg.param_scheduler[0].end == 500


@pytest.mark.parametrize("name", [name for name in ALL if not name.endswith("_digits.py")])
def test_weights_exist_and_images_fit_them(name, load_config):
    import torchvision

    cfg = load_config(name)
    init = cfg.model.backbone.get("init_cfg")
    if "scratch" in name or name.startswith("classification/"):
        assert init is None
        return
    scheme, weights = init.checkpoint.split("://")
    if scheme == "torchvision":
        assert weights in torchvision.models.list_models()
    else:
        hub = json.loads((Path(mmengine.__file__).parent / "hub/openmmlab.json").read_text())
        assert weights in hub
    shared = cfg.model.get("roi_head", {}).get("shared_head")
    assert shared is None or shared.init_cfg == init
    # Weights of group norm for group norm, and of the backbone's depth and class.
    norm = cfg.model.backbone.norm_cfg.type
    assert ("gn" in weights) == (norm == "FusedGN")
    assert ("resnext101_32x4d" in weights) == (cfg.model.backbone.type == "ResNeXt")
    assert str(cfg.model.backbone.depth) in weights
    assert weights.endswith("_ws") == (cfg.model.backbone.get("conv_cfg") == dict(type="ConvWS"))
    wanted = BGR if weights.startswith("detectron/") else RGB
    assert {key: cfg.model.data_preprocessor[key] for key in wanted} == wanted
    # On the 3x3 convolution, in torchvision's, Detectron's GN and jhu's weights alike.
    assert cfg.model.backbone.style == "pytorch"


def test_c4_takes_res5_from_the_weights_too(tmp_path, build_model, load_config):
    """mmdet's C4 Mask R-CNN has no weights for res5; a frozen BN of no statistics would be the identity."""
    from mmdet.models import ResNet

    torch.manual_seed(0)
    pretrained = ResNet(50, norm_cfg=dict(type="GN", num_groups=32)).state_dict()
    torch.save(pretrained, tmp_path / "resnet50_gn.pth")
    model = build_model(load_config("mask_rcnn/mask-rcnn_r50-c4_fusedgn-all_2x_coco.py"))
    for part in (model.backbone, model.roi_head.shared_head):
        part.init_cfg = dict(type="Pretrained", checkpoint=str(tmp_path / "resnet50_gn.pth"))
        part.init_weights()
    loaded = {**model.backbone.state_dict(), **model.roi_head.shared_head.state_dict()}
    assert loaded.keys() == pretrained.keys()
    assert all(torch.equal(loaded[key], pretrained[key]) for key in loaded)


@pytest.mark.parametrize("name", ALL)
def test_runs_are_recorded_and_fused_where_there_is_fusedgn(name, load_config):
    cfg = load_config(name)
    hooks = [hook["type"] for hook in cfg.custom_hooks]
    assert hooks == ["RunRecordHook"] + ["FuseGNHook"] * ("FusedGN" in str(cfg.model))
    assert cfg.custom_imports.imports == ["mmgn"]


def test_are_small_diffs():
    assert [name for name, path in ALL.items() if len(path.read_text().splitlines()) > 60] == []


@pytest.mark.parametrize(
    "family",
    ["scratch/mask-rcnn_r50-scratch_fpn_syncbn-all_3x", "cascade_rcnn/cascade-mask-rcnn_r50_fpn_fusedgn-all_20e"],
)
def test_can_be_saved(family, tmp_path, load_config):
    """As training does; a comprehension or a key for the merging could be left over."""
    cfg = load_config(f"{family}_coco.py")
    cfg.dump(tmp_path / "dumped.py")
    assert Config.fromfile(tmp_path / "dumped.py").to_dict() == cfg.to_dict()


def test_both_arms_share_one_architecture(build_model, load_config):
    """The comparison is of norms only: the same convolutions, the same 4conv1fc head."""
    shapes = []
    for name in (FUSED_R50, FROZEN_R50):
        model = build_model(load_config(name))
        convs = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
        shapes.append({n: m.weight.shape for n, m in model.named_modules() if isinstance(m, convs)})
    assert shapes[0] == shapes[1]


def test_state_dict_keys_are_those_of_mmdets_gn_config(build_model, load_config):
    ours_cfg = load_config(FUSED_R50)
    theirs_cfg = load_config(FUSED_R50)
    theirs_cfg.model = with_gn(theirs_cfg.model.to_dict())
    ours, theirs = build_model(ours_cfg), build_model(theirs_cfg)
    assert not any(isinstance(m, FusedGN) for m in theirs.modules())
    theirs.load_state_dict(ours.state_dict(), strict=True)
    x = torch.randn(1, 3, 64, 64)
    for got, want in zip(ours.eval().extract_feat(x), theirs.eval().extract_feat(x), strict=True):
        assert torch.equal(got, want)


@pytest.mark.parametrize("name", {name.partition("/")[0]: name for name in ALL}.values())
def test_a_user_can_inherit_from_the_package(name, tmp_path, load_config):
    child = tmp_path / "child.py"
    child.write_text(f"_base_ = 'mmgn::{name}'\nmodel = dict(backbone=dict(frozen_stages=0))\n")
    want = load_config(name).model
    want.backbone.frozen_stages = 0
    assert with_gn(Config.fromfile(child).model) == with_gn(want)


def test_find_config_names_close_ones():
    assert find_config(DIGITS) == CONFIGS / DIGITS
    assert find_config(str(CONFIGS / DIGITS)) == Path(CONFIGS / DIGITS)
    with pytest.raises(FileNotFoundError, match=r"mask-rcnn_r50_fpn_fusedgn-all_2x_coco\.py"):
        find_config("mask-rcnn_r50_fpn_fusedgn_2x_coco.py")


@pytest.mark.parametrize(
    ("text", "why"),
    [("model = dict(", "SyntaxError"), ("_base_ = 'gone.py'", "gone.py"), ("x = 1 / 0", "ZeroDivisionError")],
)
def test_a_config_that_cannot_be_read(text, why, tmp_path):
    (tmp_path / "config.py").write_text(text)
    with pytest.raises(ValueError, match=rf"config '.*config\.py' cannot be read.*{why}"):
        config.load_config(str(tmp_path / "config.py"))


def test_find_config_in_a_package():
    name = "retinanet/retinanet_r50_fpn_1x_coco.py"
    found = find_config(f"mmdet::{name}")
    assert found.is_file() and found.match(f"mmdet/.mim/configs/{name}")
    with pytest.raises(FileNotFoundError, match=r"mmdet::no\.py' does not exist: not in .*mmdet"):
        find_config("mmdet::no.py")
    # Not ours of that name.
    with pytest.raises(FileNotFoundError, match="no package 'nowhere' with configs"):
        find_config(f"nowhere::{DIGITS}")
