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


@pytest.mark.parametrize(
    "text",
    [
        *("", "model = (", "\0", "model = 3", "import os\nmodel = os.getcwd()", "model = {[1]: 2}"),
        *(f"model = {'-' * depth}1" for depth in (900, 5000, 50_000)),
    ],
    ids=lambda text: text[:24],
)
def test_what_is_no_dump_tells_nothing(text):
    assert describe(read_config(text)) == Setup()


@pytest.mark.parametrize(
    ("init_cfg", "pretrained"),
    [
        ("None", False),
        ("dict(type='Kaiming', layer='Conv2d')", False),
        ("[dict(type='Kaiming', layer='Conv2d'), dict(type='Constant', val=1, layer='GroupNorm')]", False),
        ("dict(type='Pretrained', checkpoint='torchvision://resnet50')", True),
        ("[dict(type='Kaiming'), dict(type='mmengine.model.weight_init.PretrainedInit', checkpoint='a.pth')]", True),
    ],
)
def test_only_weights_that_are_loaded_are_pretrained(init_cfg, pretrained):
    text = f"model = dict(type='FCOS', backbone=dict(type='ResNet', depth=50, init_cfg={init_cfg}))"
    assert describe(read_config(text)).pretrained is pretrained


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
