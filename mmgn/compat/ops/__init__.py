"""The operators of mmcv's extension module `mmcv._ext` on torchvision and torch.

Every function has the name, the argument names and the in-place outputs of its counterpart in mmcv 2.0.1 to
2.1.0 (`mmcv/ops/csrc/pytorch/pybind.cpp`), so that the autograd functions of `mmcv.ops` run on either. Half
precision is computed in float32, as torchvision does under autocast, and rounded once, on the way out.
"""

import torch
import torchvision

from mmgn.compat.ops.deform_conv import (
    deform_conv_backward_input,
    deform_conv_backward_parameters,
    deform_conv_forward,
    modulated_deform_conv_backward,
    modulated_deform_conv_forward,
)
from mmgn.compat.ops.focal_loss import (
    sigmoid_focal_loss_backward,
    sigmoid_focal_loss_forward,
    softmax_focal_loss_backward,
    softmax_focal_loss_forward,
)
from mmgn.compat.ops.nms import nms, nms_match, softnms
from mmgn.compat.ops.roi_ops import roi_align_backward, roi_align_forward, roi_pool_backward, roi_pool_forward

__all__ = [
    "deform_conv_backward_input",
    "deform_conv_backward_parameters",
    "deform_conv_forward",
    "get_compiler_version",
    "get_compiling_cuda_version",
    "modulated_deform_conv_backward",
    "modulated_deform_conv_forward",
    "nms",
    "nms_match",
    "roi_align_backward",
    "roi_align_forward",
    "roi_pool_backward",
    "roi_pool_forward",
    "sigmoid_focal_loss_backward",
    "sigmoid_focal_loss_forward",
    "softmax_focal_loss_backward",
    "softmax_focal_loss_forward",
    "softnms",
]


def get_compiler_version() -> str:
    """What mmcv's environment report prints as "MMCV Compiler"."""
    return f"none (mmgn serves mmcv's ops, torchvision {torchvision.__version__})"


def get_compiling_cuda_version() -> str:
    """The CUDA version that torchvision's ops were compiled with, or "not available", as mmcv words both."""
    # 12040 stands for 12.4, -1 for a build without CUDA.
    version = torch.ops.torchvision._cuda_version()
    return f"{version // 1000}.{version // 10 % 100}" if version > 0 else "not available"
