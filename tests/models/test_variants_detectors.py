"""The detectors with GN, by whichever way they are built, on a checkpoint of mmdet's own GN Mask R-CNN."""

import copy
import pickle
import warnings

import pytest

# Before mmdet, which needs the ops that mmgn provides.
import mmgn  # noqa: F401

pytest.importorskip("mmdet")
import mmengine.registry
import numpy as np
import torch
from mmdet.models.necks import FPN
from mmdet.registry import MODELS
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.registry import Registry, init_default_scope
from torch import nn

from mmgn import FusedGN, fuse_gn, group_norm
from mmgn.engine.config import find_config
from mmgn.models import detection  # noqa: F401

MMDETS_GN = "mmdet::gn/mask-rcnn_r50_fpn_gn-all_2x_coco.py"
MMDETS_BN = "mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py"
OURS = "mask_rcnn/mask-rcnn_r50_fpn_fusedgn-all_2x_coco.py"
DIGITS = "digits/mask-rcnn_r18-mini_fpn_fusedgn-all_digits.py"
SWIN = "mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py"
GN = dict(type="GN", num_groups=32)


def without_norms(cfg):
    """Return a copy that names no norm."""
    if isinstance(cfg, dict):
        return type(cfg)({key: without_norms(value) for key, value in cfg.items() if key != "norm_cfg"})
    return [without_norms(each) for each in cfg] if isinstance(cfg, list) else cfg


def small(cfg):
    """Return a copy with few proposals and predictions, and no pretrained weights."""
    cfg = copy.deepcopy(cfg)
    cfg.backbone.init_cfg = None
    cfg.train_cfg.rpn_proposal.update(nms_pre=100, max_per_img=50)
    cfg.test_cfg.rpn.update(nms_pre=100, max_per_img=20)
    cfg.train_cfg.rcnn.sampler.update(num=16)
    # Random weights are sure of nothing.
    cfg.test_cfg.rcnn.update(score_thr=0.0, max_per_img=5)
    return cfg


def build(cfg):
    init_default_scope("mmdet")
    torch.manual_seed(0)
    return MODELS.build(cfg)


def perturbed(model):
    """Give gammas and betas values that tell one norm from another."""
    torch.manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.GroupNorm):
            nn.init.normal_(module.weight, 1, 0.2)
            nn.init.normal_(module.bias, 0, 0.2)
    return model


def outcome(model, num_classes=80):
    """Return losses, the gradient of every parameter, and predictions, by name."""
    model.zero_grad()
    found = {}
    for mode in ("loss", "predict"):
        model.train(mode == "loss")
        inputs = demo_mm_inputs(
            2, [(3, 64, 64), (3, 64, 56)], num_items=[2, 3], num_classes=num_classes, with_mask=True
        )
        # Anchors and RoIs are sampled at random.
        torch.manual_seed(2)
        np.random.seed(2)
        out = model(**model.data_preprocessor(inputs, mode == "loss"), mode=mode)
        if mode == "loss":
            loss, log = model.parse_losses(out)
            loss.backward()
            found |= log | {name: p.grad for name, p in model.named_parameters()}
        else:
            for i, sample in enumerate(out):
                assert len(sample.pred_instances)
                found |= {f"{key} of {i}": torch.as_tensor(v) for key, v in sample.pred_instances.items()}
    return found


def assert_identical(got, want):
    assert list(got) == list(want)
    for name, value in want.items():
        assert (got[name] is None) == (value is None), name
        assert value is None or torch.equal(got[name], value), name


@pytest.fixture(scope="module")
def mmdets():
    """mmdet's config, its model's state dict and what the model makes of the inputs."""
    cfg = small(get_config(MMDETS_GN).model)
    model = perturbed(build(cfg))
    assert {type(m) for m in model.modules() if isinstance(m, nn.GroupNorm)} == {nn.GroupNorm}
    return cfg, model.state_dict(), outcome(model)


def detector(cfg):
    return without_norms(cfg) | dict(type="GNMaskRCNN")


def by_parts(cfg):
    cfg = without_norms(cfg)
    for part in (cfg.backbone, cfg.neck, cfg.roi_head.bbox_head, cfg.roi_head.mask_head):
        part.type = f"GN{part.type}"
    return cfg


