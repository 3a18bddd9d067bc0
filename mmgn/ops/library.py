"""``torch.ops.mmgn``: the fused group norm as custom operators with fake kernels and autograd.

The operators carry what a fused kernel needs to sit behind ``torch.compile``, ``torch.export`` and DDP. Their
implementation for every device is the reference maths; a device with kernels of its own registers over it.
The native backend does not pass through here: on a CPU the dispatch of a Python operator costs more than
the normalisation of a small tensor.
"""

# typing's own: torch 2.4 reads no other Sequence off a signature.
from typing import Sequence  # noqa: UP035

import torch
from torch import Tensor

from mmgn.ops import reference


@torch.library.custom_op("mmgn::group_norm", mutates_args=())
def group_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    num_groups: int,
    eps: float,
    activation: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return y (x's dtype and memory format) and the saved mean and rstd, (N, G) in float32 (float64 for float64)."""
    y, mean, rstd = reference.forward(x, num_groups, weight, bias, eps, activation, residual)
    return torch.empty_like(x).copy_(y), mean, rstd


@group_norm.register_fake
def _(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    num_groups: int,
    eps: float,
    activation: str,
) -> tuple[Tensor, Tensor, Tensor]:
    stats = [x.new_empty((x.shape[0], num_groups), dtype=reference.accumulate_dtype(x)) for _ in range(2)]
    return torch.empty_like(x), stats[0], stats[1]


@torch.library.custom_op("mmgn::group_norm_backward", mutates_args=())
def group_norm_backward(
    dy: Tensor,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    mean: Tensor,
    rstd: Tensor,
    activation: str,
    wanted: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return dx, dweight, dbias, dresidual; what ``wanted`` leaves out is empty: a schema has no optional output."""
    dx, dw, db, dresidual = reference.backward(dy, x, mean, rstd, weight, bias, activation, residual)
    grads = (
        torch.empty_like(x).copy_(dx),
        dw if weight is None else dw.to(weight.dtype),
        db if bias is None else db.to(bias.dtype),
        torch.empty_like(x).copy_(dresidual),
    )
    return tuple(g if want else g.new_empty(0) for g, want in zip(grads, wanted, strict=True))  # type: ignore[return-value]


@group_norm_backward.register_fake
def _(
    dy: Tensor,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    mean: Tensor,
    rstd: Tensor,
    activation: str,
    wanted: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    channels = x.shape[1]
    grads = (
        torch.empty_like(x),
        x.new_empty(channels, dtype=mean.dtype if weight is None else weight.dtype),
        x.new_empty(channels, dtype=mean.dtype if bias is None else bias.dtype),
        torch.empty_like(x),
    )
    return tuple(g if want else g.new_empty(0) for g, want in zip(grads, wanted, strict=True))  # type: ignore[return-value]


def _setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    x, weight, bias, residual, _, _, ctx.activation = inputs
    _, mean, rstd = output
    # z is rebuilt from x and the residual, never read from y: a later in-place op may change y.
    # A residual that only adds is not needed again.
    saved_residual = None if ctx.activation == "none" else residual
    ctx.save_for_backward(x, weight, bias, saved_residual, mean, rstd)
    ctx.mark_non_differentiable(mean, rstd)


def _backward(ctx, dy, _dmean, _drstd):  # type: ignore[no-untyped-def]
    x, weight, bias, residual, mean, rstd = ctx.saved_tensors
    wanted = list(ctx.needs_input_grad[:4])
    grads = group_norm_backward(dy, x, weight, bias, residual, mean, rstd, ctx.activation, wanted)
    dx, dw, db, dresidual = (g if want else None for g, want in zip(grads, wanted, strict=True))
    return dx, dw, db, dresidual, None, None, None


group_norm.register_autograd(_backward, setup_context=_setup_context)
