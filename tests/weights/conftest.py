"""Checkpoints as other code bases write them, with their real names and few channels.

Names as in Detectron's detectron/modeling/{ResNet,FPN,fast_rcnn_heads,mask_rcnn_heads}.py and detectron2's
modeling/{backbone/resnet,backbone/fpn,proposal_generator/rpn,roi_heads/*}.py.
"""

import pickle
import struct
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest

R50, R101 = (3, 4, 6, 3), (3, 4, 23, 3)
WIDTH, CLASSES = 4, 3

# The model that holds them.
CONFIG = """
_base_ = "mmdet::gn/mask-rcnn_r50_fpn_gn-all_2x_coco.py"
norm_cfg = dict(type="FusedGN", num_groups=2)
model = dict(
    backbone=dict(depth={depth}, base_channels=4, norm_cfg=norm_cfg),
    neck=dict(in_channels=[16, 32, 64, 128], out_channels=8, norm_cfg=norm_cfg),
    rpn_head=dict(in_channels=8, feat_channels=8),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=8),
        mask_roi_extractor=dict(out_channels=8),
        bbox_head=dict(
            in_channels=8, conv_out_channels=8, fc_out_channels=8, num_classes={classes}, norm_cfg=norm_cfg),
        mask_head=dict(in_channels=8, conv_out_channels=8, num_classes={classes}, norm_cfg=norm_cfg)))
"""


class Names:
    """Fills a dict with random float32 arrays, of a layer at a time."""

    def __init__(self, parts, norm, norm_parts):
        self.rng = np.random.default_rng(0)
        self.arrays, self.parts, self.norm, self.norm_parts = {}, parts, norm, norm_parts

    def add(self, name, *shape, parts=None):
        for part, size in zip(parts or self.parts, (shape, shape[:1]), strict=False):
            self.arrays[name + part] = self.rng.standard_normal(size, np.float32)

    def conv(self, name, *shape):
        """Without a bias, and its norm."""
        self.add(name, *shape, parts=self.parts[:1])
        self.add(name + self.norm, shape[0], parts=self.norm_parts)

    def stages(self, blocks, branch, shortcut):
        cin = WIDTH
        for stage, count in zip((2, 3, 4, 5), blocks, strict=True):
            inner = WIDTH << (stage - 2)
            for block in range(count):
                if block == 0:
                    self.conv(shortcut(stage, block), 4 * inner, cin, 1, 1)
                self.conv(branch(stage, block, 0), inner, cin, 1, 1)
                self.conv(branch(stage, block, 1), inner, inner, 3, 3)
                self.conv(branch(stage, block, 2), 4 * inner, inner, 1, 1)
                cin = 4 * inner


def detectron(blocks=R50, detector=False):
    n = Names(("_w", "_b"), "_gn", ("_s", "_b"))
    n.conv("conv1", WIDTH, 3, 7, 7)
    n.stages(blocks, lambda s, b, i: f"res{s}_{b}_branch2{'abc'[i]}", lambda s, b: f"res{s}_{b}_branch1")
    if not detector:
        n.add("pred", 10, 128)
        return n.arrays
    for stage, count in zip((2, 3, 4, 5), blocks, strict=True):
        lateral = "" if stage == 5 else "_lateral"
        n.conv(f"fpn_inner_res{stage}_{count - 1}_sum{lateral}", 8, 4 << stage, 1, 1)
        n.conv(f"fpn_res{stage}_{count - 1}_sum", 8, 8, 3, 3)
    n.add("conv_rpn_fpn2", 8, 8, 3, 3)
    n.add("rpn_cls_logits_fpn2", 3, 8, 1, 1)
    n.add("rpn_bbox_pred_fpn2", 12, 8, 1, 1)
    for i in (1, 2, 3, 4):
        n.conv(f"head_conv{i}", 8, 8, 3, 3)
        n.conv(f"_mask_fcn{i}", 8, 8, 3, 3)
    n.add("fc6", 8, 392)
    n.add("cls_score", CLASSES + 1, 8)
    n.add("bbox_pred", 4 * (CLASSES + 1), 8)
    n.add("conv5_mask", 8, 8, 2, 2)
    n.add("mask_fcn_logits", CLASSES + 1, 8, 1, 1)
    n.arrays |= {f"{name}_momentum": np.zeros_like(array) for name, array in n.arrays.items()}
    return n.arrays


