import pytest
from mmengine.config import Config
from torch import nn

import mmgn  # noqa: F401  # before mmdet: it serves mmcv's ops
from mmgn.engine.config import load_config
from mmgn.engine.model import build_model
from mmgn.engine.norm_state import NormRow
from mmgn.engine.norm_table import NormTable, norm_table


@pytest.mark.parametrize(
    ("name", "state"),
    [
        ("mask_rcnn/mask-rcnn_r50_fpn_fusedgn-all_2x_coco.py", ("FusedGN", True, False, None)),
        ("mask_rcnn/mask-rcnn_r50_fpn_bn-frozen_2x_coco.py", ("BN", False, False, False)),
        ("digits/mask-rcnn_r18-mini_fpn_fusedgn-all_digits.py", ("FusedGN", True, False, None)),
    ],
)
def test_our_own_configs_are_in_no_trap(name, state):
    cfg = load_config(name)
    got = norm_table(build_model(cfg), cfg)
    assert got.warnings == ()
    # The stem and the first stage are frozen in all but the digits.
    frozen = [row for row in got.rows if row.name.startswith(("backbone.gn1", "backbone.layer1."))]
    assert not any(row.trains for row in frozen) or "digits" in name
    rest = [row for row in got.rows if row not in frozen]
    assert {(row.kind, row.trains, row.decays, row.updates_statistics) for row in rest} == {state}


def test_traps_are_told():
    cfg = Config(dict(train_dataloader=dict(batch_size=2)))
    (warning,) = norm_table(nn.Sequential(nn.BatchNorm2d(8)), cfg).warnings
    assert warning.startswith("1 BN (0): statistics of 2 images per GPU")


def test_the_text():
    rows = (
        NormRow("gn1", "FusedGN", 16, 8, trains=False, decays=False, updates_statistics=None),
        NormRow("layer1.0.gn1", "FusedGN", 16, 8, trains=True, decays=False, updates_statistics=None),
        NormRow("layer1.0.gn2", "FusedGN", 64, 32, trains=True, decays=False, updates_statistics=None),
        NormRow("roi_head.mask_head.bn", "BN", 64, None, trains=True, decays=None, updates_statistics=True),
    )
    assert str(NormTable(rows)).splitlines() == [
        "layers  where               norm     channels  groups  trains  decays  statistics",
        "1       gn1                 FusedGN  16        8       no      no      -",
        "2       layer1              FusedGN  16-64     8-32    yes     no      -",
        "1       roi_head.mask_head  BN       64        -       yes     -       updated",
        "norms: 4 (3 FusedGN, 1 BN)",
    ]
    full = NormTable(rows).text(full=True).splitlines()
    assert len(full) == 6
    assert full[1].split() == ["gn1", "FusedGN", "16", "8", "no", "no", "-"]
    assert str(norm_table(nn.ReLU())) == "no norm in the model"
