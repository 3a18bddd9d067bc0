"""tools/test.py on the digits that its model was fitted to."""

import json
import pickle

import cv2
import numpy as np
import pytest
import torch

# Before mmdet, which needs the ops that mmgn provides.
from mmgn.engine.config import find_config

pytest.importorskip("mmdet")
rle = pytest.importorskip("pycocotools.mask")

CONFIG = "digits/mask-rcnn_r18-mini_fpn_fusedgn-all_digits.py"
# No worker process for four images.
HERE = ["--cfg-options", "test_dataloader.num_workers=0", "test_dataloader.persistent_workers=False"]


def test_dumps_paints_and_times(fitted, tmp_path, call_tool):
    out = tmp_path / "new/out.pkl"
    flags = ["--work-dir", tmp_path, "--out", out, "--show-dir", "shown", "--speed", 2]
    status, output = call_tool(fitted, "test.py", CONFIG, "fitted.pth", *flags, *HERE)
    assert status == 0, output
    dumped = pickle.loads(out.read_bytes())
    assert [sample["img_id"] for sample in dumped] == [1, 2, 3, 4]
    pictures = sorted(tmp_path.glob("*/shown/*.jpg"))
    assert [picture.name for picture in pictures] == [f"{i:06d}.jpg" for i in (1, 2, 3, 4)]
    # The truth is on their left, the prediction on their right.
    painted = np.stack([cv2.imread(str(picture)) for picture in pictures])[:, :, 160:]
    plain = np.stack([cv2.imread(str(fitted / "data/digits/val" / picture.name)) for picture in pictures])
    assert np.mean(np.abs(painted.astype(int) - plain) > 40) > 0.005

    evaluation = json.loads((tmp_path / "run.json").read_text())["evaluation"]
    assert evaluation["metrics"]["coco/segm_mAP_50"] > 0.2
    speed = evaluation["speed"]
    assert (speed["batch_size"], speed["num_images"], speed["autocast"]) == (2, 4, False)
    low, high = speed["ms_per_image_quartiles"]
    assert 0 < low <= evaluation["ms_per_image"] <= high
    assert f"{evaluation['ms_per_image']:.4g} ms/image, the median of 4 images in batches of 2" in output
    assert evaluation["device"] in output


def test_channels_last_changes_no_detection(fitted, tmp_path, call_tool):
    def scores(name, *flags):
        status, output = call_tool(
            fitted, "test.py", CONFIG, "fitted.pth", "--work-dir", tmp_path / name, *flags, *HERE
        )
        assert status == 0, output
        found = json.loads((tmp_path / name / "predictions.bbox.json").read_text())
        return sorted(entry["score"] for entry in found)[-10:]

    plain, other = scores("plain"), scores("other", "--channels-last")
    assert other == pytest.approx(plain, abs=1e-4)


def test_tta_merges_masks_too(fitted, tmp_path, call_tool):
    status, output = call_tool(fitted, "test.py", CONFIG, "fitted.pth", "--work-dir", tmp_path, "--tta", *HERE)
    assert status == 0, output
    evaluation = json.loads((tmp_path / "run.json").read_text())["evaluation"]
    assert evaluation["model"] == "MaskTTAModel"
    assert evaluation["metrics"]["coco/segm_mAP_50"] > 0.1
    boxes = json.loads((tmp_path / "predictions.bbox.json").read_text())
    masks = json.loads((tmp_path / "predictions.segm.json").read_text())
    found = sorted(zip(boxes, masks, strict=True), key=lambda pair: pair[0]["score"])[-10:]
    overlaps = [rle.iou([box["bbox"]], [rle.toBbox(mask["segmentation"])], [0])[0, 0] for box, mask in found]
    # The mask of a mirrored view would lie elsewhere.
    assert min(overlaps) > 0.3, overlaps


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["untested.py", "fitted.pth"], "untested.py has no test: test_evaluator is not set"),
        (["deeper.py", "fitted.pth"], "of its 172 parameters 124 match; 48 missing (such as backbone.layer1.2.conv1"),
        (["narrower.py", "fitted.pth", "--allow-missing"], "24 of another shape (such as neck.lateral_convs.0.conv.w"),
        ([CONFIG, "other.pth", "--allow-missing"], "of its 124 parameters 0 match; 124 missing"),
        ([CONFIG, "fitted.pth", "--show"], "--show opens windows, and matplotlib has none here (its backend is agg)"),
        ([CONFIG, "fitted.pth", "--out", "fitted.pth/out.pkl"], "fitted.pth is a file, not a folder"),
        ([CONFIG, "fitted.pth", "--out", "folder.pkl"], "folder.pkl is a folder"),
        ([CONFIG, "fitted.pth", "--speed", "0"], "--speed takes a batch of at least 1, got 0"),
        ([CONFIG, "fitted.pth", "--out", "out.json"], "--out takes a .pkl or .pickle file, got 'out.json'"),
        (["unhooked.py", "fitted.pth", "--show-dir", "shown"], "--show and --show-dir need a hook that config"),
    ],
)
def test_faults_are_told_in_one_line(fitted, tmp_path, call_tool, monkeypatch, args, said):
    monkeypatch.setattr("matplotlib.pyplot.get_backend", lambda: "agg")
    base = f"_base_ = {str(find_config(CONFIG))!r}\n"
    (fitted / "untested.py").write_text(f"{base}test_evaluator = None\n")
    (fitted / "deeper.py").write_text(f"{base}model = dict(backbone=dict(depth=34))\n")
    (fitted / "narrower.py").write_text(f"{base}model = dict(neck=dict(out_channels=32))\n")
    (fitted / "unhooked.py").write_text(f"{base}default_hooks = dict(visualization=None)\n")
    (fitted / "folder.pkl").mkdir(exist_ok=True)
    torch.save({"state_dict": {"stem.weight": torch.ones(1)}}, fitted / "other.pth")
    status, output = call_tool(fitted, "test.py", *args, "--work-dir", tmp_path, *HERE)
    assert status
    assert said in output.splitlines()[-1]
    assert not (tmp_path / "run.json").exists()
