"""The background class: first in Detectron's outputs, last in detectron2's and mmdet's, where it has no box or mask.

As detectron2's ``checkpoint/c2_model_loading.py`` does it on loading Detectron's weights. Detectron's outputs are in
``modeling/fast_rcnn_heads.py``, ``add_fast_rcnn_outputs``, and ``modeling/mask_rcnn_heads.py``,
``add_mask_rcnn_outputs``.
"""

import torch
from torch import Tensor

_CLASSES, _BOXES, _MASKS = (
    "roi_head.bbox_head.fc_cls.",
    "roi_head.bbox_head.fc_reg.",
    "roi_head.mask_head.conv_logits.",
)


def to_last(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Order the outputs as mmdet does.

    Args:
        state: Detectron's weights under mmdet's keys.

    Returns:
        The same with the background's scores last, its boxes and its mask left out. A mask that all classes share is
        left as it is, as Detectron trains no background there.

    Raises:
        ValueError: the numbers of scores, boxes and masks fit no number of classes.
    """
    outputs = _rows(state, _CLASSES)
    if outputs is not None:
        # A box that all classes share has rows for background too: CLS_AGNOSTIC_BBOX_REG is two classes.
        _check(state, {4 * outputs, 8}, {outputs, 1})

    def move(key: str, value: Tensor) -> Tensor:
        if key.startswith(_CLASSES):
            return torch.cat([value[1:], value[:1]])
        if key.startswith(_BOXES):
            return value[4:].clone()
        if key.startswith(_MASKS) and len(value) == outputs:
            return value[1:].clone()
        return value

    return {key: move(key, value) for key, value in state.items()}


def to_first(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Order the outputs as Detectron does, with zeros for the background's boxes and mask; undone by :func:`to_last`.

    Raises:
        ValueError: the numbers of scores, boxes and masks fit no number of classes.
    """
    outputs = _rows(state, _CLASSES)
    if outputs is not None:
        _check(state, {4 * (outputs - 1), 4}, {outputs - 1, 1})

    def move(key: str, value: Tensor) -> Tensor:
        if key.startswith(_CLASSES):
            return torch.cat([value[-1:], value[:-1]])
        if key.startswith(_BOXES):
            return torch.cat([torch.zeros_like(value[:4]), value])
        if key.startswith(_MASKS) and outputs is not None and len(value) == outputs - 1:
            return torch.cat([torch.zeros_like(value[:1]), value])
        return value

    return {key: move(key, value) for key, value in state.items()}


def _rows(state: dict[str, Tensor], layer: str) -> int | None:
    weight = state.get(layer + "weight")
    return None if weight is None else len(weight)


def _check(state: dict[str, Tensor], boxes: set[int], masks: set[int]) -> None:
    for layer, wanted in ((_BOXES, boxes), (_MASKS, masks)):
        rows = _rows(state, layer)
        if rows is not None and rows not in wanted:
            raise ValueError(
                f"the heads do not fit each other: {_CLASSES}weight has {_rows(state, _CLASSES)} rows, classes and "
                f"background, and {layer}weight {rows} where {sorted(wanted)} would fit; other heads (of a sigmoid "
                "loss, without background, say) have no place in Detectron."
            )
