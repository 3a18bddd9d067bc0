"""MaskTTAModel: what views see is put together, boxes and masks."""

import pytest

# Before mmdet, which needs the ops that mmgn provides.
import mmgn  # noqa: F401

pytest.importorskip("mmdet")
import torch
from mmdet.models.test_time_augs import DetTTAModel
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import nn

from mmgn.models.test_time_augs import MaskTTAModel

H, W = 12, 20


class Detector(nn.Module):
    def test_step(self, data):
        return data


def build(kind, max_per_img=100):
    return kind(module=Detector(), tta_cfg=ConfigDict(nms=dict(type="nms", iou_threshold=0.5), max_per_img=max_per_img))


def seen(objects, direction=None, masks=True):
    """Return what a detector says of a view: objects are (left, top, right, bottom), label and score."""
    instances = InstanceData(bboxes=[], scores=[], labels=[], masks=[])
    dims = {"horizontal": [1], "vertical": [0], "diagonal": [0, 1], None: []}[direction]
    bboxes, picture = [], []
    for (left, top, right, bottom), _, _ in objects:
        mask = torch.zeros(H, W, dtype=torch.bool)
        mask[top:bottom, left:right] = True
        # A hole, so that no mask is its own mirror image.
        mask[top, left] = False
        picture.append(mask.flip(dims))
        if 1 in dims:
            left, right = W - right, W - left
        if 0 in dims:
            top, bottom = H - bottom, H - top
        bboxes.append([left, top, right, bottom])
    instances = InstanceData(
        bboxes=torch.tensor(bboxes, dtype=torch.float32).reshape(-1, 4),
        labels=torch.tensor([label for _, label, _ in objects], dtype=torch.long),
        scores=torch.tensor([score for _, _, score in objects]),
    )
    if masks:
        instances.masks = torch.stack(picture) if picture else torch.zeros(0, H, W, dtype=torch.bool)
    meta = dict(img_id=1, ori_shape=(H, W), flip=direction is not None, flip_direction=direction)
    return DetDataSample(metainfo=meta, pred_instances=instances)


A, B = (2, 1, 9, 6), (10, 5, 19, 11)


@pytest.mark.parametrize("direction", ["horizontal", "vertical", "diagonal"])
def test_a_mask_comes_back_from_the_view_that_saw_it_best(direction):
    plain, flipped = seen([(A, 0, 0.9), (B, 1, 0.2)]), seen([(B, 1, 0.8), (A, 0, 0.3)], direction)
    (merged,) = build(MaskTTAModel).merge_preds([(flipped, plain)])
    expected = seen([(A, 0, 0.9), (B, 1, 0.8)]).pred_instances
    found = merged.pred_instances
    assert found.labels.equal(expected.labels)
    torch.testing.assert_close(found.scores, expected.scores)
    torch.testing.assert_close(found.bboxes, expected.bboxes)
    assert found.masks.equal(expected.masks)


def test_the_best_are_kept():
    views = [seen([(A, 0, 0.9), (B, 1, 0.2)]), seen([(B, 1, 0.95)], "horizontal")]
    (merged,) = build(MaskTTAModel, max_per_img=1).merge_preds([views])
    assert merged.pred_instances.labels.tolist() == [1]
    assert merged.pred_instances.masks.equal(seen([(B, 1, 0.95)]).pred_instances.masks)


def test_views_without_objects_merge_to_none():
    (merged,) = build(MaskTTAModel).merge_preds([(seen([], "horizontal"), seen([]))])
    assert merged.pred_instances.masks.shape == (0, H, W)


def test_without_masks_it_is_mmdets():
    def merged(kind):
        views = [seen([(B, 1, 0.8), (A, 0, 0.3)], "horizontal", masks=False), seen([(A, 0, 0.9)], masks=False)]
        return build(kind).merge_preds([views])[0].pred_instances

    ours, theirs = merged(MaskTTAModel), merged(DetTTAModel)
    assert set(ours.keys()) == set(theirs.keys())
    assert all(ours[key].equal(theirs[key]) for key in ours.keys())  # noqa: SIM118
