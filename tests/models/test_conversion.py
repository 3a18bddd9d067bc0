import copy
import pickle
from functools import partial

import pytest

# Before mmdet, which needs the ops that mmgn provides.
import mmgn  # noqa: F401

pytest.importorskip("mmdet")
import torch
import torchvision
from mmcv.cnn import ConvModule
from mmdet.models.backbones import ResNet, SwinTransformer
from mmdet.models.dense_heads.atss_vlfusion_head import Conv3x3Norm, DyConv
from mmdet.models.roi_heads.mask_heads import GridHead
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope, init_default_scope
from torch import nn
from torch.nn import functional as F
from torchvision.ops import FrozenBatchNorm2d

from mmgn import FusedGN, fuse_gn
from mmgn.engine.config import find_config
from mmgn.layers.group_norm import nearest_groups
from mmgn.models.conversion import convert_norm
from mmgn.models.norms import is_batch_norm, norm_layers

DIGITS = "digits/mask-rcnn_r18-mini_fpn_fusedgn-all_digits.py"
TINY = dict(depth=50, base_channels=16, num_stages=2, strides=(1, 2), dilations=(1, 1), out_indices=(0, 1))
SWIN = dict(embed_dims=24, depths=(1, 1), num_heads=(1, 2), strides=(4, 2), out_indices=(0, 1))


def torchvision_model(name):
    return getattr(torchvision.models, name)(num_classes=5)


def timm_model(name, **kwargs):
    return pytest.importorskip("timm").create_model(name, num_classes=5, **kwargs)


def openmmlab_model(package, cfg):
    pytest.importorskip(f"{package}.models")
    with DefaultScope.overwrite_default_scope(package):
        return MODELS.build(cfg)


class Dilated(nn.Module):
    """mmseg's ResNet and its PSPHead."""

    def __init__(self):
        super().__init__()
        norm = dict(type="SyncBN", requires_grad=True)
        self.backbone = openmmlab_model("mmseg", dict(type="ResNetV1c", norm_cfg=norm, contract_dilation=True, **TINY))
        head = dict(type="PSPHead", in_channels=128, in_index=1, channels=32, num_classes=5, pool_scales=(1, 2, 3, 6))
        self.head = openmmlab_model("mmseg", dict(head, norm_cfg=norm, dropout_ratio=0))

    def forward(self, x):
        return self.head(self.backbone(x))


# Name: (model, the kinds of its norms before, of which left).
MODELS_OF = {
    "torchvision resnet18": (lambda: torchvision_model("resnet18"), {"BN"}, set()),
    # Depthwise convolutions, and channels that 32 does not divide.
    "torchvision mobilenet_v3": (lambda: torchvision_model("mobilenet_v3_small"), {"BN"}, set()),
    "torchvision detection": (
        lambda: torchvision.models.detection.backbone_utils.resnet_fpn_backbone(backbone_name="resnet18", weights=None),
        {"FrozenBN"},
        set(),
    ),
    "mmdet resnet": (lambda: ResNet(norm_cfg=dict(type="BN", requires_grad=False), **TINY), {"BN"}, set()),
    "mmdet swin": (lambda: SwinTransformer(**SWIN), {"LN"}, {"LN"}),
    # Beside the plain ones, with SiLU or Hardswish inside the norm.
    "timm efficientnet": (lambda: timm_model("efficientnet_b0"), {"BN"}, set()),
    "timm mobilenetv3": (lambda: timm_model("mobilenetv3_small_050"), {"BN"}, set()),
    "timm resnet": (lambda: timm_model("resnet18"), {"BN"}, set()),
    "timm resnet_gn": (lambda: timm_model("resnet18", norm_layer="groupnorm"), {"GN"}, set()),
    "mmpretrain mobilenet_v3": (lambda: openmmlab_model("mmpretrain", dict(type="MobileNetV3")), {"BN"}, set()),
    "mmseg pspnet": (Dilated, {"SyncBN"}, set()),
}


