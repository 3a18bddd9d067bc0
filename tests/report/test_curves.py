import io
import math
import xml.etree.ElementTree as ET

import pytest

from mmgn.report.curves import INK, draw_curves
from mmgn.report.workdir import WorkDir, read_work_dir


def test_drawn_from_a_run(work_dir):
    from PIL import Image

    curves = {curve.name: curve for curve in draw_curves(read_work_dir(work_dir))}
    assert list(curves) == ["loss", "loss-parts", "val-ap", "lr"]
    assert curves["loss"].caption == "Total loss by iteration. Last, at iteration 40: loss 0.75."
    assert "at epoch 2: coco/bbox_mAP 20; coco/segm_mAP 20." in curves["val-ap"].caption
    for curve in curves.values():
        ET.fromstring(curve.svg)
        assert INK not in curve.svg
        assert "currentColor" in curve.svg
        assert 'id="figure' not in curve.svg
        assert Image.open(io.BytesIO(curve.png)).size[0] > 600
    # A name from the log is text, whatever it looks like.
    assert "loss_&lt;b&gt;$x" in curves["loss-parts"].svg


def test_definitions_do_not_clash_on_a_page(work_dir):
    ids = []
    for curve in draw_curves(read_work_dir(work_dir)):
        ids += [node.attrib["id"] for node in ET.fromstring(curve.svg).iter() if "id" in node.attrib]
    assert ids
    assert len(ids) == len(set(ids))


def test_nonfinite_values_are_gaps(lines):
    def path_points(losses):
        work = WorkDir(None, train=[lines.train(i + 1, loss) for i, loss in enumerate(losses)])
        (curve,) = (curve for curve in draw_curves(work) if curve.name == "loss")
        root = ET.fromstring(curve.svg)
        paths = [node.attrib for node in root.iter("{http://www.w3.org/2000/svg}path")]
        (line,) = (path["d"] for path in paths if "stroke-width: 1.5" in path.get("style", ""))
        return line.count("M"), line.count("M") + line.count("L")

    assert path_points([5, 1, 4, 2, 3]) == (1, 5)
    assert path_points([5, 1, math.nan, 2, 3]) == (2, 4)
    assert path_points([5, 1, math.inf, 2, 3]) == (2, 4)


@pytest.mark.parametrize(("steps", "place"), [((0, 0), "iteration 200"), ((100, 200), "iteration 200")])
def test_place_of_validations_when_training_by_iterations(lines, steps, place):
    val = [{"coco/bbox_mAP": 0.5, "step": step, "after": after} for step, after in zip(steps, (100, 200), strict=True)]
    work = WorkDir(None, train=[lines.train(100, 2.0), lines.train(200, 1.0)], val=val)
    (curve,) = (curve for curve in draw_curves(work) if curve.name == "val-ap")
    assert f"at {place}: coco/bbox_mAP 50." in curve.caption


def test_no_figure_is_no_point(lines):
    val = [{"coco/bbox_mAP": 0.5, "coco/bbox_mAP_50": -1.0, "step": 1, "after": 10}]
    curves = draw_curves(WorkDir(None, train=[lines.train(10, 2.0)], val=val))
    assert [curve.caption for curve in curves if curve.name == "val-ap"] == [
        "AP in per cent, validations as logged by iteration. Last, at iteration 1: coco/bbox_mAP 50."
    ]


def test_same_input_same_bytes(work_dir):
    first, second = (draw_curves(read_work_dir(work_dir)) for _ in range(2))
    assert first == second


def test_nothing_logged():
    assert draw_curves(WorkDir(None)) == []
