"""Kernels that combine what the chunks of a group left, in a fixed order; one program a group.

Means and squared deviations by Chan, Golub & LeVeque, "Updating Formulae and a Pairwise Algorithm for Computing
Sample Variances", 1979.
"""

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["count", "S", "chunk", "D", "partials", "eps"])
def finalize(
    partial_ptr,
    mean_ptr,
    rstd_ptr,
    count,
    S,
    chunk,
    D,
    partials,
    eps,
    SUBS: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_J: tl.constexpr,
):
    """Write mean and rstd of a group from ``count`` partials, each of (a chunk of S) x (one of SUBS blocks of D)."""
    g = tl.program_id(0).to(tl.int64)
    n = 0.0
    mean = 0.0
    m2 = 0.0
    # To the loop's end at run time: as a constant, every 1024 partials would be a kernel of their own.
    for i in range(tl.cdiv(count, BLOCK_J)):
        j = i * BLOCK_J + tl.arange(0, BLOCK_J)
        mask = j < count
        k = (j // SUBS).to(tl.int64)
        sub = j % SUBS
        n_j = tl.minimum(S - k * chunk, chunk).to(tl.float32) * tl.minimum(D - sub * BLOCK_D, BLOCK_D).to(tl.float32)
        n_j = tl.where(mask, n_j, 0.0)
        mean_j = tl.load(partial_ptr + g * count + j, mask=mask, other=0)
        m2_j = tl.load(partial_ptr + partials + g * count + j, mask=mask, other=0)
        block_n = tl.sum(n_j, 0)
        block_mean = tl.sum(n_j * mean_j, 0) / block_n
        # 0 where there is nothing, as the square of a large mean is inf, and 0 * inf no 0.
        delta_j = tl.where(mask, mean_j - block_mean, 0.0)
        block_m2 = tl.sum(m2_j + n_j * delta_j * delta_j, 0)
        delta = block_mean - mean
        share = block_n / (n + block_n)
        mean += delta * share
        m2 += block_m2 + delta * n * (delta * share)
        n += block_n
    tl.store(mean_ptr + g, mean)
    tl.store(rstd_ptr + g, tl.rsqrt(m2 / n + eps))


@triton.jit(do_not_specialize=["groups", "chunks", "D", "C", "S", "partials"])
def finalize_backward(
    partial_ptr,
    weight_ptr,
    c1_ptr,
    c2_ptr,
    groups,
    chunks,
    D,
    C,
    S,
    partials,
    CHANNELS_LAST: tl.constexpr,
    HAS_WEIGHT: tl.constexpr,
    BLOCK_J: tl.constexpr,
):
    """Write c1 and c2 of a group from a and b of its channels' chunks: [N, C, chunks], or [N, chunks, C]."""
    ng = tl.program_id(0)
    n = (ng // groups).to(tl.int64)
    channel0 = ng % groups * D
    a = tl.zeros([BLOCK_J], tl.float32)
    b = tl.zeros([BLOCK_J], tl.float32)
    for i in range(tl.cdiv(D * chunks, BLOCK_J)):
        j = i * BLOCK_J + tl.arange(0, BLOCK_J)
        mask = j < D * chunks
        if CHANNELS_LAST:
            d = j % D
            place = (n * chunks + j // D) * C + channel0 + d
        else:
            d = j // chunks
            place = (n * C + channel0) * chunks + j
        a_j = tl.load(partial_ptr + place, mask=mask, other=0)
        b_j = tl.load(partial_ptr + partials + place, mask=mask, other=0)
        if HAS_WEIGHT:
            w = tl.load(weight_ptr + channel0 + d, mask=mask, other=0).to(tl.float32)
            a_j *= w
            b_j *= w
        a += a_j
        b += b_j
    m = D.to(tl.float32) * S.to(tl.float32)
    tl.store(c1_ptr + ng, tl.sum(a, 0) / m)
    tl.store(c2_ptr + ng, tl.sum(b, 0) / m)