def randomised(model):
    """Give norms weights that tell, in double: what the depth makes of a rounding would hide an error in float32."""
    torch.manual_seed(0)
    for norm in norm_layers(model):
        for value, mean in ((norm.module.weight, 1.0), (norm.module.bias, 0.0)):
            nn.init.normal_(value, mean, 0.2)
    # Stochastic depth and dropout are not what is compared.
    for module in model.modules():
        if isinstance(module, nn.Dropout) or "drop_prob" in vars(module):
            module.p = module.drop_prob = 0.0
        if type(module).__name__ == "StochasticDepth":
            module.p = 0.0
    # mmdet's train() returns nothing.
    model.double().train()
    return model


def by_definition(model):
    """Return a copy whose batch norms compute group norm instead, and then what they hold."""

    def group_norm(x, m, groups):
        y = F.group_norm(x, groups, m.weight, m.bias, m.eps)
        return m.act(y) if hasattr(m, "act") else y

    model = copy.deepcopy(model)
    for norm in norm_layers(model):
        if is_batch_norm(norm.module):
            groups = nearest_groups(norm.num_channels, 32)
            norm.module.forward = partial(group_norm, m=norm.module, groups=groups)
    return model


def outputs(model, x):
    outs = model(x)
    outs = list(outs.values()) if isinstance(outs, dict) else outs
    return list(outs) if isinstance(outs, (tuple, list)) else [outs]


def outcome(model, x):
    """Return the outputs, and the gradients of the input and of every parameter for a random dy."""
    x = x.clone().requires_grad_()
    outs = outputs(model, x)
    torch.manual_seed(1)
    torch.autograd.backward(outs, [torch.randn_like(out) for out in outs])
    return outs, x.grad, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(
    ("name", "to"), [*((name, "FusedGN") for name in MODELS_OF), ("mmdet resnet", "GN"), ("timm mobilenetv3", "GN")]
)
def test_computes_group_norm_with_the_same_weights(name, to):
    build, kinds, left = MODELS_OF[name]
    model = randomised(build())
    assert {norm.kind for norm in norm_layers(model)} == kinds
    reference = by_definition(model)
    stays = {key for key in model.state_dict() if "running_" not in key and "num_batches" not in key}
    report = convert_norm(model, to)
    assert {norm.kind for norm in report.left} == left
    assert {norm.kind for norm in norm_layers(model)} == {to if kind not in left else kind for kind in kinds}
    assert set(model.state_dict()) == stays

    x = torch.randn(2, 3, 64, 64).double()
    outs, dx, grads = outcome(model, x)
    want_outs, want_dx, want_grads = outcome(reference, x)
    torch.testing.assert_close((outs, dx), (want_outs, want_dx))
    # A frozen batch norm has none.
    torch.testing.assert_close({key: grads[key] for key in want_grads}, want_grads)
    fused = fuse_gn(model)
    assert to == "GN" or len(fused.sites) == len(report.converted)
    torch.testing.assert_close(outputs(model, x), outs)


def small_detector():
    """mmdet's Mask R-CNN of ResNet-18 with BN everywhere, all parts small."""
    init_default_scope("mmdet")
    cfg = Config.fromfile(find_config(DIGITS)).model
    for part in (cfg.backbone, cfg.neck, cfg.roi_head.bbox_head, cfg.roi_head.mask_head):
        part.norm_cfg = dict(type="BN")
    cfg.backbone.frozen_stages = 1
    return MODELS.build(cfg)


def test_a_detector_trains():
    from mmdet.testing import demo_mm_inputs

    model = small_detector()
    assert convert_norm(model).converted
    fuse_gn(model)
    assert not any(is_batch_norm(m) for m in model.modules())
    model.train()
    inputs = demo_mm_inputs(2, [(3, 64, 64)] * 2, num_items=[2, 3], num_classes=10, with_mask=True, use_box_type=True)
    loss, _ = model.parse_losses(model(**model.data_preprocessor(inputs, True), mode="loss"))
    loss.backward()
    without = {name for name, p in model.named_parameters() if p.grad is None}
    # The stem and the first stage are frozen, nothing else.
    assert {name.split(".")[1] for name in without} == {"conv1", "bn1", "layer1"}
    assert not any(p.requires_grad for name, p in model.named_parameters() if name in without)


