import copy
import dataclasses

import pytest
from mmengine.optim import DefaultOptimWrapperConstructor, build_optim_wrapper
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS

import mmgn  # noqa: F401  # before mmdet: it serves mmcv's ops
from mmgn.engine.norm_swap import SwapRequest, read_source, swap_norm
from mmgn.engine.norm_swap.table import decay_remarks, norms_changed, settings_changed, swapped_rows


def swapped(config, folder):
    return swap_norm(read_source(f"mmdet::{config}"), SwapRequest(), folder / "out.py")


@pytest.fixture(scope="module")
def swap(tmp_path_factory):
    return swapped("retinanet/retinanet_r50_fpn_1x_coco.py", tmp_path_factory.mktemp("swap"))


def with_wrapper(swap, **wrapper):
    """Return a swap with other settings of its optimizer."""
    return dataclasses.replace(swap, cfg={**swap.cfg, "optim_wrapper": {**swap.cfg["optim_wrapper"], **wrapper}})


def group_options(model, wrapper, norms):
    """Return learning rate and weight decay of the parameters of a model that are no norms'."""
    optimizer = build_optim_wrapper(model, copy.deepcopy(wrapper)).optimizer
    options = {id(p): (group["lr"], group["weight_decay"]) for group in optimizer.param_groups for p in group["params"]}
    return {
        name: options[id(p)]
        for name, p in model.named_parameters()
        if id(p) in options and name.rpartition(".")[0] not in norms
    }


def test_norms_by_what_they_were_are_and_do(swap):
    lines = [line.split() for line in norms_changed(*swapped_rows(swap)).splitlines()]
    assert lines[0] == ["layers", "where", "old", "norm", "new", "norm", "channels", "trains", "decays"]
    assert sorted(lines[1:]) == sorted(
        [
            # Stem and first stage are frozen: 1 and 3 x 3 + 1 norms.
            ["11", "backbone", "BN", "FusedGN(32)", "64-256", "no", "no"],
            ["42", "backbone", "BN", "FusedGN(32)", "128-2048", "yes", "no"],
            ["8", "neck", "none", "FusedGN(32)", "256", "yes", "no"],
            ["8", "bbox_head", "none", "FusedGN(32)", "256", "yes", "no"],
        ]
    )


def test_settings_line_by_line(swap):
    lines = settings_changed(swap).splitlines()
    assert "-model.backbone.norm_cfg.type = 'BN'" in lines
    assert "+model.backbone.norm_cfg.type = 'FusedGN'" in lines
    assert "+optim_wrapper.paramwise_cfg.norm_decay_mult = 0.0" in lines
    assert all(line[0] in "+-" for line in lines)
    assert not any("depth" in line for line in lines)


def test_no_new_norm_of_detr_is_decayed_and_all_else_trains_as_it_did(tmp_path):
    swap = swapped("detr/detr_r50_8xb2-150e_coco.py", tmp_path)
    before, after = swapped_rows(swap)
    new = [row for row in after if row.kind == "FusedGN" and row.trains]
    assert len(new) > 40
    assert not any(row.decays for row in new)
    # One of the source, and few for 53 norms.
    assert len(swap.cfg["optim_wrapper"]["paramwise_cfg"]["custom_keys"]) == 1 + 7
    (said,) = decay_remarks(swap, before, after)
    assert said == "norm_decay_mult=0 also ends the decay of 31 LN (encoder.layers.0.norms.0 and 30 more)"
    norms = {row.name for row in (*before, *after)}
    old, now = (
        group_options(model.train(), cfg["optim_wrapper"], norms)
        for model, cfg in ((swap.before, swap.source.cfg), (swap.after, swap.cfg))
    )
    assert now == old


@pytest.mark.parametrize(
    "config",
    [
        "deformable_detr/deformable-detr_r50_16xb2-50e_coco.py",
        "dino/dino-4scale_r50_8xb2-12e_coco.py",
        "mask2former/mask2former_r50_8xb2-lsj-50e_coco.py",
        "swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py",
        "convnext/mask-rcnn_convnext-t-p4-w7_fpn_amp-ms-crop-3x_coco.py",
    ],
)
def test_no_new_norm_is_decayed_whatever_keys_or_constructor_a_config_has(tmp_path, config):
    rows = swapped_rows(swapped(config, tmp_path))[1]
    new = [row for row in rows if row.kind == "FusedGN" and row.trains]
    assert new
    assert not any(row.decays for row in new)


def test_norms_that_are_decayed_all_the_same_are_told_with_the_reason(swap):
    assert decay_remarks(swap, *swapped_rows(swap)) == []

    @OPTIM_WRAPPER_CONSTRUCTORS.register_module(force=True)
    class DecaysAll(DefaultOptimWrapperConstructor):
        def add_params(self, params, module, **kwargs):
            params += [{"params": [p]} for p in module.parameters() if p.requires_grad]

    all_58 = "decays 58 FusedGN (backbone.layer2.0.gn1 and 57 more)"
    name = "neck.lateral_convs.0.gn"
    keys = {f"{name}.weight": {"lr_mult": 0.1}}
    adamw = {"type": "AdamW", "lr": 1e-4}
    for wrapper, said in (
        ({"constructor": "DecaysAll"}, f"DecaysAll need not heed norm_decay_mult=0: {all_58}"),
        (
            {"paramwise_cfg": {"norm_decay_mult": 0.0, "custom_keys": keys}},
            f"custom_keys (paramwise_cfg) has '{name}.weight', which puts norm_decay_mult=0 out of force: decays 1 "
            f"FusedGN ({name})",
        ),
        ({"paramwise_cfg": {}, "optimizer": adamw}, f"the optimizer has a weight_decay by default: {all_58}"),
    ):
        other = with_wrapper(swap, **wrapper)
        assert decay_remarks(other, *swapped_rows(other)) == [f"optim_wrapper: {said}"]
