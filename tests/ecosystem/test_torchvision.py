"""FusedGN in torchvision's ResNet: by norm_layer=, and in a built one."""

from functools import partial

import pytest
import torch
import torchvision
from torch import nn

from mmgn import FusedGN, convert_norm
from mmgn.models.norms import norm_layers

# FusedGN takes the channels first, as norm_layer is called; nn.GroupNorm does not.
CHOICES = {
    "the class": (FusedGN, lambda channels: nn.GroupNorm(32, channels)),
    "other groups": (partial(FusedGN, num_groups=8), lambda channels: nn.GroupNorm(8, channels)),
    "channels per group": (
        partial(FusedGN, channels_per_group=16),
        lambda channels: nn.GroupNorm(channels // 16, channels),
    ),
}


@pytest.mark.parametrize("choice", CHOICES)
def test_norm_layer_gives_what_group_norm_gives(choice, classify, overfit):
    ours, theirs = (
        torchvision.models.resnet18(num_classes=10, norm_layer=layer, zero_init_residual=True)
        for layer in CHOICES[choice]
    )
    assert {norm.kind for norm in norm_layers(ours)} == {"FusedGN"}
    # Its initialisation knows nn.GroupNorm, which FusedGN is.
    assert not ours.layer1[0].bn2.weight.any()
    theirs.load_state_dict(ours.state_dict(), strict=True)
    steps = [classify(model) for model in (ours, theirs)]
    losses = overfit(ours, steps[0], steps=6)
    # Rounding grows with the steps.
    assert losses[:3] == pytest.approx([steps[1]() for _ in range(3)], rel=1e-4)


def test_a_built_one_is_converted(images, classify, overfit):
    model = torchvision.models.resnet18(num_classes=10)
    convs = {name: weight.clone() for name, weight in model.state_dict().items() if "conv" in name}
    report = convert_norm(model)
    assert (len(report.converted), report.left) == (20, ())
    assert {norm.kind for norm in norm_layers(model)} == {"FusedGN"}
    assert all(torch.equal(model.state_dict()[name], weight) for name, weight in convs.items())
    overfit(model, classify(model), steps=6)
    before = model.eval()(images)
    assert torch.equal(model.train()(images), before)
