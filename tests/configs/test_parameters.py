"""Every config: which norm is where, which parameters are frozen, train, and are decayed, by name; and it trains."""

from typing import NamedTuple

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from torch import nn

from mmgn import FusedGN
from mmgn.engine.config import CONFIGS

# mmengine's SyncBatchNorm is a subclass of torch's.
KINDS = {FusedGN: "FusedGN", nn.GroupNorm: "GN", nn.BatchNorm2d: "BN", nn.SyncBatchNorm: "SyncBN"}
STEM_AND_RES2 = ("backbone.conv1.", "backbone.bn1.", "backbone.gn1.", "backbone.layer1.")
# Norms of a backbone, by depth.
NORMS = {18: 20, 50: 53, 101: 104}
BOX, MASK, SHARED = "roi_head.bbox_head", "roi_head.mask_head", "roi_head.shared_head"
# BN*: all of it frozen. BN eval, mmdet's "BN": weight and bias train, statistics do not. 32g: FusedGN of 32 groups,
# 16cpg: of 16 channels a group.
BN_STAR, BN_EVAL = "BN*", "BN eval"


LOSSES = {"mmdet": {"loss_cls", "loss_bbox"}, "mmpretrain": {"loss"}, "mmseg": {"loss_ce"}}


class Expected(NamedTuple):
    """What a model is to have; ``decays`` is whether anything decays at all."""

    norms: dict[str, tuple[int, str]]  # of each part that has some: how many, and which
    frozen: tuple[str, ...] = STEM_AND_RES2  # besides BN*
    norms_decay: bool = False
    biases_decay: bool = True
    decays: bool = True


def mask_rcnn(backbone, rest=None, depth=50, **kwargs):
    """Mask R-CNN with the 4conv1fc head, one norm in the backbone and one, or none, in all the rest."""
    norms = {"backbone": (NORMS[depth], backbone)}
    if rest:
        norms |= {"neck": (8, rest), BOX: (4, rest), MASK: (4, rest)}
    return Expected(norms, **kwargs)


def box_head(backbone, box, depth=50, **kwargs):
    return Expected({"backbone": (NORMS[depth], backbone), BOX: (4, box)}, **kwargs)


GN = mask_rcnn("32g", "32g")
GN_R101 = mask_rcnn("32g", "32g", 101)
SCRATCH = dict(frozen=())
R50 = GN.norms

