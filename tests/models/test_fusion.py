import copy
import functools
import pickle
import subprocess
import sys
from collections import Counter

import pytest

# Before mmdet, which needs the ops that mmgn provides.
import mmgn

pytest.importorskip("mmdet")
import torch
from mmcv.cnn import ConvModule
from mmdet.models.backbones import HRNet, RegNet, Res2Net, ResNet, ResNetV1d, ResNeXt
from mmdet.models.backbones.resnet import BasicBlock
from mmengine.config import Config
from mmengine.model import ExponentialMovingAverage
from mmengine.registry import MODELS, init_default_scope
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

from mmgn import FusedGN, fuse_gn
from mmgn.engine.config import find_config
from mmgn.testing.calls import counted_calls

NORM = dict(type="FusedGN", num_groups=4)
DIGITS = "digits/mask-rcnn_r18-mini_fpn_fusedgn-all_digits.py"
FUSED_R50 = "mask_rcnn/mask-rcnn_r50_fpn_fusedgn-all_2x_coco.py"
# Two stages of a quarter of the channels have every kind of block.
TINY = dict(base_channels=16, num_stages=2, strides=(1, 2), dilations=(1, 1), out_indices=(0, 1), norm_cfg=NORM)


def context(*positions):
    cfg = dict(type="ContextBlock", ratio=1 / 4)
    return [dict(cfg=dict(cfg, postfix=p), position=f"after_{p}") for p in positions]


# Name: (backbone, its norms, fused ones, those of them with the residual, left to nn.ReLU).
BACKBONES = {
    "resnet-18": (lambda: ResNet(18, **TINY), 10, 9, 4, 0),
    "resnet-50": (lambda: ResNet(50, **TINY), 24, 22, 7, 0),
    "resnet-50-caffe": (lambda: ResNet(50, style="caffe", **TINY), 24, 22, 7, 0),
    "with_cp": (lambda: ResNet(50, with_cp=True, **TINY), 24, 22, 7, 0),
    "frozen_stages": (lambda: ResNet(18, frozen_stages=1, **TINY), 10, 9, 4, 0),
    "plugins before conv3": (lambda: ResNet(50, plugins=context("conv1", "conv2"), **TINY), 24, 22, 7, 0),
    "plugins after conv3": (lambda: ResNet(50, plugins=context("conv3"), **TINY), 24, 15, 0, 7),
    "resnet-v1d": (lambda: ResNetV1d(depth=50, **TINY), 26, 24, 7, 0),
    "resnext": (lambda: ResNeXt(groups=4, base_width=4, depth=50, **TINY), 24, 22, 7, 0),
    "res2net": (lambda: Res2Net(depth=50, scales=4, base_width=8, **TINY), 40, 38, 7, 0),
    # Its forward is its own, its blocks are ResNeXt's.
    "regnet": (
        lambda: RegNet(
            dict(w0=24, wa=16, wm=2.5, group_w=8, depth=3, bot_mul=1.0),
            strides=(2, 2),
            dilations=(1, 1),
            out_indices=(0, 1),
            norm_cfg=NORM,
        ),
        12,
        9,
        3,
        1,
    ),
}


def randomised(model):
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.GroupNorm):
            nn.init.normal_(module.weight, 1, 0.2)
            nn.init.normal_(module.bias, 0, 0.2)
    return model


def outcome(model, x):
    """Return the outputs, and the gradients of the input and of every parameter for a random dy."""
    model.zero_grad()
    x = x.clone().requires_grad_()
    outs = model(x)
    outs = outs if isinstance(outs, (tuple, list)) else (outs,)
    torch.manual_seed(1)
    torch.autograd.backward(outs, [torch.randn_like(out) for out in outs])
    return outs, x.grad, {name: p.grad for name, p in model.named_parameters()}


def check_same(model, x):
    """Fuse a copy of the model and compare; return the report and the copy."""
    fused = copy.deepcopy(model)
    report = fuse_gn(fused)
    torch.testing.assert_close(outcome(fused, x), outcome(model, x))
    return report, fused


