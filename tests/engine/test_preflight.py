"""What stops a training before it begins, and what is only said."""

import copy
import io
import json
import shutil
from collections import namedtuple

import pytest
import torch
from mmengine.optim import build_optim_wrapper

from mmgn.datasets.digits import CLASSES, make_digits
from mmgn.engine import preflight as module
from mmgn.engine.checkpoint_room import check_room, checkpoint_bytes
from mmgn.engine.config import load_config
from mmgn.engine.data import set_data_root
from mmgn.engine.model import build_model
from mmgn.engine.preflight import preflight

CONFIG = "digits/mask-rcnn_r18-mini_fpn_fusedgn-all_digits.py"
TRAIN, VAL = "annotations/instances_train.json", "annotations/instances_val.json"


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return make_digits(tmp_path_factory.mktemp("digits") / "digits", num_train=4, num_val=3).root


@pytest.fixture
def root(digits, tmp_path):
    return shutil.copytree(digits, tmp_path / "digits")


@pytest.fixture(scope="module")
def config():
    return load_config(CONFIG)


@pytest.fixture
def cfg(config, root, tmp_path):
    cfg = copy.deepcopy(config)
    set_data_root(cfg, str(root))
    cfg.work_dir = str(tmp_path / "work")
    return cfg


def change(path, seed):
    content = json.loads(path.read_text())
    seed(content)
    path.write_text(json.dumps(content))


def test_a_sound_training_is_told(cfg, root):
    text = preflight(cfg)
    assert f"{root}/{TRAIN}: 4 images" in text
    assert f"{root}/{VAL}: 3 images" in text
    assert "4 checkpoints of up to 22 MiB in" in text
    assert "norms: 36 (36 FusedGN)" in text
    assert "warning" not in text
    assert "norms:" not in preflight(cfg, norms=False)


def of_first(key, value):
    return lambda content: content["annotations"][0].update({key: value})


@pytest.mark.parametrize("file", [TRAIN, VAL])
@pytest.mark.parametrize(
    ("seed", "said"),
    [
        (of_first("category_id", 99), "1 unknown_category (annotation 1 of image 1 ('000001.jpg'): category_id 99)"),
        (of_first("image_id", 99), "1 unknown_image_id"),
        (of_first("id", 2), "1 duplicate_annotation_id"),
        (of_first("bbox", [1, 1, float("nan"), 5]), "1 box_not_finite"),
        (of_first("segmentation", None), "1 mask_missing"),
        (lambda content: [c.update(name=c["name"] * 2) for c in content["categories"]], "1 no_common_class"),
        (lambda content: content["categories"].reverse(), "10 mislabelled_class (label 0 is category 'nine'"),
        (lambda content: content["images"][0].update(width=161), "1 mis_sized_image (image 1, '000001.jpg'"),
        (lambda content: content.pop("images"), "1 malformed_file"),
    ],
)
def test_errors_in_the_data_stop(file, seed, said, cfg, root):
    change(root / file, seed)
    with pytest.raises(ValueError) as error:
        preflight(cfg)
    split = "train" if file == TRAIN else "val"
    assert f"{root}/{file} ({split}_dataloader.dataset.ann_file) is not fit for use: {said}" in str(error.value)
    assert "--skip-preflight" in str(error.value)


def test_iscrowd_is_wanted_where_it_is_evaluated(cfg, root):
    def drop(content):
        for annotation in content["annotations"]:
            del annotation["iscrowd"]

    change(root / TRAIN, drop)
    assert "norms: 36" in preflight(cfg)
    change(root / VAL, drop)
    with pytest.raises(ValueError, match="iscrowd_missing"):
        preflight(cfg)


def test_boxes_alone_do_for_a_detector_without_masks(cfg, root):
    def drop(content):
        for annotation in content["annotations"]:
            del annotation["segmentation"]

    change(root / TRAIN, drop)
    cfg.train_dataloader.dataset.pipeline[1].with_mask = False
    assert "mask_missing" not in preflight(cfg)


