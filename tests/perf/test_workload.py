import numpy as np
import pytest
import torch

from mmgn.perf.workload import Workload, make_batch, make_proposals

pytest.importorskip("mmdet")
WORKLOAD = Workload(height=200, width=300, objects=4, proposals=100)


def iou(a, b):
    low, high = torch.maximum(a[:, None, :2], b[:, :2]), torch.minimum(a[:, None, 2:], b[:, 2:])
    both = (high - low).clamp(min=0).prod(2)
    return both / ((a[:, 2:] - a[:, :2]).prod(1)[:, None] + (b[:, 2:] - b[:, :2]).prod(1) - both)


def test_masks_fill_boxes_inside_the_image():
    batch = make_batch(WORKLOAD)
    assert [tuple(image.shape) for image in batch["inputs"]] == [(3, 200, 300)] * 2
    for sample in batch["data_samples"]:
        objects = sample.gt_instances
        assert len(objects) == 4
        assert (objects.bboxes >= 0).all()
        assert (objects.bboxes <= torch.tensor([300, 200, 300, 200])).all()
        x1, y1, x2, y2 = objects.bboxes.numpy().astype(int).T
        np.testing.assert_array_equal(objects.masks.masks.sum((1, 2)), (x2 - x1) * (y2 - y1))


def test_half_of_the_proposals_lie_on_objects():
    batch = make_batch(WORKLOAD)
    for sample, proposals in zip(batch["data_samples"], make_proposals(batch, WORKLOAD), strict=True):
        assert proposals.shape == (100, 4)
        overlap = iou(proposals, sample.gt_instances.bboxes).amax(1)
        assert (overlap[:50] >= 0.5).all()
        assert (overlap[50:] < 0.5).sum() > 25


def test_work_is_the_same_each_time():
    first, second = (make_batch(WORKLOAD) for _ in range(2))
    assert torch.equal(first["inputs"][1], second["inputs"][1])
    for ours, theirs in zip(make_proposals(first, WORKLOAD), make_proposals(second, WORKLOAD), strict=True):
        assert torch.equal(ours, theirs)