# mmdet does not say which kind of checkpointing it wants.
@pytest.mark.filterwarnings("ignore:torch.utils.checkpoint")
@pytest.mark.parametrize("name", BACKBONES)
def test_backbones_compute_the_same(name):
    build, norms, fused, residuals, relus = BACKBONES[name]
    # float64: what the depth makes of a rounding would hide an error in float32.
    model = randomised(build()).double()
    model.train()
    x = torch.randn(2, 3, 32, 32).double()
    report, twin = check_same(model, x)
    assert (len(report.sites), len(report.fused)) == (norms, fused)
    assert sum(site.applies == "residual + relu" for site in report.fused) == residuals
    with counted_calls() as calls, torch.no_grad():
        twin(x)
    # ContextBlock has one ReLU of its own.
    own = sum(type(m).__name__ == "ContextBlock" for m in twin.modules())
    assert (calls[FusedGN], calls[nn.ReLU]) == (norms, relus + own)
    twin.train()
    assert [m.training for m in twin.modules()] == [m.training for m in model.modules()]


def test_mask_rcnn_trains_the_same():
    init_default_scope("mmdet")
    from mmdet.testing import demo_mm_inputs

    cfg = Config.fromfile(find_config(DIGITS)).model
    model = randomised(MODELS.build(cfg)).train()
    twin = copy.deepcopy(model)
    report = fuse_gn(twin)
    assert {site.left_because for site in report.left} == {"no activation follows"}
    inputs = demo_mm_inputs(2, [(3, 64, 64)] * 2, num_items=[2, 3], num_classes=10, with_mask=True, use_box_type=True)
    results = []
    for each in (model, twin):
        # RoIs are sampled at random.
        torch.manual_seed(2)
        loss, log = each.parse_losses(each(**each.data_preprocessor(copy.deepcopy(inputs), True), mode="loss"))
        loss.backward()
        results.append((log, {n: p.grad for n, p in each.named_parameters()}))
    torch.testing.assert_close(*results)
    assert list(twin.state_dict()) == list(model.state_dict())


def test_all_of_r50_is_fused_where_an_activation_follows():
    init_default_scope("mmdet")
    cfg = Config.fromfile(find_config(FUSED_R50))
    with torch.device("meta"):
        model = MODELS.build(cfg.model)
    report = fuse_gn(model)
    parts = Counter((site.name.split(".")[0], site.caller, site.applies) for site in report.sites)
    assert parts == {
        ("backbone", "ResNet", "relu"): 1,
        ("backbone", "Bottleneck", "relu"): 32,
        ("backbone", "Bottleneck", "residual + relu"): 16,
        ("backbone", "Sequential", ""): 4,
        ("neck", "ConvModule", ""): 8,
        ("roi_head", "ConvModule", "relu"): 8,
    }
    assert str(report).splitlines()[:3] == [
        "57 of 69 FusedGN apply the activation that follows them",
        "  1   relu                         ResNet      backbone.gn1",
        "  32  relu                         Bottleneck  backbone.layer1.0.gn1 and 31 more",
    ]
    assert "left: no activation follows  ConvModule  neck.lateral_convs.0.gn and 7 more" in str(report)


def test_hrnet_is_fused_but_for_its_stem():
    def stage(modules, block, blocks, channels):
        return dict(
            num_modules=modules, num_branches=len(channels), block=block, num_blocks=blocks, num_channels=channels
        )

    extra = dict(
        stage1=stage(1, "BOTTLENECK", (1,), (8,)),
        stage2=stage(1, "BASIC", (1, 1), (8, 16)),
        stage3=stage(1, "BASIC", (1, 1, 1), (8, 16, 32)),
        stage4=stage(1, "BASIC", (1, 1, 1, 1), (8, 16, 32, 64)),
    )
    report, _ = check_same(randomised(HRNet(extra, norm_cfg=NORM)), torch.randn(1, 3, 64, 64))
    assert [site.name for site in report.left if "not known" in site.left_because] == ["gn1", "gn2"]
    assert {site.caller for site in report.fused} == {"Bottleneck", "BasicBlock", "Sequential"}


