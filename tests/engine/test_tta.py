import pytest

pytest.importorskip("mmdet")
from mmgn.engine.config import load_config
from mmgn.engine.tta import use_test_time_augmentation

RTMDET = "mmdet::rtmdet/rtmdet-ins_tiny_8xb32-300e_coco.py"
DIGITS = "digits/mask-rcnn_r18-mini_fpn_fusedgn-all_digits.py"


def test_a_config_without_its_own_tests_on_image_and_mirror_image():
    cfg = load_config(DIGITS)
    model, pipeline = cfg.model.to_dict(), cfg.test_dataloader.dataset.pipeline
    use_test_time_augmentation(cfg)
    assert (cfg.model.type, cfg.model.tta_cfg.max_per_img) == ("MaskTTAModel", 100)
    assert cfg.model.module.to_dict() == model
    assert cfg.test_dataloader.dataset.pipeline[:-1] == pipeline[:-1]
    flips, (pack,) = cfg.test_dataloader.dataset.pipeline[-1].transforms
    assert [flip.prob for flip in flips] == [1.0, 0.0]
    assert {"flip", "flip_direction", "img_id"} <= set(pack.meta_keys)


def test_a_config_keeps_its_own():
    cfg = load_config(RTMDET)
    use_test_time_augmentation(cfg)
    assert cfg.model.tta_cfg == cfg.tta_model.tta_cfg
    assert cfg.model.tta_cfg.nms.iou_threshold == 0.6
    assert len(cfg.test_dataloader.dataset.pipeline[1].transforms[0]) == 3


def test_data_sets_in_wrappers_are_reached():
    cfg = load_config(DIGITS)
    inner = cfg.test_dataloader.dataset
    cfg.test_dataloader.dataset = dict(type="ConcatDataset", datasets=[inner, inner])
    use_test_time_augmentation(cfg)
    assert [each.pipeline[-1].type for each in cfg.test_dataloader.dataset.datasets] == 2 * ["TestTimeAug"]
