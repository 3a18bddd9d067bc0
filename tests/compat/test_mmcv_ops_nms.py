import importlib

import numpy as np
import pytest
import torch

from mmgn.compat import mmcv_ops

pytest.importorskip("mmcv")
mmcv_ops.install()
if mmcv_ops.served_ops()["nms"] != "torchvision":
    pytest.skip("the installed mmcv is compiled", allow_module_level=True)
mmcv = importlib.import_module("mmcv.ops")


def random_boxes(count, seed=0, size=40.0, grid=None):
    generator = torch.Generator().manual_seed(seed)
    boxes = torch.rand(count, 4, generator=generator, dtype=torch.float64) * size
    boxes[:, 2:] = boxes[:, :2] + boxes[:, 2:] * 0.7
    scores = torch.rand(count, generator=generator, dtype=torch.float64)
    if grid is not None:
        # Few distinct scores, so that ties decide the order.
        boxes, scores = boxes.round(), (scores * grid).round() / grid
    return boxes, scores


def iou(a, b, offset):
    """IoU as mmcv/ops/csrc/pytorch/cpu/nms.cpp computes it, in the dtype of the boxes."""
    zero = a.dtype.type(0)
    width = max(zero, min(a[2], b[2]) - max(a[0], b[0]) + offset)
    height = max(zero, min(a[3], b[3]) - max(a[1], b[1]) + offset)
    inter = width * height
    area_a = (a[2] - a[0] + offset) * (a[3] - a[1] + offset)
    area_b = (b[2] - b[0] + offset) * (b[3] - b[1] + offset)
    with np.errstate(invalid="ignore", divide="ignore"):
        return inter / (area_a + area_b - inter)


def reference_nms(boxes, scores, threshold, offset):
    boxes, threshold = boxes.numpy(), np.float32(threshold)
    kept = []
    for i in scores.sort(descending=True, stable=True).indices.tolist():
        if all(not iou(boxes[k], boxes[i], offset) > threshold for k in kept):
            kept.append(i)
    return kept