def test_hard_coded_group_norms():
    grid = GridHead(grid_points=9, num_convs=1, roi_feat_size=6, in_channels=4, point_feat_channels=8)
    assert {norm.kind for norm in norm_layers(grid)} == {"GN"}
    grid = randomised(grid)
    x = torch.randn(2, 4, 6, 6).double()
    want = outcome(copy.deepcopy(grid), x)
    report = convert_norm(grid, num_groups=16)
    # Their groups are theirs, whatever was asked for.
    assert {norm.name: norm.num_groups for norm in report.converted} == {
        norm.name: norm.num_groups for norm in norm_layers(grid)
    }
    assert grid.norm1.num_groups == 9
    assert {norm.kind for norm in norm_layers(grid)} == {"FusedGN"}
    torch.testing.assert_close(outcome(grid, x), want)

    block = DyConv(partial(Conv3x3Norm, norm_type=["gn", 16]), 32, 32)
    assert [norm.num_groups for norm in convert_norm(block).converted] == [16, 16, 16]
    y = block(dict(visual=[torch.randn(1, 32, 8, 8), torch.randn(1, 32, 4, 4)], lang=None))["visual"]
    assert [each.shape[-1] for each in y] == [8, 4]


def block(norm, channels=32):
    return nn.Sequential(nn.Conv2d(3, channels, 3), norm, nn.ReLU())


def test_keeps_the_parameters_and_all_else_of_a_norm():
    model = block(nn.BatchNorm2d(32, eps=1e-3, dtype=torch.bfloat16))
    weight, bias = model[1].weight, model[1].bias
    model[1].eval()
    convert_norm(model)
    assert type(model[1]) is FusedGN
    # An optimizer that holds them goes on.
    assert model[1].weight is weight
    assert model[1].bias is bias
    assert (model[1].eps, model[1].num_groups, model[1].training) == (1e-3, 32, False)

    model = block(nn.BatchNorm2d(32, affine=False, device="meta"))
    convert_norm(model, "GN")
    assert (model[1].weight, model[1].bias, model[1].affine) == (None, None, False)
    model = block(FrozenBatchNorm2d(32).to("meta"))
    convert_norm(model)
    assert model[1].weight.is_meta
    assert list(model[1].state_dict()) == ["weight", "bias"]


def test_takes_batches_without_a_map():
    model = nn.Sequential(nn.Linear(3, 64), nn.BatchNorm1d(64))
    convert_norm(model)
    x = torch.randn(5, 3)
    torch.testing.assert_close(model(x), F.group_norm(model[0](x), 32))


def test_a_norm_in_two_places_stays_one():
    norm = nn.BatchNorm2d(8)
    model = nn.ModuleDict({"a": block(norm, 8), "b": block(norm, 8)})
    report = convert_norm(model, where="b")
    assert [conversion.name for conversion in report.norms] == ["a.1"]
    assert model["a"][1] is model["b"][1]
    assert type(model["a"][1]) is FusedGN


def test_references_from_outside_the_tree_keep_the_old_norm():
    model = block(nn.BatchNorm2d(32))
    old = model[1]
    model.listed, model.__dict__["hidden"] = [old], old
    convert_norm(model)
    assert type(model[1]) is FusedGN
    assert model.listed[0] is model.hidden is old


def test_frozen_batch_norms_train_where_their_surroundings_do():
    # BN*, and the stem and the first of two stages frozen.
    model = ResNet(norm_cfg=dict(type="BN", requires_grad=False), frozen_stages=1, **TINY)
    convert_norm(model)
    trains = {name: p.requires_grad for name, p in model.named_parameters()}
    assert all(trains[name] == name.startswith("layer2") for name in trains)

    heads = nn.ModuleDict({"convs": block(nn.Identity()), "norms": nn.ModuleList([FrozenBatchNorm2d(32)])})
    convert_norm(heads)
    assert heads["norms"][0].weight.requires_grad
    # Nothing around it.
    alone = nn.Sequential(FrozenBatchNorm2d(32))
    convert_norm(alone)
    assert not alone[0].weight.requires_grad