def detectron2(blocks=R50, detector=False):
    n = Names((".weight", ".bias"), ".norm", (".weight", ".bias"))
    p = "backbone.bottom_up." if detector else ""
    n.conv(f"{p}stem.conv1", WIDTH, 3, 7, 7)
    n.stages(blocks, lambda s, b, i: f"{p}res{s}.{b}.conv{i + 1}", lambda s, b: f"{p}res{s}.{b}.shortcut")
    if not detector:
        n.add("linear", 10, 128)
        return n.arrays
    for stage in (2, 3, 4, 5):
        n.conv(f"backbone.fpn_lateral{stage}", 8, 4 << stage, 1, 1)
        n.conv(f"backbone.fpn_output{stage}", 8, 8, 3, 3)
    rpn, heads = "proposal_generator.rpn_head", "roi_heads"
    n.add(f"{rpn}.conv", 8, 8, 3, 3)
    n.add(f"{rpn}.objectness_logits", 3, 8, 1, 1)
    n.add(f"{rpn}.anchor_deltas", 12, 8, 1, 1)
    for i in (1, 2, 3, 4):
        n.conv(f"{heads}.box_head.conv{i}", 8, 8, 3, 3)
        n.conv(f"{heads}.mask_head.mask_fcn{i}", 8, 8, 3, 3)
    n.add(f"{heads}.box_head.fc1", 8, 392)
    n.add(f"{heads}.box_predictor.cls_score", CLASSES + 1, 8)
    n.add(f"{heads}.box_predictor.bbox_pred", 4 * CLASSES, 8)
    n.add(f"{heads}.mask_head.deconv", 8, 8, 2, 2)
    n.add(f"{heads}.mask_head.predictor", CLASSES, 8, 1, 1)
    n.arrays |= {
        "pixel_mean": np.array([103.53, 116.28, 123.675], np.float32).reshape(3, 1, 1),
        "pixel_std": np.ones((3, 1, 1), np.float32),
        "proposal_generator.anchor_generator.cell_anchors.0": np.zeros((3, 4), np.float32),
    }
    return n.arrays


class Python2Pickler(pickle._Pickler):
    """Writes what Python 2 and numpy 1 wrote: strings of bytes, protocol 2."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def save_string(self, value):
        raw = value.encode("latin1") if isinstance(value, str) else value
        self.write(b"T" + struct.pack("<i", len(raw)) + raw)
        self.memoize(value)

    dispatch[str] = dispatch[bytes] = save_string

    def save_global(self, obj, name=None):
        if obj.__module__ == "numpy._core.multiarray":
            self.write(f"cnumpy.core.multiarray\n{obj.__name__}\n".encode())
            self.memoize(obj)
        else:
            super().save_global(obj, name)


def python2_dump(content, path):
    with path.open("wb") as file:
        Python2Pickler(file, protocol=2).dump(content)


@pytest.fixture(scope="session")
def zoo():
    return SimpleNamespace(
        detectron=detectron, detectron2=detectron2, R50=R50, R101=R101, CLASSES=CLASSES, python2_dump=python2_dump
    )


@pytest.fixture(scope="session")
def config_text():
    return lambda depth=50, classes=CLASSES: CONFIG.format(depth=depth, classes=classes)


@pytest.fixture(scope="session")
def build(tmp_path_factory, config_text):
    """Build the small Mask R-CNN, of a depth and a number of classes."""
    pytest.importorskip("mmdet")
    from mmdet.registry import MODELS
    from mmengine.config import Config
    from mmengine.registry import init_default_scope

    def make(depth=50, classes=CLASSES):
        path = tmp_path_factory.mktemp("model") / "model.py"
        path.write_text(config_text(depth, classes))
        init_default_scope("mmdet")
        return MODELS.build(Config.fromfile(path).model)

    return make


@pytest.fixture(scope="session")
def model(build):
    return build()
