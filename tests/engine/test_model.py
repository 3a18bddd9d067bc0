import pytest
from mmengine.config import Config

import mmgn  # noqa: F401  # before mmdet: it serves mmcv's ops
from mmgn.engine.model import build_model


def resnet(**norm_cfg):
    return Config(dict(model=dict(type="ResNet", depth=18, base_channels=16, norm_cfg=norm_cfg)))


def test_a_model_that_cannot_be_built():
    with pytest.raises(ValueError, match="has no model"):
        build_model(Config(dict(lr=1)))
    with pytest.raises(ValueError, match=r"model.norm_cfg: unknown norm 'FusdGN'; known are FusedGN, GN, BN, SyncBN"):
        build_model(resnet(type="FusdGN"))
    for unknown in ("", "mmdet.FusdGN"):
        with pytest.raises(ValueError, match=f"unknown norm '{unknown}'; known are FusedGN"):
            build_model(resnet(type=unknown))
    with pytest.raises(ValueError, match=r"cannot be built: .*use num_groups in"):
        build_model(resnet(type="FusedGN", num_groups=5))
