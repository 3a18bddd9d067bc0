import copy
import statistics
import time
from fractions import Fraction

import pytest
import torch
from mmcv.cnn import ConvModule, build_norm_layer, get_model_complexity_info, is_norm
from mmengine.analysis import get_model_complexity_info as mmengine_complexity
from mmengine.model import constant_init, initialize
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS
from torch import nn

from mmgn import FusedGN
from mmgn.layers.group_norm import nearest_groups


def test_is_a_group_norm_with_the_same_checkpoint():
    theirs, ours = nn.GroupNorm(32, 64), FusedGN(64)
    nn.init.normal_(theirs.weight)
    nn.init.normal_(theirs.bias)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x = torch.randn(2, 64, 7, 7)
    assert isinstance(ours, nn.GroupNorm)
    assert FusedGN.__bases__ == (nn.GroupNorm,)
    assert torch.equal(ours(x), theirs(x))
    theirs.load_state_dict(ours.state_dict(), strict=True)


@pytest.mark.parametrize("scope", ["mmengine", "mmdet"])
def test_norm_cfg_stands_for_gn(scope):
    import mmdet.models  # noqa: F401
    from mmengine.registry import DefaultScope

    with DefaultScope.overwrite_default_scope(scope):
        ours_name, ours = build_norm_layer(dict(type="FusedGN"), 64, postfix=1)
        name, theirs = build_norm_layer(dict(type="GN", num_groups=32), 64, postfix=1)
    assert ours_name == name == "gn1"
    assert type(ours) is FusedGN
    assert (ours.num_groups, ours.num_channels, ours.eps) == (32, 64, theirs.eps)
    assert MODELS.get("GN") is nn.GroupNorm


def test_requires_grad_from_the_config():
    _, layer = build_norm_layer(dict(type="FusedGN", requires_grad=False), 64)
    assert not any(p.requires_grad for p in layer.parameters())


def test_in_a_conv_module_the_keys_are_gn():
    conv = ConvModule(3, 32, 3, norm_cfg=dict(type="FusedGN"))
    assert {"gn.weight", "gn.bias"} <= set(conv.state_dict())
    assert is_norm(conv.gn)


def test_channels_per_group():
    assert FusedGN(64, channels_per_group=16).num_groups == 4
    # A base config's num_groups=32 gives way.
    assert FusedGN(64, num_groups=32, channels_per_group=16).num_groups == 4


def test_activation_and_residual_are_part_of_the_layer():
    layer = FusedGN(32, 8, activation="relu")
    x, residual = torch.randn(2, 32, 5, 5), torch.randn(2, 32, 5, 5)
    want = torch.relu(torch.group_norm(x, 8) + residual)
    torch.testing.assert_close(layer(x, residual), want)
    assert repr(layer).endswith(", activation=relu)")
    assert "activation" not in repr(FusedGN(32))
    # For one call, also back to none.
    torch.testing.assert_close(layer(x, activation="none"), torch.group_norm(x, 8))
    torch.testing.assert_close(FusedGN(32, 8)(x, residual, "relu"), want)


def test_survives_copies_dtype_and_device_arguments():
    layer = FusedGN(32, 8, activation="silu", dtype=torch.bfloat16)
    twin = copy.deepcopy(layer)
    x = torch.randn(1, 32, 4, 4, dtype=torch.bfloat16)
    assert torch.equal(twin(x), layer(x))
    assert twin.activation == "silu"
    assert FusedGN(32, device="meta").weight.is_meta


def test_mmengine_initialisers_reach_it():
    model = nn.Sequential(FusedGN(32))
    initialize(model, dict(type="Constant", val=3.0, layer=["GroupNorm"]))
    assert torch.all(model[0].weight == 3)
    constant_init(model[0], 2.0)
    assert torch.all(model[0].weight == 2)


def test_norm_decay_mult_reaches_it():
    model = ConvModule(3, 32, 3, norm_cfg=dict(type="FusedGN"))
    wrapper = build_optim_wrapper(
        model,
        dict(
            optimizer=dict(type="SGD", lr=0.1, weight_decay=0.01),
            paramwise_cfg=dict(norm_decay_mult=0.0),
        ),
    )
    decay = {id(p): g["weight_decay"] for g in wrapper.param_groups for p in g["params"]}
    assert decay[id(model.gn.weight)] == decay[id(model.gn.bias)] == 0
    assert decay[id(model.conv.weight)] == 0.01


