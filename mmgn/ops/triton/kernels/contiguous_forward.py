"""Forward kernels for contiguous tensors; :mod:`mmgn.ops.triton.kernels.cover` tells how a tensor is read."""

import triton
import triton.language as tl

from mmgn.ops.triton.kernels.arithmetic import activate
from mmgn.ops.triton.kernels.cover import affine, cover, issue_loads, sum_rows, tile


@triton.jit(do_not_specialize=["groups", "D", "S", "eps"])
def whole_forward(
    x_ptr,
    weight_ptr,
    bias_ptr,
    residual_ptr,
    y_ptr,
    mean_ptr,
    rstd_ptr,
    groups,
    D,
    S,
    eps,
    V: tl.constexpr,
    BLOCK_G: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_R: tl.constexpr,
    EVEN: tl.constexpr,
    WIDE: tl.constexpr,
    ACTIVATION: tl.constexpr,
    HAS_WEIGHT: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
):
    """Normalise BLOCK_G groups of a sample: one read, one write; WIDE: N*C takes 64 bits."""
    blocks = tl.cdiv(groups, BLOCK_G)
    n = tl.program_id(0) // blocks
    if WIDE:
        n = n.to(tl.int64)
    g = tl.program_id(0) % blocks * BLOCK_G + tl.arange(0, BLOCK_G)[:, None, None, None]
    d = tl.arange(0, BLOCK_D)[None, :, None, None]
    r = tl.arange(0, BLOCK_R)[None, None, :, None]
    lane = tl.arange(0, V)[None, None, None, :]
    c = g * D + d  # [BLOCK_G, BLOCK_D, 1, 1]
    channels = (g < groups) & (d < D)
    offsets, needed, starts, split = cover(n * groups * D + c, r, lane, S, V, EVEN)  # [BLOCK_G, BLOCK_D, BLOCK_R, V]
    mask = channels & needed
    x = tl.load(x_ptr + offsets, mask=mask, other=0).to(tl.float32)
    m = (D * S).to(tl.float32)
    # Every row of the group counts once, for the channel in which it starts.
    counted = mask & starts  # [BLOCK_G, BLOCK_D, BLOCK_R, 1]
    mean = tl.sum(sum_rows(x, counted), 1, keep_dims=True) / m  # [BLOCK_G, 1, 1, 1]
    centred = x - mean
    rstd = tl.rsqrt(tl.sum(sum_rows(centred * centred, counted), 1, keep_dims=True) / m + eps)
    last = groups * D - 1
    z = affine(centred * rstd, weight_ptr, bias_ptr, c, last, starts, split, lane, channels, EVEN, HAS_WEIGHT, HAS_BIAS)
    if HAS_RESIDUAL:
        z += tl.load(residual_ptr + offsets, mask=mask, other=0).to(tl.float32)
    tl.store(y_ptr + offsets, activate(z, ACTIVATION), mask=mask & starts)
    tl.store(mean_ptr + n * groups + g, mean, mask=g < groups)
    tl.store(rstd_ptr + n * groups + g, rstd, mask=g < groups)


@triton.jit(do_not_specialize=["chunks", "rows", "chunk_rows", "partials"])
def statistics(
    x_ptr,
    partial_ptr,
    chunks,
    rows,
    chunk_rows,
    partials,
    V: tl.constexpr,
    BLOCK_R: tl.constexpr,
):
    """Leave the mean and the sum of squared deviations of one chunk of one group of ``rows`` rows."""
    pid = tl.program_id(0)
    g = pid // chunks
    row0 = (pid % chunks).to(tl.int64) * chunk_rows
    r = tl.arange(0, BLOCK_R)[:, None]
    lane = tl.arange(0, V)[None, :]
    size = tl.minimum(rows - row0, chunk_rows).to(tl.int32)
    mask = r < size  # [BLOCK_R, 1]
    x = tl.load(x_ptr + (g.to(tl.int64) * rows + row0) * V + (r * V + lane), mask=mask, other=0).to(tl.float32)
    mean = tl.sum(tl.sum(x, 1), 0) / (size * V).to(tl.float32)
    centred = tl.where(mask, x - mean, 0.0)
    tl.store(partial_ptr + pid, mean)
    tl.store(partial_ptr + partials + pid, tl.sum(tl.sum(centred * centred, 1), 0))


@triton.jit(do_not_specialize=["groups", "chunks", "chunk_rows", "D", "S"])
def apply(
    x_ptr,
    weight_ptr,
    bias_ptr,
    residual_ptr,
    y_ptr,
    mean_ptr,
    rstd_ptr,
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
    HAS_WEIGHT: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
    STORE: tl.constexpr,
):
    """Normalise a chunk of BLOCK_D channels of a group; the last first, the likeliest to be in L2 still."""
    pid = tl.num_programs(0) - 1 - tl.program_id(0)
    ng, d, r, lane, rows = tile(pid, chunks, chunk_rows, D, V, BLOCK_D, BLOCK_R)
    channels = d < D  # [BLOCK_D, 1, 1]
    offsets, needed, starts, split = cover(ng.to(tl.int64) * D + d, r, lane, S, V, EVEN)  # [BLOCK_D, BLOCK_R, V]
    mask = channels & rows & needed
    x = tl.load(x_ptr + offsets, mask=mask, other=0, eviction_policy="evict_first").to(tl.float32)
    issue_loads()
    x_hat = (x - tl.load(mean_ptr + ng)) * tl.load(rstd_ptr + ng)
    c = ng % groups * D + d
    last = groups * D - 1
    z = affine(x_hat, weight_ptr, bias_ptr, c, last, starts, split, lane, channels, EVEN, HAS_WEIGHT, HAS_BIAS)
    if HAS_RESIDUAL:
        z += tl.load(residual_ptr + offsets, mask=mask, other=0).to(tl.float32)
    tl.store(y_ptr + offsets, activate(z, ACTIVATION), mask=mask & starts, eviction_policy=STORE)