def reference_soft_nms(boxes, scores, threshold, sigma, min_score, method, offset):
    """nms.cpp, line by line: swap the best box forward, lower the others, fill the place of a dropped one."""
    box, score = boxes.numpy().copy(), scores.numpy().copy()
    number = score.dtype.type
    index = list(range(len(score)))
    count, i = len(score), 0
    while i < count:
        best = i
        for pos in range(i + 1, count):
            if score[best] < score[pos]:
                best = pos
        box[[i, best]], score[[i, best]] = box[[best, i]], score[[best, i]]
        index[i], index[best] = index[best], index[i]
        pos = i + 1
        while pos < count:
            overlap = iou(box[i], box[pos], offset)
            weight = number(1)
            if method == "naive" and overlap >= number(threshold):
                weight = number(0)
            elif method == "linear" and overlap >= number(threshold):
                weight = number(1) - overlap
            elif method == "gaussian":
                weight = np.exp(-(overlap * overlap) / number(sigma))
            score[pos] *= weight
            if score[pos] < number(min_score):
                box[pos], score[pos], index[pos] = box[count - 1], score[count - 1], index[count - 1]
                count -= 1
                pos -= 1
            pos += 1
        i += 1
    return np.column_stack([box[:count], score[:count]]), index[:count]


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.7])
@pytest.mark.parametrize("grid", [None, 5])
def test_nms_matches_the_loop(offset, threshold, grid):
    for seed in range(5):
        boxes, scores = random_boxes(60, seed, grid=grid)
        dets, keep = mmcv.nms(boxes, scores, threshold, offset)
        assert keep.tolist() == reference_nms(boxes, scores, threshold, offset)
        torch.testing.assert_close(dets, torch.cat([boxes, scores[:, None]], 1)[keep], rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_nms_takes_any_precision(dtype):
    boxes, scores = (t.to(dtype) for t in random_boxes(80))
    dets, keep = mmcv.nms(boxes, scores, 0.4)
    assert keep.tolist() == reference_nms(boxes.double(), scores.double(), 0.4, 0)
    assert dets.dtype == dtype


@pytest.mark.parametrize(
    ("offset", "pair"),
    # IoU 3 / 10 exactly, which is below the float64 0.3 rounded to float32, but not above it.
    [(0, [[0, 0, 10, 1], [0, 0, 3, 1]]), (1, [[0, 0, 9, 0], [0, 0, 2, 0]])],
)
def test_nms_keeps_a_box_that_just_reaches_the_threshold(offset, pair):
    boxes, scores = torch.tensor(pair, dtype=torch.float32), torch.tensor([0.9, 0.8])
    assert mmcv.nms(boxes, scores, 0.3, offset)[1].tolist() == [0, 1]
    assert mmcv.nms(boxes, scores, 0.2999, offset)[1].tolist() == [0]


def test_offset_of_one_changes_the_result():
    # IoU 4 / 14 without, 10 / 20 = 0.5 with the offset.
    boxes = torch.tensor([[0.0, 0, 8, 1], [4, 0, 14, 1]])
    scores = torch.tensor([0.9, 0.8])
    assert mmcv.nms(boxes, scores, 0.3, offset=0)[1].tolist() == [0, 1]
    assert mmcv.nms(boxes, scores, 0.3, offset=1)[1].tolist() == [0]


@pytest.mark.parametrize("offset", [0, 1])
def test_no_boxes(offset):
    boxes, scores = torch.zeros(0, 4), torch.zeros(0)
    for dets, keep in (
        mmcv.nms(boxes, scores, 0.5, offset),
        mmcv.soft_nms(boxes, scores, 0.5, offset=offset),
    ):
        assert dets.shape == (0, 5)
        assert keep.shape == (0,)
        assert keep.dtype == torch.int64


@pytest.mark.parametrize("kind", ["nms", "soft_nms"])
def test_batched_nms_keeps_classes_apart(kind):
    boxes, scores = random_boxes(80, seed=3)
    labels = torch.arange(80) % 3
    cfg = {"type": kind, "iou_threshold": 0.3}
    dets, keep = mmcv.batched_nms(boxes, scores, labels, cfg)
    expected = {}
    for label in range(3):
        mine = (labels == label).nonzero()[:, 0]
        if kind == "nms":
            kept = reference_nms(boxes[mine], scores[mine], 0.3, 0)
            lowered = scores[mine][kept].numpy()
        else:
            found, kept = reference_soft_nms(boxes[mine], scores[mine], 0.3, 0.5, 1e-3, "linear", 0)
            lowered = found[:, 4]
        expected.update(zip(mine[kept].tolist(), lowered.tolist(), strict=True))
    assert dict(zip(keep.tolist(), dets[:, 4].tolist(), strict=True)) == pytest.approx(expected)
    assert (dets[1:, 4] <= dets[:-1, 4]).all()
    torch.testing.assert_close(dets[:, :4], boxes[keep])


@pytest.mark.parametrize("method", ["naive", "linear", "gaussian"])
@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_soft_nms_matches_mmcv_line_by_line(method, offset, dtype):
    for seed, (grid, min_score) in enumerate([(None, 1e-3), (None, 0.3), (4, 0.2), (2, 0.4)]):
        boxes, scores = (t.to(dtype) for t in random_boxes(40, seed, grid=grid))
        arguments = {
            "iou_threshold": 0.3,
            "sigma": 0.4,
            "min_score": min_score,
            "method": method,
            "offset": offset,
        }
        dets, keep = mmcv.soft_nms(boxes, scores, **arguments)
        expected, index = reference_soft_nms(boxes, scores, 0.3, 0.4, min_score, method, offset)
        assert keep.tolist() == index
        # Rounded boxes can lose their area, which makes a gaussian score NaN.
        torch.testing.assert_close(dets, torch.from_numpy(expected), equal_nan=True)


def test_soft_nms_with_boxes_without_area():
    # Two equal boxes without area have IoU 0 / 0, so the gaussian method makes the score NaN.
    boxes = torch.tensor([[0.0, 0, 9, 9], [3, 1, 3, 1], [3, 1, 3, 1], [0, 0, 9, 8], [3, 1, 3, 1]])
    scores = torch.tensor([0.5, 0.9, 0.8, 0.7, 0.6])
    dets, keep = mmcv.soft_nms(boxes, scores, 0.3, method="gaussian")
    expected, index = reference_soft_nms(boxes, scores, 0.3, 0.5, 1e-3, "gaussian", 0)
    assert np.isnan(expected[:, 4]).any()
    assert keep.tolist() == index
    torch.testing.assert_close(dets, torch.from_numpy(expected), equal_nan=True)


def test_soft_nms_in_half_precision():
    boxes, scores = (t.half() for t in random_boxes(40))
    dets, keep = mmcv.soft_nms(boxes, scores, 0.3)
    expected, index = reference_soft_nms(boxes.float(), scores.float(), 0.3, 0.5, 1e-3, "linear", 0)
    assert keep.tolist() == index
    torch.testing.assert_close(dets, torch.from_numpy(expected).half(), rtol=1e-3, atol=1e-5)


def test_nms_match_groups_every_box_once():
    boxes, scores = random_boxes(50, seed=1, grid=4)
    threshold = 0.3
    groups = mmcv.nms_match(torch.cat([boxes, scores[:, None]], 1).float(), threshold)
    left, expected = scores.sort(descending=True, stable=True).indices.tolist(), []
    array = boxes.float().numpy()
    while left:
        first = left[0]
        group = [first] + [i for i in left[1:] if iou(array[first], array[i], 0) >= np.float32(threshold)]
        left = [i for i in left if i not in group]
        expected.append(group)
    assert [group.tolist() for group in groups] == expected
    assert any(len(group) > 2 for group in expected)
