import copy
import functools

import pytest
import torch
from mmengine.config import Config, utils
from mmengine.registry import init_default_scope

from mmgn.engine.config import CONFIGS

# Beyond mmdet's, by the folder of the configs.
FRAMEWORKS = {"classification": "mmpretrain", "segmentation": "mmseg"}


@pytest.fixture(scope="session")
def load_config():
    """Read a config by its path below configs/, once for all tests; each gets a copy."""
    with pytest.MonkeyPatch.context() as patch:
        # mmengine reads mmdet's hundred metafiles anew for each mmdet:: base.
        patch.setattr(utils, "load", functools.cache(utils.load))
        read = functools.cache(lambda name: Config.fromfile(CONFIGS / name))

        def load(name):
            framework = FRAMEWORKS.get(name.partition("/")[0])
            if framework:
                pytest.importorskip(framework)
            return copy.deepcopy(read(name))

        yield load


def without_weights(part):
    """Drop every init_cfg: pretrained weights are on a hub."""
    if isinstance(part, dict):
        if "init_cfg" in part:
            part["init_cfg"] = None
        for value in part.values():
            without_weights(value)
    elif isinstance(part, (list, tuple)):
        for value in part:
            without_weights(value)


@pytest.fixture(scope="session")
def build_model():
    """Build a config's model for tests: no pretrained weights, few RoIs, a narrow fc; most of a small step's time."""
    from mmengine.registry import MODELS

    def build(cfg):
        init_default_scope(cfg.default_scope)
        without_weights(cfg.model)
        # What mmsegmentation's images are padded to.
        if "size" in cfg.model.get("data_preprocessor", {}):
            cfg.model.data_preprocessor.size = (64, 64)
        train_cfg = cfg.model.get("train_cfg") or {}
        stages = train_cfg.get("rcnn") or []
        for stage in stages if isinstance(stages, list) else [stages]:
            stage.sampler.num = 16
        heads = cfg.model.get("roi_head", {}).get("bbox_head", [])
        for head in heads if isinstance(heads, list) else [heads]:
            if "fc_out_channels" in head:
                head.fc_out_channels = 32
        torch.manual_seed(0)
        return MODELS.build(cfg.model)

    return build


@pytest.fixture(scope="session")
def step():
    """Run forward and backward on one small image; returns the loss and its parts."""

    def run(model, scope="mmdet", size=64):
        data = model.data_preprocessor(BATCHES[scope](model, size), True)
        loss, log = model.parse_losses(model(**data, mode="loss"))
        loss.backward()
        return loss, log

    return run


def detection_batch(model, size):
    from mmdet.testing import demo_mm_inputs

    return demo_mm_inputs(
        1,
        [(3, size, size)],
        num_items=[2],
        num_classes=10,
        with_mask=True,
        with_semantic=hasattr(model, "semantic_head"),
        use_box_type=True,
    )


def classification_batch(model, size):
    from mmpretrain.structures import DataSample

    image = torch.randint(256, (model.backbone.conv1.in_channels, size, size), dtype=torch.uint8)
    return dict(inputs=[image], data_samples=[DataSample().set_gt_label(3)])


def segmentation_batch(model, size):
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    sample = SegDataSample(metainfo=dict(img_shape=(size, size), ori_shape=(size, size)))
    sample.gt_sem_seg = PixelData(data=torch.randint(10, (1, size, size)))
    return dict(inputs=[torch.randint(256, (3, size, size), dtype=torch.uint8)], data_samples=[sample])


BATCHES = {"mmdet": detection_batch, "mmpretrain": classification_batch, "mmseg": segmentation_batch}