@pytest.mark.parametrize(
    ("act", "applies"),
    [("ReLU", "relu"), ("SiLU", "silu"), ("Swish", "silu"), ("GELU", ""), ("LeakyReLU", ""), ("ReLU6", "")],
)
def test_activations(act, applies):
    conv = randomised(ConvModule(3, 8, 3, norm_cfg=NORM, act_cfg=dict(type=act)))
    report, _ = check_same(conv, torch.randn(2, 3, 6, 6))
    (site,) = report.sites
    assert (site.name, site.applies) == ("gn", applies)
    assert applies or site.left_because == f"{act} follows, neither ReLU nor SiLU"


@pytest.mark.parametrize("extra", [dict(padding=1, padding_mode="reflect"), dict(with_spectral_norm=True)])
def test_conv_modules_extras(extra):
    conv = randomised(ConvModule(3, 8, 3, norm_cfg=NORM, **extra)).eval()
    report, _ = check_same(conv, torch.randn(2, 3, 6, 6))
    assert report.fused


def test_conv_module_still_obeys_activate_and_norm():
    conv = randomised(ConvModule(3, 8, 3, norm_cfg=NORM))
    twin = copy.deepcopy(conv)
    fuse_gn(twin)
    x = torch.randn(2, 3, 6, 6)
    for flags in (dict(activate=False), dict(norm=False), dict(activate=False, norm=False)):
        assert torch.equal(twin(x, **flags), conv(x, **flags))
    assert twin(x, activate=False).min() < 0
    twin.with_activation = False
    assert torch.equal(twin(x), conv(x, activate=False))


class OwnForward(ConvModule):
    def forward(self, x):
        return super().forward(x) + 1


class Decorated(ConvModule):
    @functools.wraps(ConvModule.forward)
    def forward(self, x):
        return super().forward(x) + 1


class OwnNorm(FusedGN):
    def forward(self, input):
        return super().forward(input) + 1


def patched():
    conv = ConvModule(3, 8, 3, norm_cfg=NORM)
    conv.forward = lambda x: ConvModule.forward(conv, x) + 1
    return conv


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (lambda: ConvModule(3, 8, 3, norm_cfg=NORM, act_cfg=None), "no activation follows"),
        (lambda: ConvModule(3, 8, 3, norm_cfg=NORM, order=("conv", "act", "norm")), "order is ('conv', 'act', 'norm')"),
        (lambda: ConvModule(8, 8, 3, norm_cfg=NORM, order=("norm", "act", "conv")), "order is ('norm', 'act', 'conv')"),
        (lambda: ConvModule(3, 8, 3, norm_cfg=dict(NORM, activation="silu")), "applies silu of its own"),
        (lambda: OwnForward(3, 8, 3, norm_cfg=NORM), "how OwnForward calls it is not known"),
        (lambda: Decorated(3, 8, 3, norm_cfg=NORM), "how Decorated calls it is not known"),
        (patched, "how ConvModule calls it is not known"),
        (lambda: nn.Sequential(nn.Conv2d(3, 8, 3), FusedGN(8, 4)), "no activation follows"),
        (
            lambda: nn.Sequential(FusedGN(8, 4), nn.Conv2d(8, 3, 3), nn.ReLU()),
            "Conv2d follows, neither ReLU nor SiLU",
        ),
        (lambda: nn.Sequential(OwnNorm(8, 4), nn.ReLU()), "the forward of norm or activation was replaced"),
        (lambda: nn.ModuleList([FusedGN(8, 4), nn.ReLU()]), "how ModuleList calls it is not known"),
    ],
)
def test_left_alone_and_told_why(build, reason):
    model = build()
    before = [type(m) for m in model.modules()]
    (site,) = fuse_gn(model).left
    assert site.left_because == reason
    assert [type(m) for m in model.modules()] == before


def test_a_model_without_fused_gn_is_untouched():
    model = nn.Sequential(
        ConvModule(3, 8, 3, norm_cfg=dict(type="BN")), ConvModule(8, 8, 3, norm_cfg=dict(type="GN", num_groups=4))
    )
    before = [type(m) for m in model.modules()]
    report = fuse_gn(model)
    assert [type(m) for m in model.modules()] == before
    assert report.sites == ()
    assert str(report) == "no FusedGN in the model, nothing to fuse"


def test_a_block_of_mixed_norms_fuses_what_it_can():
    model = BasicBlock(8, 8, norm_cfg=NORM)
    model.gn1 = nn.BatchNorm2d(8)
    report, _ = check_same(randomised(model), torch.randn(2, 8, 6, 6))
    assert [(site.name, site.applies) for site in report.sites] == [("gn2", "residual + relu")]