def test_other_norms_train_as_they_did():
    model = nn.Sequential(*block(nn.GroupNorm(4, 32)), *block(nn.BatchNorm2d(32)).requires_grad_(False))
    model[1].requires_grad_(False)
    # Norms alone are tuned.
    model[4].requires_grad_(True)
    convert_norm(model)
    assert [model[1].weight.requires_grad, model[4].weight.requires_grad] == [False, True]


def test_hooks_go_over_and_come_off():
    model = block(nn.BatchNorm2d(32))
    calls = []
    handles = [
        model[1].register_forward_hook(lambda *_: calls.append("forward")),
        model[1].register_forward_pre_hook(lambda *_, **__: calls.append("pre"), with_kwargs=True),
        model[1].register_full_backward_hook(lambda *_: calls.append("backward")),
    ]
    convert_norm(model)
    x = torch.randn(2, 3, 5, 5)
    model[:2](x).sum().backward()
    assert calls == ["pre", "forward", "backward"]
    for handle in handles:
        handle.remove()
    model[:2](x).sum().backward()
    assert len(calls) == 3


def test_conv_modules_forget_the_batch_norm():
    model = nn.Sequential(ConvModule(3, 32, 3, norm_cfg=dict(type="BN"), efficient_conv_bn_eval=True)).eval()
    assert model[0].efficient_conv_bn_eval_forward is not None
    convert_norm(model)
    x = torch.randn(2, 3, 5, 5)
    torch.testing.assert_close(model(x), F.group_norm(model[0].conv(x), 32).relu())


def test_activations_inside_a_norm():
    layers = pytest.importorskip("timm.layers")
    x = torch.randn(2, 32, 5, 5)
    for act, own in ((nn.ReLU, "relu"), (nn.SiLU, "silu"), (nn.Identity, "none")):
        model = nn.Sequential(layers.BatchNormAct2d(32, act_layer=act))
        convert_norm(model)
        assert type(model[0]) is FusedGN
        assert model[0].activation == own
        torch.testing.assert_close(model(x), act()(F.group_norm(x, 32)))
    frozen = layers.norm_act.freeze_batch_norm_2d(nn.Sequential(layers.BatchNormAct2d(32, act_layer=nn.PReLU)))
    keys = [key for key in frozen.state_dict() if "running" not in key]
    convert_norm(frozen)
    assert sorted(frozen.state_dict()) == sorted(keys)
    for twin in (frozen, copy.deepcopy(frozen), pickle.loads(pickle.dumps(frozen))):
        torch.testing.assert_close(twin(x), F.prelu(F.group_norm(x, 32), frozen[0].act.weight))
    # There and back again.
    model = nn.Sequential(FusedGN(32, activation="silu"))
    convert_norm(model, "GN")
    torch.testing.assert_close(model(x), F.silu(F.group_norm(x, 32)))
    assert convert_norm(model, "GN").left[0].left_because == "GN already"
    convert_norm(model)
    assert type(model[0]) is FusedGN
    torch.testing.assert_close(model(x), F.silu(F.group_norm(x, 32)))


def test_what_is_left_and_why():
    class Odd(nn.BatchNorm2d):
        def forward(self, input):
            return super().forward(input).abs()

    replaced = nn.BatchNorm2d(8)
    replaced.forward = lambda x: x
    computed = nn.utils.parametrize.register_parametrization(nn.BatchNorm2d(8), "weight", nn.Softplus())
    model = nn.Sequential(Odd(8), replaced, computed, nn.LayerNorm(8), nn.InstanceNorm2d(8), FusedGN(8, 2))
    before = list(model)
    report = convert_norm(model)
    assert list(model) == before
    assert [norm.left_because for norm in report.norms] == [
        "what Odd computes is not known",
        "what BatchNorm2d computes is not known",
        "its weight or bias is computed from others",
        "not a batch norm",
        "not a batch norm",
        "FusedGN already",
    ]
    assert str(report).splitlines()[0] == "0 of 6 norms converted to FusedGN"
    assert str(convert_norm(nn.Sequential(nn.ReLU()))) == "no norm in the model, nothing to convert"


