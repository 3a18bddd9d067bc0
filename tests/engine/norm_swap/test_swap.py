import pytest
from mmengine.config import Config

import mmgn  # noqa: F401  # before mmdet: it serves mmcv's ops
from mmgn.engine.norm_swap import SwapRequest, read_source, swap_norm
from mmgn.engine.norm_swap.build import build
from mmgn.engine.norm_swap.swap import NothingToSwapError
from mmgn.models.norms import norm_layers

MASK_RCNN = "mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py"
RETINA = "mmdet::retinanet/retinanet_r18_fpn_1x_coco.py"
# Neither hands its norm_cfg down everywhere.
NAS_FCOS = """
_base_ = 'mmdet::nas_fcos/nas-fcos_r50-caffe_fpn_fcoshead-gn-head_4xb4-1x_coco.py'
model = dict(backbone=dict(depth=18), neck=dict(in_channels=[64, 128, 256, 512]))
"""
CORNERNET = """
_base_ = 'mmdet::cornernet/cornernet_hourglass104_8xb6-210e-mstest_coco.py'
model = dict(
    backbone=dict(num_stacks=1, downsample_times=1, stage_channels=[32, 48], stage_blocks=[1, 1], feat_channel=32),
    bbox_head=dict(num_feat_levels=1, in_channels=32))
"""


FUSED = f"""
_base_ = '{RETINA}'
norm_cfg = dict(type='FusedGN', num_groups=16)
model = dict(
    backbone=dict(norm_cfg=dict(_delete_=True, **norm_cfg)),
    neck=dict(norm_cfg=norm_cfg),
    bbox_head=dict(norm_cfg=norm_cfg))
"""


def swapped(source, out, **request):
    return swap_norm(read_source(str(source)), SwapRequest(**request), out)


def plain(node):
    """Return a config without what says the same in other words."""
    if isinstance(node, dict):
        node = {key: plain(value) for key, value in node.items() if key != "norm_eval"}
        if node.get("type") in ("GN", "FusedGN"):
            return {"num_groups": node["num_groups"]}
        return node
    return [plain(value) for value in node] if isinstance(node, (list, tuple)) else node


@pytest.mark.parametrize(
    "config, scratch",
    [("gn/mask-rcnn_r50_fpn_gn-all_2x_coco.py", False), ("scratch/mask-rcnn_r50-scratch_fpn_gn-all_6x_coco.py", True)],
)
def test_mask_rcnn_becomes_what_mmdets_own_group_norm_config_is(tmp_path, config, scratch):
    swap = swapped(MASK_RCNN, tmp_path / "swapped.py", scratch=scratch)
    assert plain(swap.cfg["model"]) == plain(read_source(f"mmdet::{config}").cfg["model"])
    assert swap.said[:2] == (
        "box head: Shared2FCBBoxHead has no convolution, now Shared4Conv1FCBBoxHead: roi_head.bbox_head",
        "added, where there was no norm: neck, roi_head.bbox_head, roi_head.mask_head",
    )


def test_the_file_alone_is_the_swapped_config(tmp_path):
    out = tmp_path / "swapped.py"
    swap = swapped(MASK_RCNN, out)
    assert list(tmp_path.iterdir()) == []
    swap.write()
    assert [path.name for path in tmp_path.iterdir()] == ["swapped.py"]
    assert out.read_text() == swap.text
    assert swap.text.startswith(f"_base_ = '{MASK_RCNN}'\n\nnorm_cfg = dict(type='FusedGN', num_groups=32)\nmodel = ")
    assert len(swap.text.splitlines()) < 30
    cfg = Config.fromfile(out)
    # The scope is mmengine's note of where the base is from.
    assert {key: value for key, value in cfg.model.to_dict().items() if key != "_scope_"} == swap.cfg["model"]
    assert {layer.kind for layer in norm_layers(swap.before)} == {"BN"}
    assert {layer.kind for layer in norm_layers(build(cfg.model))} == {"FusedGN"}
    assert cfg.custom_hooks == [dict(type="FuseGNHook")]
    assert cfg.optim_wrapper.paramwise_cfg.norm_decay_mult == 0


def test_neck_and_heads_alone_leave_the_backbone_and_its_weights(tmp_path):
    swap = swapped(RETINA, tmp_path / "swapped.py", where=("neck", "heads"))
    for part in ("backbone", "data_preprocessor"):
        assert swap.cfg["model"][part] == swap.source.cfg["model"][part]
    kinds = {(layer.name.split(".")[0], layer.kind) for layer in norm_layers(swap.after)}
    assert kinds == {("backbone", "BN"), ("neck", "FusedGN"), ("bbox_head", "FusedGN")}


