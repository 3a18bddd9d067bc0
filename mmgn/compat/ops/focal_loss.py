"""Focal losses (arXiv 1708.02002) as mmcv's CUDA kernels define them, in plain torch."""

import math

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from mmgn.compat.ops.precision import upcast

# FLT_MIN, by which mmcv keeps probabilities from 0 before it takes their logarithm, in every dtype.
_TINY = torch.finfo(torch.float32).tiny


def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Write the loss of every class's own sigmoid to `output`.

    With p = sigmoid(x) and q = 1 - p it is -alpha q^gamma log(p) for the class of the label and
    -(1 - alpha) p^gamma log(q) for the others. logsigmoid(x) is log(p) where mmcv's log(max(p, FLT_MIN))
    saturates (|x| > 87) too.

    Args:
        input: (N, C) logits.
        target: (N,) int64 labels; C and negative ones are background, for which no class is right.
        weight: (C,), factor of the rows of each label, or empty.
        output: (N, C), overwritten.
        gamma: focusing exponent.
        alpha: factor of the right class.

    Raises:
        ValueError: for a label above C, or one that `weight` has no entry for.
    """
    num_classes = input.shape[1]
    if weight.numel():
        _check_labels(target, 0, num_classes - 1)
    else:
        _check_labels(target, -math.inf, num_classes)
    (x,) = upcast(input)
    right = -alpha * torch.sigmoid(-x).pow(gamma) * logsigmoid(x)
    wrong = -(1 - alpha) * torch.sigmoid(x).pow(gamma) * logsigmoid(-x)
    loss = torch.where(_one_hot(target, num_classes), right, wrong)
    output.copy_(loss * weight[target, None] if weight.numel() else loss)


def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Write d loss / d logit to `grad_input` (N, C)."""
    (x,) = upcast(input)
    p, q = torch.sigmoid(x), torch.sigmoid(-x)
    right = -alpha * q.pow(gamma) * (q - gamma * p * logsigmoid(x))
    wrong = -(1 - alpha) * p.pow(gamma) * (gamma * q * logsigmoid(-x) - p)
    grad = torch.where(_one_hot(target, input.shape[1]), right, wrong)
    grad_input.copy_(grad * weight[target, None] if weight.numel() else grad)


def softmax_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Write each row's loss -alpha (1 - p)^gamma log(p), p the probability of its label, to `output`.

    Args:
        input: (N, C) probabilities: mmcv takes the softmax before.
        target: (N,) int64 labels; a row with a negative one is ignored, its loss is 0.
        weight: (C,), factor of the rows of each label, or empty.
        output: (N,), overwritten.
        gamma: focusing exponent.
        alpha: factor of every row.

    Raises:
        ValueError: for a label of C or above.
    """
    _check_labels(target, -math.inf, input.shape[1] - 1)
    p, factor = _label_probability(input, target, weight)
    output.copy_(-alpha * factor * (1 - p).pow(gamma) * p.clamp(min=_TINY).log())


def softmax_focal_loss_backward(
    input: Tensor,
    target: Tensor,
    weight: Tensor,
    buff: Tensor,
    grad_input: Tensor,
    gamma: float,
    alpha: float,
) -> None:
    """Write d loss / d logit to `grad_input` (N, C), and p d loss / dp to `buff` (N,)."""
    p, factor = _label_probability(input, target, weight)
    # At p = 1 and gamma < 1 the power of gamma - 1 is infinite, its product with log(p) is not.
    q = (1 - p).clamp(min=_TINY)
    slope = alpha * factor * (gamma * q.pow(gamma - 1) * p * p.clamp(min=_TINY).log() - q.pow(gamma))
    buff.copy_(slope)
    grad_input.copy_(slope[:, None] * (_one_hot(target, input.shape[1]).to(slope) - input))


def _one_hot(target: Tensor, num_classes: int) -> Tensor:
    """(N, C) bool, without a True in the row of a label outside [0, C)."""
    return target[:, None] == torch.arange(num_classes, device=target.device)


def _label_probability(input: Tensor, target: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Probability of each row's label and the factor of its loss, 0 for an ignored row: two (N,)."""
    (probability,) = upcast(input)
    label = target.clamp(min=0)
    factor = (target >= 0).to(probability)
    if weight.numel():
        factor = factor * weight[label]
    return probability.gather(1, label[:, None]).squeeze(1), factor


def _check_labels(target: Tensor, low: float, high: float) -> None:
    """Raise for labels that mmcv rejects, or for which its kernels read past the end of their arrays."""
    if target.numel() == 0:
        return
    smallest, largest = (value.item() for value in target.aminmax())
    if smallest < low or largest > high:
        raise ValueError(
            f"focal loss: labels must lie in [{low}, {high}], got {smallest} to {largest}; check num_classes "
            "and, with class weights, that every label has one (background has none)."
        )
