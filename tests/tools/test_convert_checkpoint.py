"""tools/convert_checkpoint.py on small checkpoints, in this process but for one."""

import importlib.util
import os
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("mmdet")

from mmgn.weights import read_checkpoint

TOOL = Path(__file__).parents[2] / "tools" / "convert_checkpoint.py"
SMALL = """
_base_ = "mmdet::gn/mask-rcnn_r{depth}_fpn_gn-all_2x_coco.py"
norm_cfg = dict(type="FusedGN", num_groups=2)
model = dict(
    backbone=dict(base_channels=4, norm_cfg=norm_cfg, init_cfg=None),
    neck=dict(in_channels=[16, 32, 64, 128], out_channels=8, norm_cfg=norm_cfg),
    rpn_head=dict(in_channels=8, feat_channels=8),
    roi_head=dict(
        bbox_head=dict(in_channels=8, conv_out_channels=8, fc_out_channels=8, num_classes=3, norm_cfg=norm_cfg),
        mask_head=dict(in_channels=8, conv_out_channels=8, num_classes=3, norm_cfg=norm_cfg)))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with r50.py, r101.py and the weights of both models."""
    from mmdet.registry import MODELS
    from mmengine.config import Config
    from mmengine.registry import init_default_scope

    folder = tmp_path_factory.mktemp("convert")
    init_default_scope("mmdet")
    for depth in (50, 101):
        config = folder / f"r{depth}.py"
        config.write_text(SMALL.format(depth=depth))
        model = MODELS.build(Config.fromfile(config).model)
        torch.save({"meta": {}, "state_dict": model.state_dict()}, folder / f"r{depth}.pth")
    return folder


@pytest.fixture
def convert(folder, monkeypatch, capsys):
    """Run the tool in the folder; returns what it printed, and its error if it ended with one."""
    spec = importlib.util.spec_from_file_location("convert_checkpoint", TOOL)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    monkeypatch.chdir(folder)

    def run(*args):
        monkeypatch.setattr(sys, "argv", ["convert_checkpoint.py", *args])
        error = ""
        try:
            tool.main()
        except SystemExit as exit:
            error = exit.code
        return capsys.readouterr().out, error

    return run


def test_a_detector_goes_to_detectron_and_back(folder, convert):
    output, error = convert("r50.pth", "there.pkl", "--to", "detectron", "--keys")
    assert not error
    assert "backbone.gn1.weight -> conv1_gn_s" in output
    assert "mmdet -> detectron: detector, ResNet-50" in output
    output, error = convert("there.pkl", "back.pth", "--model", "r50.py")
    assert not error
    assert "detectron -> mmdet: detector, ResNet-50\nmatched: 223\nnote: " in output
    assert "wrote back.pth: 223 keys" in output
    want, got = read_checkpoint(folder / "r50.pth"), read_checkpoint(folder / "back.pth")
    assert list(got) == list(want)
    assert all(got[key].equal(want[key]) for key in want)


def test_another_depth_is_refused_and_nothing_written(folder, convert):
    output, error = convert("r101.pth", "no.pkl", "--to", "detectron2", "--model", "r50.py")
    assert error == (
        "convert_checkpoint.py: the weights are of another depth: they hold ResNet-101, and the model has ResNet-50."
    )
    assert output == ""
    assert not (folder / "no.pkl").exists()


class Gadget:
    def __reduce__(self):
        return os.system, ("touch ran",)


def test_code_in_a_pickle_is_refused_not_run_and_nothing_written(folder, run_tool):
    blobs = {"conv1_w": np.ones((4, 3, 7, 7), np.float32), "bad": Gadget()}
    (folder / "R-50-GN.pkl").write_bytes(pickle.dumps({"blobs": blobs}, 2))
    status, output = run_tool(folder, "convert_checkpoint.py", "R-50-GN.pkl", "evil.pth")
    assert status == 1
    assert output.startswith("convert_checkpoint.py: cannot load the checkpoint R-50-GN.pkl (")
    assert f"asks for {os.name}.system, which may run code" in output
    assert not (folder / "ran").exists()
    assert not (folder / "evil.pth").exists()


def test_a_file_is_not_overwritten_unless_told(folder, convert):
    mine = folder / "mine.safetensors"
    mine.write_text("mine")
    _, error = convert("r50.pth", "mine.safetensors", "--to", "timm")
    assert "mine.safetensors exists" in error
    assert mine.read_text() == "mine"
    pytest.importorskip("safetensors")
    output, error = convert("r50.pth", "mine.safetensors", "--to", "timm", "--force")
    assert not error
    assert "unmatched, left out: 64\n  neck.lateral_convs.0.conv.weight\n" in output
    assert read_checkpoint(mine)["layer3.5.bn2.weight"].shape == (16,)


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["nowhere.pkl", "out.pth"], "no checkpoint file"),
        (["r50.pth", "out.pkl"], r"written as .pth or .safetensors"),
        (["r50.pth", "out.pth", "--model", "nowhere.py"], "config 'nowhere.py' does not exist"),
        (["r50.pth", "out.pth", "--from", "detectron"], "as detectron names them"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_nothing_written(folder, convert, args, says):
    output, error = convert(*args)
    assert error.startswith("convert_checkpoint.py: ")
    assert says in error
    assert output == ""
    assert not (folder / args[1]).exists()