def of_this_repository(_):
    return small(Config.fromfile(find_config(OURS)).model)


@pytest.mark.parametrize("ours", [detector, by_parts, of_this_repository])
def test_mmdets_checkpoint_gives_the_same_bits(mmdets, ours):
    cfg, checkpoint, want = mmdets
    model = build(ours(cfg))
    classes = [type(m) for m in model.modules()]
    report = fuse_gn(model)
    # The variants are fused as they are built; the config has a hook for it.
    assert (classes == [type(m) for m in model.modules()]) == (ours is not of_this_repository)
    assert list(model.state_dict()) == list(checkpoint)
    model.load_state_dict(checkpoint, strict=True)
    assert (len(report.sites), len(report.fused)) == (69, 57)
    assert {site.left_because for site in report.left} == {"no activation follows"}
    assert_identical(outcome(model), want)


def mini():
    """Return the config of a Mask R-CNN with few channels that names no norm."""
    cfg = small(Config.fromfile(find_config(DIGITS)).model)
    return without_norms(cfg)


def built_norms(model):
    """Return the norms' classes and groups in each part of a detector."""
    found = {}
    for name, module in model.named_modules():
        if isinstance(module, (nn.GroupNorm, nn.LayerNorm, nn.modules.batchnorm._BatchNorm)):
            part = ".".join(name.split(".")[: 2 if name.startswith("roi_head") else 1])
            found.setdefault(part, set()).add((type(module), getattr(module, "num_groups", None)))
    return found


ALL = ("backbone", "neck", "roi_head.bbox_head", "roi_head.mask_head")


def with_gn(cfg):
    """Return a copy with torch's GN in every part, by mmdet's own means."""
    cfg = copy.deepcopy(cfg)
    for part in (cfg.backbone, cfg.neck, cfg.roi_head.bbox_head, cfg.roi_head.get("mask_head")):
        for each in part if isinstance(part, list) else [part]:
            if each is not None:
                each.norm_cfg = GN
    return cfg


def faster():
    cfg = mini()
    del cfg.roi_head["mask_head"], cfg.roi_head["mask_roi_extractor"]
    return cfg | dict(type="FasterRCNN")


def cascade():
    cfg = mini()
    rcnn = cfg.train_cfg.rcnn
    cfg.train_cfg.rcnn = [copy.deepcopy(rcnn) for _ in range(2)]
    cfg.roi_head.update(
        type="CascadeRoIHead",
        num_stages=2,
        stage_loss_weights=[1, 0.5],
        # One a stage, and one for all stages.
        bbox_head=[copy.deepcopy(cfg.roi_head.bbox_head) for _ in range(2)],
    )
    return cfg | dict(type="CascadeRCNN")


@pytest.mark.parametrize("parent", [mini, faster, cascade])
def test_each_detector_is_its_parent_with_gn(parent):
    # 32 groups in 16 channels are none.
    cfg = parent()
    cfg.backbone.update(base_channels=32)
    cfg.neck.update(in_channels=[32, 64, 128, 256])
    theirs = perturbed(build(with_gn(cfg)))
    ours = build(cfg | dict(type=f"GN{cfg.type}"))
    assert set(built_norms(ours)) == {part for part in ALL if part in built_norms(theirs)}
    assert set().union(*built_norms(ours).values()) == {(FusedGN, 32)}
    ours.load_state_dict(theirs.state_dict(), strict=True)
    assert {site.left_because for site in fuse_gn(ours).left} == {"no activation follows"}
    want = outcome(theirs, num_classes=10)
    assert_identical(outcome(ours, num_classes=10), want)
    for twin in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        assert [type(m) for m in twin.modules()] == [type(m) for m in ours.modules()]
        assert_identical(twin.state_dict(), ours.state_dict())