def test_group_norm_to_fused_changes_nothing_but_the_type(tmp_path):
    swap = swapped("mmdet::gn/mask-rcnn_r50_fpn_gn-all_2x_coco.py", tmp_path / "swapped.py")
    assert plain(swap.cfg["model"]) == plain(swap.source.cfg["model"])
    assert {layer.kind for layer in norm_layers(swap.after)} == {"FusedGN"}


def test_fused_to_torchs_own_and_back(tmp_path):
    (tmp_path / "fused.py").write_text(FUSED)
    torchs = swapped(tmp_path / "fused.py", tmp_path / "torchs.py", to="GN")
    assert plain(torchs.cfg["model"]) == plain(torchs.source.cfg["model"])
    assert {layer.kind for layer in norm_layers(torchs.after)} == {"GN"}
    assert {layer.num_groups for layer in norm_layers(torchs.after)} == {16}
    torchs.write()
    back = swapped(tmp_path / "torchs.py", tmp_path / "back.py")
    assert back.cfg["model"] == torchs.source.cfg["model"]


def test_groups_that_fused_rounds_and_torchs_own_cannot(tmp_path):
    (tmp_path / "fused.py").write_text(FUSED.replace("num_groups=16", "num_groups=24, round_groups=True"))
    with pytest.raises(ValueError, match=r"^num_groups=24 does not divide the channels(.|\n)*64 channels in backbone"):
        swapped(tmp_path / "fused.py", tmp_path / "torchs.py", to="GN")


def test_converted_norms_change_to_torchs_own_with_their_groups_and_all_at_once(tmp_path):
    (tmp_path / "nas_fcos.py").write_text(NAS_FCOS)
    fused = swapped(tmp_path / "nas_fcos.py", tmp_path / "fused.py", num_groups=16)
    fused.write()
    torchs = swapped(tmp_path / "fused.py", tmp_path / "torchs.py", to="GN")
    assert torchs.cfg["model"]["convert"] == {"to": "GN", "num_groups": 16}
    groups = {layer.name: layer.num_groups for layer in norm_layers(fused.after)}
    assert {layer.name: layer.num_groups for layer in norm_layers(torchs.after) if layer.kind == "GN"} == groups
    with pytest.raises(ValueError, match=r"converts to FusedGN, which GN in neck alone could undo elsewhere"):
        swapped(tmp_path / "fused.py", tmp_path / "neck.py", to="GN", where=("neck",))


def test_a_relative_base_is_found_from_another_folder_and_norms_are_rounded_aloud(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "swapped").mkdir()
    (tmp_path / "mine" / "yolox.py").write_text("_base_ = 'mmdet::yolox/yolox_tiny_8xb8-300e_coco.py'\n")
    swap = swapped(tmp_path / "mine" / "yolox.py", tmp_path / "swapped" / "yolox.py")
    swap.write()
    assert swap.text.startswith("_base_ = '../mine/yolox.py'")
    assert "custom_hooks = [*_base_.custom_hooks, dict(type='FuseGNHook')]" in swap.text
    read = Config.fromfile(tmp_path / "swapped" / "yolox.py")
    assert [hook.type for hook in read.custom_hooks] == [
        *(h["type"] for h in swap.source.cfg["custom_hooks"]),
        "FuseGNHook",
    ]
    # 24 and 48 channels are in the backbone, 48 in the neck, neither in the head.
    assert read.model.backbone.norm_cfg == dict(type="FusedGN", num_groups=32, round_groups=True)
    assert read.model.bbox_head.norm_cfg == dict(type="FusedGN", num_groups=32)
    assert "rounded: 48 channels: 24 groups (backbone.norm_cfg, neck.norm_cfg)" in swap.said
    assert {24: 12, 48: 24, 96: 32}.items() <= {
        layer.num_channels: layer.num_groups for layer in norm_layers(swap.after)
    }.items()


def test_what_no_norm_cfg_reaches_is_converted_part_after_part(tmp_path):
    (tmp_path / "nas_fcos.py").write_text(NAS_FCOS)
    half = swapped(tmp_path / "nas_fcos.py", tmp_path / "half.py", where=("backbone", "heads"))
    assert half.cfg["model"]["type"] == "NASFCOS"
    half.write()
    neck = {layer.kind for layer in norm_layers(half.after) if layer.name.startswith("neck")}
    assert neck == {"BN", "FusedGN"} or neck == {"BN"}
    whole = swapped(tmp_path / "half.py", tmp_path / "whole.py")
    assert whole.cfg["model"]["type"] == "NormConverted"
    assert whole.cfg["model"]["detector"] == "NASFCOS"
    assert {layer.kind for layer in norm_layers(whole.after)} == {"FusedGN"}
    assert any("out of a norm_cfg's reach" in line for line in whole.said)
    assert type(whole.after) is type(whole.before)