def test_a_subclass_that_inherits_forward_is_fused():
    class Block(BasicBlock):
        pass

    report, fused = check_same(randomised(Block(8, 8, norm_cfg=NORM)), torch.randn(2, 8, 6, 6))
    assert len(report.fused) == 2
    assert isinstance(fused, Block)


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("which", ["norm1", "relu"])
def test_hooks_see_what_they_saw(before, which):
    block = randomised(BasicBlock(8, 8, norm_cfg=NORM))
    # torch refuses to write over what a backward hook watches.
    block.relu.inplace = False
    twin = copy.deepcopy(block)
    seen = ([], [])

    def watch(model, to):
        getattr(model, which).register_forward_hook(lambda _, args, out: to.append(out.clone()))
        getattr(model, which).register_full_backward_hook(lambda _, dx, dy: to.extend(d.clone() for d in dy))

    watch(block, seen[0])
    if before:
        watch(twin, seen[1])
        assert any("hooks" in site.left_because for site in fuse_gn(twin).left)
    else:
        assert not fuse_gn(twin).left
        watch(twin, seen[1])
    x = torch.randn(2, 8, 6, 6)
    torch.testing.assert_close(outcome(twin, x), outcome(block, x))
    assert len(seen[0]) == (2 if which == "norm1" else 4)
    torch.testing.assert_close(seen[1], seen[0])


def test_global_hooks_see_what_they_saw():
    model = nn.Sequential(nn.Conv2d(3, 32, 3), FusedGN(32), nn.ReLU())
    fuse_gn(model)
    x, seen = torch.randn(2, 3, 8, 8), []
    handle = register_module_forward_hook(lambda module, _, out: seen.append((type(module), out.clone())))
    try:
        y = model(x)
    finally:
        handle.remove()
    kinds = [kind for kind, _ in seen]
    assert kinds[:3] == [nn.Conv2d, FusedGN, nn.ReLU]
    assert seen[1][1].min() < 0 <= seen[2][1].min()
    torch.testing.assert_close(model(x), y)


def test_hooks_that_leave_give_the_fusion_back():
    conv = ConvModule(3, 8, 3, norm_cfg=NORM)
    fuse_gn(conv)
    handle = conv.gn.register_forward_hook(lambda *_: None)
    x = torch.randn(1, 3, 6, 6)
    for relus in (1, 0):
        with counted_calls() as calls:
            conv(x)
        assert calls[nn.ReLU] == relus
        handle.remove()


def test_a_norm_with_two_callers_serves_each_as_before():
    norm = FusedGN(8, 4)
    model = nn.ModuleList([nn.Sequential(norm, nn.ReLU()), nn.Sequential(norm, nn.SiLU()), nn.Sequential(norm)])
    twin = copy.deepcopy(model)
    report = fuse_gn(twin)
    assert [(site.name, site.applies) for site in report.sites] == [("0.0", "relu"), ("1.0", "silu"), ("2.0", "")]
    x = torch.randn(2, 8, 5, 5)
    for fused, plain in zip([*twin, twin[0][0]], [*model, norm], strict=True):
        torch.testing.assert_close(outcome(fused, x), outcome(plain, x))


def test_one_activation_used_twice_in_a_sequential():
    relu = nn.ReLU()
    model = nn.Sequential(nn.Conv2d(3, 8, 3), FusedGN(8, 4), relu, nn.Conv2d(8, 8, 3), FusedGN(8, 4), relu)
    report, fused = check_same(randomised(model), torch.randn(2, 3, 8, 8))
    assert len(report.fused) == 2
    x = torch.randn(2, 3, 8, 8)
    # A slice is cut between norm and activation.
    assert torch.equal(fused[:2](x), model[:2](x))


def test_twice_is_once():
    model = randomised(ResNetV1d(depth=50, **TINY))
    keys, names = list(model.state_dict()), [n for n, _ in model.named_modules()]
    first = fuse_gn(model)
    classes = [type(m) for m in model.modules()]
    assert fuse_gn(model) == first
    assert [type(m) for m in model.modules()] == classes
    assert list(model.state_dict()) == keys
    assert [n for n, _ in model.named_modules()] == names
    assert isinstance(model.layer1[0], type(ResNetV1d(depth=50, **TINY).layer1[0]))


