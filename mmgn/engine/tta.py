"""A config in its test-time-augmented form, as mmdet's tools/test.py makes it of ``--tta``."""

from copy import deepcopy

from mmengine.config import Config, ConfigDict

from mmgn.engine import data

# What DetTTAModel needs to know of a view.
_META_KEYS = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor", "flip", "flip_direction")


def use_test_time_augmentation(cfg: Config) -> None:
    """Have the config test with its ``tta_model`` and ``tta_pipeline``, by default on an image and its mirror image.

    ``DetTTAModel`` becomes ``MaskTTAModel``, which does the same for boxes and merges masks too.

    Args:
        cfg: changed in place.
    """
    datasets = [dataset for _, dataset in data.datasets(cfg, "test")]
    if "tta_model" not in cfg:
        nms = dict(type="nms", iou_threshold=0.5)
        cfg.tta_model = dict(type="DetTTAModel", tta_cfg=dict(nms=nms, max_per_img=100))
    if "tta_pipeline" not in cfg:
        flips = [dict(type="RandomFlip", prob=1.0), dict(type="RandomFlip", prob=0.0)]
        pack = dict(type="PackDetInputs", meta_keys=_META_KEYS)
        cfg.tta_pipeline = deepcopy(datasets[0].pipeline)
        cfg.tta_pipeline[-1] = dict(type="TestTimeAug", transforms=[flips, [pack]])
    if cfg.tta_model.type in ("DetTTAModel", "mmdet.DetTTAModel"):
        cfg.tta_model.type = "MaskTTAModel"
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
    for dataset in datasets:
        dataset.pipeline = cfg.tta_pipeline
