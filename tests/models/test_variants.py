"""Each part with GN by default against its parent with torch's GN: same keys, same bits."""

import copy
import pickle
import subprocess
import sys

import pytest

# Before mmdet, which needs the ops that mmgn provides.

pytest.importorskip("mmdet")
import torch
from mmdet.registry import MODELS
from mmengine.registry import init_default_scope
from torch import nn

from mmgn import FusedGN, fuse_gn
from mmgn.models import detection
from mmgn.models.detection import GNFPN, GNFCNMaskHead, GNResNet, GNResNeXt

GN = dict(type="GN", num_groups=32)
BACKBONE = dict(num_stages=2, strides=(1, 2), dilations=(1, 1), out_indices=(0, 1))
PYRAMID = [(2, 64, 16, 16), (2, 64, 8, 8)]
RPN = dict(
    in_channels=64,
    feat_channels=64,
    anchor_generator=dict(type="AnchorGenerator", scales=[8], ratios=[0.5, 1.0], strides=[4, 8]),
)
BOX = dict(in_channels=64, conv_out_channels=64, fc_out_channels=32, roi_feat_size=7, num_classes=3)
SEGMENTATION = dict(in_channels=64, inner_channels=32, num_things_classes=3, num_stuff_classes=2, end_level=2)
MASK = dict(in_channels=64, conv_out_channels=64, num_convs=2, num_classes=3)

# Name: (variant, its parent, arguments, shapes of the input, norms, those with an activation after them).
PARTS = {
    "resnet-18": ("GNResNet", "ResNet", dict(depth=18, **BACKBONE), (2, 3, 32, 32), 10, 9),
    "resnet-50": ("GNResNet", "ResNet", dict(depth=50, frozen_stages=1, **BACKBONE), (2, 3, 32, 32), 24, 22),
    "deep stem": ("GNResNet", "ResNet", dict(depth=18, deep_stem=True, **BACKBONE), (2, 3, 32, 32), 12, 11),
    "resnext": ("GNResNeXt", "ResNeXt", dict(depth=50, groups=32, base_width=4, **BACKBONE), (2, 3, 32, 32), 24, 22),
    "fpn": ("GNFPN", "FPN", dict(in_channels=[64, 64], out_channels=32, num_outs=3), PYRAMID, 4, 0),
    "fpn, act_cfg": (
        "GNFPN",
        "FPN",
        dict(in_channels=[64, 64], out_channels=32, num_outs=3, act_cfg=dict(type="ReLU"), add_extra_convs=True),
        PYRAMID,
        5,
        5,
    ),
    "box head": ("GNShared4Conv1FCBBoxHead", "Shared4Conv1FCBBoxHead", BOX, (3, 64, 7, 7), 4, 4),
    "mask head": ("GNFCNMaskHead", "FCNMaskHead", MASK, (3, 64, 14, 14), 2, 2),
    "segmentation": ("GNPanopticFPNHead", "PanopticFPNHead", SEGMENTATION, PYRAMID, 2, 2),
}


@pytest.fixture(autouse=True)
def scope():
    init_default_scope("mmdet")


def build(kind, **cfg):
    torch.manual_seed(0)
    model = MODELS.build(dict(type=kind, **cfg))
    for module in model.modules():
        if isinstance(module, nn.GroupNorm):
            # Gamma of 1 and beta of 0 would hide an exchange of norms.
            with torch.no_grad():
                module.weight.copy_(torch.randn_like(module.weight) * 0.2 + 1)
                module.bias.copy_(torch.randn_like(module.bias) * 0.2)
    # mmdet's ResNet.train returns nothing.
    model.train()
    return model


def tensors(outs):
    if isinstance(outs, torch.Tensor):
        return [outs]
    return [t for out in (outs.values() if isinstance(outs, dict) else outs) for t in tensors(out)]


def outcome(model, shapes):
    """Return the outputs, and the gradients of the inputs and of every parameter for a random dy, by name."""
    torch.manual_seed(1)
    inputs = [torch.randn(shape, requires_grad=True) for shape in (shapes if isinstance(shapes, list) else [shapes])]
    outs = tensors(model(inputs if isinstance(shapes, list) else inputs[0]))
    torch.autograd.backward(outs, [torch.randn_like(out) for out in outs])
    found = {f"out{i}": out for i, out in enumerate(outs)} | {f"in{i}": x.grad for i, x in enumerate(inputs)}
    return found | {name: p.grad for name, p in model.named_parameters()}


