import re

import pytest
from mmengine.config import Config

import mmgn  # noqa: F401  # before mmdet: it serves mmcv's ops
from mmgn.engine.config import load_config
from mmgn.engine.model import build_model
from mmgn.engine.norm_state import norm_rows
from mmgn.engine.norm_traps import traps

TINY = dict(depth=18, base_channels=16, num_stages=2, strides=(1, 2), dilations=(1, 1), out_indices=(0, 1))
WEIGHTS = dict(type="Pretrained", checkpoint="torchvision://resnet18")
BN_STAR = dict(norm_cfg=dict(type="BN", requires_grad=False), norm_eval=True, init_cfg=WEIGHTS)
GN = dict(norm_cfg=dict(type="FusedGN", num_groups=8))
NO_DECAY = dict(norm_decay_mult=0.0)


def config(paramwise=NO_DECAY, batch_size=2, **backbone):
    """Return a config whose model is a small ResNet."""
    return Config(
        dict(
            model=dict(type="ResNet", **TINY, **backbone),
            optim_wrapper=dict(
                type="AmpOptimWrapper",
                optimizer=dict(type="SGD", lr=0.02, weight_decay=0.01),
                paramwise_cfg=paramwise,
            ),
            train_dataloader=dict(batch_size=batch_size),
        )
    )


def warnings_of(cfg):
    model = build_model(cfg)
    return traps(model, norm_rows(model, cfg), cfg)


# What the warning must say: which norms and why, and the way out.
TRAPS = {
    "half frozen": (
        dict(norm_cfg=dict(type="BN"), norm_eval=True),
        "10 BN (bn1 and 9 more): .* weight and bias train, .* not the paper's BN*",
        "norm_cfg=dict(type='BN', requires_grad=False)",
    ),
    "SyncBN kept": (
        dict(norm_cfg=dict(type="SyncBN", requires_grad=False), norm_eval=True, init_cfg=WEIGHTS),
        "10 SyncBN (bn1 and 9 more): .* synchronises nothing",
        "norm_eval=False",
    ),
    "statistics of frozen norms": (
        dict(norm_cfg=dict(type="BN", requires_grad=False), norm_eval=False, batch_size=16),
        "10 BN (bn1 and 9 more): weight and bias are frozen, but the running statistics move",
        "norm_eval=True",
    ),
    "small batch": (
        dict(norm_cfg=dict(type="BN"), norm_eval=False),
        "10 BN .* 2 images per GPU (train_dataloader.batch_size).* 34.7% at 2",
        "FusedGN",
    ),
    "decay": (dict(paramwise=None, **GN), "10 FusedGN .* decayed (weight_decay=0.01)", "norm_decay_mult=0."),
    "custom_keys": (
        dict(paramwise=dict(NO_DECAY, custom_keys={"layer1": dict(lr_mult=0.1), "head": dict()}), **GN),
        "4 FusedGN (layer1.0.gn1 and 3 more): .* norm_decay_mult=0 is out of force .* here 'layer1'.",
        "decay_mult=0",
    ),
    "frozen from scratch": (
        dict(frozen_stages=1, **GN),
        "frozen_stages=1 without .* 36.2 against 39.5",
        "frozen_stages=-1",
    ),
    "identity": (
        dict(BN_STAR, init_cfg=None),
        "10 BN (bn1 and 9 more): frozen without pretrained weights, so the identity",
        "load_from",
    ),
    "weights of BN": (
        dict(init_cfg=WEIGHTS, **GN),
        "10 FusedGN .* loads 'torchvision://resnet18', whose name does not tell of GN",
        "open-mmlab://detectron/resnet50_gn",
    ),
    "one channel": (
        dict(norm_cfg=dict(type="FusedGN", channels_per_group=1)),
        "10 FusedGN .* one channel a group",
        "channels_per_group=",
    ),
}


@pytest.mark.parametrize("trap", TRAPS)
def test_traps(trap):
    kwargs, what, way_out = TRAPS[trap]
    warnings = warnings_of(config(**kwargs))
    assert len(warnings) == 1
    assert re.search(re.escape(what).replace(r"\.\*", ".*").replace(r"\ ", " "), warnings[0])
    assert way_out in warnings[0]


@pytest.mark.parametrize(
    "kwargs",
    [
        BN_STAR,
        dict(norm_cfg=dict(type="SyncBN"), norm_eval=False),
        # A frozen stage's norms are kept, the others synchronise.
        dict(norm_cfg=dict(type="SyncBN"), norm_eval=False, frozen_stages=1, init_cfg=WEIGHTS),
        dict(norm_cfg=dict(type="BN"), norm_eval=False, batch_size=16),
        dict(frozen_stages=1, init_cfg=dict(WEIGHTS, checkpoint="open-mmlab://detectron/resnet50_gn"), **GN),
        dict(paramwise=dict(NO_DECAY, custom_keys={"layer1": dict(decay_mult=0.0)}), **GN),
    ],
)
def test_no_false_alarm(kwargs):
    assert warnings_of(config(**kwargs)) == []


def test_norms_may_decay_on_imagenet():
    """The paper leaves out their decay in fine-tuning alone."""
    pytest.importorskip("mmpretrain")
    cfg = load_config("classification/resnet50_fusedgn_8xb32_in1k.py")
    assert {row.decays for row in norm_rows(build_model(cfg), cfg)} == {True}
    assert warnings_of(cfg) == []


def test_a_checkpoint_to_start_from_is_weights():
    cfg = config(frozen_stages=1, norm_cfg=dict(type="BN", requires_grad=False), norm_eval=True)
    assert len(warnings_of(cfg)) == 2
    cfg.load_from = "digits_bn.pth"
    assert warnings_of(cfg) == []
    model = build_model(cfg)
    # Without a config there is no knowing.
    assert traps(model, norm_rows(model)) == []
