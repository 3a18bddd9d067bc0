"""Weights under other names: into mmdet's own models, and back."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("mmdet")

from mmgn.weights import LAYOUTS, convert, read_checkpoint, write_checkpoint

# Detectron's blobs and mmdet's keys, of ResNet-50.
BLOBS = {
    "conv1_w": "backbone.conv1.weight",
    "conv1_gn_s": "backbone.gn1.weight",
    "conv1_gn_b": "backbone.gn1.bias",
    "res2_0_branch1_w": "backbone.layer1.0.downsample.0.weight",
    "res2_0_branch1_gn_b": "backbone.layer1.0.downsample.1.bias",
    "res4_5_branch2b_gn_s": "backbone.layer3.5.gn2.weight",
    "res5_2_branch2c_w": "backbone.layer4.2.conv3.weight",
    "fpn_inner_res5_2_sum_w": "neck.lateral_convs.3.conv.weight",
    "fpn_inner_res4_5_sum_lateral_gn_s": "neck.lateral_convs.2.gn.weight",
    "fpn_res2_2_sum_gn_b": "neck.fpn_convs.0.gn.bias",
    "conv_rpn_fpn2_w": "rpn_head.rpn_conv.weight",
    "rpn_cls_logits_fpn2_b": "rpn_head.rpn_cls.bias",
    "rpn_bbox_pred_fpn2_w": "rpn_head.rpn_reg.weight",
    "head_conv4_gn_s": "roi_head.bbox_head.shared_convs.3.gn.weight",
    "fc6_w": "roi_head.bbox_head.shared_fcs.0.weight",
    "_mask_fcn1_w": "roi_head.mask_head.convs.0.conv.weight",
    "conv5_mask_w": "roi_head.mask_head.upsample.weight",
}
BLOBS2 = {
    "backbone.bottom_up.stem.conv1.norm.weight": "backbone.gn1.weight",
    "backbone.bottom_up.res3.0.shortcut.norm.bias": "backbone.layer2.0.downsample.1.bias",
    "backbone.bottom_up.res4.5.conv2.norm.weight": "backbone.layer3.5.gn2.weight",
    "backbone.fpn_lateral5.weight": "neck.lateral_convs.3.conv.weight",
    "backbone.fpn_output2.norm.bias": "neck.fpn_convs.0.gn.bias",
    "proposal_generator.rpn_head.objectness_logits.bias": "rpn_head.rpn_cls.bias",
    "proposal_generator.rpn_head.anchor_deltas.weight": "rpn_head.rpn_reg.weight",
    "roi_heads.box_head.conv4.norm.weight": "roi_head.bbox_head.shared_convs.3.gn.weight",
    "roi_heads.box_head.fc1.weight": "roi_head.bbox_head.shared_fcs.0.weight",
    "roi_heads.box_predictor.cls_score.weight": "roi_head.bbox_head.fc_cls.weight",
    "roi_heads.box_predictor.bbox_pred.weight": "roi_head.bbox_head.fc_reg.weight",
    "roi_heads.mask_head.mask_fcn1.weight": "roi_head.mask_head.convs.0.conv.weight",
    "roi_heads.mask_head.deconv.weight": "roi_head.mask_head.upsample.weight",
    "roi_heads.mask_head.predictor.bias": "roi_head.mask_head.conv_logits.bias",
}


def tensors(arrays):
    return {key: torch.from_numpy(array) for key, array in arrays.items()}


def shapes(module):
    return {key: value.shape for key, value in module.state_dict().items()}


def same(one, other):
    """Whether both hold the same keys in the same order, with the same bits in them."""
    bits = [(a, b) for a, b in zip(one.values(), other.values(), strict=True) if a.dtype != b.dtype or not a.equal(b)]
    return list(one) == list(other) and not bits


@pytest.mark.parametrize(("name", "blobs"), [("detectron", BLOBS), ("detectron2", BLOBS2)])
def test_a_detector_of_another_code_base_is_mmdets_model_with_nothing_missing(zoo, model, name, blobs):
    state = tensors(getattr(zoo, name)(detector=True))
    result, report = convert(state)
    model.load_state_dict(result, strict=True)
    assert (report.source, report.detector, report.depth) == (name, True, "ResNet-50")
    assert report.unmatched == []
    for blob, key in blobs.items():
        assert report.matched[blob] == key
        assert result[key].equal(state[blob])


def test_detectrons_background_moves_from_first_to_last(zoo):
    state = tensors(zoo.detectron(detector=True))
    result, _ = convert(state)
    scores, boxes, masks = (state[f"{name}_w"] for name in ("cls_score", "bbox_pred", "mask_fcn_logits"))
    assert result["roi_head.bbox_head.fc_cls.weight"].equal(scores[[1, 2, 3, 0]])
    assert result["roi_head.bbox_head.fc_reg.weight"].equal(boxes[4:])
    assert result["roi_head.mask_head.conv_logits.weight"].equal(masks[1:])
    assert result["roi_head.bbox_head.fc_cls.bias"].equal(state["cls_score_b"][[1, 2, 3, 0]])


def test_outputs_that_all_classes_share_have_no_background_to_drop_but_the_boxes(zoo):
    state = tensors(zoo.detectron(detector=True))
    state |= {"bbox_pred_w": torch.arange(64.0).reshape(8, 8), "bbox_pred_b": torch.arange(8.0)}
    state |= {"mask_fcn_logits_w": torch.ones(1, 8, 1, 1), "mask_fcn_logits_b": torch.ones(1)}
    result, _ = convert(state)
    assert result["roi_head.bbox_head.fc_reg.bias"].tolist() == [4, 5, 6, 7]
    assert result["roi_head.mask_head.conv_logits.weight"].shape == (1, 8, 1, 1)
    back, _ = convert(result, "detectron")
    assert back["bbox_pred_w"].shape == (8, 8)
    assert back["mask_fcn_logits_w"].shape == (1, 8, 1, 1)


def test_heads_that_fit_no_number_of_classes_are_refused(zoo):
    state = tensors(zoo.detectron(detector=True))
    state["cls_score_w"] = state["cls_score_w"][1:]
    with pytest.raises(ValueError, match=r"fc_cls\.weight has 3 rows.*fc_reg.weight 16 where"):
        convert(state)


def test_a_number_by_a_weights_name_is_no_weight(zoo):
    state = tensors(zoo.detectron(detector=True)) | {"cls_score_w": torch.tensor(1.0)}
    ours, report = convert(state)
    assert "roi_head.bbox_head.fc_cls.weight" not in ours
    assert report.unmatched == ["cls_score_w"]


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("to", ["detectron", "detectron2", "mmdet"])
def test_a_detector_goes_there_and_back_unchanged(build, model, zoo, to, classes):
    state = (model if classes == zoo.CLASSES else build(classes=classes)).state_dict()
    there, report = convert(state, to)
    assert report.unmatched == []
    assert len(there) == len(state)
    back, report = convert(there)
    assert report.source == to
    assert same(back, state)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("to", list(LAYOUTS))
def test_a_backbone_goes_there_and_back_unchanged(model, to, dtype):
    state = {key: value.to(dtype) for key, value in model.backbone.state_dict().items()}
    there, report = convert(state, to)
    assert (report.detector, report.unmatched, len(there)) == (False, [], len(state))
    back, _ = convert(there, source=to)
    assert same(back, state)


@pytest.mark.parametrize("name", ["detectron", "detectron2"])
def test_a_head_without_norm_goes_there_and_back_unchanged(model, name):
    """Detectron spells the mask head's convolutions in another way then."""
    heads = ("roi_head.mask_head.convs.", "roi_head.bbox_head.shared_convs.", "neck.")
    state = {
        k.replace(".gn.weight", ".conv.bias"): v for k, v in model.state_dict().items() if not k.endswith("gn.bias")
    }
    there, report = convert(state, name)
    assert not any(key.startswith(heads) for key in report.unmatched)
    assert ("_[mask]_fcn1_b" in there) == (name == "detectron")
    assert same(convert(there)[0], state)


