"""FusedGN by its name in configs of three frameworks: the same layer in the same model, and full-size configs train."""

import importlib

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope, init_default_scope
from mmengine.runner import Runner
from torch import nn

import mmgn
from mmgn.engine.config import load_config
from mmgn.models.norms import norm_layers

PACKAGES = ("mmdet", "mmpretrain", "mmseg")
CONFIGS = {
    "classification/resnet50_fusedgn_8xb32_in1k.py": ("mmpretrain", 53),
    "segmentation/fcn_r50_fusedgn_4xb4-80k_ade20k-512x512.py": ("mmseg", 57),
    "segmentation/upernet_r50_fusedgn_4xb4-80k_ade20k-512x512.py": ("mmseg", 66),
}


def resnet(package, norm, depth=50):
    cfg = dict(type="ResNet", depth=depth, base_channels=16, stem_channels=16, norm_cfg=norm)
    cfg.update(num_stages=3, strides=(1, 2, 2), dilations=(1, 1, 1), out_indices=(0, 1, 2))
    importlib.import_module(f"{package}.models")
    with DefaultScope.overwrite_default_scope(package):
        model = MODELS.build(cfg)
    assert type(model).__module__.partition(".")[0] == package
    return model


@pytest.mark.parametrize("depth", [18, 50])
def test_one_norm_cfg_builds_one_model_in_each(depth):
    """The same keys, the same features and gradients, and those of the package's own GN; fused as well."""
    for package in PACKAGES:
        pytest.importorskip(package)
    x = torch.randn(2, 3, 32, 32)
    state = resnet("mmdet", dict(type="GN", num_groups=8), depth).state_dict()
    state = {name: torch.randn_like(value) * 0.1 for name, value in state.items()}

    def features_and_gradients(model):
        model.load_state_dict(state, strict=True)
        features = model(x)
        sum(feature.square().mean() for feature in features).backward()
        return *features, *(parameter.grad for parameter in model.parameters())

    want = features_and_gradients(resnet("mmdet", dict(type="GN", num_groups=8), depth))
    for package in PACKAGES:
        for fuse in (False, True):
            model = resnet(package, dict(type="FusedGN", num_groups=8), depth)
            assert {norm.kind for norm in norm_layers(model)} == {"FusedGN"}
            if fuse:
                left = mmgn.fuse_gn(model).left
                assert {site.left_because for site in left} == {"no activation follows"}
            for got, expected in zip(features_and_gradients(model), want, strict=True):
                torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


def test_stochastic_depth_stays_between_norm_and_addition():
    pytest.importorskip("mmpretrain")
    from mmpretrain.models import ResNet

    model = ResNet(
        18, base_channels=16, stem_channels=16, drop_path_rate=0.9, norm_cfg=dict(type="FusedGN", num_groups=8)
    )
    x = torch.randn(4, 3, 32, 32)

    def seeded():
        torch.manual_seed(1)
        return model(x)[0]

    want = seeded()
    report = mmgn.fuse_gn(model)
    # The first block's rate is 0.
    reasons = [site.left_because for site in report.left if site.left_because != "no activation follows"]
    assert reasons == ["stochastic depth comes before the residual"] * 7
    assert torch.equal(seeded(), want)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_full_size_config_trains_on_digits(name, options, detectron, overfit, tmp_path):
    package, norms = CONFIGS[name]
    pytest.importorskip(package)
    cfg = load_config(name, options=options[package], work_dir=str(tmp_path))
    init_default_scope(cfg.default_scope)
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.init_weights()
    if package == "mmseg":
        pretrained, got = torch.load(detectron, weights_only=True), model.backbone.state_dict()
        assert got.keys() == pretrained.keys()
        assert all(torch.equal(got[key], pretrained[key]) for key in got)
    assert [norm.kind for norm in norm_layers(model)] == ["FusedGN"] * norms
    assert not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())
    mmgn.fuse_gn(model)
    batch = next(iter(Runner.build_dataloader(cfg.train_dataloader, seed=0)))
    wrapper = build_optim_wrapper(model.train(), cfg.optim_wrapper)
    overfit(model, lambda: model.train_step(batch, wrapper)["loss"].item(), steps=4)


def test_imagenets_settings_are_the_papers(options):
    pytest.importorskip("mmpretrain")
    cfg = load_config("classification/resnet50_fusedgn_8xb32_in1k.py")
    assert cfg.auto_scale_lr.base_batch_size == 8 * cfg.train_dataloader.batch_size == 256
    assert cfg.optim_wrapper == dict(
        optimizer=dict(type="SGD", lr=0.1, momentum=0.9, weight_decay=1e-4, _scope_="mmpretrain")
    )
    assert (cfg.param_scheduler.milestones, cfg.param_scheduler.gamma) == ([30, 60, 90], 0.1)
    assert cfg.train_cfg.max_epochs == 100
    init_default_scope(cfg.default_scope)
    model = MODELS.build(cfg.model)
    model.init_weights()
    for name, norm in ((norm.name, norm.module) for norm in norm_layers(model)):
        assert norm.num_groups == 32
        assert torch.all(norm.weight == (0 if name.endswith("gn3") else 1)), name
        assert not norm.bias.any()
