"""What is said of a config's norms; no model is built."""

import pytest

import mmgn  # noqa: F401  # before mmdet: it serves mmcv's ops
from mmgn.engine.norm_swap.placement import four_conv_heads, place_norms
from mmgn.engine.norm_swap.remarks import remarks
from mmgn.engine.norm_swap.request import SwapRequest


def said_of(model, **request):
    request = SwapRequest(**request)
    heads = four_conv_heads(model, request)
    return remarks(model, heads, place_norms(model, request), request)


def test_box_heads_additions_and_defaults():
    model = {
        "backbone": {"type": "ResNet", "depth": 50},
        "neck": {"type": "FPN"},
        "roi_head": {"bbox_head": [{"type": "Shared2FCBBoxHead"}], "mask_head": {"type": "FCNMaskHead"}},
    }
    assert said_of(model) == [
        "box head: Shared2FCBBoxHead has no convolution, now Shared4Conv1FCBBoxHead: roi_head.bbox_head.0",
        "added, where there was no norm: neck, roi_head.bbox_head.0, roi_head.mask_head",
        "written down, was the default of its class: backbone",
    ]


@pytest.mark.parametrize(
    "part, node, named",
    [
        ("neck", {"type": "BFP"}, True),
        ("neck", {"type": "HRFPN"}, True),
        ("bbox_head", {"type": "YOLACTHead"}, True),
        ("bbox_head", {"type": "SABLHead", "norm_cfg": None}, True),
        # These take no norm_cfg.
        ("mask_head", {"type": "FeatureRelayMaskHead"}, True),
        ("bbox_head", {"type": "DIIHead"}, False),
        # The paper's RPN has none.
        ("rpn_head", {"type": "RPNHead"}, False),
        ("rpn_head", {"type": "CascadeRPNHead", "stages": [{"type": "StageCascadeRPNHead"}]}, False),
        ("rpn_head", {"type": "YOLACTHead"}, False),
        ("neck", {"type": "HRFPN", "norm_cfg": {"type": "BN"}}, False),
        ("head", {"type": "MaskFormerHead", "pixel_decoder": {"norm_cfg": {"type": "GN", "num_groups": 32}}}, False),
        ("backbone", {"type": "HRFPN"}, False),
    ],
)
def test_necks_and_heads_that_stay_without(part, node, named):
    lines = [f"stays as it is, without a norm_cfg: {node['type']}"] if named else []
    assert [line for line in said_of({part: node}) if line.startswith("stays")] == lines


def test_only_of_the_parts_asked_for():
    model = {"neck": {"type": "BFP"}, "bbox_head": {"type": "YOLACTHead"}}
    assert said_of(model, where=("neck",)) == ["stays as it is, without a norm_cfg: BFP"]