def test_warnings_do_not_stop(cfg, root):
    change(root / TRAIN, of_first("bbox", [1, 1, 0, 5]))
    change(root / VAL, lambda content: content["categories"].append({"id": 11, "name": "ten"}))
    (root / "copy.json").write_bytes((root / VAL).read_bytes())
    cfg.val_evaluator.ann_file = f"{root}/copy.json"
    cfg.optim_wrapper.paramwise_cfg = None
    text = preflight(cfg)
    assert "warning: 1 box_empty" in text
    assert "1 objects are left out of training" in text
    assert "warning: 1 unused_category" in text
    assert f"warning: val_evaluator.ann_file is {root}/copy.json, but val_dataloader reads {root}/{VAL}" in text
    # Of the norms' traps.
    assert "weight and bias are decayed" in text


def test_heads_with_another_number_of_classes_stop(cfg):
    cfg.model.roi_head.mask_head.num_classes = 80
    with pytest.raises(ValueError, match=r"10 classes, but roi_head.mask_head has num_classes=80") as error:
        preflight(cfg)
    assert "--cfg-options model.roi_head.mask_head.num_classes=10" in str(error.value)


def test_splits_with_other_classes_stop(cfg):
    cfg.val_dataloader.dataset.metainfo = dict(classes=CLASSES[:9])
    with pytest.raises(
        ValueError, match=r"train_dataloader.dataset and val_dataloader.dataset have other classes: 10 and 9"
    ):
        preflight(cfg)


def test_a_huge_file_is_left_unread(cfg, root, monkeypatch):
    monkeypatch.setattr(module, "LARGEST", 10)
    (root / TRAIN).write_text("rubbish and more of it")
    assert f"{root}/{TRAIN}: 0.0 GiB, not read" in preflight(cfg)


@pytest.mark.parametrize("free", [0, 10**6, 10**9])
def test_too_little_room_stops(cfg, monkeypatch, free):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(0, 0, free))
    if free == 10**9:
        assert "0.9 GiB free" in preflight(cfg)
        return
    with pytest.raises(ValueError, match=r"will need 0.09 GiB, and .* has 0.00 GiB free.*max_keep_ckpts"):
        preflight(cfg)


@pytest.mark.parametrize(
    "optimizer",
    [
        dict(type="AdamW", lr=0.001),
        dict(type="SGD", lr=0.01, momentum=0.9),
        dict(type="SGD", lr=0.01),
        dict(type="RMSprop", lr=0.01),
    ],
    ids=lambda o: "-".join(map(str, o.values())),
)
def test_sizes_are_those_of_real_checkpoints(cfg, optimizer):
    cfg.optim_wrapper = dict(type="OptimWrapper", optimizer=optimizer)
    model = build_model(cfg)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    wrapper.step()
    for states, size in zip(({}, {"optimizer": wrapper.state_dict()}), checkpoint_bytes(cfg, model), strict=True):
        file = io.BytesIO()
        torch.save({"state_dict": model.state_dict(), **states}, file)
        assert size == pytest.approx(file.tell(), rel=0.05)


@pytest.mark.parametrize(
    ("hook", "loop", "count"),
    [
        (dict(interval=1), dict(max_epochs=24), 24),
        (dict(interval=5), dict(max_epochs=24), 5),
        (dict(interval=1, max_keep_ckpts=3), dict(max_epochs=24), 4),
        (dict(interval=1, max_keep_ckpts=3, save_best="coco/segm_mAP"), dict(max_epochs=24), 6),
        (dict(interval=1, max_keep_ckpts=3), dict(max_epochs=2), 2),
        (dict(interval=10_000, by_epoch=False), dict(type="IterBasedTrainLoop", max_iters=90_000), 9),
        (dict(interval=-1), dict(max_epochs=24), 0),
        (dict(interval=1, out_dir="s3://bucket"), dict(max_epochs=24), 0),
    ],
)
def test_as_many_as_the_hook_keeps(cfg, hook, loop, count):
    cfg.default_hooks.checkpoint = dict(type="CheckpointHook", **hook)
    cfg.train_cfg = loop
    text = check_room(cfg, build_model(cfg))
    assert text.startswith(f"{count} checkpoints of") if count else text == ""


def test_checkpoints_that_are_there_take_no_more_room(cfg, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(0, 0, 10**6))
    (tmp_path / "work").mkdir()
    for epoch in range(1, 5):
        (tmp_path / f"work/epoch_{epoch}.pth").write_bytes(bytes(25_000_000))
    assert "GiB free" in preflight(cfg)