@pytest.mark.parametrize("name", ["detectron", "detectron2"])
def test_what_is_no_weight_is_left_out_and_named(zoo, name):
    arrays = getattr(zoo, name)(detector=True)
    result, report = convert(tensors(arrays) | {"lr": 0.02, "odd_w": torch.ones(1)})
    assert report.unmatched == ["lr", "odd_w"]
    assert len(report.matched) + sum(map(len, report.dropped.values())) == len(arrays)
    if name == "detectron":
        assert len(report.dropped["momentum of Detectron's optimizer"]) == len(result)
    else:
        assert set().union(*report.dropped.values()) == {k for k in arrays if "anchors" in k or "pixel" in k}
    assert "unmatched, left out: 2\n  lr\n  odd_w" in str(report)


def test_the_input_that_the_weights_expect_is_told(zoo):
    def told(state, **kwargs):
        return str(convert(tensors(state), **kwargs)[1])

    assert "mean=[103.530, 116.280, 123.675], std=[1.0, 1.0, 1.0], bgr_to_rgb=False" in told(zoo.detectron())
    assert "mean=[102.9801, 115.9465, 122.7717]" in told(zoo.detectron(detector=True))
    assert "LegacyDeltaXYWHBBoxCoder" in told(zoo.detectron(detector=True))
    own = zoo.detectron2(detector=True) | {"pixel_std": np.float32([57.375, 57.12, 58.395])}
    assert "mean=[103.53, 116.28, 123.675], std=[57.375, 57.12, 58.395], bgr_to_rgb=False" in told(own)
    batch = {key.replace("norm.bias", "norm.running_mean"): value for key, value in zoo.detectron2().items()}
    assert "style='caffe' where its config has STRIDE_IN_1X1" in told(batch | zoo.detectron2())
    there, _ = convert(tensors(zoo.detectron()), "timm")
    assert "mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True" in str(convert(there)[1])