def test_flop_counters_count_it_as_group_norm():
    conv, elements = 32 * 3 * 9 * 14 * 14, 32 * 14 * 14  # 3x3 without bias, 14 x 14 out of 16 x 16
    flops = {}
    for norm in ("GN", "FusedGN"):
        model = ConvModule(3, 32, 3, norm_cfg=dict(type=norm, num_groups=8), act_cfg=None)
        mmcv, _ = get_model_complexity_info(
            nn.Sequential(model), (3, 16, 16), print_per_layer_stat=False, as_strings=False
        )
        flops[norm] = (mmcv, mmengine_complexity(model, (3, 16, 16))["flops"])
    assert flops["FusedGN"] == flops["GN"]
    assert flops["GN"][0] == conv + 2 * elements
    assert flops["GN"][1] > conv


@pytest.mark.parametrize(
    ("match", "kwargs"),
    [
        (r"got 24 and 32; use num_groups in \(1, 2, 3, 4, 6, 8, 12, 24\)", dict(num_channels=24)),
        (r"got 24 and 5; use channels_per_group in \(1, 2,", dict(num_channels=24, channels_per_group=5)),
        ("exclude each other, got num_groups=4", dict(num_channels=24, num_groups=4, channels_per_group=6)),
        ("got 'gelu'", dict(num_channels=32, activation="gelu")),
        ("num_groups must be a positive integer, got 0", dict(num_channels=24, num_groups=0)),
        ("num_groups must be a positive integer, got '32'", dict(num_channels=64, num_groups="32")),
        ("channels_per_group must be a positive integer, got 16.0", dict(num_channels=64, channels_per_group=16.0)),
    ],
)
def test_errors_name_the_choices(match, kwargs):
    with pytest.raises(ValueError, match=match):
        FusedGN(**kwargs)


@pytest.mark.parametrize("choice", ["num_groups", "channels_per_group"])
def test_an_indivisible_choice_is_an_error_that_tells_of_rounding(choice):
    with pytest.raises(ValueError, match="round_groups=True"):
        FusedGN(48, **{choice: 32})
    assert (
        FusedGN(48, round_groups=True, **{choice: 32}).num_groups == {"num_groups": 24, "channels_per_group": 2}[choice]
    )


def test_rounding_leaves_what_divides_and_the_state_of_a_group_norm():
    assert FusedGN(64, round_groups=True).num_groups == 32
    # One channel a group, but asked for.
    assert FusedGN(32, round_groups=True).num_groups == 32
    layer = FusedGN(48, round_groups=True)
    assert repr(layer).startswith("FusedGN(24, 48, eps=1e-05, affine=True")
    _, built = build_norm_layer(dict(type="FusedGN", num_groups=32, round_groups=True), 48)
    assert built.num_groups == 24
    with pytest.raises(ValueError, match="exclude each other"):
        FusedGN(48, 8, channels_per_group=4, round_groups=True)


@pytest.mark.parametrize("num_groups", [1, 3, 16, 32])
def test_nearest_groups_against_its_definition(num_groups):
    for num_channels in range(1, 300):
        got = nearest_groups(num_channels, num_groups)
        if num_channels % num_groups == 0:
            assert got == num_groups
            continue
        choices = [g for g in range(1, num_channels // 2 + 1) if num_channels % g == 0] or [1]
        ratios = {g: Fraction(max(g, num_groups), min(g, num_groups)) for g in choices}
        # The one nearest: there are no ties.
        assert [g for g in choices if ratios[g] == min(ratios.values())] == [got]


def test_nearest_channels_per_group():
    got = [FusedGN(c, channels_per_group=16, round_groups=True).num_groups for c in (7, 24, 40, 48, 100)]
    # That is 7, 12, 20, 16 and 20 channels a group.
    assert got == [1, 2, 2, 3, 5]


def test_costs_no_more_than_group_norm_on_a_cpu():
    """Interleaved medians. The claim is 5%, see benchmarks/; the bound leaves room for a noisy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    layers = {"ours": FusedGN(64), "theirs": nn.GroupNorm(32, 64)}
    x = torch.randn(2, 64, 32, 32, requires_grad=True)
    dy = torch.randn_like(x)
    seconds = {name: [] for name in layers}
    try:
        for i in range(330):
            for name, layer in layers.items():
                start = time.perf_counter()
                layer(x).backward(dy)
                if i >= 30:
                    seconds[name].append(time.perf_counter() - start)
    finally:
        torch.set_num_threads(threads)
    ratio = statistics.median(seconds["ours"]) / statistics.median(seconds["theirs"])
    assert ratio < 1.15, f"FusedGN costs {ratio:.2f} times nn.GroupNorm"
