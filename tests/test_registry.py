"""A config whose base is one of ours by `mmgn::` finds what it names."""

import pytest
from mmengine.config import Config
from mmengine.registry import DATASETS, HOOKS, METRICS, MODELS, DefaultScope, init_default_scope

import mmgn
from mmgn.datasets.digits import make_digits


@pytest.fixture(scope="module")
def child(tmp_path_factory):
    folder = tmp_path_factory.mktemp("child")
    make_digits(folder / "digits", num_train=2, num_val=1)
    path = folder / "child.py"
    path.write_text("_base_ = 'mmgn::digits/mask-rcnn_r18-mini_fpn_fusedgn-all_digits.py'\n")
    cfg = Config.fromfile(path)
    assert cfg.val_dataloader.dataset._scope_ == "mmgn"
    init_default_scope(cfg.default_scope)
    cfg.val_dataloader.dataset.data_root = f"{folder}/digits/"
    cfg.val_evaluator.ann_file = f"{folder}/digits/annotations/instances_val.json"
    return cfg


def test_its_model_is_mmdets_with_our_norm(child):
    model = MODELS.build(child.model)
    assert type(model).__module__ == "mmdet.models.detectors.mask_rcnn"
    assert type(model.backbone.norm1) is mmgn.FusedGN


def test_its_data_set_metric_and_hooks_are_found(child):
    assert DATASETS.build(child.val_dataloader.dataset)[0]["inputs"].shape == (3, 160, 160)
    assert type(METRICS.build(child.val_evaluator)).__name__ == "CocoMetric"
    assert type(HOOKS.build(child.custom_hooks[-1])).__module__.startswith("mmgn.engine")


def test_what_mmdet_does_not_have_is_looked_for_above_it():
    from mmgn.registry import NODES

    assert NODES["MODELS"].get("FusedGN") is mmgn.FusedGN
    assert NODES["MODELS"].get("NoSuchModel") is None


@pytest.mark.parametrize(
    ("package", "config"),
    [
        ("mmpretrain", "classification/resnet-mini_fusedgn_digits.py"),
        ("mmseg", "segmentation/fcn_r18-mini_fusedgn_digits.py"),
    ],
)
def test_a_base_for_another_framework_finds_that_ones_types(tmp_path, package, config):
    pytest.importorskip(package)
    path = tmp_path / "child.py"
    path.write_text(f"_base_ = 'mmgn::{config}'\n")
    cfg = Config.fromfile(path)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        # mmdet has a BaseSegDataset and a ResNet as well.
        for registry, part in (
            (DATASETS, cfg.train_dataloader.dataset),
            (DATASETS, cfg.val_dataloader.dataset),
            (METRICS, cfg.val_evaluator),
            (MODELS, cfg.model),
        ):
            with registry.switch_scope_and_registry(part.get("_scope_")) as node:
                assert node.get(part.type).__module__.startswith(f"{package}."), part.type
        model = MODELS.build(cfg.model)
    assert type(model.backbone).__module__ == f"{package}.models.backbones.resnet"
    assert type(model.backbone.norm1) is mmgn.FusedGN
