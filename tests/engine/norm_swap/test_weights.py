"""What a swapped backbone starts from; no model is built."""

import copy

import pytest

import mmgn  # noqa: F401  # before mmdet: it serves mmcv's ops
from mmgn.engine.norm_swap.request import SwapRequest
from mmgn.engine.norm_swap.weights import start_backbones

DETECTRON = {"mean": [103.530, 116.280, 123.675], "std": [1.0, 1.0, 1.0], "bgr_to_rgb": False}
IMAGENET = {"mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375], "bgr_to_rgb": True}
OLD = {"type": "Pretrained", "checkpoint": "torchvision://old"}


def detector(**backbone):
    """Return a detector with a backbone as mmdet's, frozen and pretrained."""
    frozen = {"type": "ResNet", "depth": 50, "frozen_stages": 1, "norm_eval": True, "init_cfg": dict(OLD)}
    preprocessor = {"type": "DetDataPreprocessor", **IMAGENET, "pad_size_divisor": 32}
    return {"type": "FasterRCNN", "data_preprocessor": preprocessor, "backbone": {**frozen, **backbone}}


def start(model, request=None, path=("backbone",)):
    return start_backbones(model, {path}, request or SwapRequest())


@pytest.mark.parametrize(
    "backbone, checkpoint, normalisation",
    [
        (dict(), "detectron/resnet50_gn", DETECTRON),
        (dict(depth=101, style="caffe"), "detectron/resnet101_gn", DETECTRON),
        (dict(conv_cfg=dict(type="ConvWS")), "jhu/resnet50_gn_ws", IMAGENET),
        (dict(type="ResNeXt", depth=101, groups=32, base_width=4), "jhu/resnext101_32x4d_gn", IMAGENET),
        (
            dict(type="ResNeXt", depth=50, groups=32, base_width=4, conv_cfg=dict(type="ConvWS")),
            "jhu/resnext50_32x4d_gn_ws",
            IMAGENET,
        ),
    ],
)
def test_published_weights_come_with_their_mean_and_std(backbone, checkpoint, normalisation):
    model = detector(**backbone)
    (said,) = start(model)
    assert model["backbone"]["init_cfg"] == {"type": "Pretrained", "checkpoint": f"open-mmlab://{checkpoint}"}
    assert model["backbone"].get("style", "pytorch") == "pytorch"
    assert {key: model["data_preprocessor"][key] for key in normalisation} == normalisation
    assert (model["backbone"]["frozen_stages"], model["backbone"]["norm_eval"]) == (1, True)
    assert checkpoint in said


@pytest.mark.parametrize(
    "backbone",
    [
        dict(depth=18),
        dict(base_channels=32),
        dict(deep_stem=True),
        dict(type="ResNetV1d"),
        dict(type="Res2Net"),
        dict(type="ResNeXt", groups=64, base_width=4),
        dict(conv_cfg=dict(type="ConvAWS")),
    ],
    ids=str,
)
def test_where_none_are_published_the_old_ones_are_a_warm_start_and_nothing_is_frozen(backbone):
    model = detector(**backbone)
    (said,) = start(model)
    assert model["backbone"]["init_cfg"] == OLD
    assert (model["backbone"]["frozen_stages"], model["backbone"]["norm_eval"]) == (-1, False)
    assert model["data_preprocessor"] == detector()["data_preprocessor"]
    assert "no group norm weights are published" in said
    assert "torchvision://old stays as a warm start" in said


def test_other_groups_make_published_weights_a_warm_start():
    for request in (SwapRequest(num_groups=16), SwapRequest(channels_per_group=16)):
        model = detector()
        (said,) = start(model, request)
        assert model["backbone"]["init_cfg"]["checkpoint"] == "open-mmlab://detectron/resnet50_gn"
        assert (model["backbone"]["frozen_stages"], model["backbone"]["norm_eval"]) == (-1, False)
        assert "trained with 32 groups" in said


def test_from_scratch_nothing_is_loaded_frozen_or_zero():
    model = detector()
    model["roi_head"] = {"type": "SomeHead", "init_cfg": dict(OLD)}
    model["neck"] = {"type": "RFP", "rfp_backbone": {"type": "DetectoRS_ResNet", "pretrained": "torchvision://old"}}
    said = start(model, SwapRequest(scratch=True))
    assert len(said) == 2
    backbone = model["backbone"]
    assert backbone["init_cfg"] is None is model["roi_head"]["init_cfg"]
    assert model["neck"]["rfp_backbone"]["pretrained"] is None
    assert (backbone["frozen_stages"], backbone["norm_eval"], backbone["zero_init_residual"]) == (-1, False, False)
    assert model["data_preprocessor"] == detector()["data_preprocessor"]


def test_frozen_nothing_is_0_where_the_class_says_so():
    model = detector(type="EfficientNet", arch="b3", frozen_stages=2)
    start(model)
    assert model["backbone"]["frozen_stages"] == 0


def test_a_backbone_that_was_not_swapped_is_left_alone():
    model = detector()
    assert start_backbones(model, set(), SwapRequest()) == []
    assert model == detector()


def test_preprocessors_around_the_detector_change_too():
    model = {
        "type": "SoftTeacher",
        "data_preprocessor": {"type": "MultiBranch", "data_preprocessor": {"type": "Det", **IMAGENET}},
        "detector": detector(),
    }
    start(model, path=("detector", "backbone"))
    assert model["data_preprocessor"]["data_preprocessor"] == {"type": "Det", **DETECTRON}
    assert model["detector"]["data_preprocessor"]["std"] == DETECTRON["std"]


def test_without_a_preprocessor_of_its_own_a_backbone_keeps_its_weights():
    # Its images come from a tracker, which normalises them itself.
    reid = {"type": "BaseReID", "backbone": detector()["backbone"]}
    model = {**detector(), "type": "DeepSORT", "reid": reid}
    (said,) = start(model, path=("reid", "backbone"))
    assert reid["backbone"]["init_cfg"] == OLD
    assert model["data_preprocessor"] == detector()["data_preprocessor"]
    assert "warm start" in said


def test_the_stage_in_a_c4_head_loads_the_same():
    model = detector(style="caffe")
    model["roi_head"] = {"type": "StandardRoIHead", "shared_head": {"type": "ResLayer", "depth": 50, "style": "caffe"}}
    untouched = copy.deepcopy(model)
    start(model)
    shared = model["roi_head"]["shared_head"]
    assert shared == {"type": "ResLayer", "depth": 50, "style": "pytorch", "init_cfg": model["backbone"]["init_cfg"]}
    start(untouched, SwapRequest(where=("backbone",)))
    assert untouched["roi_head"]["shared_head"]["style"] == "caffe"


def test_weights_of_the_whole_model_are_told():
    model = {**detector(), "init_cfg": dict(OLD)}
    assert any("model: torchvision://old was trained with the old norms" in line for line in start(model))
