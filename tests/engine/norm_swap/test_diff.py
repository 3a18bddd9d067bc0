import math

import pytest
from mmengine.config import Config

from mmgn.engine.norm_swap.diff import config_text, difference, flat

NORM = {"type": "FusedGN", "num_groups": 32}


def merged(tmp_path, old, new, norm_cfg=NORM, inherited=()):
    """Return the text of the difference, and what mmengine makes of it on top of the old config."""
    (tmp_path / "base.py").write_text("\n".join(f"{key} = {value!r}" for key, value in old.items()))
    text = config_text("base.py", difference(old, new), norm_cfg, {key: old.get(key) for key in inherited})
    (tmp_path / "new.py").write_text(text)
    return text, Config.fromfile(tmp_path / "new.py").to_dict()


@pytest.mark.parametrize(
    "old, new",
    [
        ({"a": 1}, {"a": {"b": NORM}}),
        ({"a": {"b": None}}, {"a": {"b": NORM}}),
        ({"a": {"b": {"type": "BN", "momentum": 0.1}}}, {"a": {"b": NORM}}),
        ({"a": {"b": {"type": "BN"}}}, {"a": {"b": {**NORM, "round_groups": True}}}),
        ({"a": {"b": NORM, "c": 2}}, {"a": {"c": 2}}),
        ({"a": [{"b": {"type": "BN"}}, (1, 2)]}, {"a": [{"b": NORM}, (1, 2), {"c": (3,)}]}),
        ({"a": {"x.y": 1, "from": 2}}, {"a": {"x.y": 1.5, "from": None, "z": "it's"}}),
        ({"a": {"b": 1e8}}, {"a": {"b": math.inf, "c": -math.inf}}),
    ],
    ids=str,
)
def test_the_difference_gives_back_the_new_config(tmp_path, old, new):
    _, read = merged(tmp_path, {"model": old, "other": 1}, {"model": new, "other": 1})
    assert read["model"] == new
    assert read["other"] == 1


def test_only_what_changes_is_written_and_the_norm_once(tmp_path):
    old = {
        "model": {"backbone": {"depth": 50, "norm_cfg": {"type": "BN"}}, "neck": {"outs": 5}},
        "hooks": [{"type": "A"}],
    }
    new = {
        "model": {"backbone": {"depth": 50, "norm_cfg": NORM}, "neck": {"outs": 5, "norm_cfg": NORM}},
        "hooks": [{"type": "A"}, {"type": "B"}],
    }
    text, read = merged(tmp_path, old, new, inherited=["hooks"])
    assert (
        text
        == """\
_base_ = 'base.py'

norm_cfg = dict(type='FusedGN', num_groups=32)
model = dict(backbone=dict(norm_cfg=norm_cfg), neck=dict(norm_cfg=norm_cfg))

hooks = [*_base_.hooks, dict(type='B')]
"""
    )
    assert read == {**new, "norm_cfg": NORM}


def test_what_cannot_be_said():
    with pytest.raises(ValueError, match="cannot take away what its _base_ has at the top: b"):
        difference({"a": 1, "b": 2}, {"a": 1})
    with pytest.raises(ValueError, match="no way to write <object"):
        config_text("base.py", {"a": [object()]}, {}, {})


def test_flat():
    assert list(flat({"a": {"b": [1, 2], "c": [{"d": "e"}]}, "f": {}}, "m")) == [
        "m.a.b = [1, 2]",
        "m.a.c.0.d = 'e'",
        "m.f = {}",
    ]