def test_a_named_norm_stays_and_the_rest_takes_the_detectors():
    cfg = mini() | dict(type="GNMaskRCNN", norm_cfg=dict(type="FusedGN", num_groups=8))
    cfg.backbone.norm_cfg = dict(type="BN")
    cfg.roi_head.mask_head.norm_cfg = None
    before = copy.deepcopy(cfg)
    with pytest.warns(UserWarning, match="the config of backbone names a batch norm"):
        norms = built_norms(build(cfg))
    assert norms == {
        "backbone": {(nn.BatchNorm2d, None)},
        "neck": {(FusedGN, 8)},
        "roi_head.bbox_head": {(FusedGN, 8)},
    }
    # mmdet's own constructor writes train_cfg and test_cfg into roi_head.
    assert cfg == before


def warned(cfg):
    """Return the warnings of NormInAllParts on building a detector."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        build(cfg)
    return [str(each.message) for each in caught if "batch norm of its own" in str(each.message)]


def test_mmdets_base_keeps_its_batch_norm_but_not_silently():
    cfg = small(get_config(MMDETS_BN).model) | dict(type="GNMaskRCNN")
    (warning,) = warned(cfg)
    assert "GNMaskRCNN: the config of backbone names" in warning
    assert "norm_cfg=dict(_delete_=True, type='FusedGN', num_groups=32)" in warning
    cfg.backbone.norm_cfg = dict(type="FusedGN", num_groups=32)
    assert warned(cfg) == []


@pytest.mark.parametrize(
    "norm", [dict(type="SyncBN"), dict(type="mmengine.BN", requires_grad=True), dict(type=nn.BatchNorm2d)]
)
def test_every_part_that_keeps_a_batch_norm_is_named_once(norm):
    cfg = cascade() | dict(type="GNCascadeRCNN", norm_cfg=dict(type="FusedGN", num_groups=8))
    for part in (cfg.neck, *cfg.roi_head.bbox_head):
        part.norm_cfg = norm
    (warning,) = warned(cfg)
    assert "GNCascadeRCNN: the config of neck and roi_head.bbox_head names" in warning


@pytest.mark.parametrize(
    ("norm", "detectors"),
    [
        # The paper's BN*.
        (dict(type="BN", requires_grad=False), dict(type="FusedGN", num_groups=8)),
        (dict(type="FusedGN", num_groups=8), dict(type="GN", num_groups=8)),
        (dict(type="BN"), dict(type="SyncBN")),
        (dict(type="BN"), None),
        (None, dict(type="FusedGN", num_groups=8)),
    ],
)
def test_no_warning_of_a_norm_that_is_meant(norm, detectors):
    cfg = mini() | dict(type="GNMaskRCNN", norm_cfg=detectors)
    cfg.neck.norm_cfg = norm
    assert warned(cfg) == []


@pytest.mark.parametrize("name", [OURS, "mask_rcnn/mask-rcnn_r50_fpn_bn-frozen_fusedgn-box-head_2x_coco.py"])
def test_our_configs_as_this_detector_warn_of_nothing(name):
    assert warned(small(Config.fromfile(find_config(name)).model) | dict(type="GNMaskRCNN")) == []


def test_none_leaves_all_as_the_parent_has_it():
    cfg = mini()
    ours, theirs = build(cfg | dict(type="GNMaskRCNN", norm_cfg=None)), build(cfg)
    assert built_norms(ours) == built_norms(theirs) == {"backbone": {(nn.BatchNorm2d, None)}}


def test_the_variants_take_the_detectors_norm():
    cfg = by_parts(mini()) | dict(type="GNMaskRCNN", norm_cfg=dict(type="FusedGN", num_groups=4))
    cfg.rpn_head.type = "GNRPNHead"
    cfg.rpn_head.norm_cfg = dict(type="FusedGN", num_groups=2)
    norms = built_norms(build(cfg))
    assert norms == {part: {(FusedGN, 4)} for part in ALL} | {"rpn_head": {(FusedGN, 2)}}


def test_a_shared_head_and_a_list_of_necks_take_it_too():
    cfg = mini() | dict(type="GNMaskRCNN")
    cfg.backbone.update(base_channels=32)
    mapper = dict(type="ChannelMapper", in_channels=[64] * 5, out_channels=64, num_outs=5)
    cfg.neck = [dict(cfg.neck, in_channels=[32, 64, 128, 256]), mapper]
    cfg.roi_head.shared_head = dict(type="ResLayer", depth=50, stage=3, _scope_="mmdet")
    assert built_norms(build(cfg)) == {part: {(FusedGN, 32)} for part in (*ALL, "roi_head.shared_head")}


ELSEWHERE = Registry("model", parent=mmengine.registry.MODELS, scope="elsewhere")


@ELSEWHERE.register_module()
class ElsewheresFPN(FPN):
    """A class of another package's registry that passes norm_cfg on by **kwargs."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)


