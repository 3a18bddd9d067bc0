"""A cell's config: the base config with another norm, written as a difference to it."""

import pytest

pytest.importorskip("mmdet")

import torch
from mmengine.config import Config

from mmgn.engine.config import find_config, load_config, package_configs
from mmgn.engine.model import build_model
from mmgn.models import fuse_gn
from mmgn.models.norms import norm_layers
from mmgn.study.cell import base_groups, pretrained_backbone, put_norm, start_from, write_config
from mmgn.study.grid import Cell

DIGITS = "digits/mask-rcnn_r18-mini_fpn_fusedgn-all_digits.py"
SCRATCH = "scratch/mask-rcnn_r50-scratch_fpn_fusedgn-all_3x_coco.py"


def norms_of(cell):
    cfg = load_config(DIGITS)
    put_norm(cfg, cell)
    model = build_model(cfg)
    return model, norm_layers(model)


@pytest.mark.parametrize(
    ("cell", "kind", "groups"),
    [
        (Cell("d", "GN", 8, 0, num_groups=4), "FusedGN", lambda channels: 4),
        (Cell("d", "GN", 8, 0, channels_per_group=2), "FusedGN", lambda channels: channels // 2),
        (Cell("d", "LN", 8, 0, num_groups=1), "FusedGN", lambda channels: 1),
        (Cell("d", "IN", 8, 0, channels_per_group=1), "FusedGN", lambda channels: channels),
        (Cell("d", "BN", 8, 0), "BN", lambda channels: None),
        (Cell("d", "SyncBN", 8, 0), "SyncBN", lambda channels: None),
        (Cell("d", "BN*", 8, 0), "FrozenBN", lambda channels: None),
    ],
    ids=lambda value: value.id if isinstance(value, Cell) else "",
)
def test_every_norm_of_the_detector_is_the_cells(cell, kind, groups):
    model, norms = norms_of(cell)
    assert len(norms) == 36
    assert {norm.kind for norm in norms} == {kind}
    assert all(norm.num_groups == groups(norm.num_channels) for norm in norms)
    model.train()
    if kind in ("BN", "SyncBN"):
        # With the statistics of the batch, in the backbone too.
        assert all(norm.module.training and norm.module.weight.requires_grad for norm in norms)
    if kind == "FrozenBN":
        assert not any(list(norm.module.parameters()) for norm in norms)


def test_a_seed_gives_each_norm_the_same_weights_but_its_own():
    def weights(norm, seed):
        cfg = load_config(DIGITS)
        put_norm(cfg, Cell("d", norm, 8, seed, **{"GN": {"num_groups": 4}, "LN": {"num_groups": 1}}.get(norm, {})))
        torch.manual_seed(seed)
        model = build_model(cfg)
        model.init_weights()
        norms = {norm.name for norm in norm_layers(model)}
        return {name: p for name, p in model.named_parameters() if name.rpartition(".")[0] not in norms}

    want = weights("GN", 0)
    assert sum(p.dim() == 4 for p in want.values()) > 20
    for norm in ("BN", "BN*", "LN"):
        # Layers of batch norm have names of their own, not so what they stand between.
        got = weights(norm, 0)
        assert got.keys() == want.keys()
        assert all(torch.equal(got[name], want[name]) for name in want)
    assert not torch.equal(*(weights("BN", seed)["backbone.conv1.weight"] for seed in (0, 1)))


def test_weights_of_bn_fit_bn_frozen_and_give_what_bn_gives_in_evaluation():
    trained, norms = norms_of(Cell("d", "BN", 8, 0))
    for norm in norms:
        for name in ("running_mean", "running_var", "weight", "bias"):
            getattr(norm.module, name).data.uniform_(0.5, 2)
    frozen, _ = norms_of(Cell("d", "BN*", 8, 0))
    found = frozen.load_state_dict(trained.state_dict(), strict=False)
    assert not found.missing_keys
    assert {key.rpartition(".")[2] for key in found.unexpected_keys} == {"num_batches_tracked"}
    images = torch.rand(2, 3, 64, 64)
    trained.eval()
    frozen.train()
    for one, other in zip(trained.extract_feat(images), frozen.extract_feat(images), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_norm_eval_goes_to_backbones_that_take_it():
    norm = dict(type="FusedGN", num_groups=8)
    for kind, takes in (("ResNet", True), ("ResNeXt", True), ("PyramidVisionTransformer", False)):
        cfg = Config(dict(default_scope="mmdet", model=dict(backbone=dict(type=kind, norm_cfg=dict(norm)))))
        put_norm(cfg, Cell("d", "BN", 8, 0))
        assert cfg.model.backbone.norm_cfg == {"type": "BN"}
        assert ("norm_eval" in cfg.model.backbone) == takes


def test_the_base_must_have_one_group_norm_all_over():
    assert base_groups(load_config(SCRATCH)) == {"num_groups": 32}
    with pytest.raises(ValueError, match=r"must have norm_cfg=dict\(type='FusedGN'\) of one kind all over, found none"):
        base_groups(load_config("digits/mask-rcnn_r18-mini_fpn_bn_digits.py"))
    cfg = load_config(DIGITS)
    cfg.model.neck.norm_cfg = dict(type="FusedGN", channels_per_group=4)
    with pytest.raises(ValueError, match=r"found {'num_groups': 8} and {'channels_per_group': 4}"):
        base_groups(cfg)


def test_scratch_is_scratch_whatever_the_base_starts_from():
    cfg = load_config("mask_rcnn/mask-rcnn_r50_fpn_fusedgn-all_2x_coco.py")
    assert (cfg.model.backbone.init_cfg.type, cfg.model.backbone.frozen_stages) == ("Pretrained", 1)
    start_from(cfg, None)
    assert (cfg.model.backbone.init_cfg, cfg.model.backbone.frozen_stages) == (None, -1)
    start_from(cfg, "bn/epoch_4.pth")
    assert (cfg.load_from, cfg.model.backbone.init_cfg) == ("bn/epoch_4.pth", None)


def test_torchvisions_backbone_gets_its_own_images():
    cfg = load_config(SCRATCH)
    weights = pretrained_backbone(cfg)
    assert weights == "torchvision://resnet50"
    assert pretrained_backbone(load_config(DIGITS)) is None
    other = load_config(SCRATCH)
    other.model.backbone.deep_stem = True
    assert pretrained_backbone(other) is None
    start_from(cfg, weights)
    assert cfg.load_from is None
    assert cfg.model.backbone.init_cfg.checkpoint == weights
    ours = cfg.model.data_preprocessor
    theirs = Config.fromfile(f"{package_configs('mmdet')}/_base_/models/mask-rcnn_r50_fpn.py").model
    assert theirs.backbone.init_cfg.checkpoint == weights
    for key in ("mean", "std", "bgr_to_rgb"):
        assert ours[key] == theirs.data_preprocessor[key]
    # What it has of the base is still there.
    assert ours.pad_mask is True


def test_the_written_config_is_the_cells_and_small(tmp_path):
    base, cfg = (Config.fromfile(find_config(DIGITS)) for _ in range(2))
    put_norm(cfg, Cell("d", "BN", 8, 0))
    cfg.optim_wrapper.optimizer.lr = 0.002
    path = tmp_path / "configs/cell.py"
    write_config(path, base, cfg)
    written = Config.fromfile(path)
    assert written.to_dict() == cfg.to_dict()
    assert len(path.read_text().splitlines()) < 20
    # Left alone where it is the same: a training may be reading it.
    before = path.stat().st_mtime_ns
    write_config(path, base, cfg)
    assert path.stat().st_mtime_ns == before


def test_fusing_leaves_batch_norm_alone():
    # A base config's FuseGNHook does this to all of its cells.
    model, norms = norms_of(Cell("d", "BN", 8, 0))
    assert not fuse_gn(model).sites
    assert [norm.module for norm in norm_layers(model)] == [norm.module for norm in norms]
