"""Which cells a study has, each once, and which it refuses."""

import pytest

from mmgn.study.grid import Cell, Request, check_groups, default_groups, make_grid, pretraining

BASE = {"num_groups": 8}


def request(**changes):
    given = dict(norms=("BN", "GN"), batch_sizes=(2, 8), seeds=2, data=("lit", "plain"))
    return Request(**(given | changes))


def ids(cells):
    return [cell.id for cell in cells]


def test_a_cell_for_every_norm_batch_size_seed_and_data_set():
    cells = make_grid(request(), BASE, own_pretraining=True)
    assert len(cells) == 2 * 2 * 2 * 2
    assert {(c.data, c.norm, c.batch_size, c.seed) for c in cells} == {
        (data, norm, size, seed)
        for data in ("lit", "plain")
        for norm in ("BN", "GN")
        for size in (2, 8)
        for seed in (0, 1)
    }
    assert all(c.num_groups == (8 if c.norm == "GN" else None) for c in cells)


def test_the_group_table_is_of_the_largest_batch_and_has_no_cell_twice():
    asked = request(norms=("GN", "LN"), seeds=1, groups=(16, 8, 1), channels_per_group=(2, 1))
    cells = make_grid(asked, BASE, own_pretraining=True)
    # G = 8 is GN, G = 1 is LN: there already. One channel a group is IN, which nobody asked for by name.
    assert ids(cells) == [
        *(f"{data}_{norm}_b{size}_seed0" for data in ("lit", "plain") for norm in ("gn-8g", "ln") for size in (8, 2)),
        "lit_gn-16g_b8_seed0",
        "lit_gn-2cpg_b8_seed0",
        "lit_in_b8_seed0",
    ]
    assert cells[-1] == Cell("lit", "IN", 8, 0, channels_per_group=1)


def test_bn_frozen_brings_the_bn_that_it_starts_from():
    cells = make_grid(request(norms=("BN*",), seeds=1, data=("lit",)), BASE, own_pretraining=True)
    assert ids(cells) == ["lit_bn-frozen_b8_seed0", "lit_bn-frozen_b2_seed0", "lit_bn_b8_seed0"]
    assert {pretraining(cell, 8) for cell in cells[:2]} == {cells[2]}
    asked = make_grid(request(norms=("BN*", "BN"), seeds=1, data=("lit",)), BASE, own_pretraining=True)
    assert len(asked) == 4
    assert ids(make_grid(request(norms=("BN*",), seeds=1, data=("coco",)), BASE, own_pretraining=False)) == [
        "coco_bn-frozen_b8_seed0",
        "coco_bn-frozen_b2_seed0",
    ]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (dict(norms=("BN", "XN")), r"--norms: unknown norm 'XN'; known are BN, BN\*, SyncBN, GN, LN, IN"),
        (dict(norms=("GN", "BN", "GN")), "--norms has GN more than once"),
        (dict(norms=()), "need at least one value"),
        (dict(batch_sizes=(8, 2, 8)), "--batch-sizes has 8 more than once"),
        (dict(batch_sizes=(8, 0)), "--batch-sizes: numbers must be positive, got 0"),
        (dict(groups=(8, -1)), "--groups: numbers must be positive, got -1"),
        (dict(seeds=0), "--seeds must be at least 1, got 0"),
    ],
)
def test_what_makes_no_sense_is_refused(wrong, told):
    with pytest.raises(ValueError, match=told):
        request(**wrong)


def test_groups_must_divide_the_channels_of_all_norms():
    check_groups(request(groups=(16, 4), channels_per_group=(8,)), [16, 48])
    with pytest.raises(ValueError, match=r"--groups: 32 does not divide the 16 channels .* is 16, 8, 4, 2, 1"):
        check_groups(request(groups=(32,)), [16, 32])
    with pytest.raises(ValueError, match="--channels-per-group: 3 does not divide the 16 channels"):
        check_groups(request(channels_per_group=(3,)), [48, 16])


def test_default_groups_are_the_papers_as_far_as_they_fit():
    # ResNet-50's smallest norm has 64 channels.
    assert default_groups([64, 256, 2048]) == (64, 32, 16, 8, 4, 2, 1)
    assert default_groups([48, 96]) == (16, 8, 4, 2, 1)
