import pytest

from mmgn.engine.norm_swap.request import SwapRequest
from mmgn.engine.norm_swap.settings import train_settings

SGD = {"type": "SGD", "lr": 0.02, "weight_decay": 1e-4}


def settings(request=None, norms=("backbone.gn1", "neck.convs.0.gn"), **cfg):
    cfg = {"model": {"type": "MaskRCNN"}, "optim_wrapper": {"optimizer": dict(SGD)}, **cfg}
    parameters = [f"{norm}.{name}" for norm in norms for name in ("weight", "bias")]
    return cfg, train_settings(cfg, request or SwapRequest(), norms, parameters)


def test_norms_are_not_decayed():
    cfg, said = settings(optim_wrapper={"optimizer": SGD, "paramwise_cfg": {"bias_lr_mult": 2.0}})
    assert cfg["optim_wrapper"]["paramwise_cfg"] == {"bias_lr_mult": 2.0, "norm_decay_mult": 0.0}
    assert said == []


def test_without_weight_decay_there_is_nothing_to_multiply():
    cfg, (said,) = settings(optim_wrapper={"optimizer": {"type": "Adam", "lr": 1e-3}})
    assert "paramwise_cfg" not in cfg["optim_wrapper"]
    assert "Adam has no weight_decay" in said


def test_another_constructor_gets_no_keys():
    paramwise = {"custom_keys": {"backbone": {"lr_mult": 0.1}}}
    wrapper = {"optimizer": SGD, "paramwise_cfg": paramwise, "constructor": "LearningRateDecayOptimizerConstructor"}
    cfg, said = settings(optim_wrapper=wrapper)
    assert cfg["optim_wrapper"]["paramwise_cfg"]["custom_keys"] == paramwise["custom_keys"]
    assert said == []


def test_mmgn_is_imported_first_and_its_hook_comes_last():
    imports = {"imports": ["mmpretrain.models"], "allow_failed_imports": False}
    cfg, _ = settings(custom_imports=imports, custom_hooks=[{"type": "EMAHook"}])
    assert cfg["custom_imports"] == {"imports": ["mmgn", "mmpretrain.models"], "allow_failed_imports": False}
    assert cfg["custom_hooks"] == [{"type": "EMAHook"}, {"type": "FuseGNHook"}]
    again = train_settings(cfg, SwapRequest(), [], [])
    assert again == []
    assert len(cfg["custom_hooks"]) == 2
    assert imports["imports"] == ["mmpretrain.models"]
    cfg, _ = settings(custom_imports={"imports": "mmpretrain.models"})
    assert cfg["custom_imports"] == {"imports": ["mmgn", "mmpretrain.models"]}


def test_torchs_own_needs_neither():
    cfg, _ = settings(SwapRequest(to="GN"))
    assert not cfg.keys() & {"custom_imports", "custom_hooks"}
    cfg, _ = settings(SwapRequest(to="GN"), model={"type": "NormConverted"})
    assert cfg["custom_imports"]["imports"] == ["mmgn"]


def test_a_checkpoint_of_the_old_model():
    cfg, (said,) = settings(load_from="old.pth")
    assert cfg["load_from"] == "old.pth"
    assert "load_from: old.pth was trained with the old norms" in said
    cfg, (said,) = settings(SwapRequest(scratch=True), load_from="old.pth")
    assert cfg["load_from"] is None
    assert "73 epochs" in said


@pytest.mark.parametrize(
    "cfg, said",
    [
        ({"optim_wrapper": {"optimizer": [SGD]}}, r"optim_wrapper\.optimizer must be a dict, got \[\{'type': 'SGD'"),
        ({"optim_wrapper": {"optimizer": SGD, "paramwise_cfg": 0.1}}, r"paramwise_cfg must be a dict, got 0\.1"),
        (
            {"optim_wrapper": {"optimizer": SGD, "paramwise_cfg": {"custom_keys": {"bn": 0.0}}}},
            r"custom_keys must have dicts in it, got 0\.0",
        ),
        ({"custom_imports": ["mmgn"]}, r"custom_imports must be a dict, got \['mmgn'\]"),
        ({"custom_hooks": {"type": "EMAHook"}}, r"custom_hooks must be a list or tuple, got \{'type': 'EMAHook'\}"),
        ({"custom_hooks": ["EMAHook"]}, r"custom_hooks must have dicts in it, got 'EMAHook'"),
    ],
)
def test_settings_of_another_type_are_refused(cfg, said):
    with pytest.raises(ValueError, match=said):
        settings(**cfg)
