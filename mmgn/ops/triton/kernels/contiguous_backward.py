"""Backward kernels for contiguous tensors; :mod:`mmgn.ops.triton.kernels.cover` tells how a tensor is read.

With dz = dy * act'(z), m = D*S, and w = 1 where there is no weight,

    a = sum dz,   b = sum dz * x_hat              per sample and channel: db = sum_n a, dw = sum_n b
    c1 = sum_d w_d * a_d / m,   c2 = sum_d w_d * b_d / m       per sample and group
    dx = rstd * (w * dz - c1 - x_hat * c2)
"""

import triton
import triton.language as tl

from mmgn.ops.triton.kernels.arithmetic import undo_activation
from mmgn.ops.triton.kernels.cover import affine, cover, issue_loads, own, sum_rows, tile


@triton.jit(do_not_specialize=["groups", "D", "S", "partials"])
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
    D,
    S,
    partials,
    V: tl.constexpr,
    BLOCK_G: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_R: tl.constexpr,
    EVEN: tl.constexpr,
    WIDE: tl.constexpr,
    ACTIVATION: tl.constexpr,
    SAVED: tl.constexpr,
    HAS_WEIGHT: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    WANT_DX: tl.constexpr,
    WANT_SUMS: tl.constexpr,
    WANT_DRESIDUAL: tl.constexpr,
):
    """Take BLOCK_G groups of a sample: dx, dresidual, a and b, from one read; WIDE: N*C takes 64 bits."""
    blocks = tl.cdiv(groups, BLOCK_G)
    n = tl.program_id(0) // blocks
    if WIDE:
        n = n.to(tl.int64)
    g = tl.program_id(0) % blocks * BLOCK_G + tl.arange(0, BLOCK_G)[:, None, None, None]
    d = tl.arange(0, BLOCK_D)[None, :, None, None]
    r = tl.arange(0, BLOCK_R)[None, None, :, None]
    lane = tl.arange(0, V)[None, None, None, :]
    c = g * D + d  # [BLOCK_G, BLOCK_D, 1, 1]
    nc = n * groups * D + c
    channels = (g < groups) & (d < D)
    offsets, needed, starts, split = cover(nc, r, lane, S, V, EVEN)  # [BLOCK_G, BLOCK_D, BLOCK_R, V]
    mask = channels & needed
    x = tl.load(x_ptr + offsets, mask=mask, other=0).to(tl.float32)
    dy = tl.load(dy_ptr + offsets, mask=mask, other=0).to(tl.float32)
    issue_loads()
    rstd = tl.load(rstd_ptr + n * groups + g, mask=g < groups, other=0)
    x_hat = (x - tl.load(mean_ptr + n * groups + g, mask=g < groups, other=0)) * rstd
    last = groups * D - 1
    z = x_hat
    if SAVED == "y":
        z = tl.load(saved_ptr + offsets, mask=mask, other=0).to(tl.float32)
    elif ACTIVATION != "none":
        z = affine(x_hat, weight_ptr, bias_ptr, c, last, starts, split, lane, channels, EVEN, HAS_WEIGHT, HAS_BIAS)
        if SAVED == "residual":
            z += tl.load(saved_ptr + offsets, mask=mask, other=0).to(tl.float32)
    # 0 where the mask is not set, as dy is.
    dz = undo_activation(dy, z, ACTIVATION)
    if WANT_DRESIDUAL:
        tl.store(dresidual_ptr + offsets, dz, mask=mask & starts)
    own_dz = own(dz, starts, split, lane, EVEN)
    a = sum_rows(own_dz)  # [BLOCK_G, BLOCK_D, 1, 1]
    b = sum_rows(own_dz * x_hat)
    if WANT_SUMS:
        tl.store(partial_ptr + nc, a, mask=channels)
        tl.store(partial_ptr + partials + nc, b, mask=channels)
    if WANT_DX:
        if HAS_WEIGHT:
            w = tl.load(weight_ptr + c, mask=channels, other=0).to(tl.float32)
            a *= w
            b *= w
        m = (D * S).to(tl.float32)
        c1 = tl.sum(a, 1, keep_dims=True) / m
        c2 = tl.sum(b, 1, keep_dims=True) / m
        dx_hat = affine(dz, weight_ptr, bias_ptr, c, last, starts, split, lane, channels, EVEN, HAS_WEIGHT, False)
        tl.store(dx_ptr + offsets, (dx_hat - c1 - x_hat * c2) * rstd, mask=mask & starts)


