"""The readable oracle: group norm, residual and activation in plain tensor maths, forward and backward.

For sample n and group g of D = C/G channels (Wu & He, "Group Normalization", ECCV 2018, eq. 1-2)

    mean, var = mean and biased variance of x over the D*H*W elements of (n, g)
    x_hat = (x - mean) * rstd,   rstd = 1 / sqrt(var + eps)
    z = weight * x_hat + bias + residual,   y = act(z)

and with dz = dy * act'(z), m = D*H*W

    db = sum_n,hw dz,   dw = sum_n,hw dz * x_hat,   dresidual = dz
    dx = rstd * (g - mean_m(g) - x_hat * mean_m(g * x_hat)),   g = weight * dz

Statistics and arithmetic are float32, or float64 for float64 inputs. Clarity over speed: every other
implementation is held against this one run in float64.
"""

import torch
from torch import Tensor

ACTIVATIONS = ("none", "relu", "silu")


def accumulate_dtype(x: Tensor) -> torch.dtype:
    """Return the dtype of statistics and arithmetic: float64 for float64 inputs, else float32."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _per_channel(p: Tensor, x: Tensor) -> Tensor:
    return p.reshape(1, -1, *[1] * (x.dim() - 2))


def _per_group(x: Tensor, num_groups: int) -> Tensor:
    # Spelled out, as -1 cannot be inferred where N is 0.
    return x.reshape(x.shape[0], num_groups, x.shape[1] // num_groups, *x.shape[2:]).flatten(2)  # [N, G, m]


def _normalized(x: Tensor, mean: Tensor, rstd: Tensor) -> Tensor:
    num_groups = mean.shape[1]
    x_hat = (_per_group(x.to(mean.dtype), num_groups) - mean[..., None]) * rstd[..., None]
    return x_hat.reshape(x.shape)


def _affine(x_hat: Tensor, weight: Tensor | None, bias: Tensor | None, residual: Tensor | None) -> Tensor:
    z = x_hat
    if weight is not None:
        z = z * _per_channel(weight.to(z.dtype), z)
    if bias is not None:
        z = z + _per_channel(bias.to(z.dtype), z)
    if residual is not None:
        z = z + residual.to(z.dtype)
    return z


def _activate(z: Tensor, activation: str) -> Tensor:
    if activation == "relu":
        return z.relu()
    return torch.nn.functional.silu(z) if activation == "silu" else z


def _activation_backward(dy: Tensor, z: Tensor, activation: str) -> Tensor:
    if activation == "relu":
        return dy.masked_fill(z <= 0, 0)
    if activation == "silu":
        s = z.sigmoid()
        return dy * (s * (1 + z * (1 - s)))
    return dy


def forward(
    x: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    activation: str = "none",
    residual: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute ``y = act(group_norm(x) + residual)``.

    Args:
        x: (N, C, *spatial), any floating dtype.
        num_groups: G, a divisor of C.
        weight: (C,) or None.
        bias: (C,) or None.
        eps: added to the variance.
        activation: one of ``ACTIVATIONS``.
        residual: x's shape, or None.

    Returns:
        y (x's shape and dtype), mean and rstd (N, G) in the accumulation dtype.
    """
    groups = _per_group(x.to(accumulate_dtype(x)), num_groups)
    mean = groups.mean(2)
    var = (groups - mean[..., None]).square().mean(2)
    rstd = torch.rsqrt(var + eps)
    z = _affine(_normalized(x, mean, rstd), weight, bias, residual)
    return _activate(z, activation).to(x.dtype), mean, rstd


def backward(
    dy: Tensor,
    x: Tensor,
    mean: Tensor,
    rstd: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    activation: str = "none",
    residual: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Compute the gradients of :func:`forward` from what it saved.

    Args:
        dy: gradient of y, x's shape.
        x: the input of :func:`forward`; likewise weight, bias, activation and residual.
        mean: (N, G), as returned by :func:`forward`.
        rstd: (N, G), as returned by :func:`forward`.
        weight: (C,) or None.
        bias: (C,) or None.
        activation: one of ``ACTIVATIONS``.
        residual: x's shape, or None.

    Returns:
        dx (x's dtype), dweight and dbias ((C,), accumulation dtype), dresidual (x's dtype).
    """
    num_groups = mean.shape[1]
    x_hat = _normalized(x, mean, rstd)
    dz = _activation_backward(dy.to(mean.dtype), _affine(x_hat, weight, bias, residual), activation)
    reduced = [d for d in range(x.dim()) if d != 1]
    dbias = dz.sum(reduced)
    dweight = (dz * x_hat).sum(reduced)
    g = dz if weight is None else dz * _per_channel(weight.to(dz.dtype), dz)
    g, groups = _per_group(g, num_groups), _per_group(x_hat, num_groups)
    c1 = g.mean(2, keepdim=True)
    c2 = (g * groups).mean(2, keepdim=True)
    dx = (g - c1 - groups * c2) * rstd[..., None]
    return dx.reshape(x.shape).to(x.dtype), dweight, dbias, dz.to(x.dtype)
