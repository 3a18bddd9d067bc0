import copy
import functools

import pytest
import torch
from mmengine.config import Config, utils
from mmengine.registry import init_default_scope

from mmgn.engine.config import CONFIGS


@pytest.fixture(scope="session")
def load_config():
    """Read a config by its path below configs/, once for all tests; each gets a copy."""
    with pytest.MonkeyPatch.context() as patch:
        # mmengine reads mmdet's hundred metafiles anew for each mmdet:: base.
        patch.setattr(utils, "load", functools.cache(utils.load))
        read = functools.cache(lambda name: Config.fromfile(CONFIGS / name))
        yield lambda name: copy.deepcopy(read(name))


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
    from mmdet.registry import MODELS

    def build(cfg):
        init_default_scope("mmdet")
        without_weights(cfg.model)
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
    from mmdet.testing import demo_mm_inputs

    def run(model, size=64):
        batch = demo_mm_inputs(
            1,
            [(3, size, size)],
            num_items=[2],
            num_classes=10,
            with_mask=True,
            with_semantic=hasattr(model, "semantic_head"),
            use_box_type=True,
        )
        data = model.data_preprocessor(batch, True)
        loss, log = model.parse_losses(model(**data, mode="loss"))
        loss.backward()
        return loss, log

    return run
