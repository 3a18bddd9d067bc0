"""Forward kernels for channels_last tensors; :mod:`mmgn.ops.triton.kernels.columns` tells how a tensor is read."""

import triton
import triton.language as tl

from mmgn.ops.triton.kernels.arithmetic import activate
from mmgn.ops.triton.kernels.columns import affine, place, spread, sum_groups, tile


@triton.jit(do_not_specialize=["groups", "S", "eps"])
def whole_forward(
    x_ptr,
    weight_ptr,
    bias_ptr,
    residual_ptr,
    y_ptr,
    mean_ptr,
    rstd_ptr,
    groups,
    S,
    eps,
    D: tl.constexpr,
    V: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_G: tl.constexpr,
    BLOCK_D: tl.constexpr,
    ACTIVATION: tl.constexpr,
    HAS_WEIGHT: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
):
    """Normalise BLOCK_G groups of a sample: one read, one write."""
    n, _, block, p, c, valid = tile(tl.program_id(0), 1, groups, D, V, BLOCK_P, BLOCK_G, BLOCK_D, 1)
    mask = valid & (p < S)
    offsets = place(n, p, c, S, groups, D, V)
    x = tl.load(x_ptr + offsets, mask=mask, other=0).to(tl.float32)  # [BLOCK_P, COLUMNS]
    m = (S * D).to(tl.float32)
    mean = sum_groups(tl.sum(x, 0, keep_dims=True), BLOCK_G, BLOCK_D) / m  # [BLOCK_G, 1]
    centred = tl.where(mask, x - spread(mean, BLOCK_G, BLOCK_D), 0.0)
    squares = sum_groups(tl.sum(centred * centred, 0, keep_dims=True), BLOCK_G, BLOCK_D)
    rstd = tl.rsqrt(squares / m + eps)
    x_hat = centred * spread(rstd, BLOCK_G, BLOCK_D)
    z = affine(x_hat, weight_ptr, bias_ptr, c, valid, HAS_WEIGHT, HAS_BIAS)
    if HAS_RESIDUAL:
        z += tl.load(residual_ptr + offsets, mask=mask, other=0).to(tl.float32)
    tl.store(y_ptr + offsets, activate(z, ACTIVATION), mask=mask)
    g = block * BLOCK_G + tl.arange(0, BLOCK_G)[:, None]
    tl.store(mean_ptr + n * groups + g, mean, mask=g < groups)
    tl.store(rstd_ptr + n * groups + g, rstd, mask=g < groups)


@triton.jit(do_not_specialize=["chunks", "groups", "S", "partials"])
def statistics(
    x_ptr,
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
):
    """Leave the mean and the sum of squared deviations of one chunk of BLOCK_G groups, or of a block of one."""
    n, chunk, block, p, c, valid = tile(tl.program_id(0), chunks, groups, D, V, BLOCK_P, BLOCK_G, BLOCK_D, SUBS)
    mask = valid & (p < S)
    x = tl.load(x_ptr + place(n, p, c, S, groups, D, V), mask=mask, other=0).to(tl.float32)  # [BLOCK_P, COLUMNS]
    sub = block % SUBS
    count = tl.minimum(S - chunk * BLOCK_P, BLOCK_P) * tl.minimum(D - sub * BLOCK_D, BLOCK_D)
    mean = sum_groups(tl.sum(x, 0, keep_dims=True), BLOCK_G, BLOCK_D) / count.to(tl.float32)  # [BLOCK_G, 1]
    centred = tl.where(mask, x - spread(mean, BLOCK_G, BLOCK_D), 0.0)
    squares = sum_groups(tl.sum(centred * centred, 0, keep_dims=True), BLOCK_G, BLOCK_D)
    g = block // SUBS * BLOCK_G + tl.arange(0, BLOCK_G)[:, None]
    partial = partial_ptr + ((n * groups + g) * chunks + chunk) * SUBS + sub
    tl.store(partial, mean, mask=g < groups)
    tl.store(partial + partials, squares, mask=g < groups)


@triton.jit(do_not_specialize=["chunks", "groups", "S"])
def apply(
    x_ptr,
    weight_ptr,
    bias_ptr,
    residual_ptr,
    y_ptr,
    mean_ptr,
    rstd_ptr,
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
    HAS_WEIGHT: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
    STORE: tl.constexpr,
):
    """Normalise one chunk; the last chunk first, the likeliest to be in L2 still."""
    pid = tl.num_programs(0) - 1 - tl.program_id(0)
    n, _, _, p, c, valid = tile(pid, chunks, groups, D, V, BLOCK_P, BLOCK_G, BLOCK_D, SUBS)
    mask = valid & (p < S)
    offsets = place(n, p, c, S, groups, D, V)
    x = tl.load(x_ptr + offsets, mask=mask, other=0, eviction_policy="evict_first").to(tl.float32)
    g = c // D  # [1, COLUMNS]
    mean = tl.load(mean_ptr + n * groups + g, mask=valid, other=0)
    x_hat = (x - mean) * tl.load(rstd_ptr + n * groups + g, mask=valid, other=0)
    z = affine(x_hat, weight_ptr, bias_ptr, c, valid, HAS_WEIGHT, HAS_BIAS)
    if HAS_RESIDUAL:
        z += tl.load(residual_ptr + offsets, mask=mask, other=0).to(tl.float32)
    tl.store(y_ptr + offsets, activate(z, ACTIVATION), mask=mask, eviction_policy=STORE)
