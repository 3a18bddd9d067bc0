import pytest

from mmgn.engine.norm_swap.request import SwapRequest, part_of


@pytest.mark.parametrize(
    "settings, message",
    [
        (dict(to="LayerNorm"), "got 'LayerNorm'; layer norm is num_groups=1"),
        (dict(where=("backbone", "head")), "some of backbone, neck, heads, got head"),
        (dict(where=()), "got none"),
        (dict(num_groups=0), "num_groups must be a positive integer, got 0"),
        (dict(channels_per_group=-4), "channels_per_group must be a positive integer, got -4"),
        (dict(num_groups=8, channels_per_group=8), "exclude each other"),
        (dict(to="GN", channels_per_group=8), "GroupNorm has no channels_per_group"),
        (dict(scratch=True, where=("neck", "heads")), "where must have backbone"),
    ],
)
def test_bad_requests(settings, message):
    with pytest.raises(ValueError, match=message):
        SwapRequest(**settings)


def test_norm_cfg():
    assert SwapRequest().norm_cfg == {"type": "FusedGN", "num_groups": 32}
    assert SwapRequest(channels_per_group=16).norm_cfg == {"type": "FusedGN", "channels_per_group": 16}
    assert SwapRequest(to="GN", num_groups=8).norm_cfg == {"type": "GN", "num_groups": 8}


@pytest.mark.parametrize(
    "name, part",
    [
        ("backbone.layer1.0.bn1", "backbone"),
        ("teacher_backbone.bn1", "backbone"),
        ("student.neck.lateral_convs.0.gn", "neck"),
        ("neck.rfp_backbone.norm_cfg", "backbone"),
        ("roi_head.mask_head.convs.0.gn", "heads"),
        ("rpn_head", "heads"),
    ],
)
def test_part_of(name, part):
    assert part_of(name.split(".")) == part