@pytest.mark.parametrize(
    "kind",
    [
        dict(type="mmdet.FPN"),
        dict(type=FPN),
        dict(type="elsewhere.ElsewheresFPN"),
        dict(type="ElsewheresFPN", _scope_="elsewhere"),
    ],
)
def test_a_parts_class_is_found_as_the_registry_finds_it(kind):
    cfg = mini() | dict(type="GNMaskRCNN", norm_cfg=dict(type="FusedGN", num_groups=4))
    cfg.neck.update(kind)
    assert built_norms(build(cfg)) == {part: {(FusedGN, 4)} for part in ALL}


def test_a_transformer_keeps_its_layer_norms():
    cfg = without_norms(small(get_config(SWIN).model)) | dict(type="GNMaskRCNN")
    cfg.backbone.depths = [1, 1, 1, 1]
    norms = built_norms(build(cfg))
    assert norms["backbone"] == {(nn.LayerNorm, None)}
    assert norms["neck"] == norms["roi_head.mask_head"] == {(FusedGN, 32)}


def test_what_does_not_build_says_what_it_says_in_mmdet():
    cfg = mini() | dict(type="GNMaskRCNN")
    with pytest.raises(KeyError, match="NoSuchNet is not in the mmdet::model registry"):
        build(cfg | dict(backbone=dict(type="NoSuchNet")))
    with pytest.raises(TypeError, match="rpn_head"):
        build({key: value for key, value in cfg.items() if key != "rpn_head"})
    with pytest.raises(ValueError, match="num_channels must be divisible by num_groups, got 16 and 32"):
        build(cfg)


def parts_outcome(model, dtype):
    """Return the outputs of backbone, neck, box head and mask head for one feature map, and all gradients, by name."""
    torch.manual_seed(3)
    x = torch.randn(1, 3, 32, 32, dtype=torch.float64).to(dtype)
    levels = model.extract_feat(x)
    # As many positions as a RoI has; RoIs that move by a rounding would be another subject.
    roi = levels[0][..., :7, :7]
    outs = [*levels, *model.roi_head.bbox_head(roi), model.roi_head.mask_head(roi)]
    torch.autograd.backward(outs, [torch.randn(out.shape, dtype=torch.float64).to(dtype) for out in outs])
    grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {f"out{i}": out.detach() for i, out in enumerate(outs)} | grads


@pytest.mark.skipif(torch.cuda.is_available(), reason="interprets on the CPU; CUDA has its own gate")
def test_the_fused_kernels_agree_within_rounding(monkeypatch):
    # Few groups, for each is a program of the interpreter's.
    cfg = mini()
    theirs = perturbed(build(cfg | dict(type="GNMaskRCNN", norm_cfg=dict(type="GN", num_groups=4))))
    assert set().union(*built_norms(theirs).values()) == {(nn.GroupNorm, 4)}
    ours = build(cfg | dict(type="GNMaskRCNN", norm_cfg=dict(type="FusedGN", num_groups=4)))
    ours.load_state_dict(theirs.state_dict(), strict=True)
    oracle = parts_outcome(copy.deepcopy(theirs).double(), torch.float64)
    want = parts_outcome(theirs, torch.float32)
    calls = []

    def triton(*args, **kwargs):
        calls.append(kwargs["activation"])
        return group_norm(*args, **kwargs, backend="triton")

    monkeypatch.setattr("mmgn.layers.group_norm.group_norm", triton)
    got = parts_outcome(ours, torch.float32)
    report = fuse_gn(ours)
    assert (calls.count("relu"), calls.count("none")) == (len(report.fused), len(report.left))
    assert list(got) == list(oracle)
    for name, exact in oracle.items():
        error, torchs = ((each[name].double() - exact).norm() / exact.norm() for each in (got, want))
        assert error <= 2 * torchs + torch.finfo(torch.float32).eps, name
