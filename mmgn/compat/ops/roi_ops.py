import torch
from torch import Tensor

from mmgn.compat.mmcv_ops import unserved
from mmgn.compat.ops.precision import upcast

# Value of `pool_mode` in roi_align, as mmcv.ops.roi_align numbers it.
_AVERAGE = 1


def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """RoIAlign by torchvision, which samples where mmcv does.

    Args:
        input: (N, C, H, W).
        rois: (K, 5) as index into N, x1, y1, x2, y2; K may be 0.
        output: (K, C, aligned_height, aligned_width), overwritten.
        argmax_y: of the max mode; not used.
        argmax_x: likewise.
        aligned_height: rows of bins.
        aligned_width: columns of bins.
        spatial_scale: multiplies the coordinates.
        sampling_ratio: samples per bin and direction; 0 for as many as the bin is pixels long, rounded up.
        pool_mode: 1, the average of a bin's samples.
        aligned: shift the coordinates by half a pixel.

    Raises:
        NotImplementedError: for pool_mode 0, the maximum of a bin's samples, which torchvision does not have.
    """
    if pool_mode != _AVERAGE:
        raise unserved("RoIAlign with pool_mode='max'")
    geometry = (spatial_scale, aligned_height, aligned_width, sampling_ratio, aligned)
    output.copy_(torch.ops.torchvision.roi_align(*upcast(input, rois), *geometry))


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Add the gradient of `roi_align_forward` to `grad_input` (N, C, H, W).

    On a GPU torchvision adds with atomics, which torch refuses where it is to be deterministic: then the CPU adds.
    """
    geometry = (spatial_scale, aligned_height, aligned_width, *grad_input.shape, sampling_ratio, aligned)
    grad, boxes = upcast(grad_output, rois)
    if torch.are_deterministic_algorithms_enabled():
        grad, boxes = grad.cpu(), boxes.cpu()
    grad_input.add_(torch.ops.torchvision._roi_align_backward(grad, boxes, *geometry).to(grad_input.device))


def roi_pool_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """RoIPool over mmcv's bins, each pooled by torchvision as a RoI of its own.

    torchvision's bins differ: it rounds a RoI to whole cells before it cuts it into bins. mmcv cuts
    [x1 * scale, (x2 + 1) * scale) as it is; a bin takes every cell it touches (`roi_pool_cuda_kernel.cuh`).

    Args:
        input: (N, C, H, W).
        rois: (K, 5) as index into N, x1, y1, x2, y2; K may be 0.
        output: (K, C, pooled_height, pooled_width), overwritten; 0 for a bin without cells.
        argmax: int32, shaped like `output`; y * W + x of the maximum, -1 for a bin without cells. (For a RoI
            without area mmcv leaves it at 0, and the gradient of the constant 0 goes to the first cell.)
        pooled_height: rows of bins.
        pooled_width: columns of bins.
        spatial_scale: multiplies the coordinates.
    """
    features, boxes = upcast(input, rois)
    x_low, x_high = _bins(boxes[:, 1] * spatial_scale, (boxes[:, 3] + 1) * spatial_scale, pooled_width)
    y_low, y_high = _bins(boxes[:, 2] * spatial_scale, (boxes[:, 4] + 1) * spatial_scale, pooled_height)

    grid = (len(rois), pooled_height, pooled_width)
    corners = (x_low[:, None, :], y_low[:, :, None], x_high[:, None, :] - 1, y_high[:, :, None] - 1)
    cells = torch.stack([side.expand(grid) for side in (boxes[:, 0, None, None], *corners)], dim=-1)
    pooled, index = torch.ops.torchvision.roi_pool(features, cells.view(-1, 5), 1.0, 1, 1)

    empty = ((y_high <= y_low)[:, :, None] | (x_high <= x_low)[:, None, :])[:, None]  # [K, 1, PH, PW]
    shape = (*grid, input.shape[1])
    output.copy_(pooled.view(shape).permute(0, 3, 1, 2).masked_fill(empty, 0))
    argmax.copy_(index.view(shape).permute(0, 3, 1, 2).masked_fill(empty, -1))


def roi_pool_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax: Tensor,
    grad_input: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Add the gradient of `roi_pool_forward` to `grad_input` (N, C, H, W), at the cells in `argmax`."""
    grad, boxes = upcast(grad_output, rois)
    geometry = (spatial_scale, pooled_height, pooled_width, *grad_input.shape)
    grad_input.add_(torch.ops.torchvision._roi_pool_backward(grad, boxes, argmax, *geometry))


def _bins(start: Tensor, end: Tensor, bins: int) -> tuple[Tensor, Tensor]:
    """First cell and end of the cells, on the map or off it, that each bin of [start, end) touches."""
    edges = torch.arange(bins + 1, device=start.device) * ((end - start) / bins)[:, None] + start[:, None]
    low, high = edges[:, :-1].floor(), edges[:, 1:].ceil()
    # Rounded outwards, a RoI without extent could still touch a cell.
    return low, torch.where((end > start)[:, None], high, low)
