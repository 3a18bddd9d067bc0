"""FusedGN in timm: by norm_layer= where norm and activation are two layers, in a built model where they are one."""

from functools import partial

import pytest
import torch

from mmgn import FusedGN, convert_norm
from mmgn.models.norms import norm_layers

timm = pytest.importorskip("timm")


def test_norm_layer_gives_what_timms_group_norm_gives(images, classify, overfit):
    ours = timm.create_model("resnet18", num_classes=10, norm_layer=FusedGN)
    theirs = timm.create_model("resnet18", num_classes=10, norm_layer="groupnorm")
    assert {norm.kind for norm in norm_layers(ours)} == {"FusedGN"}
    assert {norm.num_groups for norm in norm_layers(ours)} == {32}
    theirs.load_state_dict(ours.state_dict(), strict=True)
    assert torch.equal(ours(images), theirs(images))
    losses = overfit(ours, classify(ours), steps=6)
    step = classify(theirs)
    # Rounding grows with the steps.
    assert losses[:3] == pytest.approx([step() for _ in range(3)], rel=1e-4)


def test_norm_layer_takes_other_groups():
    model = timm.create_model("resnet18", norm_layer=partial(FusedGN, channels_per_group=16))
    assert {norm.num_channels // norm.num_groups for norm in norm_layers(model)} == {16}


@pytest.mark.parametrize("name", ["regnetx_002", "efficientnet_lite0", "densenet121", "resnetv2_50"])
def test_where_a_norm_holds_its_activation_the_built_model_is_converted(name):
    """timm knows by a class's name what norm with activation belongs to a norm, and so none for FusedGN."""
    with pytest.raises(AssertionError, match="No equivalent norm_act layer for fusedgn"):
        timm.create_model(name, norm_layer=FusedGN)
    model = timm.create_model(name)
    active = [norm.name for norm in norm_layers(model) if not isinstance(norm.module.act, torch.nn.Identity)]
    assert active
    report = convert_norm(model)
    assert report.converted and not report.left
    assert {norm.kind for norm in norm_layers(model)} == {"FusedGN"}
    # The layer's own activation, or timm's where it has none such.
    applied = [
        norm.name for norm in norm_layers(model) if norm.module.activation != "none" or hasattr(norm.module, "act")
    ]
    assert applied == active


def test_a_converted_one_trains(images, classify, overfit):
    # A gamma of 0 in each block would hold back what is before it for longer than the few steps here.
    model = timm.create_model("regnetx_002", num_classes=10, zero_init_last=False)
    convert_norm(model)
    overfit(model, classify(model, lr=0.002), steps=6)
    before = model.eval()(images)
    assert torch.equal(model.train()(images), before)