def test_initialisation_and_checkpoints_after_fusion():
    model = ResNet(50, **TINY)
    fuse_gn(model)
    model.init_weights()
    # zero_init_residual reaches norm3 by name.
    assert not model.layer1[0].norm3.weight.any()
    assert model.layer1[0].norm2.weight.eq(1).all()
    model.load_state_dict(randomised(ResNet(50, **TINY)).state_dict(), strict=True)


def test_copies_and_averages_are_fused_and_their_own():
    model = randomised(ResNet(18, **TINY))
    fuse_gn(model)
    x = torch.randn(1, 3, 32, 32)
    average = ExponentialMovingAverage(model, momentum=0.5)
    twin = copy.deepcopy(model)
    want = twin(x)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(1)
    torch.testing.assert_close(twin(x), want)
    average.update_parameters(model)
    for each in (twin, average.module):
        assert [type(m) for m in each.modules()] == [type(m) for m in model.modules()]
    assert not torch.allclose(model(x)[0], want[0])
    with counted_calls() as calls:
        average(x)
    assert calls[nn.ReLU] == 0


def test_pickles_load_in_another_process(tmp_path):
    model = randomised(nn.Sequential(ResNet(18, **TINY).layer2[0], ConvModule(32, 8, 3, norm_cfg=NORM)))
    fuse_gn(model)
    x = torch.randn(1, 16, 8, 8)
    assert torch.equal(pickle.loads(pickle.dumps(model))(x), model(x))
    torch.save((model, x, model(x)), tmp_path / "model.pth")
    code = f"""
import mmgn, torch
model, x, want = torch.load({str(tmp_path / "model.pth")!r}, weights_only=False)
torch.testing.assert_close(model(x), want)
names = [type(m).__name__ for m in model.children()]
assert names == ["FusedBasicBlock", "FusedConvModule"], names
before = [type(m) for m in model.modules()]
assert len(mmgn.fuse_gn(model).fused) == 3
assert [type(m) for m in model.modules()] == before
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_a_shortcut_of_another_dtype_under_autocast():
    block = randomised(BasicBlock(8, 8, norm_cfg=NORM))
    twin = copy.deepcopy(block)
    assert len(fuse_gn(twin).fused) == 2
    # The convolutions return bfloat16; the identity is float32.
    x = torch.randn(2, 8, 6, 6)
    with torch.autocast("cpu", torch.bfloat16):
        got, want = twin(x), block(x)
    assert got.dtype == want.dtype
    torch.testing.assert_close(got, want)


def test_with_cp_computes_again():
    block = randomised(BasicBlock(8, 8, norm_cfg=NORM, with_cp=True))
    fuse_gn(block)
    with counted_calls() as calls:
        y = block(torch.randn(2, 8, 6, 6, requires_grad=True))
        assert calls[nn.Conv2d] == 2
        y.sum().backward()
    assert calls[nn.Conv2d] == 4


def test_compiles_to_one_graph():
    model = randomised(nn.Sequential(ConvModule(3, 8, 3, norm_cfg=NORM), BasicBlock(8, 8, norm_cfg=NORM)))
    fuse_gn(model)
    x = torch.randn(2, 3, 8, 8)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(outcome(compiled, x)[:2], outcome(model, x)[:2])


def test_torch_alone_is_enough():
    code = """
import sys
for name in ("mmengine", "mmcv", "mmdet", "torchvision", "triton"):
    sys.modules[name] = None
import torch, mmgn
from torch import nn
model = nn.Sequential(nn.Conv2d(3, 32, 3), mmgn.FusedGN(32), nn.ReLU())
x = torch.randn(1, 3, 6, 6)
want = model(x)
assert len(mmgn.fuse_gn(model).fused) == 1
assert torch.equal(model(x), want)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_something_that_is_no_model_is_refused():
    with pytest.raises(TypeError, match=r"model must be a built torch\.nn\.Module, got dict"):
        mmgn.fuse_gn(dict(type="MaskRCNN"))