EXPECTED = {
    "mask_rcnn/mask-rcnn_r50-c4_bn-frozen_2x": Expected({"backbone": (43, BN_STAR), SHARED: (10, BN_STAR)}),
    "mask_rcnn/mask-rcnn_r50-c4_fusedgn-all_2x": Expected({"backbone": (43, "32g"), SHARED: (10, "32g")}),
    "mask_rcnn/mask-rcnn_r50_fpn_bn-frozen_2x": mask_rcnn(BN_STAR),
    "mask_rcnn/mask-rcnn_r50_fpn_bn-frozen-2fc_2x": mask_rcnn(BN_STAR),
    "mask_rcnn/mask-rcnn_r50_fpn_bn-frozen_fusedgn-box-head_2x": box_head(BN_STAR, "32g"),
    "mask_rcnn/mask-rcnn_r50_fpn_bn-mmdet_2x": mask_rcnn(BN_EVAL, norms_decay=True),
    "mask_rcnn/mask-rcnn_r50_fpn_fusedgn-backbone-box-head_2x": Expected({k: v for k, v in R50.items() if k != MASK}),
    "mask_rcnn/mask-rcnn_r50_fpn_fusedgn-all_2x": GN,
    "mask_rcnn/mask-rcnn_r50_fpn_fusedgn-all_3x": GN,
    "mask_rcnn/mask-rcnn_r101_fpn_bn-frozen_2x": mask_rcnn(BN_STAR, depth=101),
    "mask_rcnn/mask-rcnn_r101_fpn_bn-frozen-2fc_2x": mask_rcnn(BN_STAR, depth=101),
    "mask_rcnn/mask-rcnn_r101_fpn_fusedgn-all_2x": GN_R101,
    "mask_rcnn/mask-rcnn_r101_fpn_fusedgn-all_3x": GN_R101,
    "mask_rcnn/mask-rcnn_x101-32x4d_fpn_bn-frozen_2x": mask_rcnn(BN_STAR, depth=101),
    "mask_rcnn/mask-rcnn_x101-32x4d_fpn_fusedgn-all_2x": GN_R101,
    "scratch/mask-rcnn_r50-scratch_fpn_fusedgn-all_3x": mask_rcnn("32g", "32g", **SCRATCH),
    "scratch/mask-rcnn_r50-scratch_fpn_fusedgn-all_6x": mask_rcnn("32g", "32g", **SCRATCH),
    "scratch/mask-rcnn_r101-scratch_fpn_fusedgn-all_3x": mask_rcnn("32g", "32g", 101, **SCRATCH),
    "scratch/mask-rcnn_r50-scratch_fpn_syncbn-all_3x": mask_rcnn("SyncBN", "SyncBN", **SCRATCH),
    **{f"gn_ws/mask-rcnn_r50_fpn_fusedgn-ws-all_{s}": GN for s in ("2x", "20-23-24e")},
    **{
        f"gn_ws/mask-rcnn_{b}_fpn_fusedgn-ws-all_{s}": GN_R101
        for b in ("r101", "x101-32x4d")
        for s in ("2x", "20-23-24e")
    },
    **{
        f"ablations/mask-rcnn_r50-scratch_fpn_fusedgn-{name}_3x": mask_rcnn(norm, norm, **SCRATCH)
        for norm, name in {
            **{
                f"{n}{unit}": f"{n}{unit}"
                for n in (64, 32, 16, 8, 4, 2)
                for unit in ("g", "cpg")
                if f"{n}{unit}" != "32g"
            },
            "1g": "1g-ln",
            "1cpg": "1cpg-in",
        }.items()
    },
    **{f"ablations/mask-rcnn_r50_fpn_fusedgn-all_8xb{n}-2x": GN for n in (1, 4, 8)},
    "ablations/mask-rcnn_r50_fpn_fusedgn-all_norm-decay_2x": GN._replace(norms_decay=True),
    "ablations/mask-rcnn_r50_fpn_fusedgn-all_rpn_2x": Expected({**R50, "rpn_head": (1, "32g")}),
    "ablations/mask-rcnn_r50_fpn_bn-trained_2x": mask_rcnn("BN"),
    "ablations/mask-rcnn_r50_fpn_bn-frozen_bn-box-head_2x": box_head(BN_STAR, "BN"),
    "faster_rcnn/faster-rcnn_r50_fpn_fusedgn-all_2x": Expected({k: v for k, v in R50.items() if k != MASK}),
    # Three stages of box and mask heads.
    "cascade_rcnn/cascade-mask-rcnn_r50_fpn_fusedgn-all_20e": Expected({**R50, BOX: (12, "32g"), MASK: (12, "32g")}),
    # 3 lateral, 3 output and 2 extra convolutions in the neck; 4 shared by all levels for classes and 4 for boxes.
    **{
        name: Expected({"backbone": (53, "32g"), "neck": (8, "32g"), "bbox_head": (8, "32g")}, biases_decay=biases)
        for name, biases in (
            ("retinanet/retinanet_r50_fpn_fusedgn-all_2x", True),
            ("fcos/fcos_r50_fpn_fusedgn-all_1x", False),
        )
    },
    "panoptic_fpn/panoptic-fpn_r50_fpn_fusedgn-all_1x": Expected({**R50, "semantic_head": (7, "32g")}),
    "classification/resnet-mini_fusedgn": Expected({"backbone": (15, "8g")}, decays=False, **SCRATCH),
    "segmentation/fcn_r18-mini_fusedgn": Expected(
        {"backbone": (15, "8g"), "decode_head": (1, "8g")}, decays=False, **SCRATCH
    ),
    "classification/resnet50_fusedgn_8xb32": Expected({"backbone": (53, "32g")}, norms_decay=True, **SCRATCH),
    # FCN's head: 2 convolutions, and 1 that joins them with the input. UPerNet's: 4 of pooled maps, 3 laterals and 3
    # outputs, 2 that join.
    **{
        f"segmentation/{name}_r50_fusedgn_4xb4-80k": Expected(
            {"backbone": (53, "32g"), "decode_head": (norms, "32g"), "auxiliary_head": (1, "32g")}, **SCRATCH
        )
        for name, norms in (("fcn", 3), ("upernet", 12))
    },
    "digits/mask-rcnn_r18-mini_fpn_bn": mask_rcnn("BN", depth=18, **SCRATCH),
    "digits/mask-rcnn_r18-mini_fpn_bn-frozen": mask_rcnn(BN_STAR, depth=18),
    "digits/mask-rcnn_r18-mini_fpn_bn-frozen_fusedgn-box-head": box_head(BN_STAR, "8g", 18),
    "digits/mask-rcnn_r18-mini_fpn_fusedgn-all": mask_rcnn("8g", "8g", 18, **SCRATCH),
    "digits/mask-rcnn_r18-mini_fpn_fusedgn-1g-ln": mask_rcnn("1g", "1g", 18, **SCRATCH),
    "digits/mask-rcnn_r18-mini_fpn_fusedgn-1cpg-in": mask_rcnn("1cpg", "1cpg", 18, **SCRATCH),
    "digits/mask-rcnn_r18-mini_fpn_syncbn-all": mask_rcnn("SyncBN", "SyncBN", 18, **SCRATCH),
}


