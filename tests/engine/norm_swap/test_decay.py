"""Custom keys by which the new norms are not decayed; what mmengine makes of them is asked of mmengine."""

import pytest
from mmengine.config import ConfigDict
from torch import nn

import mmgn
from mmgn.engine.norm_state import norm_rows
from mmgn.engine.norm_swap.decay import no_decay, ruling_key

ADAMW = {"type": "AdamW", "lr": 1e-4, "weight_decay": 1e-4}
BACKBONE = {"backbone": {"lr_mult": 0.1}}


class Stage(nn.Module):
    """A convolution with a norm, and a shortcut whose norm has a number for a name."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(32, 32, 1)
        self.gn1 = mmgn.FusedGN(32)
        self.downsample = nn.Sequential(nn.Conv2d(32, 32, 1), mmgn.FusedGN(32))


class Detector(nn.Module):
    """A backbone of two stages, a neck, and a head with a layer norm of the backbone's kind of name."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(Stage(), Stage())
        self.neck = nn.ModuleDict({"conv": nn.Conv2d(32, 32, 1), "gn": mmgn.FusedGN(32)})
        self.head = nn.ModuleDict({"norm": nn.LayerNorm(32), "gn1": nn.Linear(32, 32)})


def end_decay(keys):
    """Return the custom keys that are new, what is said, and the norms' rows."""
    model = Detector()
    cfg = {"optim_wrapper": {"optimizer": ADAMW, "paramwise_cfg": {"custom_keys": keys}}}
    norms = [row.name for row in norm_rows(model) if row.kind == "FusedGN"]
    said = no_decay(cfg, norms, dict(model.named_parameters()))
    after = cfg["optim_wrapper"]["paramwise_cfg"]["custom_keys"]
    assert keys.items() <= after.items()
    return {key: after[key] for key in after if key not in keys}, said, norm_rows(model, ConfigDict(cfg))


def test_few_longer_keys_take_over_with_the_ruling_keys_settings():
    added, (said,), rows = end_decay(BACKBONE)
    # Not gn1 alone: head.gn1 is a Linear. Nor the neck's, which norm_decay_mult rules.
    settings = {"lr_mult": 0.1, "decay_mult": 0.0}
    runs = [".downsample.1.", "backbone.0.gn1.", "backbone.1.gn1."]
    assert added == dict.fromkeys(runs, settings)
    assert all(key in said for key in added)
    assert not any(row.decays for row in rows)


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"backbone": {"lr_mult": 0.1, "decay_mult": 0.0}},
        {"conv": {"lr_mult": 0.1}},
        # The longer one rules.
        {"backbone": {"lr_mult": 0.1}, "backbone.0": {"decay_mult": 0.0}, "backbone.1": {"decay_mult": 0.0}},
        # Of equals, the first in the alphabet.
        {"backbone.": {"lr_mult": 0.1}, "ackbone.0": {"decay_mult": 0.0}, "ackbone.1": {"decay_mult": 0.0}},
    ],
    ids=str,
)
def test_no_keys_where_none_decays_a_new_norm(keys):
    added, said, rows = end_decay(keys)
    assert (added, said) == ({}, [])
    assert not any(row.decays for row in rows)


def test_each_ruling_key_hands_its_own_settings_on():
    keys = {"backbone.0": {"lr_mult": 0.1}, "backbone": {"lr_mult": 0.5, "decay_mult": 2.0}, "neck": {}}
    added, _, rows = end_decay(keys)
    assert {settings["decay_mult"] for settings in added.values()} == {0.0}
    for name, lr_mult in (("backbone.0.gn1", 0.1), ("backbone.1.downsample.1", 0.5), ("neck.gn", None)):
        assert added[ruling_key([*keys, *added], f"{name}.weight")].get("lr_mult") == lr_mult
    assert not any(row.decays for row in rows)


def test_a_name_that_is_itself_a_key_cannot_be_outdone():
    name = "neck.gn.weight"
    added, said, rows = end_decay({name: {"lr_mult": 0.1}})
    assert (added, said) == ({}, [])
    assert [row.name for row in rows if row.decays] == ["neck.gn"]
