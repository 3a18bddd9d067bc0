"""Backward kernels for channels_last tensors; formulas and names as in ``contiguous_backward``."""

import triton
import triton.language as tl

from mmgn.ops.triton.kernels.arithmetic import undo_activation
from mmgn.ops.triton.kernels.columns import affine, place, spread, sum_groups, tile


@triton.jit(do_not_specialize=["groups", "S", "partials"])
def whole_backward(
    dy_ptr,
    x_ptr,
    weight_ptr,
    bias_ptr,
    saved_ptr,
    mean_ptr,
    rstd_ptr,
    dx_ptr,
    dresidual_ptr,
    partial_ptr,
    groups,
    S,
    partials,
    D: tl.constexpr,
    V: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_G: tl.constexpr,
    BLOCK_D: tl.constexpr,
    ACTIVATION: tl.constexpr,
    SAVED: tl.constexpr,
    HAS_WEIGHT: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    WANT_DX: tl.constexpr,
    WANT_SUMS: tl.constexpr,
    WANT_DRESIDUAL: tl.constexpr,
):
    """Take BLOCK_G groups of a sample: dx, dresidual, and a and b, from one read of dy and x."""
    n, _, _, p, c, valid = tile(tl.program_id(0), 1, groups, D, V, BLOCK_P, BLOCK_G, BLOCK_D, 1)
    mask = valid & (p < S)
    offsets = place(n, p, c, S, groups, D, V)
    x = tl.load(x_ptr + offsets, mask=mask, other=0).to(tl.float32)  # [BLOCK_P, COLUMNS]
    dy = tl.load(dy_ptr + offsets, mask=mask, other=0).to(tl.float32)
    g = c // D  # [1, COLUMNS]
    rstd = tl.load(rstd_ptr + n * groups + g, mask=valid, other=0)
    x_hat = (x - tl.load(mean_ptr + n * groups + g, mask=valid, other=0)) * rstd
    z = x_hat
    if SAVED == "y":
        z = tl.load(saved_ptr + offsets, mask=mask, other=0).to(tl.float32)
    elif ACTIVATION != "none":
        z = affine(x_hat, weight_ptr, bias_ptr, c, valid, HAS_WEIGHT, HAS_BIAS)
        if SAVED == "residual":
            z += tl.load(saved_ptr + offsets, mask=mask, other=0).to(tl.float32)
    # 0 outside of the mask, as dy is.
    dz = undo_activation(dy, z, ACTIVATION)
    if WANT_DRESIDUAL:
        tl.store(dresidual_ptr + offsets, dz, mask=mask)
    a = tl.sum(dz, 0, keep_dims=True)  # [1, COLUMNS]
    b = tl.sum(dz * x_hat, 0, keep_dims=True)
    if WANT_SUMS:
        sums = partial_ptr + n * groups * D + c
        tl.store(sums, a, mask=valid)
        tl.store(sums + partials, b, mask=valid)
    if WANT_DX:
        dx_hat = affine(dz, weight_ptr, bias_ptr, c, valid, HAS_WEIGHT, False)
        m = (S * D).to(tl.float32)
        c1 = sum_groups(affine(a, weight_ptr, bias_ptr, c, valid, HAS_WEIGHT, False), BLOCK_G, BLOCK_D) / m
        c2 = sum_groups(affine(b, weight_ptr, bias_ptr, c, valid, HAS_WEIGHT, False), BLOCK_G, BLOCK_D) / m
        dx = (dx_hat - spread(c1, BLOCK_G, BLOCK_D) - x_hat * spread(c2, BLOCK_G, BLOCK_D)) * rstd
        tl.store(dx_ptr + offsets, dx, mask=mask)


