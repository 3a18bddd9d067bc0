import math

import numpy as np
import pytest
from PIL import Image

from mmgn.study import quoted
from mmgn.study.figures import LOOKS, batch_panels, draw, figure_of, group_panels
from mmgn.study.results import read_csv


def panels_of(figure):
    """By title and label of x: the means, by norm's colour, and the axes."""
    found = {}
    for axes in figure.axes:
        lines = {line.get_color(): line for line in axes.lines}
        found[axes.get_title(loc="left"), axes.get_xlabel()] = axes, lines
    return found


def places(line):
    """What x stands for; lines are drawn side by side, a few hundredths of an octave apart."""
    return [2 ** round(math.log2(x)) for x in line.get_xdata()]


def bars(axes):
    """Half of the length of each bar that is drawn."""
    segments = [segment for container in axes.containers for segment in container[2][0].get_segments()]
    return sorted((segment[1][1] - segment[0][1]) / 2 for segment in segments if len(segment))


@pytest.fixture
def classification(study):
    cells = {("GN 8", 32): (3.0, 4.0), ("GN 8", 8): (3.0, 6.0), ("GN 8", 2): (5.0, None)}
    cells |= {("BN", 32): (2.0, 2.0), ("BN", 8): (None, None), ("BN", 2): (20.0, 30.0)}
    cells |= {("SyncBN", size): (None, None) for size in (32, 8, 2)}
    return study(cells | {("GN 4", 32): (5.0, 6.0), ("GN 2c", 32): (9.0, 9.5)})


def test_batch_sizes_are_those_of_the_csv(classification):
    _, rows = read_csv(classification)
    figure = figure_of([batch_panels(rows)])
    axes, lines = panels_of(figure)["digits", "batch size of a process"]
    # Groups tried at one batch size, and a norm of which nothing is measured, are no lines.
    assert set(lines) == {LOOKS["GN"][0], LOOKS["BN"][0]}
    gn, bn = lines[LOOKS["GN"][0]], lines[LOOKS["BN"][0]]
    assert places(gn) == places(bn) == [32, 8, 2]
    np.testing.assert_allclose(gn.get_ydata(), [3.5, 4.5, 5.0])
    # What is not measured is a gap.
    np.testing.assert_allclose(bn.get_ydata(), [2.0, math.nan, 25.0])
    assert {gn.get_linestyle(), bn.get_linestyle()} == {"-"}
    assert gn.get_marker() != bn.get_marker()
    np.testing.assert_allclose(bars(axes), [0, 0, math.sqrt(0.5), math.sqrt(4.5), math.sqrt(50)])
    # Seeds, where there are several.
    seeds = sorted(y for collection in axes.collections for _, y in np.ma.getdata(collection.get_offsets()) if y)
    assert seeds == [2, 2, 3, 3, 4, 6, 20, 30]
    left, right = axes.get_xlim()
    assert left > 32 > 2 > right
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["2", "8", "32"]
    assert axes.get_ylabel() == "top-1 error in %, lower is better"
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["GN", "BN"]


def test_quoted_figures_have_a_panel_of_their_own(classification):
    _, rows = read_csv(classification)
    _, lines = panels_of(figure_of([batch_panels(rows)]))["quoted, ImageNet, ResNet-50", "batch size of a GPU"]
    for norm, errors in quoted.batch_sizes().items():
        line = lines[LOOKS[norm][0]]
        assert dict(zip(places(line), line.get_ydata(), strict=True)) == errors
        assert line.get_linestyle() == "--"


def test_groups_are_those_of_the_csv(classification):
    _, rows = read_csv(classification)
    found = panels_of(figure_of(group_panels(rows), share_y=True))
    axes, lines = found["digits", "groups"]
    (line,) = lines.values()
    assert places(line) == [8, 4]
    np.testing.assert_allclose(line.get_ydata(), [3.5, 5.5])
    other, lines = found["digits", "channels a group"]
    assert axes.get_ylim() == other.get_ylim()
    np.testing.assert_allclose(next(iter(lines.values())).get_ydata(), [9.25])
    for kind, words, extreme in (("num_groups", "groups", "LN"), ("channels_per_group", "channels a group", "IN")):
        axes, lines = found["quoted, ImageNet, ResNet-50", words]
        (line,) = lines.values()
        assert dict(zip(places(line), line.get_ydata(), strict=True)) == quoted.groups()[kind]
        assert axes.get_xticklabels()[0].get_text() == f"1 ({extreme})"


def test_detection_has_a_panel_for_each_ap(study):
    path = study({("GN 8", 8): (50.0,), ("GN 8", 2): (49.0,)}, task="detection", metric="box_AP")
    path.write_text(path.read_text().replace(",50.0,,", ",50.0,45.0,").replace(",49.0,,", ",49.0,44.0,"))
    panels = batch_panels(read_csv(path)[1])
    assert [panel.y_label for panel in panels] == ["box AP in %, higher is better", "mask AP in %, higher is better"]
    assert [panel.lines[0].cells for panel in panels] == [{2: [49.0], 8: [50.0]}, {2: [44.0], 8: [45.0]}]


def test_files_as_wide_as_a_page(classification, study, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    assert [path.name for path in draw(classification, out)] == ["batch_sizes.png", "groups.png"]
    for name in ("batch_sizes", "groups"):
        assert Image.open(out / f"{name}.png").size[0] == 1440
    # Of one cell there is a picture, and none of groups.
    one = study({("BN*", 16): (4.0,)}, task="segmentation", metric="mIoU")
    assert [path.name for path in draw(one, out)] == ["batch_sizes.png"]
    assert draw(study({("BN", 16): (None,)}), out) == []


def test_several_groups_over_batch_sizes_are_told_apart(study):
    _, rows = read_csv(study({(f"GN {groups}", size): (4.0,) for groups in (8, 4) for size in (8, 2)}))
    panel, _ = batch_panels(rows)
    assert [line.label for line in panel.lines] == ["GN, 8 groups", "GN, 4 groups"]
    assert len({str(line.dashes) for line in panel.lines}) == 2
