"""Where the norms of a model's config go; no model is built."""

import pytest

import mmgn  # noqa: F401  # before mmdet: it serves mmcv's ops
from mmgn.engine.norm_swap.placement import defaults, four_conv_heads, place_norms, registered_class, take_back
from mmgn.engine.norm_swap.request import SwapRequest

NORM = {"type": "FusedGN", "num_groups": 32}


def test_what_is_said_is_replaced_with_its_own_settings_gone():
    model = {"backbone": {"type": "ResNet", "norm_cfg": {"type": "SyncBN", "momentum": 0.03, "requires_grad": False}}}
    (place,) = place_norms(model, SwapRequest())
    assert model["backbone"]["norm_cfg"] == NORM
    assert (place.path, place.kind) == (("backbone", "norm_cfg"), "BN")


@pytest.mark.parametrize("name", ["BN", "BN1d", "SyncBN", "MMSyncBN"])
def test_every_batch_norm(name):
    (place,) = place_norms({"head": {"type": "SomeHead", "norm_cfg": {"type": name}}}, SwapRequest())
    assert place.new == NORM


@pytest.mark.parametrize("name", ["LN", "IN"])
def test_layer_and_instance_norm_stay(name):
    model = {"head": {"type": "SomeHead", "norm_cfg": {"type": name}}}
    assert place_norms(model, SwapRequest()) == []


def test_a_group_norm_keeps_its_groups_even_if_groups_are_asked_for():
    old = {"type": "GN", "num_groups": 16, "eps": 1e-3, "requires_grad": True}
    model = {"head": {"type": "SomeHead", "norm_cfg": old}}
    place_norms(model, SwapRequest(num_groups=8))
    assert model["head"]["norm_cfg"] == {"type": "FusedGN", "num_groups": 16, "eps": 1e-3}
    model = {"head": {"type": "SomeHead", "norm_cfg": old}}
    assert place_norms(model, SwapRequest(to="GN")) == []


def test_a_fused_group_norm_becomes_torchs_own_with_its_settings():
    old = {"type": "FusedGN", "num_groups": 16, "eps": 1e-3, "round_groups": True, "activation": "none"}
    model = {"head": {"type": "SomeHead", "norm_cfg": old}}
    (place,) = place_norms(model, SwapRequest(to="GN"))
    assert model["head"]["norm_cfg"] == {"type": "GN", "num_groups": 16, "eps": 1e-3}
    assert place.kind == "GN"
    # Torch's has no default.
    model = {"head": {"type": "SomeHead", "norm_cfg": {"type": "FusedGN"}}}
    place_norms(model, SwapRequest(to="GN"))
    assert model["head"]["norm_cfg"] == {"type": "GN", "num_groups": 32}


@pytest.mark.parametrize("setting", [{"channels_per_group": 16}, {"activation": "relu"}], ids=str)
def test_what_torchs_own_has_no_word_for(setting):
    model = {"head": {"type": "SomeHead", "norm_cfg": {"type": "FusedGN", **setting}}}
    ((name, value),) = setting.items()
    with pytest.raises(ValueError, match=rf"head.norm_cfg: torch's GroupNorm has no {name}={value!r}"):
        place_norms(model, SwapRequest(to="GN"))
    assert place_norms(model, SwapRequest(to="GN", where=("neck",))) == []


def test_what_a_class_defaults_to_is_written_down_through_its_parents():
    # ResNeXt hands its keyword arguments on to ResNet, whose default is BN; ATSSHead's is GN.
    model = {"backbone": {"type": "ResNeXt", "depth": 50}, "bbox_head": {"type": "ATSSHead"}}
    kinds = {place.path: place.kind for place in place_norms(model, SwapRequest())}
    assert kinds == {("backbone", "norm_cfg"): "BN", ("bbox_head", "norm_cfg"): "GN"}
    assert model["backbone"]["norm_cfg"] == model["bbox_head"]["norm_cfg"] == NORM