def assert_identical(got, want):
    assert list(got) == list(want)
    for name, value in want.items():
        assert (got[name] is None) == (value is None), name
        assert value is None or torch.equal(got[name], value), name


@pytest.mark.parametrize("name", PARTS)
def test_computes_what_its_parent_computes_with_torchs_gn(name):
    variant, parent, cfg, shapes, norms, activated = PARTS[name]
    ours, theirs = build(variant, **cfg), build(parent, norm_cfg=GN, **cfg)
    assert isinstance(ours, type(theirs))
    assert {type(m) for m in ours.modules() if isinstance(m, nn.GroupNorm)} == {FusedGN}
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert [p.requires_grad for p in ours.parameters()] == [p.requires_grad for p in theirs.parameters()]
    assert_identical(outcome(ours, shapes), outcome(theirs, shapes))
    # Already on the fused path: another pass changes no class.
    classes = [type(m) for m in ours.modules()]
    report = fuse_gn(ours)
    assert [type(m) for m in ours.modules()] == classes
    assert (len(report.sites), len(report.fused)) == (norms, activated)
    assert {site.left_because for site in report.left} <= {"no activation follows"}
    assert any(type(m).__name__.startswith("Fused") and type(m) is not FusedGN for m in ours.modules()) == bool(
        activated
    )


def test_checkpointing_changes_nothing():
    # mmdet's own kind adds the gradients in another order.
    ours = build("GNResNet", depth=50, with_cp=True, **BACKBONE)
    theirs = build("ResNet", depth=50, norm_cfg=GN, **BACKBONE)
    assert_identical(outcome(ours, (2, 3, 32, 32)), outcome(theirs, (2, 3, 32, 32)))


@pytest.mark.parametrize("num_convs", [1, 2])
def test_rpn_head_normalises_its_convolutions(num_convs):
    ours, theirs = build("GNRPNHead", num_convs=num_convs, **RPN), build("RPNHead", num_convs=num_convs, **RPN)
    expected = {
        1: ["rpn_conv.conv.weight", "rpn_conv.gn.weight", "rpn_conv.gn.bias"],
        2: [f"rpn_conv.{i}.{key}" for i in range(2) for key in ("conv.weight", "gn.weight", "gn.bias")],
    }[num_convs]
    heads = ["rpn_cls.weight", "rpn_cls.bias", "rpn_reg.weight", "rpn_reg.bias"]
    assert list(ours.state_dict()) == expected + heads
    assert [site.applies for site in fuse_gn(ours).sites] == ["relu"] * num_convs
    # mmdet's head with the convolutions exchanged by hand, in torch's own modules.
    theirs.load_state_dict({k: v for k, v in ours.state_dict().items() if "rpn_conv" not in k}, strict=False)
    convs = []
    for module in ours.rpn_conv if num_convs > 1 else [ours.rpn_conv]:
        gn = nn.GroupNorm(32, 64)
        gn.load_state_dict(module.gn.state_dict())
        convs += [copy.deepcopy(module.conv), gn, nn.ReLU()]
    theirs.rpn_conv = nn.Sequential(*convs)
    got, want = outcome(ours, PYRAMID), outcome(theirs, PYRAMID)
    assert_identical(dict(enumerate(got.values())), dict(enumerate(want.values())))


def test_rpn_head_without_a_norm_is_mmdets():
    ours, theirs = build("GNRPNHead", norm_cfg=None, **RPN), build("RPNHead", **RPN)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert_identical(outcome(ours, PYRAMID), outcome(theirs, PYRAMID))


def test_rpn_head_obeys_its_init_cfg():
    head = MODELS.build(dict(type="GNRPNHead", **RPN))
    head.init_weights()
    # RPNHead's N(0, 0.01), not the Kaiming of ConvModule, whose deviation would be 0.06.
    assert head.rpn_conv.conv.weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert head.rpn_conv.gn.weight.eq(1).all()


def test_zero_init_residual_reaches_the_last_norm_of_a_block():
    for depth, last in ((18, "gn2"), (50, "gn3")):
        model = GNResNet(depth, **BACKBONE)
        model.init_weights()
        block = model.layer1[0]
        assert not getattr(block, last).weight.any()
        assert block.gn1.weight.eq(1).all()
        assert model.gn1.weight.eq(1).all()


