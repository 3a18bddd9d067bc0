"""The activation and its derivative."""

import triton
import triton.language as tl


@triton.jit
def activate(z, ACTIVATION: tl.constexpr):
    """Return act(z); NaN stays NaN."""
    if ACTIVATION == "relu":
        z = tl.maximum(z, 0.0, propagate_nan=tl.PropagateNan.ALL)
    if ACTIVATION == "silu":
        z = z * tl.sigmoid(z)
    return z


@triton.jit
def undo_activation(dy, z, ACTIVATION: tl.constexpr):
    """Return dz = dy * act'(z); for ReLU z may be y as well."""
    if ACTIVATION == "relu":
        dy = tl.where(z <= 0, 0.0, dy)
    if ACTIVATION == "silu":
        s = tl.sigmoid(z)
        dy = dy * (s * (1 + z * (1 - s)))
    return dy