def test_converted_norms_are_rounded_aloud_too(tmp_path):
    (tmp_path / "cornernet.py").write_text(CORNERNET)
    swap = swapped(tmp_path / "cornernet.py", tmp_path / "swapped.py")
    (said,) = [line for line in swap.said if line.startswith("rounded: 48 channels: 24 groups (backbone.hourglass")]
    assert "more)" in said
    assert any(line.startswith("one channel a group, which is instance norm: 32 channels (") for line in swap.said)
    assert 24 in {layer.num_groups for layer in norm_layers(swap.after) if layer.num_channels == 48}
    with pytest.raises(ValueError, match="num_groups=32 does not divide"):
        swapped(tmp_path / "cornernet.py", tmp_path / "swapped.py", num_groups=32)


@pytest.mark.parametrize(
    "config, request_, error, message",
    [
        ("ssd/ssd300_coco.py", dict(), NothingToSwapError, "has no norm, so there is none to swap"),
        (
            "detr/detr_r50_8xb2-150e_coco.py",
            dict(where=("heads",)),
            NothingToSwapError,
            "nothing to swap to FusedGN in heads",
        ),
        (
            "yolox/yolox_tiny_8xb8-300e_coco.py",
            dict(num_groups=32),
            ValueError,
            r"48 channels in backbone.norm_cfg, neck",
        ),
        ("yolox/yolox_tiny_8xb8-300e_coco.py", dict(to="GN"), ValueError, r"or FusedGN, which can round"),
        (
            "yolox/yolox_tiny_8xb8-300e_coco.py",
            dict(channels_per_group=16),
            ValueError,
            r"channels_per_group in \(1, 2, 3",
        ),
    ],
)
def test_bad_input(tmp_path, config, request_, error, message):
    with pytest.raises(error, match=message):
        swapped(f"mmdet::{config}", tmp_path / "swapped.py", **request_)
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_does_not_build_and_a_config_on_itself(tmp_path):
    config = tmp_path / "config.py"
    config.write_text("model = dict(type='NoSuchDetector')")
    with pytest.raises(ValueError, match=r"does not build here even before its norms are swapped: .*NoSuchDetector"):
        swapped(config, tmp_path / "swapped.py")
    with pytest.raises(ValueError, match="is the config itself"):
        swapped(config, config)
    assert config.read_text() == "model = dict(type='NoSuchDetector')"


def test_an_unknown_norm_is_named_with_its_place(tmp_path):
    (tmp_path / "config.py").write_text(
        f"_base_ = '{RETINA}'\nmodel = dict(neck=dict(norm_cfg=dict(type='NoSuchNorm')))"
    )
    with pytest.raises(ValueError, match=r"^model.neck.norm_cfg: unknown norm 'NoSuchNorm'; known are FusedGN, GN, BN"):
        swapped(tmp_path / "config.py", tmp_path / "swapped.py")


def test_a_norm_of_another_packages_registry_is_no_unknown_one(tmp_path):
    convnext = "mmdet::convnext/mask-rcnn_convnext-t-p4-w7_fpn_amp-ms-crop-3x_coco.py"
    change = "model = dict(backbone=dict(norm_cfg=dict(type='LN2d', eps=1e-5)))"
    (tmp_path / "config.py").write_text(f"_base_ = '{convnext}'\n{change}")
    swap = swapped(tmp_path / "config.py", tmp_path / "swapped.py")
    assert {layer.kind for layer in norm_layers(swap.after) if layer.name.startswith("backbone")} == {"LN"}


def test_a_config_of_mmdets_whose_types_are_another_package_s(tmp_path):
    pytest.importorskip("mmpretrain")
    source = read_source("mmdet::rtmdet/classification/cspnext-tiny_8xb256-rsb-a1-600e_in1k.py")
    assert source.scope == "mmpretrain"
    after = swap_norm(source, SwapRequest(), tmp_path / "out.py").after
    assert type(after).__name__ == "ImageClassifier"
    assert {layer.kind for layer in norm_layers(after)} == {"FusedGN"}