def test_norm_cfg_is_taken_as_it_stands():
    cfg = dict(depth=18, **BACKBONE)
    ours = build("GNResNet", norm_cfg=dict(type="BN"), **cfg)
    assert_identical(outcome(ours, (2, 3, 32, 32)), outcome(build("ResNet", **cfg), (2, 3, 32, 32)))
    assert type(ours) is GNResNet
    plain = build("GNFPN", in_channels=[64, 64], out_channels=32, num_outs=2, norm_cfg=None)
    assert not any(isinstance(m, nn.GroupNorm) for m in plain.modules())
    frozen = GNResNet(norm_cfg=dict(type="FusedGN", num_groups=16, requires_grad=False), **cfg)
    norms = [m for m in frozen.modules() if isinstance(m, FusedGN)]
    assert {(m.num_groups, m.weight.requires_grad) for m in norms} == {(16, False)}


def test_arguments_are_the_parents_by_position_too():
    norm = dict(type="FusedGN", num_groups=8)
    mask_head = GNFCNMaskHead(1, 14, 64, 3, 32, 3, False, dict(type="deconv", scale_factor=2), None, norm)
    fpn = GNFPN([64], 32, 1, 0, -1, False, False, False, None, norm)
    assert mask_head.convs[0].gn.num_groups == fpn.fpn_convs[0].gn.num_groups == 8
    assert GNResNeXt(32, 4, depth=50, **BACKBONE).layer1[0].conv2.groups == 32
    assert GNResNet(18, 4, **BACKBONE).conv1.in_channels == 4


def test_the_default_is_each_instances_own():
    first = GNFCNMaskHead(**MASK)
    first.norm_cfg["num_groups"] = 1
    assert GNFCNMaskHead(**MASK).norm_cfg == dict(type="FusedGN", num_groups=32)


def test_channels_that_32_does_not_divide_are_told_with_the_way_out():
    with pytest.raises(
        ValueError, match=r"divisible by num_groups, got 48 and 32; use num_groups in \(1, 2, 3, .*48\)"
    ):
        MODELS.build(dict(type="GNFPN", in_channels=[64], out_channels=48, num_outs=1))


def test_copies_are_fused_and_their_own():
    model = build("GNResNet", depth=18, **BACKBONE)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    assert [type(m) for m in twin.modules()] == [type(m) for m in model.modules()]
    assert_identical(
        outcome(twin, (2, 3, 32, 32)), outcome(build("ResNet", depth=18, norm_cfg=GN, **BACKBONE), (2, 3, 32, 32))
    )


def test_pickles_load_here_and_in_another_process(tmp_path):
    shape = (2, 3, 32, 32)
    model = build("GNResNet", depth=18, **BACKBONE)
    assert_identical(outcome(pickle.loads(pickle.dumps(model)), shape), outcome(model, shape))
    x = torch.randn(shape)
    torch.save((model, x, model(x)), tmp_path / "model.pth")
    code = f"""
import sys, mmgn, torch
assert "mmdet.models" not in sys.modules
model, x, want = torch.load({str(tmp_path / "model.pth")!r}, weights_only=False)
torch.testing.assert_close(model(x), want)
assert type(model).__name__ == "FusedGNResNet"
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


class WithHalf(GNResNet):
    """What a user may write: arguments, modules and a forward of its own."""

    def __init__(self, *args, scale=0.5, **kwargs):
        super().__init__(*args, **kwargs)
        self.scale = nn.Parameter(torch.tensor(scale))

    def forward(self, x):
        return tuple(self.scale * out for out in super().forward(x))


def test_a_users_subclass():
    torch.manual_seed(0)
    model = WithHalf(18, **BACKBONE, scale=0.25)
    x = torch.randn(1, 3, 32, 32)
    plain = MODELS.build(dict(type="ResNet", depth=18, norm_cfg=GN, **BACKBONE))
    plain.load_state_dict(model.state_dict(), strict=False)
    assert all(torch.equal(got, 0.25 * want) for got, want in zip(model(x), plain(x), strict=True))
    # The stem's forward may be anybody's now; the blocks' is not.
    assert [site.name for site in fuse_gn(model).left if "not known" in site.left_because] == ["gn1"]
    assert isinstance(copy.deepcopy(model), WithHalf)


def test_all_are_registered_and_none_takes_a_name_of_mmdets():
    for name in detection.__all__:
        assert MODELS.get(name) is getattr(detection, name)
        if name.startswith("GN"):
            assert MODELS.get(name.removeprefix("GN")).__module__.startswith("mmdet.")
