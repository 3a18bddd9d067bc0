"""One config of each kind of model that mmdet ships: swapped, built from the file, and run."""

import dataclasses

import pytest
import torch

import mmgn  # noqa: F401  # before mmdet: it serves mmcv's ops
from mmgn.engine.norm_swap import SwapRequest, read_source
from mmgn.engine.norm_swap.trial import NOTHING, RUNS, UNBUILT, WORSE, try_swap

FAMILIES = {
    "cspnext, instances": "rtmdet/rtmdet-ins_tiny_8xb32-300e_coco.py",
    "mobilenet, ssd": "ssd/ssdlite_mobilenetv2-scratch_8xb24-600e_coco.py",
    "hrnet, fcos": "hrnet/fcos_hrnetv2p-w18-gn-head_4xb4-1x_coco.py",
    "regnet": "regnet/faster-rcnn_regnetx-400MF_fpn_ms-3x_coco.py",
    "res2net": "res2net/faster-rcnn_res2net-101_fpn_2x_coco.py",
    # Here frozen_stages=0 is nothing frozen.
    "efficientnet": "efficientnet/retinanet_effb3_fpn_8xb4-crop896-1x_coco.py",
    "hard-coded in the head": "grid_rcnn/grid-rcnn_r50_fpn_gn-head_2x_coco.py",
    "hard-coded in the neck": "nas_fcos/nas-fcos_r50-caffe_fpn_fcoshead-gn-head_4xb4-1x_coco.py",
    "cascade": "cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py",
    "transformer": "detr/detr_r50_8xb2-150e_coco.py",
    # These are fed a clip.
    "video, masks": "masktrack_rcnn/masktrack-rcnn_mask-rcnn_r50_fpn_8xb1-12e_youtubevis2019.py",
    "video, transformer": "mask2former_vis/mask2former_r50_8xb2-8e_youtubevis2019.py",
    "learned proposals": "queryinst/queryinst_r50_fpn_1x_coco.py",
    "layer norm": "swin/retinanet_swin-t-p4-w7_fpn_1x_coco.py",
}
YOLOX = "mmdet::yolox/yolox_tiny_8xb8-300e_coco.py"
# One stack of two: a norm_cfg that the backbone does not hand down, and heads that have none.
HOURGLASS = """
_base_ = 'mmdet::cornernet/cornernet_hourglass104_8xb6-210e-mstest_coco.py'
model = dict(backbone=dict(num_stacks=1), bbox_head=dict(num_feat_levels=1))
"""


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("config", FAMILIES.values(), ids=FAMILIES)
def test_swapped_models_run_without_batch_norm(config):
    outcome = try_swap(config, read_source(f"mmdet::{config}"))
    assert (outcome.category, outcome.reason) == (RUNS, "")


def test_hourglass(tmp_path):
    (tmp_path / "hourglass.py").write_text(HOURGLASS)
    outcome = try_swap("hourglass", read_source(str(tmp_path / "hourglass.py")))
    assert (outcome.category, outcome.reason) == (RUNS, "")


def test_batch_norm_that_is_left_is_told():
    source = read_source(YOLOX)
    outcome = try_swap("heads", source, SwapRequest(where=("heads",)))
    assert outcome.category == WORSE
    assert "batch norms are left, the first backbone.stem" in outcome.reason


def test_a_model_without_norm_and_one_that_does_not_build():
    source = read_source("mmdet::ssd/ssd300_coco.py")
    assert try_swap("none", source).category == NOTHING
    unknown = dataclasses.replace(source, cfg={**source.cfg, "model": {"type": "NoSuchDetector"}})
    outcome = try_swap("unknown", unknown)
    assert outcome.category == UNBUILT
    assert "NoSuchDetector" in outcome.reason


def test_groups_that_do_not_fit_are_no_silent_success():
    outcome = try_swap("strict", read_source(YOLOX), SwapRequest(num_groups=32))
    assert outcome.category == WORSE
    assert "num_groups=32 does not divide" in outcome.reason