# Without the data set's name.
NAMES = {
    str(path.relative_to(CONFIGS)).rpartition("_")[0]: str(path.relative_to(CONFIGS))
    for path in CONFIGS.rglob("*.py")
    if "_base_" not in path.parts
}


class Built(NamedTuple):
    cfg: Config
    model: nn.Module
    norms: dict[str, nn.Module]
    expected: Expected


@pytest.fixture(scope="module", params=sorted(EXPECTED))
def built(request, build_model, load_config):
    cfg = load_config(NAMES[request.param])
    model = build_model(cfg).train()
    norms = {name: module for name, module in model.named_modules() if isinstance(module, tuple(KINDS))}
    return Built(cfg, model, norms, EXPECTED[request.param])


def part_of(name, expected):
    (part,) = [part for part in expected.norms if name.startswith(f"{part}.")]
    return part


def is_frozen(name, built):
    """Whether the expectation has the parameter frozen."""
    norm = name.rpartition(".")[0]
    star = norm in built.norms and built.expected.norms[part_of(norm, built.expected)][1] == BN_STAR
    return star or name.startswith(built.expected.frozen or "-")


def test_no_config_is_left_out():
    assert set(NAMES) == set(EXPECTED)


def test_norms(built):
    """Each part has its number of norms, each is of the kind and the groups expected, and no other part has one."""
    found = dict.fromkeys(built.expected.norms, 0)
    for name, norm in built.norms.items():
        part = part_of(name, built.expected)
        found[part] += 1
        spec = built.expected.norms[part][1]
        kind = "FusedGN" if spec.endswith("g") else spec.removesuffix("*").removesuffix(" eval")
        assert next(k for cls, k in KINDS.items() if isinstance(norm, cls)) == kind, name
        if spec.endswith("cpg"):
            assert norm.num_channels == norm.num_groups * int(spec.removesuffix("cpg")), name
        elif spec.endswith("g"):
            assert norm.num_groups == int(spec.removesuffix("g")), name
        else:
            learns_statistics = spec in ("BN", "SyncBN") and not is_frozen(f"{name}.weight", built)
            assert norm.training == learns_statistics, name
    assert found == {part: count for part, (count, _) in built.expected.norms.items()}


def test_frozen_and_trained(built):
    parameters = built.model.named_parameters()
    wrong = [name for name, p in parameters if p.requires_grad == is_frozen(name, built)]
    assert not wrong


def test_decayed(built):
    built.cfg.optim_wrapper.pop("_scope_", None)
    groups = build_optim_wrapper(built.model, built.cfg.optim_wrapper).param_groups
    decays = {id(p): group["weight_decay"] > 0 for group in groups for p in group["params"]}
    wrong = []
    for name, parameter in built.model.named_parameters():
        module, _, kind = name.rpartition(".")
        wanted = built.expected.norms_decay if module in built.norms else built.expected.biases_decay or kind != "bias"
        if parameter.requires_grad and decays[id(parameter)] != (wanted and built.expected.decays):
            wrong.append(name)
    assert not wrong


def test_forward_and_backward(built, step):
    model = built.model
    means = {name: m.running_mean.clone() for name, m in model.named_modules() if hasattr(m, "running_mean")}
    loss, log = step(model, built.cfg.default_scope)
    assert torch.isfinite(loss)
    assert LOSSES[built.cfg.default_scope] <= {key.split(".")[-1] for key in log}
    for name, parameter in model.named_parameters():
        if is_frozen(name, built):
            assert parameter.grad is None, f"{name} is frozen and got a gradient"
        else:
            assert parameter.grad is not None, f"{name} trains and got no gradient"
            assert torch.isfinite(parameter.grad).all(), name
    for name, mean in means.items():
        norm = model.get_submodule(name)
        assert torch.equal(norm.running_mean, mean) != norm.training, name