@triton.jit(do_not_specialize=["groups", "chunks", "chunk_rows", "D", "S", "partials"])
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
    groups,
    chunks,
    chunk_rows,
    D,
    S,
    partials,
    V: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_R: tl.constexpr,
    EVEN: tl.constexpr,
    ACTIVATION: tl.constexpr,
    SAVED: tl.constexpr,
    HAS_WEIGHT: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    WANT_DRESIDUAL: tl.constexpr,
):
    """Leave a and b of a chunk of BLOCK_D channels of a group, and dresidual."""
    pid = tl.program_id(0)
    ng, d, r, lane, rows = tile(pid, chunks, chunk_rows, D, V, BLOCK_D, BLOCK_R)
    channels = d < D  # [BLOCK_D, 1, 1]
    offsets, needed, starts, split = cover(ng.to(tl.int64) * D + d, r, lane, S, V, EVEN)  # [BLOCK_D, BLOCK_R, V]
    mask = channels & rows & needed
    x = tl.load(x_ptr + offsets, mask=mask, other=0).to(tl.float32)
    dy = tl.load(dy_ptr + offsets, mask=mask, other=0).to(tl.float32)
    x_hat = (x - tl.load(mean_ptr + ng)) * tl.load(rstd_ptr + ng)
    c = ng % groups * D + d
    last = groups * D - 1
    z = x_hat
    if SAVED == "y":
        z = tl.load(saved_ptr + offsets, mask=mask, other=0).to(tl.float32)
    elif ACTIVATION != "none":
        z = affine(x_hat, weight_ptr, bias_ptr, c, last, starts, split, lane, channels, EVEN, HAS_WEIGHT, HAS_BIAS)
        if SAVED == "residual":
            z += tl.load(saved_ptr + offsets, mask=mask, other=0).to(tl.float32)
    # 0 where the mask is not set, as dy is.
    dz = undo_activation(dy, z, ACTIVATION)
    if WANT_DRESIDUAL:
        tl.store(dresidual_ptr + offsets, dz, mask=mask & starts)
    sums = partial_ptr + (ng.to(tl.int64) * D + d) * chunks + pid % chunks  # [BLOCK_D, 1, 1]
    own_dz = own(dz, starts, split, lane, EVEN)
    tl.store(sums, sum_rows(own_dz), mask=channels)
    tl.store(sums + partials, sum_rows(own_dz * x_hat), mask=channels)


@triton.jit(do_not_specialize=["groups", "chunks", "chunk_rows", "D", "S"])
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
    groups,
    chunks,
    chunk_rows,
    D,
    S,
    V: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_R: tl.constexpr,
    EVEN: tl.constexpr,
    ACTIVATION: tl.constexpr,
    SAVED: tl.constexpr,
    HAS_WEIGHT: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    STORE: tl.constexpr,
):
    """Write dx of a chunk; ``dz_ptr`` holds dy, or dz where ``reduce`` has left it and ACTIVATION is 'none'."""
    pid = tl.num_programs(0) - 1 - tl.program_id(0)
    ng, d, r, lane, rows = tile(pid, chunks, chunk_rows, D, V, BLOCK_D, BLOCK_R)
    channels = d < D  # [BLOCK_D, 1, 1]
    offsets, needed, starts, split = cover(ng.to(tl.int64) * D + d, r, lane, S, V, EVEN)  # [BLOCK_D, BLOCK_R, V]
    mask = channels & rows & needed
    x = tl.load(x_ptr + offsets, mask=mask, other=0, eviction_policy="evict_first").to(tl.float32)
    dz = tl.load(dz_ptr + offsets, mask=mask, other=0, eviction_policy="evict_first").to(tl.float32)
    rstd = tl.load(rstd_ptr + ng)
    x_hat = (x - tl.load(mean_ptr + ng)) * rstd
    c = ng % groups * D + d
    last = groups * D - 1
    if ACTIVATION != "none":
        if SAVED == "y":
            z = tl.load(saved_ptr + offsets, mask=mask, other=0).to(tl.float32)
        else:
            z = affine(x_hat, weight_ptr, bias_ptr, c, last, starts, split, lane, channels, EVEN, HAS_WEIGHT, HAS_BIAS)
            if SAVED == "residual":
                z += tl.load(saved_ptr + offsets, mask=mask, other=0).to(tl.float32)
        dz = undo_activation(dz, z, ACTIVATION)
    c1 = tl.load(c1_ptr + ng)
    c2 = tl.load(c2_ptr + ng)
    dx_hat = affine(dz, weight_ptr, bias_ptr, c, last, starts, split, lane, channels, EVEN, HAS_WEIGHT, False)
    tl.store(dx_ptr + offsets, (dx_hat - c1 - x_hat * c2) * rstd, mask=mask & starts, eviction_policy=STORE)