def test_norms_are_found_in_lists_and_plain_dicts():
    plugin = {"cfg": {"type": "SomePlugin", "norm_cfg": {"type": "BN"}}, "stages": (True, False)}
    model = {"backbone": {"type": "SomeNet", "plugins": [plugin], "extra": {"out_norm_cfg": {"type": "BN"}}}}
    place_norms(model, SwapRequest())
    assert plugin["cfg"]["norm_cfg"] == NORM
    assert model["backbone"]["extra"]["out_norm_cfg"] == NORM


def test_neck_and_heads_get_norms_as_in_mmdets_configs_gn_and_the_rpn_gets_none():
    model = {
        "neck": {"type": "FPN"},
        "rpn_head": {"type": "RPNHead"},
        "roi_head": {"bbox_head": [{"type": "Shared4Conv1FCBBoxHead"}], "mask_head": {"type": "FCNMaskHead"}},
    }
    places = place_norms(model, SwapRequest())
    assert {place.path[:-1] for place in places} == {("neck",), ("roi_head", "bbox_head", 0), ("roi_head", "mask_head")}
    assert {place.kind for place in places} == {"none"}


@pytest.mark.parametrize(
    "name",
    [
        *("FPN_CARAFE", "FPN_DropBlock", "NASFPN", "NASFCOS_FPN", "ChannelMapper"),
        *("RepPointsHead", "FoveaHead", "RetinaSepBNHead", "DynamicMaskHead"),
    ],
)
def test_others_that_take_a_norm_after_each_convolution_get_one(name):
    assert registered_class(name) is not None
    for said, kinds in (({}, ["none"]), ({"norm_cfg": None}, [])):
        model = {"part": {"type": name, **said}}
        assert [place.kind for place in place_norms(model, SwapRequest())] == kinds
        assert model["part"]["norm_cfg"] == (NORM if kinds else None)


def test_where():
    model = {"detector": {"backbone": {"type": "ResNet"}, "neck": {"type": "FPN"}, "bbox_head": {"type": "YOLOXHead"}}}
    for part, name in [("backbone", "backbone"), ("neck", "neck"), ("heads", "bbox_head")]:
        (place,) = place_norms(model, SwapRequest(where=(part,)))
        assert place.path == ("detector", name, "norm_cfg")


def test_box_heads_without_a_convolution_get_four():
    head = {"type": "Shared2FCBBoxHead", "in_channels": 128}
    model = {
        "roi_head": {"bbox_head": [dict(head), {"type": "DoubleConvFCBBoxHead"}, {**head, "conv_out_channels": 64}]}
    }
    assert four_conv_heads(model, SwapRequest(where=("neck",))) == []
    assert four_conv_heads(model, SwapRequest()) == [("roi_head", "bbox_head", 0), ("roi_head", "bbox_head", 2)]
    first, double, last = model["roi_head"]["bbox_head"]
    assert first == {"type": "Shared4Conv1FCBBoxHead", "in_channels": 128, "conv_out_channels": 128}
    assert double == {"type": "DoubleConvFCBBoxHead"}
    assert last["conv_out_channels"] == 64


def test_what_had_no_effect_is_taken_back():
    model = {"neck": [{"type": "FPN"}, {"type": "FPN", "norm_cfg": None}]}
    places = place_norms(model, SwapRequest())
    assert [place.path for place in places] == [("neck", 0, "norm_cfg")]
    take_back(model, places)
    assert model == {"neck": [{"type": "FPN"}, {"type": "FPN", "norm_cfg": None}]}


def test_defaults_end_where_nothing_is_handed_on():
    class Parent:
        def __init__(self, norm_cfg=1, depth=2):
            pass

    class Child(Parent):
        def __init__(self, depth=3, **kwargs):
            super().__init__(depth=depth, **kwargs)

    class Closed(Parent):
        def __init__(self, depth=4):
            super().__init__(depth=depth)

    assert defaults(Child) == {"norm_cfg": 1, "depth": 3}
    assert defaults(Closed) == {"depth": 4}


def test_a_type_that_nobody_registered_is_no_class():
    assert registered_class("NoSuchThing") is None