def test_the_report_says_what_was_rounded():
    model = nn.Sequential(*block(nn.BatchNorm2d(48), 48), nn.BatchNorm2d(48), nn.BatchNorm2d(64), nn.GroupNorm(3, 48))
    report = convert_norm(model)
    assert [norm.name for norm in report.rounded] == ["1", "3"]
    assert str(report) == (
        "4 of 4 norms converted to FusedGN\n"
        "  3  BN  -> FusedGN  1 and 2 more\n"
        "  1  GN  -> FusedGN  5\n"
        "groups rounded to the nearest valid choice:\n"
        "  2  48 channels: 24 groups, since 32 does not divide 48  1 and 1 more"
    )
    assert convert_norm(model).converted == ()


@pytest.mark.parametrize(("asked", "groups"), [(dict(num_groups=8), [8, 8]), (dict(channels_per_group=16), [3, 4])])
def test_groups_asked_for(asked, groups):
    model = nn.Sequential(nn.BatchNorm2d(48), nn.BatchNorm2d(64))
    assert [norm.num_groups for norm in convert_norm(model, **asked).norms] == groups


def test_where():
    model = nn.ModuleDict({"backbone": block(nn.BatchNorm2d(8), 8), "backbone2": block(nn.BatchNorm2d(8), 8)})
    convert_norm(model, where=["backbone"])
    assert [norm.kind for norm in norm_layers(model)] == ["FusedGN", "BN"]


@pytest.mark.parametrize(
    ("error", "match", "kwargs"),
    [
        (ValueError, r"to must be one of \('FusedGN', 'GN'\), got 'GroupNorm'", dict(to="GroupNorm")),
        (ValueError, "num_groups must be a positive integer, got 0", dict(num_groups=0)),
        (ValueError, "exclude each other", dict(num_groups=8, channels_per_group=4)),
        (ValueError, "has no module 'neck'; it holds a, b, c", dict(where="neck")),
        (
            ValueError,
            r"num_groups=32 does not .* a.1, b.1: 48 channels, num_groups in \(1, 2, 3, 4, 6, 8, 12, 16, 24, 48\)",
            dict(num_groups=32),
        ),
        (ValueError, r"c.1: 64 channels, channels_per_group in \(1, 2, 4,", dict(channels_per_group=24)),
    ],
)
def test_errors_change_nothing(error, match, kwargs):
    # The one that divides comes first.
    model = nn.ModuleDict({name: block(nn.BatchNorm2d(c), c) for name, c in (("a", 48), ("b", 48), ("c", 64))})
    model["c"][1].requires_grad_(False)
    with pytest.raises(error, match=match):
        convert_norm(model, **kwargs)
    assert [norm.kind for norm in norm_layers(model)] == ["BN"] * 3
    assert not model["c"][1].weight.requires_grad


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_models_that_cannot_be_converted():
    with pytest.raises(TypeError, match="itself a norm, BatchNorm2d"):
        convert_norm(nn.BatchNorm2d(8))
    with pytest.raises(TypeError, match="got dict"):
        convert_norm(dict(type="ResNet"))
    scripted = torch.jit.script(block(nn.BatchNorm2d(32)))
    with pytest.raises(TypeError, match=r"model is TorchScript \(Sequential\), .* convert them before scripting"):
        convert_norm(scripted)
    part = nn.Sequential(nn.BatchNorm2d(32), nn.Sequential(nn.ReLU(), scripted))
    with pytest.raises(TypeError, match=r"1\.1 is TorchScript"):
        convert_norm(part)
    assert type(part[0]) is nn.BatchNorm2d
    lazy = nn.Sequential(nn.BatchNorm2d(32), nn.LazyBatchNorm2d())
    with pytest.raises(ValueError, match="1: lazy norms that know no channels yet; run the model once"):
        convert_norm(lazy)
    hooked = nn.Sequential(nn.BatchNorm2d(32))
    hooked[0].register_state_dict_post_hook(lambda *_: None)
    with pytest.raises(ValueError, match="0: hooks on how the norm is saved"):
        convert_norm(hooked)
    assert type(lazy[0]) is type(hooked[0]) is nn.BatchNorm2d