def groups(channels):
    return nn.GroupNorm(32, channels)


def features(backbone, image):
    x = backbone.maxpool(backbone.relu(backbone.bn1(backbone.conv1(image))))
    for layer in (backbone.layer1, backbone.layer2, backbone.layer3, backbone.layer4):
        x = layer(x)
        yield x


@pytest.mark.parametrize("depth", [18, 50])
def test_torchvisions_resnet_with_group_norm_is_mmdets_with_fusedgn(tmp_path, depth):
    """Loaded as by a config; the classifier is all that is left over."""
    import torchvision
    from mmdet.registry import MODELS

    torch.manual_seed(0)
    theirs = getattr(torchvision.models, f"resnet{depth}")(norm_layer=groups)
    for parameter in theirs.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    weights, report = convert(read(tmp_path / "theirs.pth", theirs.state_dict()))
    assert not report.warm_start
    assert report.unmatched == []
    file = tmp_path / "ours.pth"
    write_checkpoint(file, weights, "mmdet")
    init_cfg = dict(type="Pretrained", checkpoint=str(file))
    ours = MODELS.build(
        dict(type="mmdet.ResNet", depth=depth, norm_cfg=dict(type="FusedGN", num_groups=32), init_cfg=init_cfg)
    )
    ours.init_weights()
    assert set(weights) ^ set(ours.state_dict()) == {"fc.weight", "fc.bias"}
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        for got, wanted in zip(ours(image), features(theirs, image), strict=True):
            torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)


def read(path, content):
    torch.save(content, path)
    return read_checkpoint(path)


def test_timms_resnet50_gn_is_mmdets_with_fusedgn():
    timm = pytest.importorskip("timm")
    from mmdet.registry import MODELS

    theirs = timm.create_model("resnet50_gn")
    weights, report = convert(theirs.state_dict(), source="timm")
    assert (report.depth, report.unmatched) == ("ResNet-50", [])
    ours = MODELS.build(dict(type="mmdet.ResNet", depth=50, norm_cfg=dict(type="FusedGN", num_groups=32)))
    ours.load_state_dict({key: value for key, value in weights.items() if not key.startswith("fc.")}, strict=True)
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(ours(image)[-1], theirs.forward_features(image), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["torchvision", "mmdet"])
def test_batch_norm_gives_a_warm_start_and_says_so(name):
    import torchvision
    from mmdet.registry import MODELS

    if name == "torchvision":
        state = torchvision.models.resnet18().state_dict()
        convs = "layer2.1.bn2.weight", "layer2.1.gn2.weight"
    else:
        backbone = MODELS.build(dict(type="mmdet.ResNet", depth=18)).state_dict()
        state = {f"backbone.{key}": value for key, value in backbone.items()}
        convs = "backbone.layer2.1.bn2.weight", "backbone.layer2.1.gn2.weight"
    result, report = convert(state)
    assert (report.source, report.warm_start, report.depth) == (name, True, "ResNet-18")
    assert result[convs[1]].equal(state[convs[0]])
    assert not any("running" in key or "tracked" in key or "bn" in key for key in result)
    assert len(report.dropped["statistics of batch norm"]) == 3 * 20
    assert "WARM START" in str(report)


@pytest.mark.parametrize("name", ["detectron2", "mmdet"])
def test_the_prefix_of_ddp_is_left_off_and_told(zoo, model, name):
    state = model.state_dict() if name == "mmdet" else tensors(zoo.detectron2(detector=True))
    want, plain = convert(state)
    wrapped = {f"module.{key}": value for key, value in state.items()}
    got, report = convert(wrapped)
    assert same(got, want)
    assert (report.source, report.matched, report.dropped) == (name, plain.matched, plain.dropped)
    assert (report.notes[:-1], "began with 'module.'" in report.notes[-1]) == (plain.notes, True)
    # Only one that all keys have is a wrapper's.
    assert convert(wrapped | state)[1].unmatched == list(wrapped)


def test_folded_statistics_are_refused(zoo):
    folded = {key.replace("_gn_", "_bn_"): value for key, value in tensors(zoo.detectron()).items()}
    with pytest.raises(ValueError, match="folded batch norm's statistics"):
        convert(folded)