@triton.jit(do_not_specialize=["chunks", "groups", "S", "partials"])
def reduce(
    dy_ptr,
    x_ptr,
    weight_ptr,
    bias_ptr,
    saved_ptr,
    mean_ptr,
    rstd_ptr,
    dresidual_ptr,
    partial_ptr,
    chunks,
    groups,
    S,
    partials,
    D: tl.constexpr,
    V: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_G: tl.constexpr,
    BLOCK_D: tl.constexpr,
    SUBS: tl.constexpr,
    ACTIVATION: tl.constexpr,
    SAVED: tl.constexpr,
    HAS_WEIGHT: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    WANT_DRESIDUAL: tl.constexpr,
):
    """Leave a and b of one chunk of a block of columns, and dresidual."""
    n, chunk, _, p, c, valid = tile(tl.program_id(0), chunks, groups, D, V, BLOCK_P, BLOCK_G, BLOCK_D, SUBS)
    mask = valid & (p < S)
    offsets = place(n, p, c, S, groups, D, V)
    x = tl.load(x_ptr + offsets, mask=mask, other=0).to(tl.float32)  # [BLOCK_P, COLUMNS]
    dy = tl.load(dy_ptr + offsets, mask=mask, other=0).to(tl.float32)
    g = c // D  # [1, COLUMNS]
    mean = tl.load(mean_ptr + n * groups + g, mask=valid, other=0)
    x_hat = (x - mean) * tl.load(rstd_ptr + n * groups + g, mask=valid, other=0)
    z = x_hat
    if SAVED == "y":
        z = tl.load(saved_ptr + offsets, mask=mask, other=0).to(tl.float32)
    elif ACTIVATION != "none":
        z = affine(x_hat, weight_ptr, bias_ptr, c, valid, HAS_WEIGHT, HAS_BIAS)
        if SAVED == "residual":
            z += tl.load(saved_ptr + offsets, mask=mask, other=0).to(tl.float32)
    dz = undo_activation(dy, z, ACTIVATION)
    if WANT_DRESIDUAL:
        tl.store(dresidual_ptr + offsets, dz, mask=mask)
    sums = partial_ptr + (n * chunks + chunk) * (groups * D) + c
    tl.store(sums, tl.sum(dz, 0, keep_dims=True), mask=valid)
    tl.store(sums + partials, tl.sum(dz * x_hat, 0, keep_dims=True), mask=valid)


@triton.jit(do_not_specialize=["chunks", "groups", "S"])
def apply_backward(
    dz_ptr,
    x_ptr,
    weight_ptr,
    bias_ptr,
    saved_ptr,
    mean_ptr,
    rstd_ptr,
    c1_ptr,
    c2_ptr,
    dx_ptr,
    chunks,
    groups,
    S,
    D: tl.constexpr,
    V: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_G: tl.constexpr,
    BLOCK_D: tl.constexpr,
    SUBS: tl.constexpr,
    ACTIVATION: tl.constexpr,
    SAVED: tl.constexpr,
    HAS_WEIGHT: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    STORE: tl.constexpr,
):
    """Write dx of a chunk; ``dz_ptr`` holds dy, or dz where ``reduce`` has left it and ACTIVATION is 'none'."""
    pid = tl.num_programs(0) - 1 - tl.program_id(0)
    n, _, _, p, c, valid = tile(pid, chunks, groups, D, V, BLOCK_P, BLOCK_G, BLOCK_D, SUBS)
    mask = valid & (p < S)
    offsets = place(n, p, c, S, groups, D, V)
    x = tl.load(x_ptr + offsets, mask=mask, other=0, eviction_policy="evict_first").to(tl.float32)
    dz = tl.load(dz_ptr + offsets, mask=mask, other=0, eviction_policy="evict_first").to(tl.float32)
    g = c // D  # [1, COLUMNS]
    rstd = tl.load(rstd_ptr + n * groups + g, mask=valid, other=0)
    x_hat = (x - tl.load(mean_ptr + n * groups + g, mask=valid, other=0)) * rstd
    if ACTIVATION != "none":
        if SAVED == "y":
            z = tl.load(saved_ptr + offsets, mask=mask, other=0).to(tl.float32)
        else:
            z = affine(x_hat, weight_ptr, bias_ptr, c, valid, HAS_WEIGHT, HAS_BIAS)
            if SAVED == "residual":
                z += tl.load(saved_ptr + offsets, mask=mask, other=0).to(tl.float32)
        dz = undo_activation(dz, z, ACTIVATION)
    dx_hat = affine(dz, weight_ptr, bias_ptr, c, valid, HAS_WEIGHT, False)
    c1 = tl.load(c1_ptr + n * groups + g, mask=valid, other=0)
    c2 = tl.load(c2_ptr + n * groups + g, mask=valid, other=0)
    tl.store(dx_ptr + offsets, (dx_hat - c1 - x_hat * c2) * rstd, mask=mask, eviction_policy=STORE)
