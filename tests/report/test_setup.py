import pytest

from mmgn.report.setup import Setup, describe, read_config


@pytest.mark.parametrize(
    ("norms", "phrase"),
    [
        (None, None),
        ({}, "none"),
        ({"backbone": "BN*"}, "BN*"),
        ({"backbone": "GN", "neck": "GN", "box head": "GN", "mask head": "GN"}, "GN (all)"),
        ({"backbone": "GN", "RPN": "GN", "mask head": "GN"}, "GN (all, RPN too)"),
        ({"backbone": "GN", "neck": "GN"}, "GN (backbone, neck)"),
        ({"box head": "GN"}, "GN (box head)"),
        ({"backbone": "BN*", "box head": "GN"}, "BN*; GN in box head"),
    ],
)
def test_norms_in_a_phrase(norms, phrase):
    assert Setup(norms=norms).norm == phrase


@pytest.mark.parametrize(
    ("setup", "phrase"),
    [
        (Setup(), None),
        (Setup(backbone="R-50", epochs=24, pretrained=True), "2x (24 epochs)"),
        (Setup(backbone="R-50", epochs=73, pretrained=False), "6x (73 epochs), from scratch"),
        (Setup(epochs=4), "4 epochs"),
    ],
)
def test_schedule_in_a_phrase(setup, phrase):
    assert setup.schedule == phrase


@pytest.mark.parametrize("text", ["", "model = (", "\0", "model = 3", "import os\nmodel = os.getcwd()"])
def test_what_is_no_dump_tells_nothing(text):
    assert describe(read_config(text)) == Setup()


def test_dicts_lists_and_python_style_types():
    text = """
model = {'type': 'mmdet.models.CascadeRCNN', 'backbone': dict(type='mmdet.models.ResNeXt', depth=101, groups=32,
    base_width=4, norm_cfg=dict(type='SyncBN'), init_cfg=None),
    'roi_head': dict(bbox_head=[dict(type='Shared4Conv1FCBBoxHead', norm_cfg=dict(type='GN', num_groups=16))])}
param_scheduler = [dict(type='LinearLR'), dict(type='MultiStepLR', milestones=[16, 22])]
"""
    setup = describe(read_config(text))
    assert (setup.detector, setup.backbone, setup.box_head) == ("CascadeRCNN", "X-101-32x4d", "4conv1fc")
    assert setup.norms == {"backbone": "SyncBN", "box head": "GN-16g"}
    assert (setup.milestones, setup.pretrained, setup.epochs) == ((16, 22), False, None)