def test_a_deep_stem_is_refused(zoo):
    state = tensors(zoo.detectron2())
    state["stem.conv1_1.weight"] = state.pop("stem.conv1.weight")
    with pytest.raises(ValueError, match=r"there is no conv1\.weight: stems of several convolutions"):
        convert(state)


def test_a_backbone_with_a_hole_is_refused(zoo):
    state = tensors(zoo.detectron2())
    del state["res4.5.conv2.weight"]
    with pytest.raises(ValueError, match=r"1 of 49 convolutions .* missing, layer3\.5\.conv2\.weight the first"):
        convert(state)


def test_a_weight_under_two_spellings_is_refused(zoo):
    state = tensors(zoo.detectron(detector=True))
    state["_[mask]_fcn1_w"] = state["_mask_fcn1_w"]
    with pytest.raises(ValueError, match="there twice"):
        convert(state)


def test_more_than_a_resnet_is_refused(zoo):
    for name, key in [("detectron2", "backbone.bottom_up.res3.0.conv2_offset.weight"), ("detectron", "res3_0_se_w")]:
        state = tensors(getattr(zoo, name)(detector=True)) | {key: torch.ones(1)}
        with pytest.raises(ValueError, match=f"1 weights of the backbone's stages, {key} the first"):
            convert(state)


def test_a_model_that_is_no_resnet_is_refused(zoo):
    with pytest.raises(ValueError, match=r"the model has no ResNet by mmdet's keys.*'linear.weight'"):
        convert(tensors(zoo.detectron()), model={"linear.weight": (1, 1)})


def test_an_unknown_layout_is_refused(zoo):
    with pytest.raises(ValueError, match="no layout is called 'keras'"):
        convert(tensors(zoo.detectron()), "keras")


def test_other_weights_are_refused():
    state = nn.TransformerEncoderLayer(8, 2).state_dict()
    with pytest.raises(ValueError, match=r"not the weights of a ResNet.*such as \['self_attn.in_proj_weight'"):
        convert(state)


def test_weights_are_refused_under_names_that_they_do_not_have(zoo):
    with pytest.raises(ValueError, match=r"as timm names them.*conv1_w"):
        convert(tensors(zoo.detectron()), source="timm")


@pytest.mark.parametrize("detector", [False, True])
@pytest.mark.parametrize("name", ["detectron", "detectron2"])
def test_another_depth_is_refused(zoo, model, name, detector):
    state = tensors(getattr(zoo, name)(zoo.R101, detector))
    with pytest.raises(ValueError, match="of another depth: they hold ResNet-101, and the model has ResNet-50"):
        convert(state, model=shapes(model))


def test_another_width_is_refused(model):
    import torchvision

    state = torchvision.models.resnet50(norm_layer=partial(nn.GroupNorm, 2)).state_dict()
    with pytest.raises(ValueError, match=r"the first conv1.weight: \(64, 3, 7, 7\), the model's \(4, 3, 7, 7\)"):
        convert(state, model=shapes(model))


def test_heads_of_another_number_of_classes_are_left_out_and_named(zoo, build):
    other = build(classes=5)
    result, report = convert(tensors(zoo.detectron2(detector=True)), model=shapes(other))
    assert report.mismatched == {
        f"roi_head.{layer}.{part}": (shape, wanted)
        for layer, part, shape, wanted in [
            ("bbox_head.fc_cls", "weight", (4, 8), (6, 8)),
            ("bbox_head.fc_cls", "bias", (4,), (6,)),
            ("bbox_head.fc_reg", "weight", (12, 8), (20, 8)),
            ("bbox_head.fc_reg", "bias", (12,), (20,)),
            ("mask_head.conv_logits", "weight", (3, 8, 1, 1), (5, 8, 1, 1)),
            ("mask_head.conv_logits", "bias", (3,), (5,)),
        ]
    }
    assert report.missing == []
    missing, unexpected = other.load_state_dict(result, strict=False)
    assert (set(missing), unexpected) == (set(report.mismatched), [])


def test_a_backbone_is_checked_against_a_detectors(zoo, model):
    _, report = convert(tensors(zoo.detectron()), model=shapes(model))
    assert (report.missing, report.unexpected) == ([], ["fc.weight", "fc.bias"])


def test_a_model_without_group_norm_is_refused(zoo, model):
    batch = {key.replace("gn", "bn"): shape for key, shape in shapes(model).items()}
    with pytest.raises(ValueError, match=r"backbone.bn1.weight: not in the weights.*norm_cfg group norm"):
        convert(tensors(zoo.detectron(detector=True)), model=batch)
