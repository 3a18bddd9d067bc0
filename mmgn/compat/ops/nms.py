import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmgn.compat.ops.precision import upcast

# Values of `method` in softnms, as mmcv.ops.soft_nms numbers them.
_NAIVE, _LINEAR, _GAUSSIAN = 0, 1, 2


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Non-maximum suppression by torchvision; boxes with IoU > `iou_threshold` are dropped.

    Args:
        boxes: (N, 4) as x1, y1, x2, y2, on any device that torchvision supports.
        scores: (N,).
        iou_threshold: rounded to float32, the type mmcv compares in.
        offset: 0 or 1, added to every width and height. torchvision has no such argument; adding it to x2 and
            y2 lengthens every box and every intersection by just that.

    Returns:
        int64 indices of the boxes kept, by falling score, equal scores in the order given.
    """
    boxes, scores = upcast(boxes, scores)
    if offset:
        boxes = boxes + boxes.new_tensor([0, 0, offset, offset])
    return torch.ops.torchvision.nms(boxes, scores, float(np.float32(iou_threshold)))


def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Soft-NMS (arXiv 1704.04503) on CPU, in mmcv's order for equal scores too (`csrc/pytorch/cpu/nms.cpp`).

    Args:
        boxes: (N, 4) as x1, y1, x2, y2.
        scores: (N,).
        dets: (N, 5), on CPU; its first rows receive the boxes kept and their lowered scores.
        iou_threshold: boxes overlapping less keep their score; not used by the gaussian method.
        sigma: of the gaussian method.
        min_score: boxes whose score falls below it are dropped.
        method: 0 naive, 1 linear, 2 gaussian.
        offset: 0 or 1, added to every width and height.

    Returns:
        int64 indices of the boxes kept, on CPU, in the order of the rows of `dets`.
    """
    coords, score = (tensor.detach().cpu().numpy() for tensor in upcast(boxes, scores))
    score = score.copy()
    order = np.arange(len(score), dtype=np.int64)
    i = 0
    while i < len(order):
        best = i + _first_max(score[order[i:]])
        order[[i, best]] = order[[best, i]]
        rest = order[i + 1 :]
        iou = _iou(coords[order[i]], coords[rest], offset)
        if method == _NAIVE:
            score[rest[iou >= iou_threshold]] = 0
        elif method == _LINEAR:
            score[rest] *= np.where(iou >= iou_threshold, 1 - iou, 1)
        elif method == _GAUSSIAN:
            score[rest] *= np.exp(-(iou * iou) / sigma)
        order = np.concatenate([order[: i + 1], _swap_remove(rest, score[rest] < min_score)])
        i += 1
    dets[: len(order)] = torch.from_numpy(np.column_stack([coords[order], score[order]]))
    return torch.from_numpy(order)


def nms_match(dets: Tensor, iou_threshold: float) -> list[list[int]]:
    """Each box that NMS keeps, followed by the boxes it drops (IoU >= `iou_threshold`), by falling score.

    Args:
        dets: (N, 5) as x1, y1, x2, y2, score.
        iou_threshold: in contrast to `nms`, a box that just reaches it is dropped.
    """
    (array,) = (tensor.detach().cpu().numpy() for tensor in upcast(dets))
    order = np.argsort(-array[:, 4], kind="stable")
    groups = []
    while len(order):
        first, rest = order[0], order[1:]
        matched = _iou(array[first, :4], array[rest, :4], offset=0) >= iou_threshold
        groups.append([int(first), *rest[matched].tolist()])
        order = rest[~matched]
    return groups


def _iou(box: NDArray, boxes: NDArray, offset: int) -> NDArray:
    """IoU of one box (4,) with boxes (N, 4), in their dtype; NaN where neither has an area."""
    top_left, bottom_right = np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:], boxes[:, 2:])
    intersection = np.clip(bottom_right - top_left + offset, 0, None).prod(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return intersection / (_area(box, offset) + _area(boxes, offset) - intersection)


def _area(boxes: NDArray, offset: int) -> NDArray:
    return (boxes[..., 2] - boxes[..., 0] + offset) * (boxes[..., 3] - boxes[..., 1] + offset)


def _first_max(score: NDArray) -> int:
    """First index of the largest score, where NaN (from boxes without area) counts only if it comes first."""
    return 0 if np.isnan(score[0]) else int(np.nanargmax(score))


def _swap_remove(items: NDArray, drop: NDArray) -> NDArray:
    """What is left when, from the left, the last item takes the place of each dropped one."""
    size = np.count_nonzero(~drop)
    left = items[:size].copy()
    left[drop[:size]] = items[size:][~drop[size:]][::-1]
    return left
