"""Deformable convolution v1 (arXiv 1703.06211) and v2 (arXiv 1811.11168) by torchvision.

Both libraries lay out offsets and masks alike. They differ for a sample exactly one pixel above or left of
the map, where the bilinear kernel has a kink and where an untrained layer with padding has samples: its
offset has gradient 0 in mmcv, the one from inside in torchvision. torchvision's backward computes all
gradients at once, so the two calls in which mmcv asks for those of v1 cost it twice here.

`columns`, `ones` and `im2col_step` are mmcv's scratch memory and its size; torchvision has its own.
"""

import torch
from torch import Tensor

from mmgn.compat.ops.precision import upcast

# What torchvision wants to know of the geometry, in its order, by the keywords of mmcv's v1 and v2.
_V1 = ("dH", "dW", "padH", "padW", "dilationH", "dilationW", "group", "deformable_group")
_V2 = ("stride_h", "stride_w", "pad_h", "pad_w", "dilation_h", "dilation_w", "group", "deformable_group")


def deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    output: Tensor,
    columns: Tensor,
    ones: Tensor,
    **geometry: int,
) -> None:
    """Write the convolution of `input` (N, C, H, W) with `weight` to `output` (N, C_out, H_out, W_out).

    `offset` is (N, deformable_group * kH * kW * 2, H_out, W_out), y before x. `geometry` holds the
    keywords of `_V1`, and kW, kH and im2col_step, which are not needed.
    """
    operands = _operands(input, weight, offset)
    output.copy_(torch.ops.torchvision.deform_conv2d(*operands, *(geometry[key] for key in _V1), False))


def deform_conv_backward_input(
    input: Tensor,
    offset: Tensor,
    gradOutput: Tensor,
    gradInput: Tensor,
    gradOffset: Tensor,
    weight: Tensor,
    columns: Tensor,
    **geometry: int,
) -> None:
    """Add to `gradInput` and overwrite `gradOffset`, as mmcv does."""
    grads = _backward(gradOutput, _operands(input, weight, offset), *(geometry[key] for key in _V1), False)
    gradInput.add_(grads[0])
    gradOffset.copy_(grads[2])


def deform_conv_backward_parameters(
    input: Tensor,
    offset: Tensor,
    gradOutput: Tensor,
    gradWeight: Tensor,
    columns: Tensor,
    ones: Tensor,
    scale: float,
    **geometry: int,
) -> None:
    """Add `scale` times the gradient of the weight to `gradWeight`."""
    # The gradient of the weight needs its shape, not its values, and mmcv does not pass them here.
    operands = _operands(input, torch.zeros_like(gradWeight), offset)
    grads = _backward(gradOutput, operands, *(geometry[key] for key in _V1), False)
    gradWeight.add_(grads[1], alpha=scale)


def modulated_deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    output: Tensor,
    columns: Tensor,
    with_bias: bool,
    **geometry: int,
) -> None:
    """Write the convolution to `output`, each sample times its `mask`, plus, `with_bias`, `bias` (C_out,).

    `mask` is (N, deformable_group * kernel_h * kernel_w, H_out, W_out). `geometry` holds the
    keywords of `_V2`, and kernel_h and kernel_w, which are not needed.
    """
    operands = _operands(input, weight, offset, mask, bias if with_bias else None)
    output.copy_(torch.ops.torchvision.deform_conv2d(*operands, *(geometry[key] for key in _V2), True))


def modulated_deform_conv_backward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    columns: Tensor,
    grad_input: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    grad_offset: Tensor,
    grad_mask: Tensor,
    grad_output: Tensor,
    with_bias: bool,
    **geometry: int,
) -> None:
    """Add to the gradients of input, weight and bias, overwrite those of offset and mask, as mmcv does."""
    operands = _operands(input, weight, offset, mask, bias if with_bias else None)
    grads = _backward(grad_output, operands, *(geometry[key] for key in _V2), True)
    grad_input.add_(grads[0])
    grad_weight.add_(grads[1])
    grad_offset.copy_(grads[2])
    grad_mask.copy_(grads[3])
    if with_bias:
        grad_bias.add_(grads[4])


def _operands(
    input: Tensor, weight: Tensor, offset: Tensor, mask: Tensor | None = None, bias: Tensor | None = None
) -> tuple[Tensor, ...]:
    """The operands in torchvision's order; it always wants a mask and a bias, used or not."""
    mask = input.new_zeros(len(input), 1) if mask is None else mask
    bias = input.new_zeros(len(weight)) if bias is None else bias
    return upcast(input, weight, offset, mask, bias)


def _backward(grad_output: Tensor, operands: tuple[Tensor, ...], *geometry: int) -> tuple[Tensor, ...]:
    """Gradients of input, weight, offset, mask and bias."""
    grad_output = grad_output.to(operands[0].dtype)
    return torch.ops.torchvision._deform_conv2d_backward(grad_output, *operands, *geometry)
