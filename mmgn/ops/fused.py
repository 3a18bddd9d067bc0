"""The fused backend in eager mode: Triton kernels behind an autograd function."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mmgn.ops.triton import launcher


class FusedGroupNorm(torch.autograd.Function):
    """``act(GN(x) + residual)`` by fused kernels.

    Saves x, mean and rstd, (N, G) in float32, and for a residual under an activation y (ReLU) or the residual (SiLU).
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        residual: Tensor | None,
        num_groups: int,
        eps: float,
        activation: str,
    ) -> Tensor:
        """Return y; arguments as in :func:`mmgn.ops.group_norm`, checked."""
        y, mean, rstd = launcher.forward(x, weight, bias, residual, num_groups, eps, activation)
        ctx.activation = activation
        ctx.residual = residual is not None
        saved = launcher.saved_tensor(y, residual, activation)
        ctx.save_for_backward(x, weight, bias, saved, mean, rstd)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients that are wanted."""
        x, weight, bias, saved, mean, rstd = ctx.saved_tensors
        wanted = ctx.needs_input_grad[:4]
        dx, dw, db, dresidual = launcher.backward(
            dy, x, weight, bias, saved, mean, rstd, ctx.activation, ctx.residual, wanted
        )
        if wanted[3] and ctx.activation == "none":
            # A residual that only adds.
            dresidual = dy
        if dw is not None:
            dw = dw.to(weight.dtype)
        if db is not None:
            db = db.to(bias.dtype)
        return dx, dw, db, dresidual, None, None, None
