"""``torch.ops.mmgn``: the fused group norm as custom operators with fake kernels and autograd.

The operators carry the fused kernels behind ``torch.compile`` and ``torch.export``; where the kernels cannot serve a
tensor, they compute the reference maths. Eager calls do not pass through here, as the dispatch of an operator written
in Python costs more than a small normalisation: the native backend calls torch, and the fused one
:class:`mmgn.ops.fused.FusedGroupNorm`.
"""

# typing's own: torch 2.4 reads no other Sequence off a signature.
from typing import Sequence  # noqa: UP035

import torch
from torch import Tensor

from mmgn.ops import reference
from mmgn.ops.triton import availability, launcher


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
    if availability.refusal(x) is None:
        return launcher.forward(x, weight, bias, residual, num_groups, eps, activation)
    y, mean, rstd = reference.forward(x, num_groups, weight, bias, eps, activation, residual)
    return torch.empty_like(launcher.dense(x)).copy_(y), mean, rstd


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
    return torch.empty_like(launcher.dense(x)), stats[0], stats[1]


@torch.library.custom_op("mmgn::group_norm_backward", mutates_args=())
def group_norm_backward(
    dy: Tensor,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    saved: Tensor | None,
    mean: Tensor,
    rstd: Tensor,
    activation: str,
    residual: bool,
    wanted: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return dx, dweight, dbias, dresidual; what ``wanted`` leaves out is empty: a schema has no optional output.

    ``saved`` is what :func:`mmgn.ops.triton.launcher.saved_tensor` picks.
    """
    if availability.refusal(x) is None:
        grads = launcher.backward(dy, x, weight, bias, saved, mean, rstd, activation, residual, wanted)
        dx, dw, db, dresidual = grads
        if wanted[3] and dresidual is None:
            dresidual = torch.empty_like(launcher.dense(x)).copy_(dy)
    else:
        if saved is not None and activation == "relu":
            # y has the mask; what is left to undo has no activation.
            dy, activation, saved = dy.masked_fill(saved <= 0, 0), "none", None
        dx, dw, db, dresidual = reference.backward(dy, x, mean, rstd, weight, bias, activation, saved)
        like = launcher.dense(x)
        dx, dresidual = (torch.empty_like(like).copy_(g) for g in (dx, dresidual))
    grads = (
        dx,
        # Copies: the two are parts of one tensor, and an operator's outputs must not be.
        dw if dw is None or weight is None else dw.to(weight.dtype, copy=True),
        db if db is None or bias is None else db.to(bias.dtype, copy=True),
        dresidual,
    )
    return tuple(g if want else x.new_empty(0) for g, want in zip(grads, wanted, strict=True))  # type: ignore[return-value]


@group_norm_backward.register_fake
def _(
    dy: Tensor,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    saved: Tensor | None,
    mean: Tensor,
    rstd: Tensor,
    activation: str,
    residual: bool,
    wanted: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    channels = x.shape[1]
    x = launcher.dense(x)
    grads = (
        torch.empty_like(x),
        x.new_empty(channels, dtype=mean.dtype if weight is None else weight.dtype),
        x.new_empty(channels, dtype=mean.dtype if bias is None else bias.dtype),
        torch.empty_like(x),
    )
    return tuple(g if want else g.new_empty(0) for g, want in zip(grads, wanted, strict=True))  # type: ignore[return-value]


def _setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    x, weight, bias, residual, _, _, ctx.activation = inputs
    y, mean, rstd = output
    ctx.residual = residual is not None
    saved = launcher.saved_tensor(y, residual, ctx.activation)
    ctx.save_for_backward(x, weight, bias, saved, mean, rstd)
    ctx.mark_non_differentiable(mean, rstd)


def _backward(ctx, dy, _dmean, _drstd):  # type: ignore[no-untyped-def]
    x, weight, bias, saved, mean, rstd = ctx.saved_tensors
    wanted = list(ctx.needs_input_grad[:4])
    # A residual that only adds has dy for its gradient.
    wanted[3] &= ctx.activation != "none"
    grads = group_norm_backward(dy, x, weight, bias, saved, mean, rstd, ctx.activation, ctx.residual, wanted)
    dx, dw, db, dresidual = (g if want else None for g, want in zip(grads, wanted, strict=True))
    if ctx.needs_input_grad[3] and ctx.activation == "none":
        dresidual = dy
    return dx, dw, db, dresidual, None, None, None


group_norm.register_autograd(_backward, setup_context=_setup_context)
